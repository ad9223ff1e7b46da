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

// refactor carries out a change of one tenant's replication factor.
func (r *ringed) refactor(t ring.TenantNumber, rf uint8) {
	r.t.Helper()
	r.proposeLayout(r.log.Layout(), ring.Factor{Tenant: t, RF: rf, AskedAtMs: 1})
	r.install()
}

// TestFactorChanges: a tenant gets more copies, and then fewer, and each time all owners
// have what any acknowledged write may be at alone, and nobody else keeps anything. Of the
// other tenants nothing is fetched, and nothing is compared because of it.
func TestFactorChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 5, 5, 3)
		r.fill(60)
		r.start()
		time.Sleep(5 * time.Minute) // until all was compared once
		compared, fetched := map[Span]int{}, 0
		r.mu.Lock()
		r.seen = func(_, to int, m *coord.Message) {
			if m.Op != coord.OpRepair {
				return
			}
			q, err := decodeRequest(m.Body)
			if err != nil {
				t.Error(err)
				return
			}
			for _, s := range q.spans {
				switch own := s.Class != s.Class.Born(); {
				case q.kind == kindState || q.kind == kindSums:
					compared[s.Span]++
				case !own && (q.kind == kindKnown || q.kind == kindObjects || q.kind == kindDiff):
					fetched++
				}
			}
		}
		r.mu.Unlock()
		for i, rf := range []uint8{5, 2, 1, 4} {
			key := fmt.Sprint("half", i)
			r.give(tenantB, key, "v")
			// One that only a quorum has, of whom as few as may be stay.
			owners := r.owners(r.log.Layout(), tenantA, "key")
			some := owners[len(owners)-len(owners)/2-1:]
			value := fmt.Sprint("value", i)
			r.put(some[0], tenantA, "key", value, some[1:]...)
			r.refactor(tenantA, rf)
			r.finish()
			for _, i := range r.owners(r.log.Layout(), tenantA, "key") {
				if slices.Contains(owners, i) && int(rf) > len(owners) {
					continue // it is not waited for, and the next round brings it what it lacks
				}
				if v := r.values(i, tenantA, "key"); !slices.Equal(v, []string{value}) {
					t.Errorf("with %d copies node %d has %q of the last write, not %q", rf, i, v, value)
				}
			}
			r.cleaned()
			time.Sleep(2 * time.Minute) // a round
			r.check()
		}
		time.Sleep(5 * time.Minute)
		r.mu.Lock()
		defer r.mu.Unlock()
		own := 0
		for s, n := range compared {
			if s.Class == s.Class.Born() {
				t.Errorf("%v was asked about %d times because another one was changed", s, n)
			} else {
				own++
			}
		}
		if fetched > 0 || own != 8 {
			t.Errorf("%d questions about others, and %d spans of the one that changes were compared", fetched, own)
		}
	})
}

// TestFactorChangeIsGivenUp: what the tenant was to have more copies at is dropped there,
// and what only those have is handed over.
func TestFactorChangeIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 5, 5, 3)
		r.fill(60)
		r.start()
		r.refactor(tenantA, 5)
		r.until("synced", func() bool { ok, _ := r.log.MayCommit(r.report); return ok })
		old := r.owners(r.log.Layout(), tenantA, "alone")
		for i := range r.nodes {
			if !slices.Contains(old, i) {
				r.put(i, tenantA, "alone", "v")
				break
			}
		}
		r.step(ring.KindAbort)
		r.install()
		r.cleaned()
		r.filled[tenantA]["alone"] = "v"
		r.check()
	})
}

// TestConfirmedOfParted: what was confirmed and collected of a tenant before it had a class
// for itself stays superseded, also where it comes late to nodes that get it; and what is
// confirmed of the others later says nothing of it.
func TestConfirmedOfParted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 5, 5, 3)
		o := r.write(tenantA, "gone", "v", 7)
		time.Sleep(time.Second)
		r.give(tenantA, "gone", "")
		for i := range r.nodes {
			r.repairNow(i)
		}
		if held := r.nodes[r.owners(r.log.Layout(), tenantA, "gone")[0]].data.stored(tenantA, "gone"); !held.IsZero() {
			t.Fatal("the delete is not collected")
		}
		r.refactor(tenantA, 5)
		r.until("synced", func() bool { ok, _ := r.log.MayCommit(r.report); return ok })
		r.finish()
		_, p := r.nodes[0].data.place(tenantA, "gone")
		for i := range r.nodes {
			f := r.nodes[i].data
			f.mu.Lock()
			own := f.confirmed[Span{p, ring.OwnClass(tenantA, 3)}]
			f.mu.Unlock()
			if !own.Seen.Covers(o.Siblings[0].Dot) {
				t.Errorf("node %d does not know that the write is superseded", i)
			}
		}
	})
}

// TestHorizonOfDeletedTenant: what waits until it is known what was confirmed of all that is
// gained of a partition goes on once the tenant is deleted of which nobody could tell.
func TestHorizonOfDeletedTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 5, 5, 3)
		r.start()
		r.refactor(tenantA, 1)
		r.finish()
		r.cleaned()
		const p = ring.Partition(0)
		owns := func(rf int) func(*fakeNode) bool {
			return func(n *fakeNode) bool { return r.log.Layout().IsOwner(n.id, p, rf) }
		}
		gainer := slices.IndexFunc(r.nodes, func(n *fakeNode) bool { return !owns(3)(n) })
		r.setUp(slices.IndexFunc(r.nodes, owns(1)), false)
		r.proposeLayout(r.log.Layout(), ring.Factor{Tenant: tenantA, RF: 5, AskedAtMs: 1}, ring.Factor{Tenant: tenantB, RF: 5, AskedAtMs: 1})
		r.install()
		var calls atomic.Int64
		ask := func() bool { return r.nodes[gainer].m.Horizon(p, func() { calls.Add(1) }) }
		if ask() {
			t.Fatal("it does not wait")
		}
		time.Sleep(time.Minute)
		if n := calls.Load(); n != 0 {
			t.Fatalf("%d went on though the only owner of a tenant is away", n)
		}
		r.add(&ring.Entry{Kind: ring.KindTenantDelete, Delete: &ring.TenantDelete{Number: tenantA, DeletedAtMs: 1}})
		r.install()
		time.Sleep(3 * tick)
		if !ask() {
			t.Error("it waits though all is known of the tenant that is left")
		}
		if n := calls.Load(); n != 1 {
			t.Errorf("%d of 1 went on", n)
		}
	})
}

// damageable has what a node says of one partition be settable: whether that is under
// quarantine, until all of it was fetched. It is called before the node is started.
func (r *ringed) damageable(node int, p ring.Partition) (quarantined *atomic.Bool) {
	o := &r.nodes[node].m.opts
	quarantined = new(atomic.Bool)
	o.Quarantined = func(of ring.Partition) bool { return of == p && quarantined.Load() }
	o.Fetched = func(list []ring.Partition) error {
		if slices.Contains(list, p) {
			quarantined.Store(false)
		}
		return nil
	}
	return quarantined
}

// damage has a node lose a key and set its partition aside.
func (r *ringed) damage(node int, t ring.TenantNumber, key string, quarantined *atomic.Bool) {
	f := r.nodes[node].data
	f.mu.Lock()
	delete(f.rows[t], key)
	f.mu.Unlock()
	quarantined.Store(true)
}

// partition is that of a key.
func (r *ringed) partition(t ring.TenantNumber, key string) ring.Partition {
	_, p := r.nodes[0].data.place(t, key)
	return p
}

// TestRefetchOfParted: a copy that was damaged is not served again before all tenants of it
// were fetched, also one that gets a class for itself meanwhile.
func TestRefetchOfParted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 5, 5, 3)
		r.fill(60)
		r.give(tenantA, "key", "v")
		n := r.owners(r.log.Layout(), tenantA, "key")[1]
		quarantined := r.damageable(n, r.partition(tenantA, "key"))
		r.damage(n, tenantA, "key", quarantined)
		r.start()
		time.Sleep(tick + tick/2) // it has begun to wait for what was under way
		r.refactor(tenantA, 5)
		r.until("it is served again", func() bool { return !quarantined.Load() })
		if o := r.nodes[n].data.stored(tenantA, "key"); o.IsZero() {
			t.Error("a write is missing there that it had acknowledged")
		}
	})
}

// TestRefetchBesideGains: what is fetched of a damaged partition because one tenant changes
// is not all that was lost there.
func TestRefetchBesideGains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 5, 5, 3)
		r.fill(60)
		r.give(tenantB, "key", "v")
		n := r.owners(r.log.Layout(), tenantB, "key")[0]
		quarantined := r.damageable(n, r.partition(tenantB, "key"))
		r.damage(n, tenantB, "key", quarantined)
		r.start()
		r.refactor(tenantA, 2)
		r.until("it is served again", func() bool { return !quarantined.Load() })
		if o := r.nodes[n].data.stored(tenantB, "key"); o.IsZero() {
			t.Error("a write is missing there that it had acknowledged")
		}
		r.finish()
		r.cleaned()
		r.check()
	})
}

// TestRefetchOfGained: what a node has fetched of a partition that it is about to own, and
// what it owns of that, is fetched again if it is damaged before the change is over.
func TestRefetchOfGained(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRinged(t, 5, 5, 3)
			r.fill(60)
			r.give(tenantA, "key", "v")
			p := r.partition(tenantA, "key")
			n := slices.IndexFunc(r.nodes, func(n *fakeNode) bool { return !r.log.Layout().IsOwner(n.id, p, 3) })
			quarantined := r.damageable(n, p)
			r.start()
			r.refactor(tenantB, 5)
			r.finish()
			r.refactor(tenantA, 5)
			r.until("synced", func() bool { ok, _ := r.log.MayCommit(r.report); return ok })
			r.damage(n, tenantA, "key", quarantined)
			commit := func() {
				r.step(ring.KindCommit)
				r.install()
			}
			if late {
				commit()
			}
			time.Sleep(2 * time.Minute)
			if o := r.nodes[n].data.stored(tenantA, "key"); o.IsZero() && !quarantined.Load() {
				t.Errorf("late %v: it is served though a write is missing there", late)
			}
			if !late {
				commit()
			}
			r.step(ring.KindFinalize)
			r.install()
			r.until("it is served again", func() bool { return !quarantined.Load() })
			if o := r.nodes[n].data.stored(tenantA, "key"); o.IsZero() {
				t.Errorf("late %v: a write is missing there that all owners had", late)
			}
		})
	}
}

// TestAdoptIsOvertakenByTheRing: what an owner adopts when a tenant has just left the class is
// not adopted of the tenant, so it is not released: those that have not heard of that would
// collect deletes of the tenant that the owner still shows.
func TestAdoptIsOvertakenByTheRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 3, 3, 3)
		r.fill(20)
		r.proposeLayout(r.log.Layout(), ring.Factor{Tenant: tenantA, RF: 5, AskedAtMs: 1})
		var adopted atomic.Int32
		for i, n := range r.nodes {
			n.data.setFail(func(op string) error {
				if op == "adopt" {
					adopted.Add(1)
					if i == 2 {
						r.install(i)
					}
				}
				return nil
			})
		}
		r.repairNow(0)
		if adopted.Load() < 3 {
			t.Fatal("no owner adopts anything")
		}
		for i, n := range r.nodes {
			//seams:ordered all are to be nothing
			for span, c := range n.data.gone() {
				if !c.IsZero() {
					t.Errorf("node %d takes %v to be released of %v, which node 2 has not adopted of the tenant that left it", i, c, span)
				}
			}
		}
	})
}
