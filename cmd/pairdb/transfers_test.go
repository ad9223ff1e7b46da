package main

import (
	"testing"
	"time"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

func TestPace(t *testing.T) {
	var p pace
	at := time.Unix(1000, 0)
	look := func(after int, done, spans uint64) time.Duration {
		return p.left(&pairdbv1.TransfersResponse{Spans: spans, SpansDone: done}, at.Add(time.Duration(after)*time.Second))
	}
	for i, c := range []struct {
		after       int
		done, spans uint64
		want        time.Duration
	}{
		{0, 10, 100, 0}, // the first look
		{10, 20, 100, time.Minute + 20*time.Second}, // 10 in 10 s, 80 to go
		{20, 60, 100, 16 * time.Second},             // 50 in 20 s, 40 to go
		{30, 100, 100, 0},
		{40, 5, 100, 0},  // it goes backwards: begun anew
		{50, 6, 1000, 0}, // another change
		{60, 6, 1000, 0},
		{70, 7, 1000, 993 * 20 * time.Second},
		{70, 1, 1 << 60, 0},
		{71, 2, 1 << 60, 0}, // longer than a year
	} {
		if got := look(c.after, c.done, c.spans); got != c.want {
			t.Errorf("%d: %v, want %v", i, got, c.want)
		}
	}
}

// TestTransfersThatNobodyListsYet: that nothing is being moved is said only if nothing waits.
func TestTransfersThatNobodyListsYet(t *testing.T) {
	for _, c := range []struct {
		r    *pairdbv1.TransfersResponse
		want string
	}{
		{&pairdbv1.TransfersResponse{}, "Nothing is being moved."},
		{&pairdbv1.TransfersResponse{Waiting: 1}, "Nodes look for what they own no more."},
	} {
		if head := transfersView(c.r).head; head[len(head)-1] != c.want {
			t.Errorf("%q, want %q", head, c.want)
		}
	}
}
