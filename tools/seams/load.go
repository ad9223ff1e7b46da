package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// listed is what go list says of a package.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles, Match          []string
	DepOnly                 bool
	Error                   *struct{ Err string }
}

// check type-checks the packages that patterns match, seen from dir, and
// returns what reaches around a seam in their non-test files, in the order of
// the files, and how many packages there are.
func check(ctx context.Context, dir string, patterns []string) ([]finding, int, error) {
	all, err := list(ctx, dir, patterns)
	if err != nil {
		return nil, 0, err
	}
	exports := make(map[string]string, len(all))
	for _, p := range all {
		exports[p.ImportPath] = p.Export
	}
	for _, pattern := range patterns {
		if !slices.ContainsFunc(all, func(p listed) bool { return slices.Contains(p.Match, pattern) }) {
			return nil, 0, fmt.Errorf("%s matches no package; if it moved, say so in tools/seams", pattern)
		}
	}
	fset := token.NewFileSet()
	imp := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("no export data of %s", path)
		}
		return os.Open(exports[path])
	})
	var findings []finding
	packages := 0
	for _, p := range all {
		if p.DepOnly {
			continue
		}
		packages++
		found, err := checkPackage(fset, imp, dir, p)
		if err != nil {
			return nil, 0, err
		}
		findings = append(findings, found...)
	}
	return findings, packages, nil
}

// list asks go for the packages, what they import, and compiled export data of
// both.
func list(ctx context.Context, dir string, patterns []string) ([]listed, error) {
	args := []string{"list", "-deps", "-export", "-json=ImportPath,Dir,Export,GoFiles,Match,DepOnly,Error", "--"}
	cmd := exec.CommandContext(ctx, "go", append(args, patterns...)...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("list packages: %w\n%s", err, errs.Bytes())
	}
	var all []listed
	for dec := json.NewDecoder(&out); ; {
		var p listed
		if err := dec.Decode(&p); err != nil {
			if errors.Is(err, io.EOF) {
				return all, nil
			}
			return nil, fmt.Errorf("read list of packages: %w", err)
		}
		if p.Error != nil {
			return nil, fmt.Errorf("list %s: %s", p.ImportPath, p.Error.Err)
		}
		all = append(all, p)
	}
}

// checkPackage parses and type-checks one package and inspects its files.
func checkPackage(fset *token.FileSet, imp types.Importer, dir string, p listed) ([]finding, error) {
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", p.ImportPath, err)
		}
		files = append(files, f)
	}
	info := &types.Info{Uses: make(map[*ast.Ident]types.Object), Types: make(map[ast.Expr]types.TypeAndValue)}
	conf := types.Config{Importer: imp}
	if _, err := conf.Check(p.ImportPath, fset, files, info); err != nil {
		return nil, fmt.Errorf("check %s: %w", p.ImportPath, err)
	}
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the folder to report from: %w", err)
	}
	var findings []finding
	for _, f := range files {
		in := inspector{fset: fset, info: info, ordered: orderedLines(fset, f)}
		ast.PreorderStack(f, nil, in.visit)
		in.unused()
		for i := range in.findings {
			in.findings[i].pos.Filename = strings.TrimPrefix(in.findings[i].pos.Filename, root+string(filepath.Separator))
		}
		findings = append(findings, in.findings...)
	}
	return findings, nil
}
