package events

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a time that a test moves.
type clock struct{ now time.Time }

func newLog(size int) (*Log, *clock, *bytes.Buffer) {
	c, out := &clock{time.Unix(1000, 0)}, new(bytes.Buffer)
	return New(Options{Logger: slog.New(slog.NewTextHandler(out, nil)), Size: size, Now: func() time.Time { return c.now }}), c, out
}

func texts(events []Event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%d:%s/%d ", e.Number, e.Text, e.Count)
	}
	return strings.TrimSpace(b.String())
}

// TestRepeatedEventsAreOne: the same event again is counted and logged once; one of
// another kind between them changes nothing, one of their own kind does.
func TestRepeatedEventsAreOne(t *testing.T) {
	l, c, out := newLog(10)
	l.Add(Engine, Error, "flush failed", "err", "EIO")
	l.Add(Disk, Warning, "disk slow")
	c.now = c.now.Add(30 * time.Second)
	l.Add(Engine, Error, "flush failed", "err", "EIO")
	l.Add(Engine, Error, "flush failed", "err", "ENOSPC")
	l.Add(Engine, Error, "flush failed", "err", "EIO")
	c.now = c.now.Add(2 * time.Minute)
	l.Add(Engine, Error, "flush failed", "err", "EIO")
	l.AddLogged(Disk, Info, "quiet")
	events, newest := l.Newest(time.Time{}, 100)
	if got, want := texts(events), "1:flush failed/2 2:disk slow/1 3:flush failed/1 4:flush failed/1 5:flush failed/1 6:quiet/1"; got != want || newest != 6 {
		t.Errorf("%s, newest %d", got, newest)
	}
	if first := events[0]; first.Last.Sub(first.Time) != 30*time.Second {
		t.Errorf("first %s, last %s", first.Time, first.Last)
	}
	if n := strings.Count(out.String(), "\n"); n != 5 || !strings.Contains(out.String(), "level=ERROR msg=\"flush failed\" event=engine err=EIO") {
		t.Errorf("%d lines:\n%s", n, out)
	}
}

// TestFloodOfOneKind: what comes beyond a kind's bound is counted; the others are
// not touched.
func TestFloodOfOneKind(t *testing.T) {
	l, c, out := newLog(100)
	seen := 0
	l.opts.Observe = func(Kind) { seen++ }
	for i := range 1000 {
		l.Add(Link, Warning, fmt.Sprint("link ", i))
	}
	l.Add(Member, Error, "node-2 is dead")
	if events, _ := l.Newest(time.Time{}, 100); len(events) != burst+1 || events[burst].Text != "node-2 is dead" {
		t.Errorf("%s", texts(events))
	}
	c.now = c.now.Add(refill)
	l.Add(Link, Info, "link up")
	events, _ := l.Newest(time.Time{}, 1)
	if len(events) != 1 || events[0].LeftOut != 1000-burst {
		t.Errorf("%+v", events)
	}
	if seen != 1002 || strings.Count(out.String(), "\n") != burst+2 || !strings.Contains(out.String(), "left_out=980") {
		t.Errorf("%d observed, log:\n%s", seen, out)
	}
}

// TestCursor goes through more events than the ring has.
func TestCursor(t *testing.T) {
	l, c, _ := newLog(10)
	add := func(n int) {
		for range n {
			c.now = c.now.Add(time.Second)
			l.Add(Member, Info, fmt.Sprint("e", l.mu.next))
		}
	}
	if events, next := l.After(0, 5); len(events) != 0 || next != 0 {
		t.Errorf("of an empty log: %s, %d", texts(events), next)
	}
	add(4)
	events, next := l.After(0, 3)
	if texts(events) != "1:e1/1 2:e2/1 3:e3/1" || next != 3 {
		t.Errorf("%s, %d", texts(events), next)
	}
	events, next = l.After(next, 3)
	if texts(events) != "4:e4/1" || next != 4 {
		t.Errorf("%s, %d", texts(events), next)
	}
	add(20)
	events, next = l.After(next, 3)
	if texts(events) != "15:e15/1 16:e16/1 17:e17/1" || next != 17 {
		t.Errorf("after the ring went round: %s, %d", texts(events), next)
	}
	if events, next = l.After(99, 3); len(events) != 0 || next != 24 {
		t.Errorf("behind the end: %s, %d", texts(events), next)
	}
	if events, _ := l.Newest(c.now.Add(-time.Second), 10); texts(events) != "23:e23/1 24:e24/1" {
		t.Errorf("since a second ago: %s", texts(events))
	}
	if events, _ := l.Newest(time.Time{}, 100); len(events) != 10 {
		t.Errorf("%d events kept", len(events))
	}
}

// TestEventsAreBounded: long texts are cut, and any number of goroutines may add.
func TestEventsAreBounded(t *testing.T) {
	l, _, _ := newLog(10)
	l.AddLogged(Disk, Error, strings.Repeat("x", 5000), append([]string{"odd"}, make([]string, 50)...)...)
	events, _ := l.Newest(time.Time{}, 1)
	if e := events[0]; len(e.Text) != maxText || len(e.Details) != maxDetails {
		t.Errorf("%d bytes, %d details", len(e.Text), len(e.Details))
	}
	var wg sync.WaitGroup
	for _, k := range Kinds() {
		wg.Go(func() {
			for i := range 100 {
				l.AddLogged(k, Info, fmt.Sprint(i))
				l.After(uint64(i), 10)
			}
		})
	}
	wg.Wait()
	if _, newest := l.Newest(time.Time{}, 1); newest < burst {
		t.Errorf("newest %d", newest)
	}
}
