// Command gen generates the Go code of the wire contract without protoc: the
// .proto files are compiled by a Go library, and the two plugins that make Go
// code of them run as pinned tools.
//
// It is run from the module's root, by go generate:
//
//	go run ./tools/gen [-out DIR] [-descriptors FILE]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
)

func main() {
	out := flag.String("out", ".", "module root to write below; go generate uses the module's own")
	descriptors := flag.String("descriptors", "", "also write the compiled descriptor set to this file")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *out, *descriptors)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// run generates below out, and writes the descriptor set if a file is named.
func run(ctx context.Context, out, descriptors string) error {
	files, err := compile(ctx, "api")
	if err != nil {
		return err
	}
	if descriptors != "" {
		if err := writeDescriptors(descriptors, files); err != nil {
			return err
		}
	}
	return generate(ctx, files, out)
}
