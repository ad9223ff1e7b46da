package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/client/clienttest"
)

// Every code has the exit code of the table.
func TestExitCodes(t *testing.T) {
	for _, row := range errcode.All() {
		if row.Code == errcode.OK {
			continue
		}
		f := describe(t.Context(), &client.Error{Op: "put", Code: row.Code, Message: "m"})
		if f.exit != row.Exit || !strings.Contains(f.what, string(row.Code)) || f.next == "" {
			t.Errorf("%s: %+v", row.Code, f)
		}
	}
	if f := describe(t.Context(), errors.New("x")); f.exit != errcode.ExitFailed {
		t.Errorf("%+v", f)
	}
}

func TestReportSeveral(t *testing.T) {
	var errs lockedBuffer
	a := &app{stderr: &errs, getenv: func(string) string { return "" }}
	code := a.report(t.Context(), errors.Join(&failure{exit: 4, what: "first"}, &failure{exit: 5, what: "second", why: []string{"because"}, next: "so"}))
	want := "pairdb: first\npairdb: second\n  why:  because\n  next: so\n"
	if code != 4 || errs.String() != want {
		t.Errorf("%d, %q", code, errs.String())
	}
}

func TestInterrupted(t *testing.T) {
	s, err := clienttest.Start(clienttest.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, args := range [][]string{
		{"put", "k", "v"},
		{"get", "k"},
		{"scan"},
		{"status"},
		{"health", "--wait", "1h"},
		{"import", "--dir", t.TempDir()},
		{"flush"},
		{"compact"},
		{"verify"},
		{"stats"},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		s.SetServing(false)
		s.SetHook(func(rctx context.Context, _ string, _ any) error {
			cancel(errInterrupted)
			<-rctx.Done()
			return rctx.Err()
		})
		code, stdout, stderr := runCLI(t, ctx, "", append(args, "--endpoint", s.Addr())...)
		if code != 130 || !strings.Contains(stderr, "interrupted") {
			t.Errorf("%v: exit code %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
		if doubt := strings.Contains(stderr, "may have been applied"); doubt != (args[0] == "put") {
			t.Errorf("%v: %q", args, stderr)
		}
	}
}

// put - does not hold up Ctrl-C while nobody types.
func TestInterruptedOnStdin(t *testing.T) {
	r, w := io.Pipe()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	var out, errs lockedBuffer
	if code := run(ctx, []string{"put", "k", "-"}, r, &out, &errs); code != 130 {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
	if err := w.Close(); err != nil { // ends the goroutine that reads
		t.Fatal(err)
	}
}

// failingWriter is a pipe that nobody reads any more.
type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestStdoutGone(t *testing.T) {
	var errs lockedBuffer
	for _, args := range [][]string{{"version"}, {"config", "defaults"}, {"keygen", "--gossip"}} {
		if code := run(t.Context(), args, strings.NewReader(""), failingWriter{}, &errs); code != 1 {
			t.Errorf("%v: exit code %d", args, code)
		}
	}
	if !strings.Contains(errs.String(), "broken pipe") {
		t.Error(errs.String())
	}
}

func TestOutputFormats(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out}
	v := view{
		data:    map[string]any{"name": "123", "n": 1, "list": []any{}, "text": "a<b"},
		items:   []any{map[string]any{"i": 1}, map[string]any{"i": 2}},
		head:    []string{"head"},
		columns: []string{"A", "LONGER"},
		rows:    [][]string{{"1", ""}, {"long cell", "2"}},
	}
	for format, want := range map[string]string{
		formatJSON:  "{\n  \"list\": [],\n  \"n\": 1,\n  \"name\": \"123\",\n  \"text\": \"a<b\"\n}\n",
		formatJSONL: "{\"i\":1}\n{\"i\":2}\n",
		formatYAML:  "list: []\nn: 1\nname: \"123\"\ntext: a<b\n",
		formatPlain: "1\t\nlong cell\t2\n",
		formatTable: "head\n\nA          LONGER\n1          -\nlong cell  2\n",
		"":          "head\n\nA          LONGER\n1          -\nlong cell  2\n",
	} {
		out.Reset()
		if err := a.show(format, v); err != nil || out.String() != want {
			t.Errorf("%s: %q, %v; want %q", format, out.String(), err, want)
		}
	}
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "": `""`, "a b": "a b", "\x1b[31m": `"\x1b[31m"`, "\xff": `"\xff"`, "tab\t": `"tab\t"`, "ü": "ü",
	} {
		if got := visible(in); got != want {
			t.Errorf("visible(%q) = %s, want %s", in, got, want)
		}
	}
	if got := short("abcdef", 3); got != "abc…" {
		t.Error(got)
	}
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 10 << 20: "10.0 MiB", 1 << 63: "8.0 EiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestLogFormats(t *testing.T) {
	for _, tc := range []struct {
		format   string
		terminal bool
		json     bool
	}{{"auto", true, false}, {"auto", false, true}, {"text", false, false}, {"json", true, true}} {
		var out bytes.Buffer
		var level slog.LevelVar
		logger := slog.New(newHandler(&out, tc.format, &level, tc.terminal, false))
		logger.Debug("hidden")
		logger.Info("shown")
		level.Set(slog.LevelDebug)
		logger.Debug("now shown")
		if strings.HasPrefix(out.String(), "{") != tc.json || strings.Count(out.String(), "shown") != 2 || strings.Contains(out.String(), "\x1b") {
			t.Errorf("%+v: %q", tc, out.String())
		}
	}
}

func TestDevDirOfAnotherSize(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"n1", "n2", "n3"} {
		if err := os.Mkdir(filepath.Join(dir, n), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	code, _, stderr := runCLI(t, t.Context(), "", "dev", "--dir", dir, "--nodes", "5")
	if code != 2 || !strings.Contains(stderr, "3 nodes") || !strings.Contains(stderr, "--nodes 3") {
		t.Errorf("%d: %s", code, stderr)
	}
}
