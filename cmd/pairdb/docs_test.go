package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/node/config"
)

// TestInstallDocIsRight: the commands exist, the flags too, and the
// configuration is one.
func TestInstallDocIsRight(t *testing.T) {
	doc, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	a := &app{getenv: func(string) string { return "" }}
	fences := regexp.MustCompile("(?s)```(\\w+)\n(.*?)```").FindAllSubmatch(doc, -1)
	commands := 0
	for _, fence := range fences {
		switch text := string(fence[2]); string(fence[1]) {
		case "sh":
			for line := range strings.Lines(text) {
				line, _, _ = strings.Cut(line, "#")
				for part := range strings.SplitSeq(line, "&&") {
					words := strings.Fields(part)
					if len(words) == 0 || words[0] != "pairdb" {
						continue
					}
					commands++
					checkCommand(t, a.rootCommand(), words[1:])
				}
			}
		case "yaml":
			file := t.TempDir() + "/pairdb.yaml"
			if err := os.WriteFile(file, fence[2], 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := config.Load(config.LoadOptions{File: file}); err != nil {
				t.Errorf("the configuration: %v", err)
			}
		}
	}
	if commands < 7 {
		t.Errorf("only %d commands were found", commands)
	}
}

func checkCommand(t *testing.T, root *cobra.Command, words []string) {
	t.Helper()
	for i, w := range words {
		if w == ">" {
			words = words[:i]
			break
		}
	}
	if err := unknownCommand(root, words); err != nil {
		t.Errorf("pairdb %v: %v", words, err)
		return
	}
	cmd, rest, err := root.Find(words)
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if err == nil {
		err = cmd.ValidateArgs(cmd.Flags().Args())
	}
	if err != nil {
		t.Errorf("pairdb %v: %v", words, err)
	}
}
