// Command planted plants bugs, one at a time and without changing a file, and
// runs the tests that must notice. It prints a table and ends with 1 if a bug was
// not caught, or could not be planted, and goes on with the others. It is run from the
// module's root:
//
//	go run ./tools/planted [-only text] [-real] [-v]
//
// With -real the bugs are planted into the binary, and the test of clusters of real
// processes has to notice. Only those that show there are planted then.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	only := flag.String("only", "", "plant only bugs whose name has this in it")
	real := flag.Bool("real", false, "plant bugs into real processes")
	verbose := flag.Bool("v", false, "show what the tests print")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	chosen := bugs
	if *real {
		chosen = realBugs()
	}
	ok, err := run(ctx, chosen, *only, *verbose)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "planted:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(ctx context.Context, bugs []bug, only string, verbose bool) (bool, error) {
	dir, err := os.MkdirTemp("", "pairdb-planted-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	all := true
	fmt.Println("| planted bug | caught by | after |\n|---|---|---|")
	for _, b := range bugs {
		if !strings.Contains(b.name, only) {
			continue
		}
		began := time.Now()
		by, out, err := b.plant(ctx, dir)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "planted: %s: %v\n", b.name, err)
			all, by = false, "**not planted**"
		}
		if verbose {
			fmt.Fprintln(os.Stderr, out)
		}
		if by == "" {
			all, by = false, "**nothing**"
		}
		fmt.Printf("| %s | %s | %.0f s |\n", b.name, by, time.Since(began).Seconds())
	}
	return all, nil
}

var failure = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)

// plant runs the tests with the bug in place. It returns the first test that
// failed, "" if none did, and what they printed.
func (b *bug) plant(ctx context.Context, dir string) (by, out string, err error) {
	source, err := os.ReadFile(b.file)
	if err != nil {
		return "", "", err
	}
	bad, err := b.change(string(source))
	if err != nil {
		return "", "", err
	}
	name := filepath.Join(dir, filepath.Base(b.file))
	if err := os.WriteFile(name, []byte(bad), 0o600); err != nil {
		return "", "", err
	}
	path, err := filepath.Abs(b.file)
	if err != nil {
		return "", "", err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: name}})
	if err != nil {
		return "", "", err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return "", "", err
	}
	// A bug is planted into tests that compile: what does not is no catch.
	if out, err := withOverlay(ctx, list, "-run=^$", "./"+b.pkg); err != nil {
		return "", "", fmt.Errorf("it does not compile: %w\n%s", err, out)
	}
	text, err := withOverlay(ctx, list, "-timeout=10m", "-failfast", "-run="+b.tests, "./"+b.pkg)
	if ctx.Err() != nil {
		return "", "", ctx.Err()
	}
	if err == nil {
		return "", string(text), nil
	}
	if m := failure.FindStringSubmatch(string(text)); m != nil {
		return "`" + b.pkg + "` " + m[1], string(text), nil
	}
	// A panic has no such line.
	return "`" + b.pkg + "` " + strings.Trim(b.tests, "^$"), string(text), nil
}

// withOverlay runs go test with files replaced, also in what the tests build.
func withOverlay(ctx context.Context, list string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-vet=off", "-count=1"}, args...)...)
	cmd.Env = append(os.Environ(), strings.TrimSpace("GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+list))
	return cmd.CombinedOutput()
}

// change returns the source with the bug in it.
func (b *bug) change(source string) (string, error) {
	if n := strings.Count(source, b.old); n != 1 {
		return "", fmt.Errorf("%s has %d times what the bug replaces:\n%s", b.file, n, b.old)
	}
	return strings.Replace(source, b.old, b.bad, 1), nil
}
