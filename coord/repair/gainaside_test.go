package repair

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/coord"
)

// TestGainWithoutSource: one of three sources is cut off, or falls silent in one of the
// steps, and membership takes it for alive: the others suffice, and nobody waits for it for
// long. If it takes one of two that are cut off, the first that is back will do.
func TestGainWithoutSource(t *testing.T) {
	silent := func(k kind) func(m *coord.Message) bool {
		return func(m *coord.Message) bool {
			q, err := decodeRequest(m.Body)
			return m.Op == coord.OpRepair && err == nil && q.kind == k
		}
	}
	for _, c := range []struct {
		name string
		lost func(m *coord.Message) bool
	}{
		{"cut off", func(*coord.Message) bool { return true }},
		{"horizon", silent(kindKnown)},
		{"states", silent(kindState)},
		{"records", silent(kindRecords)},
		{"bulk", silent(kindObjects)},
		{"sums", silent(kindSums)},
		{"rows", silent(kindDiff)},
		{"objects", func(m *coord.Message) bool { return m.Op == coord.OpRead }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRinged(t, 4, 3, 3)
				r.fill(600)
				r.setLose(func(from, to int, m *coord.Message) bool { return to == 1 && c.lost(m) })
				r.propose(r.members(0, 4))
				r.install()
				last := r.live(100, 0)
				r.start()
				began := time.Now()
				r.until("synced", func() bool { return r.report(r.nodes[3].id).Synced > 0 })
				if took := time.Since(began); took > 15*time.Second {
					t.Errorf("it took %v", took)
				}
				r.setLose(nil)
				r.finish()
				r.cleaned()
				r.until("equal", func() bool { return r.missing(last) == "" })
			})
		})
	}
	t.Run("two", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRinged(t, 4, 3, 3)
			r.fill(300)
			var gone atomic.Int64
			gone.Store(2)
			r.setLose(func(_, to int, _ *coord.Message) bool { return to < int(gone.Load()) })
			r.start()
			r.propose(r.members(0, 4))
			r.install()
			time.Sleep(5 * time.Minute)
			if v := r.report(r.nodes[3].id).Synced; v != 0 {
				t.Fatalf("it is synced at %d by one of three", v)
			}
			gone.Store(1)
			began := time.Now()
			r.until("synced", func() bool { return r.report(r.nodes[3].id).Synced > 0 })
			if took := time.Since(began); took > 45*time.Second {
				t.Errorf("it took %v from when two were there", took)
			}
			r.setLose(nil)
			r.finish()
			r.cleaned()
			r.check()
		})
	})
}
