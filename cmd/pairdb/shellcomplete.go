package main

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// completion is what a key press of Tab does.
type completion struct {
	// line and pos are the line and the cursor after it, in bytes.
	line string
	pos  int
	// choices are shown if there are several and nothing could be added.
	choices []string
}

// complete completes the word before pos. It asks what the completion scripts of
// the system's shells ask, so that both know the same.
func (s *shell) complete(line string, pos int) completion {
	same := completion{line: line, pos: pos}
	before := line[:pos]
	start := strings.LastIndexAny(before, " \t") + 1
	word := before[start:]
	words, err := splitWords(before[:start])
	if err != nil || strings.ContainsAny(word, `'"\`) {
		return same // inside of quotes there is nothing to know
	}
	found := s.candidates(words, word)
	switch len(found) {
	case 0:
		return same
	case 1:
		return insert(line, pos, found[0][len(word):]+" ")
	}
	common := found[0]
	for _, f := range found[1:] {
		for !strings.HasPrefix(f, common) {
			_, size := utf8.DecodeLastRuneInString(common)
			common = common[:len(common)-size]
		}
	}
	if len(common) > len(word) {
		return insert(line, pos, common[len(word):])
	}
	same.choices = found
	return same
}

func insert(line string, pos int, text string) completion {
	if strings.HasPrefix(line[pos:], " ") {
		text = strings.TrimSuffix(text, " ")
	}
	return completion{line: line[:pos] + text + line[pos:], pos: pos + len(text)}
}

// candidates returns the words that begin with word and may stand behind others,
// sorted.
func (s *shell) candidates(words []string, word string) []string {
	var out bytes.Buffer
	root := s.commands()
	root.SetArgs(append(append([]string{cobra.ShellCompNoDescRequestCmd}, words...), word))
	root.SetOut(&out)
	root.SetErr(io.Discard)
	// What cannot be completed is told by there being no candidates.
	_ = root.ExecuteContext(context.Background())
	var found []string
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSuffix(line, "\n")
		if !strings.HasPrefix(line, ":") && line != "" && strings.HasPrefix(line, word) {
			found = append(found, line)
		}
	}
	if len(words) == 0 {
		for _, b := range []string{"exit", "use"} {
			if strings.HasPrefix(b, word) {
				found = append(found, b)
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}
