package repair

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// TestRunBegunUnderAnOlderRing: a run that is asked for while the ring changes has an end,
// also if whoever began it went by a view that was no more when the run was there.
func TestRunBegunUnderAnOlderRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 4, 3, 3)
		var stand atomic.Pointer[func()] // what comes to pass with the view in hand
		edit := r.edit
		r.edit = func(i int, o *Options) {
			edit(i, o)
			view := o.View
			o.View = func() *schema.Snapshot {
				v := view()
				if i != 0 {
					return v
				}
				if f := stand.Swap(nil); f != nil {
					(*f)()
				}
				return v
			}
		}
		r.nodes[0].restart()
		r.start()
		r.propose(r.members(0, 4))
		r.install()
		r.until("committed", func() bool { ok, _ := r.log.MayCommit(r.report); return ok })
		r.step(ring.KindCommit)
		r.install()
		time.Sleep(2 * time.Second) // of the bubble
		r.step(ring.KindFinalize)
		m := r.nodes[0].m
		before := len(m.spansOf(m.opts.View()))
		meanwhile := func() {
			r.install()
			if m.mu.TryLock() { // else nobody can look at the newer ring meanwhile
				m.mu.Unlock()
				time.Sleep(5 * time.Second) // of the bubble
			}
		}
		stand.Store(&meanwhile)
		if _, err := m.StartRepair("", -1); err != nil {
			t.Fatal(err)
		}
		if after := len(m.spansOf(m.opts.View())); after >= before {
			t.Fatalf("the node owned %d spans, and owns %d: the test shows nothing", before, after)
		}
		time.Sleep(10 * time.Minute) // of the bubble
		runs := m.Status().Runs
		if len(runs) != 1 || runs[0].Ended.IsZero() || runs[0].Done != runs[0].Spans {
			t.Errorf("after ten minutes: %+v", runs)
		}
	})
}
