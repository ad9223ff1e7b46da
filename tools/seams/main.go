// Command seams checks the packages that are driven only through their seams:
// clock, file system, transport and scheduler are handed in, so that a test can
// run a whole cluster in one goroutine under virtual time and get the same bytes
// from the same seed. It fails on what would reach around a seam: real time,
// timers, files, sockets, shared randomness, goroutines, and the random order of
// a map.
//
// Whoever ranges over a map where its order cannot be seen says why:
//
//	//seams:ordered the sum is the same in any order
//	for _, n := range sizes {
//
// It is run from the module's root:
//
//	go run ./tools/seams [packages]
//
// Without packages it checks those that have to be clean.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
)

// driven lists the packages that are driven only through seams. A pattern that
// matches nothing is an error, so that a package that moves is not forgotten.
func driven() []string {
	return []string{
		"./check/...",
		"./coord/...",
		"./node/replica/...",
		"./gossip/crdt/...",
		"./gossip/ring/...",
		"./gossip/schema/...",
		"./gossip/meta/...",
	}
}

func main() {
	flag.Parse()
	patterns := flag.Args()
	if len(patterns) == 0 {
		patterns = driven()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	findings, packages, err := check(ctx, ".", patterns)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "seams:", err)
		os.Exit(2)
	}
	for _, f := range findings {
		fmt.Println(f)
	}
	if len(findings) > 0 {
		fmt.Fprintf(os.Stderr, "seams: %d findings in %d packages\n", len(findings), packages)
		os.Exit(1)
	}
	fmt.Printf("seams: %d packages reach around no seam\n", packages)
}
