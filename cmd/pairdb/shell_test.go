package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/client/clienttest"
)

func TestSplitWords(t *testing.T) {
	for _, c := range []struct {
		line string
		want []string
		err  string
	}{
		{"", nil, ""},
		{"  \t ", nil, ""},
		{"get k", []string{"get", "k"}, ""},
		{" put\ta  b ", []string{"put", "a", "b"}, ""},
		{`put 'a b' "c d"`, []string{"put", "a b", "c d"}, ""},
		{`'' ""`, []string{"", ""}, ""},
		{`a''b"c"\ d`, []string{"abc d"}, ""},
		{`'\n"#'`, []string{`\n"#`}, ""},
		{`"\n\t\\\"\xff\u00e9'#"`, []string{"\n\t\\\"\xffé'#"}, ""},
		{`\'\"\\\#`, []string{`'"\#`}, ""},
		{`\é`, []string{"é"}, ""},
		{"a#b #c d", []string{"a#b"}, ""},
		{"# all", nil, ""},
		{"\xff \"\xff\"", []string{"\xff", "\xff"}, ""},
		{`a 'b`, nil, "a ' has no second one"},
		{`a "b`, nil, `a " has no second one`},
		{`a "b\"`, nil, `a " has no second one`},
		{`a\`, nil, "ends with a \\"},
		{`"\q"`, nil, "no such escape"},
		{`"\x1"`, nil, "no such escape"},
		{`"\'"`, nil, "no such escape"},
	} {
		got, err := splitWords(c.line)
		if !slices.Equal(got, c.want) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %q, %v, want %q, %s", c.line, got, err, c.want, c.err)
		}
	}
}

// Words that are quoted in any of the ways come out as they were.
func TestQuotedWordsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOf(rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "words")
		var line strings.Builder
		for _, w := range words {
			switch rapid.IntRange(0, 1).Draw(t, "how") {
			case 0:
				line.WriteString("'" + strings.ReplaceAll(w, "'", `'\''`) + "' ")
			case 1:
				line.WriteString(strconv.Quote(w) + "\t")
			}
		}
		got, err := splitWords(line.String())
		if err != nil || !slices.Equal(got, words) {
			t.Fatalf("%q became %q, %v", line.String(), got, err)
		}
	})
}

func FuzzSplitWords(f *testing.F) {
	for _, s := range []string{`put a "b\xff"`, `'`, `"\`, `\`, "# x", `"\u`, "a\x00b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words, err := splitWords(line)
		total := 0
		for _, w := range words {
			total += len(w)
		}
		if err != nil && words != nil || total > len(line) {
			t.Errorf("%q became %q, %v", line, words, err)
		}
	})
}

// newTestShell returns a shell at a pretended node, and what it writes.
func newTestShell(t *testing.T, env map[string]string) (*shell, *lockedBuffer, *lockedBuffer) {
	t.Helper()
	srv, err := clienttest.Start(clienttest.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	var out, errs lockedBuffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: func(n string) string { return env[n] }, executable: os.Executable}
	s := newShell(a, &clientFlags{endpoints: []string{srv.Addr()}, tenant: client.DefaultTenant, timeout: client.DefaultTimeout})
	t.Cleanup(s.close)
	return s, &out, &errs
}

func TestShellCompletes(t *testing.T) {
	s, _, _ := newTestShell(t, nil)
	for _, c := range []struct {
		line    string
		pos     int // from the end
		want    string
		choices []string
	}{
		{"pu", 0, "put ", nil},
		{"tenant cr", 0, "tenant create ", nil},
		{"get -o js", 0, "get -o json", nil},
		{"get -o json", 0, "get -o json", []string{"json", "jsonl"}},
		{"get --consis", 0, "get --consistency ", nil},
		{"get --all-s k", 2, "get --all-siblings k", nil},
		{"e", 0, "e", []string{"events", "exit", "export"}},
		{"us", 0, "use ", nil},
		{"age", 0, "age", nil},
		{"put 'a b", 0, "put 'a b", nil},
		{"h", 0, "he", nil},
		{"he", 0, "he", []string{"health", "help"}},
	} {
		pos := len(c.line) - c.pos
		got := s.complete(c.line, pos)
		if got.line != c.want || !slices.Equal(got.choices, c.choices) || got.pos != len(got.line)-c.pos {
			t.Errorf("%q became %+v, want %q, %q", c.line, got, c.want, c.choices)
		}
	}
}

// keyboard is a terminal whose keys are typed ahead.
type keyboard struct {
	io.Reader
	io.Writer
}

// TestShellAtATerminal types: completion, history by the arrow up, a change of
// the tenant in the prompt, and the end by Ctrl-D.
func TestShellAtATerminal(t *testing.T) {
	s, out, errs := newTestShell(t, nil)
	var screen bytes.Buffer
	past := &history{}
	keys := "pu\tkey one\r" + "get key\r" + "\x1b[A\x1b[A\x7f\x7f\x7ftwo\r" + "get key\r" + "he\t\r" + "tenant create shop -o json\r" + "use shop\r" + "get key\r" + "\x04"
	term := s.terminal(keyboard{strings.NewReader(keys), &screen}, past)
	err := s.converse(t.Context(), func() (string, error) {
		term.SetPrompt(s.prompt())
		return term.ReadLine()
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, "onetwo") {
		t.Errorf("stdout: %q", got)
	}
	if !strings.Contains(errs.String(), "KEY_NOT_FOUND") {
		t.Errorf("stderr: %q", errs)
	}
	for _, want := range []string{"default> ", "shop> ", "health  help"} {
		if !strings.Contains(screen.String(), want) {
			t.Errorf("the screen does not show %q:\n%q", want, screen.String())
		}
	}
	if want := "put key two"; !slices.Contains(past.lines, want) {
		t.Errorf("the history has no %q: %q", want, past.lines)
	}
}

// Ctrl-C in a command ends the shell.
func TestShellIsInterrupted(t *testing.T) {
	s, _, errs := newTestShell(t, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	lines := []string{"get k", "never"}
	err := s.converse(ctx, func() (string, error) {
		line := lines[0]
		lines = lines[1:]
		return line, nil
	})
	if code := s.app.report(ctx, err); code != 130 || len(lines) != 1 || !strings.Contains(errs.String(), "interrupted") {
		t.Errorf("exit code %d, %d lines left, %q", code, len(lines), errs)
	}
}

// All lines go over one connection, until they ask for others.
func TestShellSharesConnections(t *testing.T) {
	s, _, errs := newTestShell(t, nil)
	for i := range 3 {
		if code := s.run(t.Context(), fmt.Sprintf("put k%d v", i)); code != 0 {
			t.Fatal(errs)
		}
	}
	if n := len(s.app.session.clients); n != 1 {
		t.Errorf("%d clients", n)
	}
	for i := range 2 * maxShellClients {
		if code := s.run(t.Context(), fmt.Sprintf("put --timeout %ds k v", i+1)); code != 0 {
			t.Fatal(errs)
		}
	}
	if n := len(s.app.session.clients); n != maxShellClients {
		t.Errorf("%d clients, want %d", n, maxShellClients)
	}
}

func TestHistory(t *testing.T) {
	state := t.TempDir()
	s, _, _ := newTestShell(t, map[string]string{"XDG_STATE_HOME": state, "HOME": "/nowhere"})
	path := s.app.historyFile()
	if path != filepath.Join(state, "pairdb", "history") {
		t.Fatalf("the history is kept in %s", path)
	}
	h, err := openHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"put a 1", "put a 1", "", "  ", "get a", strings.Repeat("x", historyBytes)} {
		h.Add(line)
	}
	if h.Len() != 2 || h.At(0) != "get a" || h.At(1) != "put a 1" {
		t.Errorf("the history has %q", h.lines)
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	if h, err = openHistory(path); err != nil || !slices.Equal(h.lines, []string{"put a 1", "get a"}) {
		t.Errorf("opened again: %q, %v", h.lines, err)
	}
	for i := range historyLines + 5 {
		h.Add(fmt.Sprint("line ", i))
	}
	if h.Len() != historyLines {
		t.Errorf("%d lines are remembered", h.Len())
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	// The file is made short again when it is opened, and stays private.
	if h, err = openHistory(path); err != nil || h.Len() != historyLines || h.At(0) != fmt.Sprint("line ", historyLines+4) {
		t.Errorf("%d lines, %v", h.Len(), err)
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if info, serr := os.Stat(path); err != nil || serr != nil || bytes.Count(b, []byte("\n")) != historyLines || info.Mode() != 0o600 {
		t.Errorf("the file has %d lines, %v, %v", bytes.Count(b, []byte("\n")), info, err)
	}
	if got := (&app{getenv: func(string) string { return "" }}).historyFile(); got != "" {
		t.Errorf("without a home: %s", got)
	}
	if _, err := openHistory("/proc/none/history"); err == nil {
		t.Error("a history in /proc was opened")
	}
}
