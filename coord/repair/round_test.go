package repair

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// repairNow has node i repair all it drives, and returns the run when it has ended.
func (c *cluster) repairNow(i int) Run {
	c.t.Helper()
	c.nodes[i].m.Start()
	id, err := c.nodes[i].m.StartRepair("", -1)
	if err != nil {
		c.t.Fatal(err)
	}
	for range 200 {
		time.Sleep(time.Second) // of the bubble
		for _, r := range c.nodes[i].m.Status().Runs {
			if r.ID == id && !r.Ended.IsZero() {
				time.Sleep(5 * time.Second) // until all is released
				return r
			}
		}
	}
	c.t.Fatalf("the run did not end: %+v", c.nodes[i].m.Status())
	return Run{}
}

// diverge writes keys of which each reaches its minter and some of the others.
func (c *cluster) diverge(random *rand.Rand, keys int) {
	for k := range keys {
		t := tenantA
		if k%2 == 1 {
			t = tenantB
		}
		key := fmt.Sprintf("key%04d", k)
		for w := range 1 + random.IntN(3) {
			value := fmt.Sprintf("v%d", w)
			if random.IntN(4) == 0 {
				value = ""
			}
			var to []int
			for i := range c.nodes {
				if random.IntN(3) > 0 {
					to = append(to, i)
				}
			}
			c.put(random.IntN(len(c.nodes)), t, key, value, to...)
		}
	}
}

// TestRoundMakesOwnersEqual: whatever each of them has missed, after one round all
// hold the same, deletes are gone after the next, and nothing is sent to whom has it.
func TestRoundMakesOwnersEqual(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t, 3, 4, 3, nil)
			c.diverge(rand.New(rand.NewPCG(seed, 0)), 300)
			lacking := c.lacking()
			run := c.repairNow(0)
			if run.Error != "" || run.Confirmed != run.Spans || run.Spans != 4 {
				t.Fatalf("the run ended with %+v", run)
			}
			if d := c.same(0, 1, 2); d != "" {
				t.Fatal(d)
			}
			st := c.nodes[0].m.Status()
			if run.RowsSent != uint64(lacking) || run.KeysDiffered == 0 || run.Bytes == 0 {
				t.Errorf("%d were lacking, the run says %+v", lacking, run)
			}
			if got := int(st.Sent + st.Received); got != lacking {
				t.Errorf("%d objects were moved, %d were lacking somewhere", got, lacking)
			}
			// All is confirmed, so that no delete is left anywhere.
			for _, n := range c.nodes {
				for _, rows := range n.data.rows {
					for key, o := range rows {
						for k := range o.Siblings {
							if o.Siblings[k].Tombstone() {
								t.Errorf("node %d still has the delete of %s", n.i, key)
							}
						}
					}
				}
			}
			// Nothing is left to do.
			before := c.nodes[0].m.Status()
			if run := c.repairNow(0); run.Error != "" {
				t.Errorf("the second run ended with %+v", run)
			}
			after := c.nodes[0].m.Status()
			if after.Sent != before.Sent || after.Received != before.Received {
				t.Errorf("the second round moved %d objects", after.Sent+after.Received-before.Sent-before.Received)
			}
		})
	}
}

// lacking counts the (key, owner) pairs that a round has to bring something.
func (c *cluster) lacking() (n int) {
	for _, t := range []ring.TenantNumber{tenantA, tenantB} {
		keys := map[string]bool{}
		for _, node := range c.nodes {
			for key := range node.data.rows[t] {
				keys[key] = true
			}
		}
		for key := range keys {
			var all causal.Object
			for _, node := range c.nodes {
				o := node.data.rows[t][key]
				all = causal.Join(&all, &o)
			}
			for _, node := range c.nodes {
				o := node.data.rows[t][key]
				if len(o.Siblings) != len(all.Siblings) {
					n++
					continue
				}
				for k := range o.Siblings {
					if o.Siblings[k].Dot != all.Siblings[k].Dot {
						n++
						break
					}
				}
			}
		}
	}
	return n
}

// TestOwnerAway: the others are made equal, and nothing is confirmed until it is back;
// that it is back begins the round.
func TestOwnerAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 2, 3, nil)
		c.setUp(2, false)
		for k := range 100 {
			c.put(k%2, tenantA, fmt.Sprint("key", k), "v")
			c.put(k%2, tenantA, fmt.Sprint("gone", k), "")
		}
		run := c.repairNow(0)
		if run.Confirmed != 0 || run.Done != 2 || !strings.Contains(run.Error, "partial: not there: ") {
			t.Fatalf("the run ended with %+v", run)
		}
		if d := c.same(0, 1); d != "" {
			t.Fatal(d)
		}
		if !c.nothingConfirmed() {
			t.Fatal("something was confirmed without an owner")
		}
		if st := c.nodes[0].m.Status(); st.Partial != 2 || st.Repaired != 0 {
			t.Errorf("status %+v", st)
		}
		c.setUp(2, true)
		time.Sleep(time.Minute)
		if d := c.same(0, 1, 2); d != "" {
			t.Fatal(d)
		}
		if st := c.nodes[0].m.Status(); st.Repaired != 2 {
			t.Errorf("repaired %d spans, status %+v", st.Repaired, st)
		}
		// The others know when.
		if st := c.nodes[1].m.Status(); st.Repaired != 2 || st.Oldest.IsZero() {
			t.Errorf("the other's status %+v", st)
		}
	})
}

func (c *cluster) data(i int) *fakeReplica { return c.nodes[i].data }

func (c *cluster) setUp(i int, up bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[i].up = up
}

func (c *cluster) nothingConfirmed() bool {
	for _, n := range c.nodes {
		for _, conf := range n.data.known() {
			if !conf.IsZero() {
				return false
			}
		}
	}
	return true
}

// TestRestartVoidsRound: a round during which an owner is restarted confirms nothing.
func TestRestartVoidsRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 2, 3, nil)
		c.diverge(rand.New(rand.NewPCG(1, 1)), 50)
		restart := true
		c.seen = func(from, to int, m *coord.Message) {
			if q, err := decodeRequest(m.Body); m.Op == coord.OpRepair && err == nil && q.kind == kindSums && restart && to == 1 {
				restart = false
				go c.nodes[1].restart()
			}
		}
		run := c.repairNow(0)
		if run.Confirmed == run.Spans || run.Error == "" {
			t.Fatalf("the run ended with %+v", run)
		}
		if st := c.nodes[0].m.Status(); st.Void == 0 {
			t.Errorf("status %+v", st)
		}
		time.Sleep(2 * time.Minute)
		if d := c.same(0, 1, 2); d != "" {
			t.Fatal(d)
		}
	})
}

// TestYoungWritesAreLeftAlone: what is written while a round runs is neither sent nor
// confirmed.
func TestYoungWritesAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 2, 3, nil)
		wrote, adopted := false, false
		var young causal.Object
		c.seen = func(from, to int, m *coord.Message) {
			q, err := decodeRequest(m.Body)
			switch {
			case adopted:
			case m.Op == coord.OpMerge:
				t.Error("a write under way was sent")
			case m.Op != coord.OpRepair || err != nil:
			case q.kind == kindSums && !wrote && to == 1:
				wrote = true
				young = c.put(1, tenantA, "old", "w")
				c.put(1, tenantB, "young", "w")
			case q.kind == kindAdopt && q.spans[0].repairedAt != 0:
				adopted = true
				for _, s := range q.spans {
					_, p := c.nodes[0].data.place(tenantA, "old")
					if d := young.Siblings[0].Dot; s.Partition == p && s.confirmed.Seen.Covers(d) {
						t.Errorf("%v is confirmed, which was drawn after the round had begun", d)
					}
				}
			}
		}
		c.put(0, tenantA, "old", "v", 2)
		c.data(1).join(tenantA, "old", c.data(0).rows[tenantA]["old"])
		if c.repairNow(0); !adopted {
			t.Error("nothing was confirmed")
		}
		c.repairNow(0)
		if d := c.same(0, 1, 2); d != "" {
			t.Fatal(d)
		}
	})
}

// TestLostMessages: whatever does not arrive, later rounds make all equal and confirm.
func TestLostMessages(t *testing.T) {
	for _, lost := range []kind{kindState, kindAdopt, kindRelease, kindSums, kindDiff} {
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 3, 2, 3, nil)
				c.diverge(rand.New(rand.NewPCG(2, 2)), 100)
				on := true
				c.lose = func(from, to int, m *coord.Message) bool {
					q, err := decodeRequest(m.Body)
					return on && m.Op == coord.OpRepair && err == nil && q.kind == lost && to == 2
				}
				c.repairNow(0)
				c.mu.Lock()
				on = false
				c.mu.Unlock()
				if run := c.repairNow(0); run.Error != "" {
					t.Errorf("the run ended with %+v", run)
				}
				if d := c.same(0, 1, 2); d != "" {
					t.Fatal(d)
				}
				for i := range 3 {
					for p := range 2 {
						span := Span{ring.Partition(p), 3}
						conf, rel := c.data(i).known()[span], c.data(i).gone()[span]
						if first := c.data(0).known()[span]; !conf.Equal(&first) || !rel.Equal(&conf) || conf.IsZero() {
							t.Errorf("node %d, %v: confirmed %v, released %v", i, span, conf, rel)
						}
					}
				}
			})
		})
	}
}

// TestTwoDrivers: rounds of two owners at once do no harm.
func TestTwoDrivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 4, 3, func(i int, o *Options) {
			if i == 1 { // takes the first node for ill
				o.Healthy = func(id ring.NodeID) bool { return id[0] != 1 }
			}
		})
		c.diverge(rand.New(rand.NewPCG(3, 3)), 200)
		c.nodes[1].m.Start()
		c.nodes[2].m.Start()
		c.nodes[0].m.Start()
		time.Sleep(3 * time.Minute)
		if d := c.same(0, 1, 2); d != "" {
			t.Fatal(d)
		}
		if st := c.nodes[0].m.Status(); st.Repaired != 4 {
			t.Errorf("status %+v", st)
		}
	})
}

// TestLastToken: the last range of the last partition is compared like the others.
func TestLastToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, 2, 2, nil)
		// Many keys, and the one with the highest token differs.
		last := ""
		var top ring.Token
		for k := range 2000 {
			key := fmt.Sprint("key", k)
			if tok, _ := c.nodes[0].data.place(tenantA, key); tok > top {
				top, last = tok, key
			}
			c.put(0, tenantA, key, "v", 1)
		}
		delete(c.nodes[1].data.rows[tenantA], last)
		run := c.repairNow(0)
		if d := c.same(0, 1); d != "" || run.Error != "" {
			t.Fatal(run, d)
		}
		if st := c.nodes[0].m.Status(); st.Sent != 1 || st.Received != 0 {
			t.Errorf("status %+v", st)
		}
	})
	first, last := tokens(mustLayout(t), 1)
	p := part{first: first, last: last, leaf: 3, count: 1000}
	if step, rows := p.step(); step != 3 || rows || last != ^ring.Token(0) {
		t.Errorf("step %d, rows %v, last %v", step, rows, last)
	}
}

func mustLayout(t *testing.T) *ring.Layout {
	l, err := ring.NewLayout(2, []ring.LayoutNode{{ID: ring.NodeID{1}, Name: "a", Zone: "z", Capacity: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestGroupOfManyKeys: keys of one group have one token, so no range divides them.
func TestGroupOfManyKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 2, 3, nil)
		for k := range 6000 {
			key := fmt.Sprintf("{group}%05d", k)
			to := []int{1, 2}
			switch k % 1000 {
			case 7:
				to = nil
			case 8:
				to = []int{2}
			}
			c.put(0, tenantA, key, "v", to...)
		}
		run := c.repairNow(0)
		if d := c.same(0, 1, 2); d != "" || run.Error != "" {
			t.Fatal(run, d)
		}
		if st := c.nodes[0].m.Status(); st.Sent != 3*6 {
			t.Errorf("status %+v", st)
		}
	})
}

// TestRangesMissedByDriver: what the driver itself lacks comes in pages, too.
func TestRangesMissedByDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 2, 3, nil)
		for k := range 5000 {
			c.put(1, tenantA, fmt.Sprintf("{group}%05d", k), "v", 2)
		}
		run := c.repairNow(0)
		if d := c.same(0, 1, 2); d != "" || run.Error != "" {
			t.Fatal(run, d)
		}
		if st := c.nodes[0].m.Status(); st.Received != 5000 || st.Sent != 0 {
			t.Errorf("status %+v", st)
		}
	})
}

// TestVotesHoldBackConfirmation: no dot above an open vote is confirmed.
func TestVotesHoldBackConfirmation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 2, 3, nil)
		for k := range 20 {
			c.put(0, tenantA, fmt.Sprint("key", k), "v", 1, 2)
		}
		actor := c.nodes[0].data.actor
		c.data(1).votes = causal.Context{{Actor: actor, Counter: 3}}
		c.repairNow(0)
		for span, conf := range c.data(2).known() {
			if got := conf.Seen.Counter(actor); got > 3 {
				t.Errorf("%v has confirmed %d", span, got)
			}
		}
		c.forget()
		c.repairNow(0)
		for span, conf := range c.data(2).known() {
			if got := conf.Seen.Counter(actor); got > 0 {
				t.Errorf("%v has confirmed %d", span, got)
			}
		}
	})
}

// forget takes back what was confirmed, and has node 1 vote for the first dot.
func (c *cluster) forget() {
	for _, n := range c.nodes {
		n.data.mu.Lock()
		n.data.confirmed, n.data.released = map[Span]causal.Confirmed{}, map[Span]causal.Confirmed{}
		if n.i == 1 {
			n.data.votes = causal.Context{{Actor: c.nodes[0].data.actor, Counter: 0}}
		}
		n.data.mu.Unlock()
		n.m.service.mu.Lock()
		n.m.service.mu.ledger = map[Span]*entry{}
		n.m.service.mu.Unlock()
	}
}

// TestRestartBeforeVotesVoidsRound: also one that is over before anything is compared.
func TestRestartBeforeVotesVoidsRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 2, 3, nil)
		c.put(0, tenantA, "key", "v", 1, 2)
		c.nodes[0].m.Start()
		if _, err := c.nodes[0].m.StartRepair("", -1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2500 * time.Millisecond) // it has begun, and waits for writes
		c.nodes[1].restart()
		time.Sleep(2 * time.Second)
		if st := c.nodes[0].m.Status(); st.Void != 2 || st.Confirmed != 0 {
			t.Errorf("status %+v", st)
		}
	})
}

// TestConfirmWhatBegan: what was written while a round waited is not confirmed by it,
// though all owners may have it.
func TestConfirmWhatBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 2, 3, nil)
		c.put(0, tenantA, "key", "v", 1, 2)
		c.nodes[0].m.Start()
		if _, err := c.nodes[0].m.StartRepair("", -1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2500 * time.Millisecond)
		o := c.put(0, tenantA, "key", "w", 1, 2)
		time.Sleep(2 * time.Second)
		if st := c.nodes[0].m.Status(); st.Confirmed != 2 {
			t.Errorf("status %+v", st)
		}
		for _, conf := range c.data(1).known() {
			if d := o.Siblings[0].Dot; d.Counter > 1 && conf.Seen.Covers(d) {
				t.Errorf("%v is confirmed: %+v", d, conf)
			}
		}
	})
}

// TestPauseIsAnotherSession: an owner that stood still is to others as if it had been
// restarted.
func TestPauseIsAnotherSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 2, 3, nil)
		s := &c.nodes[1].m.service
		first, err := s.session(Span{0, 3})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute + time.Second/10) // between two ticks
		if again, _ := s.session(Span{0, 3}); again != first {
			t.Error("another session without a pause")
		}
		s.mu.Lock()
		s.mu.stop() // no tick comes while the process is stopped
		s.mu.Unlock()
		time.Sleep(2 * time.Second)
		if again, _ := s.session(Span{0, 3}); again == first {
			t.Error("the same session after a pause as long as a round waits")
		}
	})
}
