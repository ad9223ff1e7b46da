package meta_test

import (
	"testing"
	"time"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

func (w *world) replicate(i int, n ring.TenantNumber, rf uint8) {
	w.propose(i, ring.Entry{Kind: ring.KindIntent, Intent: &ring.Intent{Verb: ring.VerbReplicate, Tenant: n, RF: rf, CreatedAtMs: 9}})
}

// settledAt says that no change is open or wanted, and that a tenant has that factor.
func settledAt(name string, rf int) func(*schema.Snapshot) bool {
	return func(s *schema.Snapshot) bool {
		t, ok := s.Tenant(name)
		return ok && t.RF == rf && t.NextRF == 0 && s.Change == nil && len(s.Ring.Intents()) == 0
	}
}

// The replication factor of a tenant goes down and up again, each a change of the layout
// of its own.
func TestFactorGoesDownAndUp(t *testing.T) {
	w := grown(t, 80, 4)
	w.create(0, "shop")
	w.until("the tenant", settledAt("shop", 3))
	shop, _ := w.nodes[0].core.Snapshot().Tenant("shop")
	for i, rf := range []int{1, 4, 7, 2} {
		w.replicate(i, shop.Number, uint8(rf))
		w.until("another factor", settledAt("shop", rf))
	}
	w.rest(4)
	s := w.nodes[0].core.Snapshot()
	if got, _ := s.Tenant("shop"); got.Born != 3 || got.Number != shop.Number || got.UpdatedAt.Before(got.CreatedAt) {
		t.Errorf("%+v", got)
	}
	if got, _ := s.Tenant(ring.DefaultTenantName); got.RF != 3 || got.Born != 0 {
		t.Errorf("another tenant: %+v", got)
	}
	if w.steps["propose"] != 4 || w.steps["finalize"] != 4 || w.steps["abort"] != 0 {
		t.Errorf("it took %v", w.steps)
	}
}

// Who is to keep a tenant with fewer copies has to be brought level: while one of them is
// not, nothing goes on.
func TestShrinkingWaitsForAllThatStay(t *testing.T) {
	w := grown(t, 81, 3)
	w.create(0, "shop")
	w.until("the tenant", settledAt("shop", 3))
	w.nodes[2].idle = true
	n, _ := w.nodes[0].core.Snapshot().Tenant("shop")
	w.replicate(0, n.Number, 2)
	w.until("the change is open", func(s *schema.Snapshot) bool { return s.Change != nil })
	w.calm(200)
	if s := w.nodes[0].core.Snapshot(); s.Change == nil || s.Change.Stage != ring.Proposed {
		t.Fatalf("it went on without %s", w.nodes[2].name)
	}
	w.nodes[2].idle = false
	w.until("it is done", settledAt("shop", 2))
}

// A tenant is deleted while its factor is changed: the change ends by itself.
func TestDeletedWhileItsFactorChanges(t *testing.T) {
	w := grown(t, 82, 3)
	w.create(0, "shop")
	w.until("the tenant", settledAt("shop", 3))
	for _, m := range w.nodes {
		m.idle = true
	}
	n, _ := w.nodes[0].core.Snapshot().Tenant("shop")
	w.replicate(0, n.Number, 1)
	w.until("the change is open", func(s *schema.Snapshot) bool { return s.Change != nil })
	// Nobody gains for anybody else: without the tenant there is nothing to wait for.
	w.propose(1, ring.Entry{Kind: ring.KindTenantDelete, Delete: &ring.TenantDelete{Number: n.Number}})
	w.until("it is over", func(s *schema.Snapshot) bool { return s.Change == nil && s.Deleted(n.Number) })
	w.rest(3)
	if w.steps["tenant-delete"] != 1 || w.steps["finalize"] != 1 {
		t.Errorf("it took %v", w.steps)
	}
}

// Replication factors change and tenants are deleted, while a node joins, under lost,
// repeated and late messages, crashes and failing writes.
func TestFactorsUnderFaults(t *testing.T) {
	seeds := 12
	if testing.Short() {
		seeds = 5
	}
	steps := map[string]int{}
	changed, deleted := 0, 0 // before it got calm
	for seed := range seeds {
		w := grown(t, uint64(3000+seed), 3)
		w.slow, w.mild = seed%3, true
		w.hurry(meta.DriverOptions{AutoApply: true, Settle: 20 * time.Millisecond, Stagger: 200 * time.Millisecond, Patience: 100 * time.Millisecond})
		for _, i := range w.join("n4") {
			w.boot(i)
		}
		for range 4000 {
			w.faults()
			i := w.rng.IntN(len(w.nodes))
			if m := w.nodes[i]; w.rng.IntN(60) == 0 && m.core != nil && m.core.Ready() && m.step == "" && m.want == "" {
				all := m.core.Snapshot().Tenants()
				n := all[w.rng.IntN(len(all))].Number
				if w.rng.IntN(4) > 0 || n == ring.DefaultTenant {
					w.replicate(i, n, uint8(1+w.rng.IntN(5)))
				} else {
					w.propose(i, ring.Entry{Kind: ring.KindTenantDelete, Delete: &ring.TenantDelete{Number: n}})
					clear(w.won) // the name may be given out again
				}
			}
		}
		deleted += w.steps["tenant-delete"]
		for _, m := range w.nodes {
			if m.core != nil && len(m.core.Snapshot().OwnClasses()) > 0 && w.steps["finalize"] > 0 {
				changed++
				break
			}
		}
		w.until("four nodes", layoutOf("n1", "n2", "n3", "n4"))
		w.until("nothing is wanted", func(s *schema.Snapshot) bool { return s.Change == nil && len(s.Ring.Intents()) == 0 })
		w.rest(4)
		for k, n := range w.steps { //seams:ordered sums
			steps[k] += n
		}
	}
	t.Logf("%v; %d with a changed factor and %d deletions under faults", steps, changed, deleted)
	if changed == 0 || deleted == 0 {
		t.Error("the schedules are too hostile to mean anything")
	}
}
