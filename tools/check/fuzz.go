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
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// target is one fuzz target.
type target struct {
	dir  string // relative to the module's root
	name string
}

// fuzz runs each target for a while, one after the other.
func fuzz(ctx context.Context, out io.Writer, each time.Duration) error {
	targets, err := fuzzTargets(".")
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return errors.New("there is no fuzz target")
	}
	var failed []error
	for _, t := range targets {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := fuzzOne(ctx, out, t, each); err != nil {
			failed = append(failed, fmt.Errorf("%s in %s: %w", t.name, t.dir, err))
		}
	}
	fmt.Fprintf(out, "fuzzed %d targets for %s each\n", len(targets), each)
	return errors.Join(failed...)
}

// fuzzOne fuzzes one target. Failing inputs that the search turns into small
// ones would take a minute each; a few tries are enough for a gate.
func fuzzOne(ctx context.Context, out io.Writer, t target, each time.Duration) error {
	var seen bytes.Buffer
	err := stream(ctx, io.MultiWriter(out, &seen), nil, "go", "test", "-run=^$", "-fuzz=^"+t.name+"$",
		"-fuzztime="+each.String(), "-fuzzminimizetime=200x", "-timeout=10m", "./"+filepath.ToSlash(t.dir))
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

// fuzzTargets finds the targets below root, in the order of their files. As go
// does, it leaves out folders named testdata and those that begin with a dot or
// an underscore.
func fuzzTargets(root string) ([]target, error) {
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
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Fuzz") {
				found = append(found, target{dir, fn.Name.Name})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find fuzz targets: %w", err)
	}
	return found, nil
}
