package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// target is one fuzz target, or one test.
type target struct {
	dir  string // relative to the module's root
	name string
}

// fuzzFlags build targets whose coverage guides the search as go test -fuzz does, but
// for our own packages only: those of others and the standard library are not compiled
// once more for it, and what they do with an input is not what is looked for.
var fuzzFlags = []string{"-gcflags=" + module + "...=-d=libfuzzer", "-vet=off", "-ldflags=-w"}

// fuzz runs each target for a while, one after the other. go test would link the
// package again for each, which takes as long as the fuzzing: each package is
// built once.
func fuzz(ctx context.Context, out io.Writer, each time.Duration) error {
	all, err := fuzzTargets(".")
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("there is no fuzz target")
	}
	temp, err := os.MkdirTemp("", "pairdb-fuzz-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	cache, err := output(ctx, "go", "env", "GOCACHE")
	if err != nil {
		return err
	}
	f := fuzzer{binary: filepath.Join(temp, "fuzz.test"), corpus: filepath.Join(strings.TrimSpace(cache), "fuzz"), each: each}
	var failed []error
	for _, group := range byPackage(all) {
		dir := group[0].dir
		build := append([]string{"test", "-c", "-o", f.binary}, fuzzFlags...)
		if err := stream(ctx, out, nil, "go", append(build, "./"+filepath.ToSlash(dir))...); err != nil {
			failed = append(failed, fmt.Errorf("build the targets in %s: %w", dir, err))
			continue
		}
		for _, t := range group {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := f.run(ctx, out, t); err != nil {
				failed = append(failed, fmt.Errorf("%s in %s: %w", t.name, t.dir, err))
			}
		}
	}
	fmt.Fprintf(out, "fuzzed %d targets for %s each\n", len(all), each)
	return errors.Join(failed...)
}

// byPackage has the targets of each folder together.
func byPackage(all []target) (groups [][]target) {
	at := map[string]int{}
	for _, t := range all {
		i, known := at[t.dir]
		if !known {
			i = len(groups)
			at[t.dir], groups = i, append(groups, nil)
		}
		groups[i] = append(groups[i], t)
	}
	return groups
}

// fuzzer runs the targets of one package.
type fuzzer struct {
	binary string // of the package's tests
	corpus string // where go test -fuzz keeps the inputs it found, by package
	each   time.Duration
}

// run fuzzes one target as go test -fuzz does. Failing inputs that the search turns
// into small ones would take a minute each; a few tries are enough for a gate.
func (f fuzzer) run(ctx context.Context, out io.Writer, t target) error {
	fmt.Fprintf(out, "%s in %s\n", t.name, t.dir)
	pkg := filepath.FromSlash(module) + t.dir
	var seen bytes.Buffer
	err := streamIn(ctx, io.MultiWriter(out, &seen), t.dir, nil, f.binary, "-test.paniconexit0", "-test.run=^$", "-test.fuzz=^"+t.name+"$",
		"-test.fuzztime="+f.each.String(), "-test.fuzzminimizetime=200x", "-test.timeout=10m", "-test.fuzzcachedir="+filepath.Join(f.corpus, pkg))
	if err == nil && !bytes.Contains(seen.Bytes(), []byte("fuzz: elapsed: ")) {
		return errors.New("nothing was fuzzed")
	}
	if bytes.Contains(seen.Bytes(), []byte("without coverage guidance")) {
		return errors.Join(err, fmt.Errorf("the coverage of inputs is not seen: does the compiler know %s?", fuzzFlags[0]))
	}
	if err != nil && onlyOutOfTime(seen.String()) {
		fmt.Fprintln(out, "    the time was over in the middle of a call, which go test before 1.27 takes for a failure (go.dev/issue/75804)")
		return nil
	}
	return err
}

// onlyOutOfTime reports whether a fuzz run failed for nothing but the end of its
// time: the one thing said of the failure is the expired deadline, and no input
// was written down.
func onlyOutOfTime(output string) bool {
	failure := regexp.MustCompile(`(?m)^--- FAIL: Fuzz\w+ \([0-9.]+s\)\n    context deadline exceeded\nFAIL\n`)
	return failure.MatchString(output) && strings.Count(output, "--- FAIL") == 1 &&
		!strings.Contains(output, "Failing input written to") && !strings.Contains(output, "panic:")
}

// fuzzTargets finds the fuzz targets below root, in the order of their files.
func fuzzTargets(root string) ([]target, error) { return targets(root, "Fuzz") }

// targets finds what go test runs below root whose names begin with prefix, in the
// order of their files. As go does, it leaves out folders named testdata and those
// that begin with a dot or an underscore.
func targets(root, prefix string) ([]target, error) {
	var found []target
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != root && (name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, prefix) {
				found = append(found, target{dir, fn.Name.Name})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find functions %s*: %w", prefix, err)
	}
	return found, nil
}
