package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// module is what the paths of our packages begin with.
	module = "github.com/pairdb/pairdb/"
	// pins is the module of the pinned tools.
	pins = "-modfile=tools/pins/go.mod"
	// testTimeout bounds the tests of one package.
	testTimeout = "-timeout=20m"
	// realTimeout bounds those of real processes: each has a limit of its own, so that this
	// is for a machine that is slow.
	realTimeout = "-timeout=25m"
	// peers is the module that holds our engine against others.
	peers = "tools/enginebench"
	// e2e has the tests of real processes, kernel those of the engine on real
	// file systems that fail. The race detector cannot see into the ones and is
	// too slow for the others, so they run without it.
	e2e    = module + "cmd/pairdb/e2e"
	kernel = module + "engine/kerneltest"
	// containers has the tests against a Docker engine. They wait for it and for their
	// cluster, and leave both much time, so that others may be built and run meanwhile.
	containers = module + "docker"
	// simSeeds is how many simulations of each kind the gate runs, each commit others. A
	// plain go test runs fewer, and the same ones each time; make sim has the many.
	simSeeds = 100
)

// steps lists the gate, what is quick first.
func steps(fuzzTime time.Duration) []step {
	return []step{
		{name: "tools", what: "a C compiler for the race detector, systemd to check its unit, tools that break disks and networks, Docker, Python and Node.js", beside: true, run: installTools},
		{name: "build", what: "everything compiles", vital: true, run: command("go", "build", "./...")},
		{name: "format", what: "gofumpt, which contains gofmt, has nothing to change", run: formatted},
		{name: "vet", what: "go vet", run: command("go", "vet", "./...")},
		{name: "staticcheck", what: "staticcheck", run: command("go", "tool", pins, "staticcheck", "./...")},
		{name: "seams", what: "nothing reaches around a seam", run: command("go", "run", "./tools/seams")},
		{name: "tidy", what: "go.mod and go.sum are tidy", run: tidy},
		{name: "e2e", what: "real processes, and real file systems that fail", beside: true, run: processes},
		{name: "test", what: "all other tests but those that have a step of their own; also that generated files are current and layers are kept", run: test},
		{name: "simulation", what: fmt.Sprintf("%d clusters of each kind, simulated from seeds of this commit", simSeeds), run: simulate},
		{name: "peers", what: "the comparison with other engines builds and runs", run: command("go", "-C", peers, "test", "-count=1", testTimeout, "./...")},
		{name: "docker", what: "the image and the compose cluster, against a Docker engine", beside: true, run: docker},
		{name: "race", what: "all tests in one process that have goroutines beside one another, under the race detector", run: race},
		{name: "timing", what: "real processes that are slow, fail or are asked for too much, with nothing beside them", alone: true, run: timing},
		{name: "fuzz", what: fmt.Sprintf("each fuzz target for %s", fuzzTime), run: func(ctx context.Context, out io.Writer) error {
			return fuzz(ctx, out, fuzzTime)
		}},
	}
}

// command returns a step that is one command.
func command(name string, args ...string) func(context.Context, io.Writer) error {
	return func(ctx context.Context, out io.Writer) error { return stream(ctx, out, nil, name, args...) }
}

// stream runs a command and shows what it prints as it goes. env is added to
// the environment.
func stream(ctx context.Context, out io.Writer, env []string, name string, args ...string) error {
	return streamIn(ctx, out, "", env, name, args...)
}

// streamIn is stream in another folder.
func streamIn(ctx context.Context, out io.Writer, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	// An interrupt lets go test end its tests; after a while it is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return nil
}

// output runs a command and returns what it prints on standard output.
func output(ctx context.Context, name string, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, errs.Bytes())
	}
	return out.String(), nil
}

// formatted fails if gofumpt would change a file. It leaves generated ones out.
func formatted(ctx context.Context, _ io.Writer) error {
	files, err := output(ctx, "go", "tool", pins, "gofumpt", "-l", ".")
	if err != nil {
		return err
	}
	if files != "" {
		return fmt.Errorf("make fmt would change:\n%s", files)
	}
	return nil
}

// tidy fails if go mod tidy would change the product's module or the tools'.
func tidy(ctx context.Context, out io.Writer) error {
	return errors.Join(
		stream(ctx, out, nil, "go", "mod", "tidy", "-diff"),
		stream(ctx, out, nil, "go", "-C", "tools/pins", "mod", "tidy", "-diff"),
		stream(ctx, out, nil, "go", "-C", peers, "mod", "tidy", "-diff"),
	)
}

// timed are tests of e2e that measure what other tests beside them would change.
// Their names are in no other package, for go test skips a name everywhere.
var timed = []string{"TestPausedReplica", "TestSlowDisk", "TestOverload", "TestBadGuests", "TestImportWithinMemoryLimit"}

// simulations are the tests that run random clusters, of which the gate wants more.
var simulations = []string{
	"TestSimulation", "TestSiblingsSimulation", "TestForgetfulSimulation", "TestTTLSimulation", "TestScanSimulation", "TestRepairSimulation", "TestRingSimulation",
}

// processes runs the tests of real processes and file systems. Those that run side by
// side mostly wait, for processes and their timers.
func processes(ctx context.Context, out io.Writer) error {
	return stream(ctx, out, nil, "go", "test", "-count=1", "-vet=off", "-parallel=3", realTimeout, "-skip="+exactly(timed), e2e, kernel)
}

// test runs all tests but those that have a step of their own, one package at a time:
// what the step beside it measures would suffer from more.
func test(ctx context.Context, out io.Writer) error {
	return testWithout(ctx, out, nil, []string{"-p=1", "-skip=" + exactly(simulations)}, e2e, kernel, containers)
}

// timing runs the tests that measure times.
func timing(ctx context.Context, out io.Writer) error {
	return stream(ctx, out, nil, "go", "test", "-count=1", "-vet=off", "-v", testTimeout, e2e, "-run="+exactly(timed))
}

// simulate runs simulations of whole clusters, each commit others. One that fails says how to run it again.
func simulate(ctx context.Context, out io.Writer) error {
	first := uint64(1)
	commit, err := output(ctx, "git", "rev-parse", "HEAD")
	if err == nil {
		first, err = firstSeed(commit)
	}
	if err != nil {
		fmt.Fprintf(out, "no commit to make seeds of, so they begin with %d: %v\n", first, err)
	}
	return stream(ctx, out, nil, "go", "test", "-count=1", "-vet=off", "-v", testTimeout, "./coord", "-run="+exactly(simulations),
		fmt.Sprint("-sim.first=", first), fmt.Sprint("-sim.seeds=", simSeeds))
}

// firstSeed makes a seed of a commit's name, 1 if it cannot.
func firstSeed(commit string) (uint64, error) {
	const digits = 8
	if len(commit) < digits {
		return 1, fmt.Errorf("the commit %q has no %d digits", commit, digits)
	}
	seed, err := strconv.ParseUint(commit[:digits], 16, 64)
	if err != nil {
		return 1, fmt.Errorf("commit %q: %w", commit, err)
	}
	return seed, nil
}

// docker runs the tests in containers. They start an engine if none answers.
func docker(ctx context.Context, out io.Writer) error {
	if err := install(ctx, out, containerPrograms(ctx)...); err != nil {
		return err
	}
	return stream(ctx, out, nil, "go", "test", "-count=1", "-vet=off", "-v", testTimeout, containers)
}

// testWithout runs the tests of every package that has any, but for some. The vet
// step looks for more than go test would, so that is left out.
func testWithout(ctx context.Context, out io.Writer, env, flags []string, without ...string) error {
	list, err := output(ctx, "go", "list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}", "./...")
	if err != nil {
		return err
	}
	// Tests that run side by side mostly wait, for processes and their timers.
	args := append([]string{"test", "-count=1", "-vet=off", "-parallel=3", testTimeout}, flags...)
	for pkg := range strings.FieldsSeq(list) {
		if !slices.Contains(without, pkg) {
			args = append(args, pkg)
		}
	}
	return stream(ctx, out, env, "go", args...)
}
