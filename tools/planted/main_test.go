package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestBugsCanBePlanted: what each bug replaces is in the code, once, so that the
// list does not grow old unseen.
func TestBugsCanBePlanted(t *testing.T) {
	names := map[string]bool{}
	for _, b := range bugs {
		source, err := os.ReadFile(filepath.Join("../..", b.file))
		if err != nil {
			t.Errorf("%s: %v", b.name, err)
			continue
		}
		bad, err := b.change(string(source))
		if err != nil {
			t.Errorf("%s: %v", b.name, err)
		}
		if bad == string(source) || names[b.name] || b.pkg == "" || b.tests == "" {
			t.Errorf("%s: changes nothing, is there twice, or has no tests", b.name)
		}
		names[b.name] = true
	}
}
