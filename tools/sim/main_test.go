package main

import (
	"errors"
	"strings"
	"testing"
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

func TestNote(t *testing.T) {
	s := &sims{batch: 50, counts: map[string]uint64{}}
	s.note(1, "    simrun_test.go:350: 50 seeds: map[crashes:39 failed indeterminate:80 late retries:2 read:65 written:21 written once:4]\n", nil)
	s.note(51, "x 50 seeds: map[read:5 written:1]\n", nil)
	if s.counts["read"] != 70 || s.counts["written"] != 22 || s.counts["written once"] != 4 || s.counts["failed indeterminate"] != 80 {
		t.Errorf("counts %v", s.counts)
	}
	if s.err != nil {
		t.Error(s.err)
	}
	s.note(101, "seed 117: key k1 went back", errors.New("exit status 1"))
	if s.err == nil || !strings.Contains(s.err.Error(), "117") || !strings.Contains(s.err.Error(), "101 to 150") {
		t.Errorf("error %v", s.err)
	}
	if _, ok := s.take(); ok {
		t.Error("goes on after a failure")
	}
}
