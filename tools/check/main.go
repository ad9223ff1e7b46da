// Command check is the gate: everything that has to hold before a change goes
// in. It needs Go and the network, and installs what else it needs, or says what
// is missing. It is run from the module's root:
//
//	go run ./tools/check [-only step,step] [-fuzztime 2s] [-list]
//
// All steps run even if one fails, so that one run tells everything; only a tree
// that does not build ends the run early. What mostly waits runs beside others, its
// lines marked with its name. What failed is said again at the end. The exit code is 0
// if all passed.
package main

import (
	"context"
	"errors"
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
	fuzzTime := flag.Duration("fuzztime", 2*time.Second, "how long each fuzz target runs")
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
	if err := buildAlike(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
		os.Exit(2)
	}
	ok := runSteps(ctx, os.Stdout, chosen)
	stop()
	if !ok {
		os.Exit(1)
	}
}

// buildAlike has all steps build as the container image is built, but for the race
// detector, which needs C. Where nothing is built yet, each other way to build costs
// minutes, for every package there is.
func buildAlike(ctx context.Context) error {
	flags, err := output(ctx, "go", "env", "GOFLAGS")
	if err != nil {
		return err
	}
	return errors.Join(
		os.Setenv("CGO_ENABLED", "0"),
		os.Setenv("GOFLAGS", strings.TrimSpace(strings.TrimSpace(flags)+" -trimpath")),
	)
}

// step is one thing that has to hold.
type step struct {
	// name is what -only calls it, what says it in a few words.
	name, what string
	// vital ends the run when the step fails, as the others cannot succeed.
	vital bool
	// beside says that it mostly waits: it runs beside the steps after it, until one
	// that is alone or runs beside others itself.
	beside bool
	// alone says that nothing may run beside it.
	alone bool
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

// result is what came of a step.
type result struct {
	name string
	took time.Duration
	err  error
	// why are the lines around its failures.
	why [][]byte
}

// do runs a step, says why it failed, and how long it took. Each line of what it prints
// begins with prefix.
func (s step) do(ctx context.Context, to io.Writer, prefix string) result {
	start := time.Now()
	var found digest
	out := &lineWriter{each: func(line []byte) error {
		found.add(line)
		_, err := to.Write(append([]byte(prefix), line...))
		return err
	}}
	err := s.run(ctx, out)
	if err != nil && ctx.Err() == nil {
		fmt.Fprintf(out, "--> %s: %v\n", s.name, err)
	}
	err = errors.Join(err, out.flush())
	return result{s.name, time.Since(start), err, found.picked}
}

// runSteps runs steps one after the other, but for one at a time that runs beside
// them, prints what each took, and reports whether all passed.
func runSteps(ctx context.Context, to io.Writer, steps []step) bool {
	out := &lockedWriter{to: to}
	begin := time.Now()
	var results []result
	var besides chan result // of the step that runs beside the others, if there is one
	join := func() {
		if besides != nil {
			results = append(results, <-besides)
			besides = nil
		}
	}
	for _, s := range steps {
		if s.alone || s.beside {
			join()
		}
		if ctx.Err() != nil {
			break
		}
		fmt.Fprintf(out, "==> %s: %s\n", s.name, s.what)
		if s.beside {
			besides = make(chan result, 1)
			go func(done chan<- result) { done <- s.do(ctx, out, s.name+"| ") }(besides)
			continue
		}
		r := s.do(ctx, out, "")
		results = append(results, r)
		if r.err != nil && s.vital {
			break
		}
	}
	// Also when the run ends early: a package manager is not broken off.
	join()
	if ctx.Err() != nil {
		fmt.Fprintln(out, "check: interrupted")
		return false
	}
	failed := 0
	for _, r := range results {
		if r.err == nil {
			continue
		}
		fmt.Fprintf(out, "\n==> what failed in %s:\n", r.name)
		for _, line := range r.why {
			fmt.Fprintf(out, "%s\n", line)
		}
	}
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
