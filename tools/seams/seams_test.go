package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestFindsWhatReachesAround compares the findings in testdata/bad with the
// comments there that want them.
func TestFindsWhatReachesAround(t *testing.T) {
	findings, packages, err := check(t.Context(), ".", []string{"./testdata/bad"})
	if err != nil {
		t.Fatal(err)
	}
	if packages != 1 {
		t.Errorf("checked %d packages", packages)
	}
	wanted := wants(t, "testdata/bad/bad.go")
	for _, f := range findings {
		place := fmt.Sprintf("%s:%d", f.pos.Filename, f.pos.Line)
		i := slices.IndexFunc(wanted[place], func(want string) bool { return strings.Contains(f.what, want) })
		if i < 0 {
			t.Errorf("not wanted: %s", f)
			continue
		}
		wanted[place] = slices.Delete(wanted[place], i, i+1)
	}
	for place, left := range wanted {
		for _, want := range left {
			t.Errorf("%s: %q was not found", place, want)
		}
	}
}

// wants reads the comments of a file, by file and line.
func wants(t *testing.T, name string) map[string][]string {
	t.Helper()
	source, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile(`"([^"]*)"`)
	wanted := make(map[string][]string)
	for i, line := range strings.Split(string(source), "\n") {
		_, comment, ok := strings.Cut(line, "// want ")
		if !ok {
			continue
		}
		for _, match := range quoted.FindAllStringSubmatch(comment, -1) {
			place := fmt.Sprintf("%s:%d", name, i+1)
			wanted[place] = append(wanted[place], match[1])
		}
	}
	if len(wanted) < 30 {
		t.Fatalf("%s wants only %d lines found", name, len(wanted))
	}
	return wanted
}

func TestFindsNothingInGoodCode(t *testing.T) {
	findings, _, err := check(t.Context(), ".", []string{"./testdata/good"})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Errorf("not wanted: %s", f)
	}
}

func TestRefusesAPackageThatIsNotThere(t *testing.T) {
	for _, pattern := range []string{"./testdata/absent", "./testdata/absent/..."} {
		if _, _, err := check(t.Context(), ".", []string{"./testdata/good", pattern}); err == nil {
			t.Errorf("%s was checked", pattern)
		}
	}
}
