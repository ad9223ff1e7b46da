package repair

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// TestSpansAreAskedAboutOnce: of each span that is gained or handed over an owner is asked
// once in a message; every state costs it a pass over all locks of keys.
func TestSpansAreAskedAboutOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 4, 3, 3)
		r.fill(100)
		r.start()
		r.propose(r.members(0, 4))
		var asked, twice atomic.Int64
		r.setLose(func(_, _ int, m *coord.Message) bool {
			q, err := decodeRequest(m.Body)
			if m.Op != coord.OpRepair || err != nil || q.kind != kindState {
				return false
			}
			asked.Add(1)
			of := make(map[Span]bool)
			for i := range q.spans {
				if of[q.spans[i].Span] {
					twice.Add(1)
				}
				of[q.spans[i].Span] = true
			}
			return false
		})
		r.install()
		r.finish()
		r.cleaned()
		if asked.Load() == 0 || twice.Load() > 0 {
			t.Errorf("in %d messages %d spans are asked about twice", asked.Load(), twice.Load())
		}
	})
}

// TestCleanupUnderQuarantine: damage to a partition that is not owned any more is no reason
// to keep what is left of it for ever. The owners get that, and the node is clean.
func TestCleanupUnderQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 4, 3, 3)
		r.fill(100)
		r.propose(r.members(0, 4))
		loser, bad := -1, ring.Partition(0)
		for p := range ring.Partition(8) {
			for i := range 3 {
				if !r.log.Change().Next.IsOwner(r.nodes[i].id, p, 3) {
					loser, bad = i, p
				}
			}
		}
		if loser < 0 {
			t.Fatal("nobody loses anything")
		}
		// One write is at the loser alone.
		key := ""
		for i := 0; key == ""; i++ {
			if _, p := r.nodes[loser].data.place(tenantB, fmt.Sprint("alone", i)); p == bad {
				key = fmt.Sprint("alone", i)
			}
		}
		r.put(loser, tenantB, key, "v", loser)
		var quarantined atomic.Bool
		o := &r.nodes[loser].m.opts
		o.Quarantined = func(p ring.Partition) bool { return p == bad && quarantined.Load() }
		o.Fetched = func(list []ring.Partition) error {
			if slices.Contains(list, bad) {
				quarantined.Store(false)
			}
			return nil
		}
		r.start()
		r.install()
		r.until("committed", func() bool { ok, _ := r.log.MayCommit(r.report); return ok })
		quarantined.Store(true)
		r.finish()
		r.cleaned()
		for i, n := range r.nodes {
			if n.m.owns(n.view(), Span{bad, 3}) && !slices.Contains(r.values(i, tenantB, key), "v") {
				t.Errorf("node %d has not got what was left", i)
			}
		}
	})
}

// closing is a replica under which the manager is closed as soon as there is something to
// clean up.
type closing struct {
	Replica
	close func()
	asked atomic.Int64
}

func (c *closing) Foreign(owns func(Span) bool) ([]Span, error) {
	all, err := c.Replica.Foreign(owns)
	if len(all) > 0 {
		switch n := c.asked.Add(1); {
		case n == 1:
			c.close()
		case n > 100:
			return nil, errors.New("it is asked without an end")
		}
	}
	return all, err
}

// TestCloseEndsCleanup: a manager that is closed when it has just found what is to be
// cleaned up ends, though nothing of that is done.
func TestCloseEndsCleanup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 4, 3, 3)
		r.fill(100)
		r.propose(r.members(0, 4))
		loser := slices.IndexFunc(r.nodes[:3], func(n *fakeNode) bool {
			for p := range ring.Partition(8) {
				if !r.log.Change().Next.IsOwner(n.id, p, 3) {
					return true
				}
			}
			return false
		})
		if loser < 0 {
			t.Fatal("nobody loses anything")
		}
		m := r.nodes[loser].m
		c := &closing{Replica: m.opts.Replica}
		c.close = func() {
			at, over := context.WithCancel(context.Background())
			over()
			_ = m.Close(at) // that it was not waited for: it is, below, and its error looked at
		}
		m.opts.Replica = c
		r.start()
		r.install()
		r.until("committed", func() bool { ok, _ := r.log.MayCommit(r.report); return ok })
		r.finish()
		r.until("closed", func() bool { return c.asked.Load() > 0 })
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if n := c.asked.Load(); n != 1 {
			t.Errorf("it looked %d times for what is to be cleaned up", n)
		}
	})
}
