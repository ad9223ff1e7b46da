package repair

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// arrive has an object come to a node that gains its key, as writes, write-backs and
// hints do.
func (r *ringed) arrive(i int, t ring.TenantNumber, key string, o causal.Object) (err error) {
	tok, p := r.nodes[i].data.place(t, key)
	a := coord.Address{Partition: p, Tenant: t, Token: tok, Key: []byte(key), Class: r.tenants[0].Class(), LWW: lww(t)}
	it := coord.MergeItem{Address: a, Object: o.Append(nil), LastWriteWins: lww(t), Gaining: r.log.Change().ProposedAt}
	r.nodes[i].data.Merge([]coord.MergeItem{it}, func(_ int, _ []byte, e error) { err = e })
	return err
}

// gained are so many keys that a node is to own in a layout of so many nodes.
func (r *ringed) gained(prefix string, n, node, nodes int) (keys []string) {
	next, err := ring.NewLayout(8, r.members(0, nodes))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; len(keys) < n; i++ {
		if key := fmt.Sprint(prefix, i); slices.Contains(r.owners(next, tenantB, key), node) {
			keys = append(keys, key)
		}
	}
	return keys
}

// confirmed waits until all owners of keys know that all of them have had what is there.
func (r *ringed) confirmed(keys []string) {
	for p := range 8 {
		r.nodes[0].m.Dirty(ring.Partition(p))
	}
	r.until("confirmed", func() bool {
		for _, key := range keys {
			f := r.nodes[0].data
			_, p := f.place(tenantB, key)
			f.mu.Lock()
			c, o := f.released[f.span(tenantB, p)], f.rows[tenantB][key]
			f.mu.Unlock()
			if !c.Seen.CoversAll(o.Context) {
				return false
			}
		}
		return true
	})
}

// TestGainerIsWholeUntilTold: values that were confirmed long ago get company while a
// node gains them that has not fetched anything. What comes to it then covers both, and
// if it left out what is confirmed, nobody could bring that back.
func TestGainerIsWholeUntilTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 4, 3, 3)
		keys := r.gained("pair", 40, 3, 4)
		for _, key := range keys {
			r.write(tenantB, key, "v", 3)
		}
		r.start()
		r.confirmed(keys)
		r.nodes[3].data.setFail(func(op string) error {
			if op == "sums" {
				return errClosed // nothing can be fetched
			}
			return nil
		})
		r.propose(r.members(0, 4))
		r.install()
		for _, key := range keys {
			_, p := r.nodes[3].data.place(tenantB, key)
			r.until("known", func() bool { return r.nodes[3].m.Horizon(p, func() {}) })
		}
		for _, key := range keys {
			owners := r.owners(r.log.Layout(), tenantB, key)
			held := r.nodes[owners[1]].data.stored(tenantB, key)
			w := r.nodes[owners[1]].data.mint(tenantB, key, "w")
			w.Context = causal.NewContext(w.Siblings[0].Dot) // it stands beside what is there
			both := causal.Join(&held, &w)
			for _, i := range owners {
				r.nodes[i].data.join(tenantB, key, both)
			}
			if err := r.arrive(3, tenantB, key, both); err != nil {
				t.Errorf("%s: %v", key, err)
			}
		}
		r.nodes[3].data.setFail(nil)
		r.finish()
		r.cleaned()
		for _, key := range keys {
			for _, i := range r.owners(r.log.Layout(), tenantB, key) {
				if v := r.values(i, tenantB, key); len(v) != 2 {
					t.Errorf("node %d has %q of %s", i, v, key)
				}
			}
		}
		r.check()
	})
}

// TestComparedOnceAllWasTold: what was deleted and collected comes to a gainer behind the
// comparison that told it all, in the last moment in which it joins whole. It is gone when
// the node says that it has all, though the others had nothing for it; and the same comes
// in no more.
func TestComparedOnceAllWasTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 4, 3, 3)
		r.fill(100)
		keys := r.gained("dead", 40, 3, 4)
		old := make(map[string]causal.Object)
		for _, key := range keys {
			old[key] = r.write(tenantB, key, "old", 3)
			r.write(tenantB, key, "", 3)
		}
		r.start()
		r.confirmed(keys)
		r.until("collected", func() bool {
			return !slices.ContainsFunc(keys, func(key string) bool { return len(r.nodes[0].data.stored(tenantB, key).Siblings) > 0 })
		})
		time.Sleep(time.Minute)
		r.propose(r.members(0, 4))
		// It has everything already, so that the comparisons bring nothing.
		for tenant, filled := range r.filled {
			for key := range filled {
				if slices.Contains(r.owners(r.log.Change().Next, tenant, key), 3) {
					r.nodes[3].data.join(tenant, key, r.nodes[0].data.stored(tenant, key))
				}
			}
		}
		var came atomic.Int64 // partitions are gained side by side
		f := r.nodes[3].data
		f.mu.Lock()
		f.atTold = func(s Span) {
			for _, key := range keys {
				if _, p := f.place(tenantB, key); p == s.Partition {
					if err := r.arrive(3, tenantB, key, old[key]); err != nil || len(r.values(3, tenantB, key)) != 1 {
						t.Errorf("%s did not come: %v", key, err)
					}
					came.Add(1)
				}
			}
		}
		f.mu.Unlock()
		r.install()
		r.until("synced", func() bool { return r.report(r.nodes[3].id).Synced > 0 })
		if n := came.Load(); n < int64(len(keys)) {
			t.Errorf("%d of %d came", n, len(keys))
		}
		for _, key := range keys {
			if v := r.values(3, tenantB, key); len(v) > 0 {
				t.Errorf("%s is %q, which was deleted", key, v)
			}
			if err := r.arrive(3, tenantB, key, old[key]); err != nil && !coord.IsStripped(err) || len(r.values(3, tenantB, key)) > 0 {
				t.Errorf("%s came in again: %v", key, err)
			}
		}
		r.finish()
		r.cleaned()
		r.check()
	})
}
