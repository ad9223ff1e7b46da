package seeds

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNextSeed(t *testing.T) {
	const line = "2026-11-26\tabc\t1\t300\t60\tok\twritten 1\n"
	for _, c := range []struct {
		ledger string
		want   uint64
	}{
		{"", 1},
		{header, 1},
		{header + line, 301},
		{header + strings.Replace(line, "300", "900", 1) + line, 901},
	} {
		if got, err := nextSeed(c.ledger); got != c.want || err != nil {
			t.Errorf("after %q comes seed %d, %v; want %d", c.ledger, got, err, c.want)
		}
	}
	for _, bad := range []string{header + "x\n", header + strings.Replace(line, "300", "many", 1)} {
		if _, err := nextSeed(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestLedgerGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.tsv")
	for first := uint64(1); first < 30; first += 10 {
		if next, err := nextIn(path); err != nil || next != first {
			t.Fatalf("next is %d, %v; want %d", next, err, first)
		}
		e := entry{began: time.Unix(0, 0), commit: "abc", first: first, last: first + 9, took: time.Minute, verdict: "ok", counts: "read 1"}
		if err := e.add(path); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(string(b), "\n"); len(lines) != 5 || lines[0]+"\n" != header || lines[3] != "1970-01-01\tabc\t21\t30\t60\tok\tread 1" {
		t.Errorf("the ledger is %q", b)
	}
}

func TestNote(t *testing.T) {
	s := &batches{Job: Job{Batch: 50, Counts: []string{"written", "written once", "crashes"}}, ctx: t.Context(), next: 151, done: map[uint64]batch{}}
	s.note(1, 51, "    simrun_test.go:350: 50 seeds: map[crashes:39 failed indeterminate:80 late retries:2 read:65 written:21 written once:4]\n", nil)
	s.note(51, 101, "x 50 seeds: map[read:5 written:1]\n", nil)
	if s.err != nil {
		t.Error(s.err)
	}
	if got := s.summary(101); got != "written 22, written once 4, crashes 39" {
		t.Errorf("the ledger says %q", got)
	}
	if got := s.summary(51); got != "written 21, written once 4, crashes 39" {
		t.Errorf("of the first batch the ledger says %q", got)
	}
	s.note(101, 151, "seed 117: key k1 went back", errors.New("exit status 1"))
	if s.err == nil || !strings.Contains(s.err.Error(), "117") || !strings.Contains(s.err.Error(), "101 to 150") {
		t.Errorf("error %v", s.err)
	}
	if _, _, ok := s.take(); ok {
		t.Error("goes on after a failure")
	}
}

// TestInterrupted: what was done in one piece is noted, and a batch that was broken
// off is no failure.
func TestInterrupted(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	s := &batches{Job: Job{Batch: 50}, ctx: ctx, next: 151, done: map[uint64]batch{}}
	s.note(1, 51, "", nil)
	s.note(101, 151, "", nil)
	stop()
	s.note(51, 101, "", errors.New("signal: killed"))
	if got := s.doneUntil(1); got != 51 || s.err != nil {
		t.Errorf("it goes on with seed %d, %v", got, s.err)
	}
}

func TestUntil(t *testing.T) {
	s := &batches{Job: Job{Batch: 50, Until: 70}, ctx: t.Context(), next: 1, until: time.Now().Add(time.Hour)}
	for _, want := range [][2]uint64{{1, 51}, {51, 71}} {
		if first, end, ok := s.take(); first != want[0] || end != want[1] || !ok {
			t.Errorf("a batch from %d to before %d, %v; want %v", first, end, ok, want)
		}
	}
	if _, _, ok := s.take(); ok {
		t.Error("goes on behind the last seed")
	}
}
