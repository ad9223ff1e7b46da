// Command gen generates the Go code of the wire contract without protoc: the
// .proto files are compiled by a Go library, and the two plugins that make Go
// code of them run as pinned tools.
//
// It is run from the module's root, by go generate:
//
//	go run ./tools/gen [-out DIR]
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
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *out)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// run generates below out.
func run(ctx context.Context, out string) error {
	c, err := compile(ctx, "api")
	if err != nil {
		return err
	}
	return generate(ctx, c, out)
}
