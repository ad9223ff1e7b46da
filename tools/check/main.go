// Command check is the gate: everything that has to hold before a change goes
// in. It needs Go and the network, and installs what else it needs, or says what
// is missing. It is run from the module's root:
//
//	go run ./tools/check [-only step,step] [-fuzztime 3s] [-list]
//
// All steps run even if one fails, so that one run tells everything; only a tree
// that does not build ends the run at once. The exit code is 0 if all passed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"
)

func main() {
	only := flag.String("only", "", "run only these steps, separated by commas")
	list := flag.Bool("list", false, "list the steps and exit")
	fuzzTime := flag.Duration("fuzztime", 3*time.Second, "how long each fuzz target runs")
	flag.Parse()

	all := steps(*fuzzTime)
	if *list {
		for _, s := range all {
			fmt.Printf("%-12s %s\n", s.name, s.what)
		}
		return
	}
	chosen, err := choose(all, *only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ok := runSteps(ctx, os.Stdout, chosen)
	stop()
	if !ok {
		os.Exit(1)
	}
}

// step is one thing that has to hold.
type step struct {
	// name is what -only calls it, what says it in a few words.
	name, what string
	// vital ends the run when the step fails, as the others cannot succeed.
	vital bool
	// run returns an error if it does not hold. Details go to out.
	run func(ctx context.Context, out io.Writer) error
}

// choose returns the steps that are named in only, in their own order. Vital
// ones always run.
func choose(all []step, only string) ([]step, error) {
	if only == "" {
		return all, nil
	}
	names := strings.Split(only, ",")
	for _, name := range names {
		if !slices.ContainsFunc(all, func(s step) bool { return s.name == name }) {
			return nil, fmt.Errorf("there is no step %q; see -list", name)
		}
	}
	var chosen []step
	for _, s := range all {
		if s.vital || slices.Contains(names, s.name) {
			chosen = append(chosen, s)
		}
	}
	return chosen, nil
}

// runSteps runs steps one after the other, prints what each took, and reports
// whether all passed.
func runSteps(ctx context.Context, out io.Writer, steps []step) bool {
	type result struct {
		name string
		took time.Duration
		err  error
	}
	var results []result
	begin := time.Now()
	for _, s := range steps {
		fmt.Fprintf(out, "==> %s: %s\n", s.name, s.what)
		start := time.Now()
		err := s.run(ctx, out)
		if ctx.Err() != nil {
			fmt.Fprintln(out, "check: interrupted")
			return false
		}
		if err != nil {
			fmt.Fprintf(out, "--> %s: %v\n", s.name, err)
		}
		results = append(results, result{s.name, time.Since(start), err})
		if err != nil && s.vital {
			break
		}
	}
	failed := 0
	fmt.Fprintln(out)
	for _, r := range results {
		verdict := "ok"
		if r.err != nil {
			verdict = "FAILED"
			failed++
		}
		fmt.Fprintf(out, "%-12s %8s  %s\n", r.name, r.took.Round(100*time.Millisecond), verdict)
	}
	fmt.Fprintf(out, "check: %d of %d steps passed in %s\n", len(results)-failed, len(steps), time.Since(begin).Round(time.Second))
	return failed == 0 && len(results) == len(steps)
}
