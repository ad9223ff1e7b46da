package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/api/errcode"
)

// TestEveryCommandHasAScript: each command is run by a script of
// testdata/script, with success and with a mistake of the one who types, and
// each exit code is seen there.
func TestEveryCommandHasAScript(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	called := regexp.MustCompile(`(?m)^(?:cli (\d+)|exits (\d+) pairdb)(?: PAIRDB_\S+)*((?: \S+)*)$`)
	ran := map[string]bool{} // exit code and command line
	codes := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range called.FindAllStringSubmatch(string(text), -1) {
			code := m[1] + m[2]
			codes[code] = true
			words := strings.Fields(m[3])
			for i := range words {
				ran[code+" "+strings.Join(words[:i+1], " ")] = true
			}
		}
	}
	a := &app{getenv: func(string) string { return "" }}
	root := a.rootCommand()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	// These run until they are told to stop: the tests of processes do so.
	endless := []string{"agent", "dev"}
	leaves(root, func(cmd *cobra.Command) {
		path := strings.TrimPrefix(cmd.CommandPath(), "pairdb ")
		if ok := ran["0 "+path]; !ok && !strings.Contains(strings.Join(endless, " "), path) {
			t.Errorf("no script runs %q with exit code 0: add one below cmd/pairdb/testdata/script", path)
		}
		if !ran["2 "+path] && path != "help" && !strings.HasPrefix(path, "completion ") {
			t.Errorf("no script runs %q with exit code 2, for a mistake of who types: add one below cmd/pairdb/testdata/script", path)
		}
	})
	for _, info := range errcode.All() {
		if code := string(rune('0' + info.Exit)); !codes[code] {
			t.Errorf("no script sees exit code %s", code)
		}
	}
	if !codes["10"] {
		t.Error("no script sees exit code 10")
	}
}

// leaves calls do for every command that runs by itself.
func leaves(cmd *cobra.Command, do func(*cobra.Command)) {
	if !cmd.HasSubCommands() {
		do(cmd)
	}
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			leaves(c, do)
		}
	}
}
