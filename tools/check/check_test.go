package main

import (
	"bytes"
	"context"
	"errors"
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
