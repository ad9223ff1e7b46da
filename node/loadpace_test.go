package node

import (
	"testing"
	"time"

	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/pace"
)

// TestStreamsYield: what is moved between nodes has no bound of its own while writers'
// syncs, and clients' operations, are as quick as before; it is slowed down while either
// are not, and comes back.
func TestStreamsYield(t *testing.T) {
	const quick, slow = 2 * time.Millisecond, 40 * time.Millisecond
	s := newStreamPace()
	now, m := time.Unix(1000, 0), engine.Metrics{}
	var ended pace.Latencies
	// second lets a second pass in which writers wait for 100 syncs and clients for 100
	// operations, and eight MiB are moved four times; it returns for how long the last of
	// them has to wait.
	second := func(sync, op time.Duration) (wait time.Duration) {
		for range 4 {
			now = now.Add(250 * time.Millisecond)
			m.WALSyncs += 25
			m.WALSyncTime += 25 * sync
			ended[pace.LatencyBucket(op)] += 25
			wait = s.took(now, m, &ended, 8<<20)
		}
		return wait
	}
	calm := func() {
		t.Helper()
		for range 60 {
			second(quick, quick)
		}
		if d := second(quick, quick); d > 0 {
			t.Fatalf("it waits %s though nobody else does", d)
		}
	}
	s.watch(now, &ended)
	for range 60 {
		now, m.WALSyncs, m.WALSyncTime = now.Add(time.Second), m.WALSyncs+100, m.WALSyncTime+100*quick
		ended[pace.LatencyBucket(quick)] += 100
		s.watch(now, &ended)
	}
	calm()
	second(slow, quick)
	if d := second(slow, quick); d < time.Second {
		t.Errorf("it waits only %s though syncs take twenty times as long", d)
	}
	calm()
	for range 4 {
		second(quick, slow)
	}
	if d := second(quick, slow); d < 8*time.Second {
		t.Errorf("it waits only %s though clients wait twenty times as long", d)
	}
	calm()
}

// TestStreamsAreNotStarved: however long clients wait, what a change moves goes on at a
// mebibyte a second, so that the change comes to its end.
func TestStreamsAreNotStarved(t *testing.T) {
	s := newStreamPace()
	begin := time.Unix(1000, 0)
	now, moved := begin, 0
	var ended pace.Latencies
	for now.Sub(begin) < time.Hour {
		now = now.Add(250 * time.Millisecond)
		ended[pace.LatencyBucket(time.Second)] += 10
		moved += 1 << 20
		now = now.Add(s.took(now, engine.Metrics{}, &ended, 1<<20))
	}
	switch rate := float64(moved) / now.Sub(begin).Seconds() / leastStream; {
	case rate < 0.75:
		t.Errorf("%.2f MiB/s are moved while clients wait ever longer", rate)
	case rate > 2:
		t.Errorf("%.2f MiB/s are moved though clients wait ever longer", rate)
	}
}
