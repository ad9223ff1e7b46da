package engine

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestGatherPlan(t *testing.T) {
	var g gather
	const ms = time.Millisecond
	if n, _ := g.plan(ms, 1, 0); n != 0 {
		t.Errorf("a lone writer waits for %d", n)
	}
	n, d := g.plan(ms, 32, 31)
	if n != 63 || d != ms/2 {
		t.Errorf("63 writers, of whom 32 are about to come back: %d within %s", n, d)
	}
	if _, d = (&gather{}).plan(time.Second, 2, 2); d != maxGather {
		t.Errorf("a slow disk puts a sync off by %s", d)
	}
	if _, d = (&gather{}).plan(minSync, 2, 2); d != minSync/2 {
		t.Errorf("a disk of some speed puts a sync off by %s", d)
	}
	if n, _ := (&gather{}).plan(minSync-1, 2, 2); n != 0 {
		t.Errorf("a fast disk puts a sync off for %d", n)
	}
}

// Waiting in vain is given up, for longer each time, and tried again.
func TestGatherGivesUp(t *testing.T) {
	var g gather
	pauses := []int{}
	for range 10 {
		n, _ := g.plan(time.Millisecond, 8, 8)
		if n != 16 {
			t.Fatalf("plan is for %d", n)
		}
		g.outcome(11, n)
		pause := 0
		for ; pause < 2*maxPause; pause++ {
			if n, _ := g.plan(time.Millisecond, 8, 8); n != 0 {
				break
			}
		}
		pauses = append(pauses, pause)
		g.skip = 0
	}
	if pauses[0] != minPause || pauses[1] != 2*minPause || pauses[9] != maxPause {
		t.Errorf("pauses %v", pauses)
	}
	g.outcome(12, 16)
	g.outcome(1, 16)
	if g.skip != 2*minPause {
		t.Errorf("after a success the next pause is %d", g.skip)
	}
}

// manualTimer is fired by the test, or never.
type manualTimer struct {
	f      func()
	resets *atomic.Int32
}

func (m manualTimer) Reset(time.Duration) bool { m.resets.Add(1); return false }
func (m manualTimer) Stop() bool               { return true }

// Writers in a closed loop share syncs: nobody is left waiting, however few come
// and whenever the timer fires.
func TestGatheredWritersAllReturn(t *testing.T) {
	for _, fires := range []bool{true, false} {
		var resets atomic.Int32
		// By this clock every sync takes a millisecond.
		var clock atomic.Int64
		opts := Options{
			Timer: func(f func()) Timer { return manualTimer{f, &resets} },
			Now:   func() time.Time { return time.UnixMilli(clock.Add(1)) },
		}
		if fires {
			opts.Timer = nil
		}
		db, err := Open(t.TempDir()+"/db", opts)
		if err != nil {
			t.Fatal(err)
		}
		const writers, each = 16, 200
		var wg sync.WaitGroup
		for w := range writers {
			n := each
			if fires {
				n = each * (w + 1) / writers // they leave one after the other
			}
			wg.Go(func() {
				b := NewBatch()
				for i := range n {
					b.Reset()
					b.Set([]byte{byte(w), byte(i)}, []byte("v"))
					if _, err := db.Apply(b, WriteOptions{Sync: true}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		if !fires {
			// With a timer that never fires the last of those expected leads; when
			// some are gone for good, somebody has to stand in for it.
			done := make(chan struct{})
			go func() { wg.Wait(); close(done) }()
			for stop := false; !stop; {
				select {
				case <-done:
					stop = true
				case <-time.After(time.Millisecond):
					db.gathered()
				}
			}
		}
		wg.Wait()
		m := db.Metrics()
		if m.WALSyncs >= m.Batches/2 {
			t.Errorf("%d syncs for %d batches", m.WALSyncs, m.Batches)
		}
		if !fires && resets.Load() == 0 {
			t.Error("no sync was ever put off")
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
