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
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFailingStepFailsTheRun(t *testing.T) {
	var ran []string
	pass := func(name string) step {
		return step{name: name, run: func(context.Context, io.Writer) error { ran = append(ran, name); return nil }}
	}
	fail := func(name string, vital bool) step {
		return step{name: name, vital: vital, run: func(context.Context, io.Writer) error {
			ran = append(ran, name)
			return errors.New("broken")
		}}
	}
	for _, tc := range []struct {
		steps []step
		ok    bool
		ran   string
	}{
		{[]step{pass("a"), pass("b")}, true, "a b"},
		{[]step{pass("a"), fail("b", false), pass("c")}, false, "a b c"},
		{[]step{fail("a", true), pass("b")}, false, "a"},
		{[]step{{name: "a", run: command("false")}}, false, ""},
	} {
		ran = nil
		var out bytes.Buffer
		if ok := runSteps(t.Context(), &out, tc.steps); ok != tc.ok || strings.Join(ran, " ") != tc.ran {
			t.Errorf("ok = %t, ran %q, want %t, %q; output:\n%s", ok, ran, tc.ok, tc.ran, &out)
		}
		if failed := strings.Contains(out.String(), "FAILED"); failed == tc.ok {
			t.Errorf("the summary does not fit:\n%s", &out)
		}
	}
}

func TestInterruptedRunFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	if runSteps(ctx, io.Discard, []step{{name: "a", run: func(context.Context, io.Writer) error { cancel(); return nil }}}) {
		t.Error("an interrupted run passed")
	}
}

// A step that runs beside others is under way while they are, is waited for by one
// that is alone, and fails the run as any other.
func TestStepBesideOthers(t *testing.T) {
	for _, broken := range []error{nil, errors.New("broken")} {
		began, ended := make(chan struct{}), make(chan struct{})
		var out bytes.Buffer
		ok := runSteps(t.Context(), &out, []step{
			{name: "waits", beside: true, run: func(_ context.Context, out io.Writer) error {
				<-began
				fmt.Fprint(out, "one\ntwo")
				close(ended)
				return broken
			}},
			{name: "busy", run: func(context.Context, io.Writer) error { close(began); return nil }},
			{name: "alone", alone: true, run: func(context.Context, io.Writer) error {
				select {
				case <-ended:
					return nil
				default:
					return errors.New("something runs beside it")
				}
			}},
		})
		text := out.String()
		if ok != (broken == nil) || strings.Contains(text, "something runs") || strings.Contains(text, "broken") == ok {
			t.Errorf("ok = %t with %v; output:\n%s", ok, broken, text)
		}
		if !strings.Contains(text, "waits| one\nwaits| two") {
			t.Errorf("the output of the step beside does not say whose it is:\n%s", text)
		}
	}
}

// What a run that ends early has left running is waited for.
func TestEarlyEndWaits(t *testing.T) {
	began, ended := make(chan struct{}), false
	runSteps(t.Context(), io.Discard, []step{
		{name: "waits", beside: true, run: func(context.Context, io.Writer) error { <-began; ended = true; return nil }},
		{name: "vital", vital: true, run: func(context.Context, io.Writer) error { close(began); return errors.New("broken") }},
	})
	if !ended {
		t.Error("the run is over before one of its steps")
	}
}

func TestLongLineIsCut(t *testing.T) {
	var lines []int
	w := &lineWriter{each: func(line []byte) error { lines = append(lines, len(line)); return nil }}
	for range 3 {
		if _, err := w.Write(bytes.Repeat([]byte("a"), maxLine)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.flush(); err != nil || !slices.Equal(lines, []int{2*maxLine + 1, maxLine + 1}) {
		t.Errorf("%v, lines of %v bytes", err, lines)
	}
}

// What a failing test printed, before its failure or after it, is said again at the end,
// however much comes between, and what did not fail is not.
func TestFailuresAreSaidAgain(t *testing.T) {
	print := func(name, text string, err error) step {
		return step{name: name, beside: name == "beside", run: func(_ context.Context, out io.Writer) error {
			fmt.Fprint(out, text)
			return err
		}}
	}
	noise := strings.Repeat("noise\n", 1000)
	var out bytes.Buffer
	runSteps(t.Context(), &out, []step{
		print("beside", noise+"    x_test.go:7: was logged before\n--- FAIL: TestA (0.00s)\n    x_test.go:9: was logged after\n"+noise, errors.New("broken")),
		print("fine", "--- FAIL: is only text here\n", nil),
		print("long", strings.Repeat("--- FAIL: "+strings.Repeat("y", 1000)+"\n", 1000), errors.New("broken")),
	})
	_, end, _ := strings.Cut(out.String(), "==> what failed in ")
	for _, want := range []string{"beside:\n", "x_test.go:7: was logged before\n--- FAIL: TestA (0.00s)\n    x_test.go:9: was logged after\n", "long:\n"} {
		if !strings.Contains(end, want) {
			t.Errorf("the end lacks %q", want)
		}
	}
	if strings.Contains(end, "only text") || strings.Count(end, "noise") > 2*(digestBefore+digestAfter) || len(end) > 2*2*digestLines*digestLine {
		t.Errorf("the end has %d bytes and too much in it", len(end))
	}
}

// The name of a test that failed and its reason are said again although more stands
// between them, or before them, than is said again of a step.
func TestReasonIsSaidAgain(t *testing.T) {
	race := string(raceEnds) + "\nWARNING: DATA RACE\nRead at 0x00c000012345 by goroutine 7:\n" +
		strings.Repeat("  example.org/x.f()\n      example.org/x/x.go:12 +0x44\n", 200) + string(raceEnds) + "\n"
	noise := strings.Repeat("time=12:00 level=INFO msg=noise\n", 1000)
	dump := strings.Repeat("        line of a long log\n", 1000)
	const (
		name   = "--- FAIL: TestA (0.00s)\n"
		reason = "    x_test.go:9: the reason\n"
		end    = "FAIL\nFAIL\texample.org/x\t0.3s\n"
	)
	for what, output := range map[string]string{
		"races before":        strings.Repeat(race, 50) + name + reason + "    testing.go:1: race detected during execution of test\n" + end,
		"a race between":      "=== RUN   TestA\n" + reason + race + name + end,
		"a race amid them":    name + race + reason + end,
		"noise between":       "=== RUN   TestA\n" + reason + noise + name + end,
		"noise amid them":     name + noise + reason + noise + end,
		"a long log before":   name + "    x_test.go:8: log:\n" + dump + reason + end,
		"a race cut off":      strings.TrimSuffix(race, string(raceEnds)+"\n") + end + name + reason + end,
		"failures before":     strings.Repeat("--- FAIL: TestB (0.00s)\n    y_test.go:7: other\n"+dump, 20) + name + reason + end,
		"logs of other tests": name + "    x_test.go:8: log\n" + dump + reason + "=== RUN   TestB\n" + strings.Repeat("    y_test.go:7: fine\n", 100) + "--- PASS: TestB (0.00s)\n" + end,
	} {
		var d digest
		w := &lineWriter{each: func(line []byte) error { d.add(line); return nil }}
		if _, err := io.WriteString(w, "ok  \texample.org/y\t0.1s\n"+output+"--> race: exit status 1\n"); err != nil {
			t.Fatal(err)
		}
		said := string(bytes.Join(d.picked, []byte("\n"))) + "\n"
		if !strings.Contains(said, name) || !strings.Contains(said, reason) || !strings.Contains(said, "--> race") {
			t.Errorf("%s: all that is said again is\n%s", what, said)
		}
		if strings.Contains(output, race) && !strings.Contains(said, "WARNING: DATA RACE\nRead at") {
			t.Errorf("%s: the race is not said again:\n%s", what, said)
		}
		if strings.Contains(said, "ok  \t") || len(d.picked) > 2*digestLines {
			t.Errorf("%s: too much is said again, %d lines:\n%s", what, len(d.picked), said)
		}
	}
}

func TestChoose(t *testing.T) {
	names := func(steps []step) (out []string) {
		for _, s := range steps {
			out = append(out, s.name)
		}
		return out
	}
	all := steps(time.Second)
	chosen, err := choose(all, "fuzz,vet")
	if want := []string{"build", "vet", "fuzz"}; err != nil || !slices.Equal(names(chosen), want) {
		t.Errorf("chose %q, %v, want %q", names(chosen), err, want)
	}
	if chosen, err = choose(all, ""); err != nil || len(chosen) != len(all) {
		t.Errorf("chose %q, %v, want all", names(chosen), err)
	}
	if _, err = choose(all, "vet,nonsense"); err == nil {
		t.Error("chose a step that is not there")
	}
}

func TestFuzzTargets(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"a/a_test.go":          "package a\nfunc FuzzOne(f *testing.F) {}\nfunc TestX(t *testing.T) {}\nfunc FuzzTwo(f *testing.F) {}",
		"a/a.go":               "package a\nfunc FuzzNot() {}",
		"b/c/c_test.go":        "package c\nfunc FuzzThree(f *testing.F) {}\nfunc (x) FuzzNot() {}",
		"b/testdata/d_test.go": "package d\nfunc FuzzNot(f *testing.F) {}",
		".e/e_test.go":         "package e\nfunc FuzzNot(f *testing.F) {}",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := fuzzTargets(root)
	if err != nil {
		t.Fatal(err)
	}
	want := []target{{"a", "FuzzOne"}, {"a", "FuzzTwo"}, {filepath.Join("b", "c"), "FuzzThree"}}
	if !slices.Equal(got, want) {
		t.Errorf("targets = %v, want %v", got, want)
	}
}

func TestByPackage(t *testing.T) {
	got := byPackage([]target{{"a", "1"}, {"a/b", "2"}, {"a", "3"}})
	if want := [][]target{{{"a", "1"}, {"a", "3"}}, {{"a/b", "2"}}}; !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("groups are %v, want %v", got, want)
	}
}

// Each test that a step leaves out or asks for by its name is there, in no other
// package, and another step runs what one leaves out. So none is lost when it gets
// another name, or when another test gets its name.
func TestNamedTestsAreThere(t *testing.T) {
	found, err := targets(filepath.Join("..", ".."), "Test")
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string][]string{}
	for _, f := range found {
		dirs[f.name] = append(dirs[f.name], filepath.ToSlash(f.dir))
	}
	there := func(dir string, names []string) {
		for _, name := range names {
			if !slices.Equal(dirs[name], []string{dir}) {
				t.Errorf("%s is in %q, and %s alone should have it", name, dirs[name], dir)
			}
		}
	}
	there(strings.TrimPrefix(e2e, module), timed)
	there("coord", simulations)
	for dir, names := range oneGoroutine {
		there(dir, names)
		if pkg := module + dir; pkg == containers {
			t.Errorf("the test step runs nothing of %s", pkg)
		}
		for _, name := range names {
			if slices.Contains(timed, name) {
				t.Errorf("neither the test step nor that under the race detector runs %s of %s", name, dir)
			}
		}
	}
}

// Packages that are left out under the race detector for having no goroutines have none.
func TestSequentialPackages(t *testing.T) {
	for _, dir := range sequential {
		files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(dir), "*.go"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s: %d files, %v", dir, len(files), err)
		}
		for _, file := range files {
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			if why := goroutine(f); why != "" {
				t.Errorf("%s has %s, so the race step must not leave out %s", file, why, dir)
			}
		}
	}
	f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\nfunc f() { go f() }", 0)
	if err != nil || goroutine(f) == "" {
		t.Errorf("a goroutine is overlooked: %v", err)
	}
}

// goroutine says what in a file begins one.
func goroutine(f *ast.File) (what string) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			what = "a go statement"
		case *ast.SelectorExpr:
			if slices.Contains([]string{"Go", "AfterFunc", "Parallel", "RunParallel"}, n.Sel.Name) {
				what = "a call of " + n.Sel.Name
			}
		}
		return true
	})
	return what
}

func TestExactly(t *testing.T) {
	p := regexp.MustCompile(exactly([]string{"TestA", "TestBC"}))
	for name, want := range map[string]bool{"TestA": true, "TestBC": true, "TestAB": false, "TestB": false, "XTestA": false} {
		if p.MatchString(name) != want {
			t.Errorf("%s: %t", name, !want)
		}
	}
}

func TestOnlyOutOfTime(t *testing.T) {
	const outOfTime = "fuzz: elapsed: 3s, execs: 9 (0/sec)\n--- FAIL: FuzzX (3.20s)\n    context deadline exceeded\nFAIL\nexit status 1\nFAIL\tx\t3.2s\n"
	if !onlyOutOfTime(outOfTime) {
		t.Error("the end of the time is taken for a failure")
	}
	for _, real := range []string{
		"",
		"--- FAIL: FuzzX (0.02s)\n    --- FAIL: FuzzX (0.00s)\n        x_test.go:7: bad\n    \n    Failing input written to testdata/fuzz/FuzzX/1\nFAIL\n",
		"--- FAIL: FuzzX (3.20s)\n    context deadline exceeded\n    x_test.go:9: bad\nFAIL\n",
		"--- FAIL: FuzzX (3.20s)\n    x_test.go:9: context deadline exceeded\nFAIL\n",
		"panic: oops\n" + outOfTime,
		"    Failing input written to testdata/fuzz/FuzzX/1\n" + outOfTime,
	} {
		if onlyOutOfTime(real) {
			t.Errorf("a failure is taken for the end of the time:\n%s", real)
		}
	}
}

func TestFirstSeed(t *testing.T) {
	if got, err := firstSeed("e26935d1aa00\n"); got != 0xe26935d1 || err != nil {
		t.Errorf("got %x, %v", got, err)
	}
	for _, bad := range []string{"", "e26935d", "no commit at all"} {
		if got, err := firstSeed(bad); err == nil || got != 1 {
			t.Errorf("%q makes the seed %d", bad, got)
		}
	}
}
