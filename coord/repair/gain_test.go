package repair

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// TestGain: a fourth and a fifth node join three, fetch what is theirs from them and say
// so; when it is theirs, the others drop what they own no more. Everybody then has what
// he owns, and nothing else.
func TestGain(t *testing.T) {
	for _, joiners := range []int{1, 2} {
		t.Run(fmt.Sprint(joiners), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRinged(t, 3+joiners, 3, 3)
				r.fill(300)
				r.start()
				r.propose(r.members(0, 3+joiners))
				r.install()
				r.finish()
				r.cleaned()
				r.check()
				var st Figures
				bulk := 0
				for i, n := range r.nodes {
					f := n.m.Status().Figures
					st.Gained, st.CleanedSpans = st.Gained+f.Gained, st.CleanedSpans+f.CleanedSpans
					if i >= 3 && f.GainedSpans > 0 {
						bulk++
					}
				}
				if bulk != joiners || st.Gained == 0 || st.CleanedSpans == 0 {
					t.Errorf("%d nodes gained, %d keys in all, %d spans dropped", bulk, st.Gained, st.CleanedSpans)
				}
				said := false
				for _, note := range r.nodes[3].told() {
					said = said || strings.Contains(note.Text, "that it is to own")
				}
				if !said {
					t.Errorf("nobody was told: %v", r.nodes[3].told())
				}
			})
		})
	}
}

// TestGainUnderFaults: whatever happens while data is on its way, in the end everybody
// has what he owns and nothing else, every acknowledged write is there, those that came
// meanwhile included, and nothing that was deleted.
func TestGainUnderFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault func(r *ringed)
	}{
		{"nothing", func(*ringed) {}},
		{"a source dies", func(r *ringed) { r.setUp(1, false) }},
		{"messages are lost", func(r *ringed) {
			n := 0
			r.setLose(func(from, to int, _ *coord.Message) bool { n++; return n%7 == 0 })
			go func() {
				time.Sleep(3 * time.Minute)
				r.setLose(nil)
			}()
		}},
		{"the gainer is cut off", func(r *ringed) {
			r.setLose(func(from, to int, _ *coord.Message) bool { return from == 3 || to == 3 })
			go func() {
				time.Sleep(time.Minute)
				r.setLose(nil)
			}()
		}},
		{"the gainer starts again", func(r *ringed) { r.nodes[3].restart(); r.nodes[3].m.Start() }},
		{"a source starts again", func(r *ringed) { r.nodes[0].restart(); r.nodes[0].m.Start() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRinged(t, 4, 3, 3)
				for _, n := range r.nodes { // slow enough that the fault meets it on its way
					n.m.stream = newBucket(16<<10, time.Now())
				}
				r.fill(200)
				// Deletes of all owners, some of them with a leftover at one.
				for i := range 20 {
					r.give(tenantA, fmt.Sprint("key", i), "")
				}
				r.start()
				r.propose(r.members(0, 4))
				r.install()
				last := r.live(100, 0)
				for range 3 {
					time.Sleep(700 * time.Millisecond)
					last = r.live(100, last)
				}
				c.fault(r)
				last = r.live(100, last)
				r.until("synced", func() bool { return r.report(r.nodes[3].id).Synced > 0 })
				r.setUp(1, true)
				r.finish()
				r.cleaned()
				r.until("equal", func() bool { return r.missing(last) == "" })
				for p := range r.log.Layout().Partitions() {
					r.nodes[0].m.Dirty(ring.Partition(p))
				}
				time.Sleep(5 * time.Minute)
				r.check()
				if s := r.missing(last); s != "" {
					t.Error(s)
				}
			})
		})
	}
}

func (r *ringed) setLose(lose func(from, to int, m *coord.Message) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lose = lose
}

func (r *ringed) setUp(i int, up bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes[i].up = up
}

// live makes writes as of the present ring and returns how many there are now: each is on
// two of three old owners, and on two of the new ones while the ring is changing.
func (r *ringed) live(n, from int) int {
	for i := from; i < from+n; i++ {
		key := fmt.Sprint("live", i)
		st := r.nodes[0].state.Load()
		old := r.owners(st.Layout(), tenantB, key)
		o := r.nodes[old[0]].data.mint(tenantB, key, "v")
		to := map[int]bool{old[0]: true, old[1+i%2]: true}
		if c := st.Change(); c != nil {
			for k, id := range r.owners(c.Next, tenantB, key) {
				if k != i%3 {
					to[id] = true
				}
			}
		}
		for id := range to {
			r.nodes[id].data.join(tenantB, key, o)
		}
	}
	return from + n
}

// missing says which of the live writes two of their three owners do not have.
func (r *ringed) missing(n int) string {
	for i := range n {
		key := fmt.Sprint("live", i)
		have := 0
		for _, id := range r.owners(r.log.Layout(), tenantB, key) {
			if len(r.values(id, tenantB, key)) == 1 {
				have++
			}
		}
		if have < 2 {
			return fmt.Sprintf("%s is on %d of its owners", key, have)
		}
	}
	return ""
}

// TestGainResurrectsNothing: before the change the owners have collected a delete. What it
// deleted lies still on the node that joins, and a hint with it arrives before anything
// else: neither is there afterwards.
func TestGainResurrectsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 4, 3, 3)
		r.fill(600)
		next, err := ring.NewLayout(8, r.members(0, 4))
		if err != nil {
			t.Fatal(err)
		}
		var dead []string
		leftovers := make(map[string]causal.Object)
		for i := range 200 {
			key := fmt.Sprint("dead", i)
			if slices.Contains(r.owners(next, tenantA, key), 3) {
				dead = append(dead, key)
				leftovers[key] = r.write(tenantA, key, "old", 3)
				r.write(tenantA, key, "", 3)
			}
		}
		r.start()
		for p := range 8 {
			r.nodes[0].m.Dirty(ring.Partition(p))
		}
		r.until("collected", func() bool {
			for _, key := range dead {
				if len(r.nodes[0].data.stored(tenantA, key).Siblings) > 0 {
					return false
				}
			}
			return true
		})
		// The first half lies there already.
		for i, key := range dead {
			if i%2 == 0 {
				r.nodes[3].data.join(tenantA, key, leftovers[key])
			}
		}
		var waited []string
		r.propose(r.members(0, 4))
		r.install()
		for i, key := range dead {
			if i%2 == 1 {
				_, p := r.nodes[3].data.place(tenantA, key)
				o := leftovers[key]
				if r.nodes[3].m.Horizon(p, func() {
					f := r.nodes[3].data
					f.mu.Lock()
					defer f.mu.Unlock()
					c, held := f.confirmed[f.span(tenantA, p)], f.rows[tenantA][key]
					joined, _ := causal.JoinUnder(&held, &o, &c, true)
					if !joined.IsZero() {
						f.rows[tenantA][key] = joined
					}
					if len(joined.Siblings) > 0 {
						t.Errorf("%s was taken though it was deleted", key)
					}
					waited = append(waited, key)
				}) {
					t.Errorf("%s did not have to wait", key)
				}
			}
		}
		time.Sleep(2 * time.Second)
		if len(waited) != len(dead)/2 {
			t.Errorf("%d of %d hints went on", len(waited), len(dead)/2)
		}
		r.finish()
		r.cleaned()
		for _, key := range dead {
			for n := range r.nodes {
				if v := r.values(n, tenantA, key); len(v) > 0 {
					t.Errorf("node %d shows %q of %s, which was deleted", n, v, key)
				}
			}
		}
		r.check()
	})
}

// TestHorizonWaits: what is asked of a node that is about to own a partition waits until
// enough old owners have told what is confirmed, not for one that is dead, and is let go
// when the change is over, but not when the node stops.
func TestHorizonWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 4, 3, 3)
		r.start()
		r.propose(r.members(0, 4))
		var mine ring.Partition
		for p := range 8 {
			if r.log.Change().Gains(r.log.Layout(), r.nodes[3].id, ring.Partition(p), ring.Same(3)) {
				mine = ring.Partition(p)
			}
		}
		var calls atomic.Int64
		ask := func() bool { return r.nodes[3].m.Horizon(mine, func() { calls.Add(1) }) }
		if !ask() {
			t.Error("it waits while nothing is changing")
		}
		// One of three old owners knows of the change, and another one is dead.
		r.install(0, 3)
		r.setUp(1, false)
		for range 2 {
			if ask() {
				t.Error("it does not wait")
			}
		}
		time.Sleep(time.Minute)
		if n := calls.Load(); n != 0 {
			t.Fatalf("%d went on with one of three old owners", n)
		}
		r.install(2)
		time.Sleep(4 * time.Second)
		if n := calls.Load(); n != 2 {
			t.Errorf("%d of 2 went on", n)
		}
		if !ask() {
			t.Error("it waits though all is known")
		}
		// Another change of which nobody is told anything, and that is given up.
		r.step(ring.KindAbort)
		r.install()
		r.propose(r.members(0, 4))
		r.install(3)
		if ask() {
			t.Error("what is known of another change counts")
		}
		r.step(ring.KindAbort)
		r.install()
		time.Sleep(3 * time.Second)
		if n := calls.Load(); n != 3 {
			t.Errorf("%d of 3 went on when the change was over", n)
		}
		r.propose(r.members(0, 4))
		r.install(3)
		ask()
		stopped := r.nodes[3].m
		r.nodes[3].stop()
		if stopped.Horizon(mine, func() { calls.Add(1) }) {
			t.Error("a node that has stopped knows what it did not know before")
		}
		time.Sleep(time.Second)
		if n := calls.Load(); n != 3 {
			t.Errorf("%d of 3 went on when the node had stopped: they would ask again at once", n)
		}
	})
}

// TestShrink: five owners become three without anybody who gains. A write that only the
// two that go and one that stays have is at all three afterwards, and so is a vote.
func TestShrink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 5, 5, 5)
		r.fill(60)
		key := "once"
		owners := r.owners(r.log.Layout(), tenantA, key)
		stays := r.members(0, 5)
		var left []ring.LayoutNode
		for _, n := range stays {
			if i := int(n.ID[0]) - 1; i == owners[0] || i == owners[1] || i == owners[2] {
				left = append(left, n)
			}
		}
		r.put(owners[3], tenantA, key, "kept", owners[4], owners[2])
		tok, _ := r.nodes[0].data.place(tenantA, key)
		for i, name := range []string{"applied", "vote"} {
			for _, id := range []int{owners[2], owners[3], owners[4]} {
				r.nodes[id].data.records[name] = RecordRow{Tenant: tenantA, Token: tok, IdempotencyKey: []byte(name), Record: []byte{byte(i)}}
			}
		}
		r.start()
		r.propose(left)
		r.install()
		r.finish()
		for _, id := range owners[:3] {
			if v := r.values(id, tenantA, key); !slices.Equal(v, []string{"kept"}) {
				t.Errorf("node %d has %q", id, v)
			}
			f := r.nodes[id].data
			f.mu.Lock()
			if len(f.records) != 2 {
				t.Errorf("node %d remembers %d of 2 idempotency keys", id, len(f.records))
			}
			f.mu.Unlock()
		}
		r.cleaned()
		r.check()
	})
}

// TestAbortKeepsWrites: a node that was about to own a partition has writes that nobody
// else got. The change is given up: it hands the writes over before it drops its copy,
// whether it has much of the data by then or next to nothing. A dead owner is waited for.
func TestAbortKeepsWrites(t *testing.T) {
	for _, early := range []bool{false, true} {
		t.Run(fmt.Sprintf("early=%v", early), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { abortKeepsWrites(t, early) })
		})
	}
}

func abortKeepsWrites(t *testing.T, early bool) {
	r := newRinged(t, 4, 3, 3)
	r.fill(200)
	r.start()
	time.Sleep(time.Minute)
	r.propose(r.members(0, 4))
	r.install()
	if !early {
		r.until("synced", func() bool { return r.report(r.nodes[3].id).Synced > 0 })
	}
	var keys []string
	for i := range 8 {
		key := fmt.Sprint("alone", i)
		if slices.Contains(r.owners(r.log.Change().Next, tenantB, key), 3) {
			old := r.owners(r.log.Layout(), tenantB, key)
			r.nodes[3].data.join(tenantB, key, r.nodes[old[0]].data.mint(tenantB, key, "one"))
			keys = append(keys, key)
		}
	}
	r.setUp(0, false)
	r.step(ring.KindAbort)
	r.install()
	time.Sleep(2 * time.Minute)
	if v := r.values(3, tenantB, keys[0]); len(v) != 1 {
		t.Fatal("it dropped its copy while an owner was away")
	}
	waits := false
	for _, tr := range r.nodes[3].m.Transfers() {
		waits = waits || tr.Kind == TransferCleanup && tr.State == TransferWaiting && strings.Contains(tr.Error, "waiting for a")
	}
	if !waits {
		t.Errorf("nobody is told whom it waits for: %+v", r.nodes[3].m.Transfers())
	}
	r.setUp(0, true)
	r.cleaned()
	for _, key := range keys {
		for _, id := range r.owners(r.log.Layout(), tenantB, key) {
			if v := r.values(id, tenantB, key); len(v) != 1 {
				t.Errorf("node %d has %q of %s", id, v, key)
			}
		}
	}
	r.check()
	st := r.nodes[3].m.Status()
	if st.Handed == 0 || st.CleanedSpans == 0 || early != (st.Gained == 0) {
		t.Errorf("%d gained, %d handed over, %d dropped", st.Gained, st.Handed, st.CleanedSpans)
	}
}

// TestDropLooksAgain: between the moment that all is handed over and the drop the node is
// made an owner to be again: nothing is dropped.
func TestDropLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 4, 3, 3)
		r.fill(100)
		r.start()
		r.propose(r.members(0, 4))
		r.install()
		r.until("synced", func() bool { return r.report(r.nodes[3].id).Synced > 0 })
		held := r.nodes[3].data.size(tenantA)
		var once sync.Once
		r.nodes[3].data.setFail(func(op string) error {
			if op == "drop" {
				once.Do(func() { r.propose(r.members(0, 4)); r.install() })
			}
			return nil
		})
		if held == 0 {
			t.Fatal("it has nothing")
		}
		r.step(ring.KindAbort)
		r.install()
		r.until("proposed again", func() bool { return r.nodes[3].state.Load().Change() != nil })
		if now := r.nodes[3].data.size(tenantA); now != held {
			t.Errorf("it has %d of %d keys", now, held)
		}
		r.finish()
		r.cleaned()
		r.check()
	})
}

// TestCleanGate: nothing is collected while a node that does not own a partition has not
// said that it holds nothing of it, and while the ring is changing it.
func TestCleanGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 4, 3, 3)
		r.fill(10)
		r.start()
		r.propose(r.members(0, 4))
		r.install()
		// Deletes of keys that a node does not own, -1 for all, and how many there were.
		deletes := func(without int) (n, of int) {
			for i := range 10 {
				key := fmt.Sprint("key", i)
				owners := r.owners(r.log.Layout(), tenantA, key)
				if slices.Contains(owners, without) {
					continue
				}
				of += len(owners)
				for _, id := range owners {
					n += len(r.nodes[id].data.stored(tenantA, key).Siblings)
				}
			}
			return n, of
		}
		for i := range 10 {
			key := fmt.Sprint("key", i)
			r.filled[tenantA][key] = ""
			o := r.write(tenantA, key, "", 3)
			for _, id := range r.owners(r.log.Change().Next, tenantA, key) {
				r.nodes[id].data.join(tenantA, key, o)
			}
		}
		dirty := func() {
			for p := range 8 {
				for _, n := range r.nodes {
					n.m.Dirty(ring.Partition(p))
				}
			}
			time.Sleep(time.Minute)
		}
		touched := 0
		for p := range 8 {
			if r.log.Change().Touches(ring.Partition(p)) {
				touched++
			}
		}
		if touched != 8 {
			t.Fatalf("the change touches %d of 8 partitions", touched)
		}
		dirty()
		if n, of := deletes(-1); n != of {
			t.Errorf("%d of %d deletes are there while the ring is changing", n, of)
		}
		// One that owns some no more cannot hand them over.
		r.nodes[0].data.setFail(func(op string) error {
			if op == "drop" {
				return errors.New("broken disk")
			}
			return nil
		})
		r.finish()
		dirty()
		dirty()
		if n, of := deletes(0); n != of || of == 0 {
			t.Errorf("%d of %d deletes are there while a node holds what it does not own", n, of)
		}
		r.nodes[0].data.setFail(nil)
		r.cleaned()
		r.until("collected", func() bool { dirty(); n, _ := deletes(-1); return n == 0 })
	})
}

// TestGainUnderQuarantine: a partition that came under quarantine while it was fetched is
// not there before it is served again.
func TestGainUnderQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 4, 3, 3)
		r.fill(100)
		r.propose(r.members(0, 4))
		var bad ring.Partition
		for p := range 8 {
			if r.log.Change().Gains(r.log.Layout(), r.nodes[3].id, ring.Partition(p), ring.Same(3)) {
				bad = ring.Partition(p)
			}
		}
		var quarantined, broken atomic.Bool
		broken.Store(true)
		o := &r.nodes[3].m.opts
		o.Quarantined = func(p ring.Partition) bool { return p == bad && quarantined.Load() }
		o.Fetched = func(list []ring.Partition) error {
			if broken.Load() {
				return errors.New("broken disk")
			}
			if slices.Contains(list, bad) {
				quarantined.Store(false)
			}
			return nil
		}
		r.nodes[3].data.setFail(func(op string) error {
			if op == "rows" { // it is comparing: something has been fetched
				quarantined.Store(true)
			}
			return nil
		})
		r.start()
		r.install()
		time.Sleep(2 * time.Minute)
		if v := r.report(r.nodes[3].id).Synced; v != 0 || !quarantined.Load() {
			t.Errorf("it is synced at %d with a partition under quarantine", v)
		}
		broken.Store(false)
		r.nodes[3].data.setFail(nil)
		r.finish()
		r.cleaned()
		r.check()
	})
}

// TestDecisionsOfGains: most of a tenant here is no case for a bulk, and little of what
// others have none for a comparison.
func TestDecisionsOfGains(t *testing.T) {
	for _, c := range []struct {
		own, theirs  uint64
		bulk, sparse bool
	}{{0, 0, false, false}, {0, 63, false, true}, {0, 64, true, true}, {40, 100, true, false}, {50, 100, false, false}, {1 << 40, 1 << 50, true, true}} {
		if b, s := bulkWorth(c.own, c.theirs), sparse(c.own, c.theirs); b != c.bulk || s != c.sparse {
			t.Errorf("%d of %d: bulk %v, sparse %v", c.own, c.theirs, b, s)
		}
	}
}
