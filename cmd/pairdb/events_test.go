package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/client/clienttest"
)

// endAfter ends a context once n lines were written.
type endAfter struct {
	bytes.Buffer
	n   int
	end func()
}

func (w *endAfter) Write(b []byte) (int, error) {
	n, err := w.Buffer.Write(b)
	if bytes.Count(w.Bytes(), []byte("\n")) >= w.n {
		w.end()
	}
	return n, err
}

// TestEventsFollow: what comes is shown a line each, once, and the end is no
// failure.
func TestEventsFollow(t *testing.T) {
	s, err := clienttest.Start(clienttest.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, errOut := &endAfter{n: 2, end: cancel}, new(bytes.Buffer)
	a := &app{stdin: strings.NewReader(""), stdout: out, stderr: errOut, getenv: func(string) string { return "" }}
	// The server has one event for the first question, and one more behind it.
	code := a.run(ctx, []string{"events", "--follow", "--limit", "1", "--endpoint", s.Addr()})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if code != 0 || len(lines) != 2 || !strings.Contains(lines[0], "this node is ready") || !strings.Contains(lines[1], "engine job failed") {
		t.Errorf("exit %d\n%s\n%s", code, out, errOut)
	}
	if n := strings.Count(errOut.String(), "no answer from n-away"); n != 1 {
		t.Errorf("the silent node is named %d times:\n%s", n, errOut)
	}
}

// TestSinceTime: a time, or how long ago.
func TestSinceTime(t *testing.T) {
	now := time.Date(2026, 11, 26, 20, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"10m": now.Add(-10 * time.Minute), "2026-11-26T19:00:00Z": now.Add(-time.Hour), "2026-11-26T21:00:00+02:00": now.Add(-time.Hour),
	} {
		if got, err := sinceTime(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-10m", "yesterday", "10"} {
		if got, err := sinceTime(text, now); err == nil {
			t.Errorf("%q: %s", text, got)
		}
	}
}
