package repair

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// voteFor opens votes at a replica.
func (f *fakeReplica) voteFor(ids ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		f.open = append(f.open, idRow(id))
	}
}

// left are the idempotency keys of votes that are open.
func (f *fakeReplica) left() (ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.open {
		ids = append(ids, string(r.IdempotencyKey))
	}
	return ids
}

// knows has a replica remember the write of an idempotency key as made.
func (f *fakeReplica) knows(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := idRow(id)
	r.Record = []byte("made")
	f.records[id] = r
}

func (f *fakeReplica) remembers(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return string(f.records[id].Record) == "made"
}

func idRow(id string) RecordRow {
	return RecordRow{Tenant: tenantA, Token: ring.Token(1) << 63, IdempotencyKey: []byte(id)}
}

// TestOutvotedAreReplaced: a vote for an attempt that lost, at an owner that was never told
// what the others agreed on, does not hold back what is confirmed: it asks them. One for
// which nobody knows of a write stays. Nobody is asked about what another has answered, nor
// while no votes are open.
func TestOutvotedAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 2, 3, nil)
		for k := range 20 {
			c.put(0, tenantA, fmt.Sprint("key", k), "v", 1, 2)
		}
		var asked [3]atomic.Int64 // how many votes each was asked about
		c.seen = func(_, to int, m *coord.Message) {
			if q, err := decodeRequest(m.Body); m.Op == coord.OpRepair && err == nil && q.kind == kindApplied {
				asked[to].Add(int64(len(q.rows)))
			}
		}
		c.nodes[1].m.Start()
		c.repairNow(0)
		time.Sleep(time.Minute) // of the bubble
		for i := range asked {
			if n := asked[i].Load(); n > 0 {
				t.Errorf("without votes node %d was asked about %d", i, n)
			}
		}
		actor := c.nodes[0].data.actor
		confirmed := func() (n uint64) {
			for _, conf := range c.data(2).known() {
				n = max(n, conf.Seen.Counter(actor))
			}
			return n
		}
		all := confirmed()
		c.data(1).voteFor("first", "last", "nobody")
		many := 2*maxVotes - 2
		for i := range many {
			c.data(1).voteFor(fmt.Sprint("more", i))
		}
		c.data(0).knows("first")
		c.data(2).knows("last")
		c.forget()
		c.repairNow(0)
		time.Sleep(time.Minute) // of the bubble
		if n := confirmed(); n > 0 {
			t.Errorf("%d is confirmed over votes", n)
		}
		for i, want := range []int{many + 3, 0, many + 2} {
			if n := asked[i].Load(); n != int64(want) {
				t.Errorf("node %d was asked about %d, not %d", i, n, want)
			}
		}
		for _, id := range []string{"first", "last"} {
			if !c.data(1).remembers(id) {
				t.Errorf("%s is still a vote", id)
			}
		}
		left := c.data(1).left()
		if len(left) != many+1 || !slices.Contains(left, "nobody") {
			t.Errorf("%d votes are left", len(left))
		}
		for _, id := range left {
			c.data(2).knows(id)
		}
		c.repairNow(0)
		time.Sleep(time.Minute) // of the bubble
		c.repairNow(0)
		if n := confirmed(); n != all || all == 0 {
			t.Errorf("%d is confirmed once all is known, and %d before the votes", n, all)
		}
	})
}

// TestOutvotedWithoutAnOwner: who does not answer does not keep the others from being asked.
func TestOutvotedWithoutAnOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 2, 3, nil)
		c.put(0, tenantA, "key", "v", 1, 2)
		c.lose = func(_, to int, m *coord.Message) bool {
			q, err := decodeRequest(m.Body)
			return to == 0 && m.Op == coord.OpRepair && err == nil && q.kind == kindApplied
		}
		c.forget()
		c.data(1).voteFor("id")
		c.data(2).knows("id")
		c.nodes[1].m.Start()
		c.repairNow(0)
		time.Sleep(5 * time.Minute) // of the bubble
		if left := c.data(1).left(); len(left) > 0 || !c.data(1).remembers("id") {
			t.Errorf("%v are left", left)
		}
	})
}
