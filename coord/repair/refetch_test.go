package repair

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// quarantine keeps node 2's partitions under quarantine until they were fetched.
type quarantine struct{ on [2]atomic.Bool }

func (q *quarantine) edit(i int, o *Options) {
	if i != 2 {
		return
	}
	o.Quarantined = func(p ring.Partition) bool { return q.on[p].Load() }
	o.Fetched = func(list []ring.Partition) error {
		for _, p := range list {
			q.on[p].Store(false)
		}
		return nil
	}
}

// TestRefetch: a copy that has lost some of its data, and got back some that had been
// deleted and collected everywhere, gets what the others have, their records of
// idempotency keys included, and is served again.
func TestRefetch(t *testing.T) {
	for _, wiped := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var q quarantine
			c := newCluster(t, 3, 2, 3, q.edit)
			random := rand.New(rand.NewPCG(4, 4))
			c.diverge(random, 200)
			old := c.put(0, tenantA, "deleted", "v", 1, 2)
			c.put(0, tenantA, "deleted", "", 1, 2)
			if run := c.repairNow(0); run.Error != "" {
				t.Fatalf("the run ended with %+v", run)
			}
			for k := range 60 { // not confirmed yet
				c.put(k%2, tenantB, fmt.Sprint("late", k), "v", (k+1)%2)
			}
			for k := range 7 {
				key := fmt.Sprint("id", k)
				row := RecordRow{Tenant: tenantA, Token: ring.Token(uint64(k) << 62), IdempotencyKey: []byte(key)}
				c.data(k % 2).records[key] = row
			}
			c.data(2).lose(random, wiped)
			c.data(2).join(tenantA, "deleted", old)
			q.on[0].Store(true)
			q.on[1].Store(true)
			c.nodes[2].m.Start()
			time.Sleep(2 * time.Minute)
			if q.on[0].Load() || q.on[1].Load() {
				t.Fatalf("not fetched: %+v", c.nodes[2].m.Status().Waiting)
			}
			if d := c.same(0, 1, 2); d != "" {
				t.Fatal(d)
			}
			if n := len(c.data(2).records); n != 7 {
				t.Errorf("it has %d records of 7", n)
			}
			if o := c.data(2).rows[tenantA]["deleted"]; len(o.Siblings) > 0 {
				t.Errorf("a value came back that all had deleted: %+v", o)
			}
			told := false
			c.mu.Lock()
			for _, n := range c.nodes[2].notes {
				told = told || strings.Contains(n.Text, "fetched again")
			}
			c.mu.Unlock()
			if st := c.nodes[2].m.Status(); st.Refetched == 0 || !told {
				t.Errorf("status %+v, told %v", st, told)
			}
		})
	}
}

// lose loses half of the data, or all of it and what was known of it.
func (f *fakeReplica) lose(random *rand.Rand, all bool) {
	if all {
		f.wipe()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, rows := range f.rows {
		for key := range rows {
			if random.IntN(2) == 0 {
				delete(rows, key)
			}
		}
	}
}

// TestRefetchNeedsOwners: too few of the others could lack what was acknowledged.
func TestRefetchNeedsOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q quarantine
		c := newCluster(t, 3, 2, 3, q.edit)
		c.put(0, tenantA, "key", "v", 1)
		c.setUp(1, false)
		q.on[0].Store(true)
		q.on[1].Store(true)
		c.nodes[2].m.Start()
		time.Sleep(2 * time.Minute)
		if !q.on[0].Load() || !q.on[1].Load() {
			t.Fatal("fetched from one owner of two")
		}
		if st := c.nodes[2].m.Status(); !strings.Contains(st.Waiting[0], "waiting for b") {
			t.Errorf("waiting: %q", st.Waiting[0])
		}
		c.setUp(1, true)
		time.Sleep(2 * time.Minute)
		if q.on[0].Load() || q.on[1].Load() {
			t.Error("not fetched though all are there")
		}
	})
}

// TestRefetchAlone: what nobody else has stays under quarantine, and that is said.
func TestRefetchAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q quarantine
		c := newCluster(t, 3, 2, 1, q.edit)
		q.on[0].Store(true)
		q.on[1].Store(true)
		c.nodes[2].m.Start()
		time.Sleep(time.Minute)
		for p := range ring.Partition(2) {
			if owned := c.layout.IsOwner(c.nodes[2].id, p, 1); owned && !q.on[p].Load() {
				t.Errorf("partition %d was released", p)
			} else if why := c.nodes[2].m.Status().Waiting[p]; owned && !strings.Contains(why, "backup") {
				t.Errorf("partition %d: %q", p, why)
			}
		}
	})
}

// TestQuarantineVoidsRound: while an owner's copy may have lost something, nothing is
// confirmed.
func TestQuarantineVoidsRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q quarantine
		c := newCluster(t, 3, 2, 3, q.edit)
		c.put(0, tenantA, "key", "v", 1, 2)
		q.on[0].Store(true)
		q.on[1].Store(true)
		run := c.repairNow(0)
		if run.Confirmed != 0 || !strings.Contains(run.Error, errQuarantined.Error()) || !c.nothingConfirmed() {
			t.Errorf("the run ended with %+v", run)
		}
	})
}

// TestDirtyIsTold: whoever does not drive tells who does.
func TestDirtyIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 2, 3, nil)
		for _, n := range c.nodes {
			n.m.Start()
		}
		time.Sleep(time.Minute)
		c.put(2, tenantA, "key", "v")
		_, p := c.data(2).place(tenantA, "key")
		c.nodes[2].m.Dirty(p)
		time.Sleep(time.Minute)
		if d := c.same(0, 1, 2); d != "" {
			t.Fatal(d)
		}
	})
}

// TestDamageIsLeft: where an owner has nothing of what all had, nothing is removed, and
// it is said.
func TestDamageIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 2, 3, nil)
		c.put(0, tenantA, "key", "v", 1, 2)
		c.repairNow(0)
		c.data(1).mu.Lock()
		c.data(1).rows[tenantA] = map[string]causal.Object{}
		c.data(1).mu.Unlock()
		c.repairNow(0)
		if d := c.same(0, 2); d != "" {
			t.Fatal(d)
		}
		if o := c.data(0).rows[tenantA]["key"]; len(o.Siblings) != 1 {
			t.Error("the last copies were removed")
		}
		if st := c.nodes[0].m.Status(); st.Damaged == 0 {
			t.Errorf("status %+v", st)
		}
	})
}

// TestRefetchMetAgain: a partition of which more was lost while it was fetched is fetched
// once more.
func TestRefetchMetAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q quarantine
		refused := 0
		c := newCluster(t, 3, 2, 3, func(i int, o *Options) {
			if q.edit(i, o); i != 2 {
				return
			}
			serve := o.Fetched
			o.Fetched = func(list []ring.Partition) error {
				if refused++; refused == 1 {
					return nil // they stay under quarantine
				}
				return serve(list)
			}
		})
		c.put(0, tenantA, "key", "v", 1)
		q.on[0].Store(true)
		q.on[1].Store(true)
		c.nodes[2].m.Start()
		time.Sleep(2 * time.Minute)
		if q.on[0].Load() || q.on[1].Load() {
			t.Errorf("still under quarantine: %+v", c.nodes[2].m.Status().Waiting)
		}
		told := false
		c.mu.Lock()
		for _, n := range c.nodes[2].notes {
			told = told || strings.Contains(n.Text, "more damage")
		}
		c.mu.Unlock()
		if !told {
			t.Error("nobody was told why")
		}
	})
}

// TestRefetchTellsOnce: what keeps many partitions under quarantine is told once, not for
// each of them, nor at each attempt.
func TestRefetchTellsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q quarantine
		c := newCluster(t, 3, 2, 3, q.edit)
		c.setUp(1, false)
		q.on[0].Store(true)
		q.on[1].Store(true)
		c.nodes[2].m.Start()
		time.Sleep(10 * time.Minute)
		var told []string
		c.mu.Lock()
		for _, n := range c.nodes[2].notes {
			if strings.Contains(n.Text, "under quarantine") {
				told = append(told, n.Text)
			}
		}
		c.mu.Unlock()
		if len(told) != 1 || !strings.HasPrefix(told[0], "2 partitions under quarantine: ") {
			t.Errorf("told %q", told)
		}
	})
}

// TestRefetchOfTwo: two owners of three that are damaged at once cannot heal each other:
// nothing is made up, and what is lost is said, once.
func TestRefetchOfTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		damaged := func(p ring.Partition) bool { return true }
		c := newCluster(t, 3, 2, 3, func(i int, o *Options) {
			if i > 0 {
				o.Quarantined = damaged
				o.Fetched = func([]ring.Partition) error { t.Error("served"); return nil }
			}
		})
		c.put(0, tenantA, "key", "v")
		c.nodes[1].m.Start()
		c.nodes[2].m.Start()
		time.Sleep(10 * time.Minute)
		for i := 1; i < 3; i++ {
			var told []string
			c.mu.Lock()
			for _, n := range c.nodes[i].notes {
				told = append(told, n.Text)
			}
			c.mu.Unlock()
			if len(told) != 1 || !strings.Contains(told[0], "only the damaged copies had are lost") || !strings.Contains(told[0], "there are 1") {
				t.Errorf("node %d told %q", i, told)
			}
		}
	})
}

// TestSilentDriver: an owner that cannot tell another one what is to be compared goes on
// with the spans that it drives itself.
func TestSilentDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 16, 2, nil)
		for _, n := range c.nodes {
			n.m.Start()
		}
		time.Sleep(time.Minute)
		// One partition of the nodes 0 and 1, which 0 drives, and a key of 1 and 2.
		first, key, its := -1, "", ring.Partition(0)
		for p := range ring.Partition(16) {
			if c.layout.IsOwner(c.nodes[0].id, p, 2) && c.layout.IsOwner(c.nodes[1].id, p, 2) {
				first = int(p)
			}
		}
		for i := 0; key == ""; i++ {
			k := fmt.Sprint("key", i)
			if _, p := c.data(1).place(tenantA, k); !c.layout.IsOwner(c.nodes[0].id, p, 2) {
				key, its = k, p
			}
		}
		if first < 0 {
			t.Fatal("the nodes 0 and 1 share no partition")
		}
		var merges []time.Duration
		c.mu.Lock()
		c.lose = func(from, to int, m *coord.Message) bool { return from == 1 && to == 0 && m.Op == coord.OpRepair }
		c.seen = func(_, _ int, m *coord.Message) {
			if m.Op == coord.OpMerge {
				merges = append(merges, time.Until(m.Deadline))
			}
		}
		c.mu.Unlock()
		c.nodes[1].m.Dirty(ring.Partition(first))
		time.Sleep(5 * time.Second)
		c.put(1, tenantA, key, "v")
		c.nodes[1].m.Dirty(its)
		time.Sleep(20 * time.Second)
		if len(c.data(2).sorted(Range{Partition: its, Tenant: tenantA, Last: ^ring.Token(0)})) != 1 {
			t.Error("the partition of the nodes 1 and 2 waited for node 0")
		}
		// What repair sends is over when rounds take writes for over.
		if len(merges) != 1 || merges[0] > c.nodes[1].m.opts.Settle {
			t.Errorf("merges were given %v", merges)
		}
		c.mu.Lock()
		c.lose = nil
		c.mu.Unlock()
		time.Sleep(2 * askTimeout) // what was lost ends
	})
}
