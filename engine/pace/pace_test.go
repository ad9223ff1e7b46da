package pace_test

import (
	"testing"
	"time"

	"github.com/pairdb/pairdb/engine/pace"
)

// load is one interval in which compactions wrote mib and n syncs took each.
func run(p *pace.Pacer, mib int64, n int64, each time.Duration, urgency float64) int64 {
	p.Take(time.Unix(1, 0), mib<<20)
	p.Adjust(pace.Load{Syncs: n, SyncTime: time.Duration(n) * each, Elapsed: time.Second, Urgency: urgency})
	return p.Rate()
}

func TestYieldsToSlowSyncs(t *testing.T) {
	var p pace.Pacer
	for range 10 {
		run(&p, 0, 100, 2*time.Millisecond, 0) // a quiet disk
	}
	if r := run(&p, 200, 100, 5*time.Millisecond, 0); r != 0 {
		t.Fatalf("slowed to %d though syncs are quick enough", r)
	}
	if r := run(&p, 200, 100, 7*time.Millisecond, 0); r != 100<<20 {
		t.Fatalf("rate %d, want half of what was written", r)
	}
	last := int64(100 << 20)
	for range 6 {
		r := run(&p, last>>20, 100, 20*time.Millisecond, 0)
		if r >= last && r > 8<<20 {
			t.Fatalf("rate %d after %d while syncs are slow", r, last)
		}
		last = r
	}
	if last != 8<<20 {
		t.Fatalf("rate %d, want the least", last)
	}
	// The more there is to do the less it yields.
	if r := run(&p, 100, 100, 20*time.Millisecond, 0.5); r < 8<<20 {
		t.Fatalf("rate %d", r)
	}
	var q pace.Pacer
	if r := run(&q, 200, 100, 20*time.Millisecond, 0.75); r < 150<<20 {
		t.Fatalf("rate %d with much to do", r)
	}
	if r := run(&q, 200, 100, 20*time.Millisecond, 1); r != 0 {
		t.Fatalf("rate %d while writers are slowed down", r)
	}
	// It comes back: by a quarter a time, at once when nobody waits for syncs.
	run(&p, 8, 100, 20*time.Millisecond, 0)
	n := 0
	for ; p.Rate() != 0 && n < 100; n++ {
		run(&p, 8, 100, time.Millisecond, 0)
	}
	if n < 5 || n > 40 {
		t.Errorf("back at full speed after %d intervals", n)
	}
	run(&q, 200, 100, 20*time.Millisecond, 0)
	if r := run(&q, 200, 0, 0, 0); r != 0 {
		t.Errorf("rate %d with nobody to yield to", r)
	}
}

func TestSlowDiskIsNoReason(t *testing.T) {
	var p pace.Pacer
	for range 50 {
		run(&p, 0, 10, 30*time.Millisecond, 0) // it is always so
	}
	if r := run(&p, 50, 10, 60*time.Millisecond, 0); r != 0 {
		t.Errorf("rate %d", r)
	}
}

func TestBucketKeepsTheRate(t *testing.T) {
	for _, chunk := range []int64{100 << 10, 1 << 20, 30 << 20} {
		p := pace.Pacer{Most: 10 << 20}
		start := time.Unix(100, 0)
		now, written := start, int64(0)
		for written < 100<<20 {
			p.Take(now, chunk)
			written += chunk
			now = now.Add(p.Wait(now))
		}
		took := now.Sub(start).Seconds()
		if rate := float64(written) / took; rate > 10.01*(1<<20) || rate < 9.99*(1<<20) {
			t.Errorf("chunks of %d: %.0f bytes a second, want %d", chunk, rate, 10<<20)
		}
		// An idle time is not saved up.
		now = now.Add(time.Hour)
		p.Take(now, 10<<20)
		if w := p.Wait(now); w != time.Second {
			t.Errorf("after an hour, 10 MiB wait for %s", w)
		}
	}
}
