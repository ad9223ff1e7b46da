package replica

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// newMovedBench is a bench whose partitions have the ring version pv.
func newMovedBench(t *testing.T) (b *bench, pv *atomic.Uint64) {
	b, pv = newBench(t), &atomic.Uint64{}
	pv.Store(4)
	b.opts.PV = func(ring.Partition) ring.Version { return ring.Version(pv.Load()) }
	return b, pv
}

// writes are the calls that a ring version fences; each says what became of it.
func (b *bench) writes(pv ring.Version) map[string]func() error {
	a := at("k")
	a.PV = pv
	in := item("k", foreign(0xb2, 1, 1, "theirs"))
	in.PV = pv
	final := vote(0xb2, 1)
	with := applied("k", "id", final)
	with.PV = pv
	merge := func(in coord.MergeItem) error {
		var failed error
		b.Merge([]coord.MergeItem{in}, func(_ int, _ []byte, err error) { failed = err })
		b.jobs.run()
		return failed
	}
	return map[string]func() error{
		"update": func() error {
			_, err := b.Update(a, blind("new"), func(error) {})
			b.jobs.run()
			return err
		},
		"merge": func() error { return merge(in) },
		"apply": func() error { return merge(with) },
		"claim": func() (failed error) {
			b.Claim(a, []byte("id"), final, time.UnixMilli(1000), func(_ causal.Record, err error) { failed = err })
			b.jobs.run()
			return failed
		},
	}
}

func TestWritesOfAnotherRingAreRefused(t *testing.T) {
	for _, pv := range []ring.Version{0, 3, 4, 5} {
		for name := range (&bench{}).writes(0) {
			b, _ := newMovedBench(t)
			before := b.db.VisibleSeq()
			err := b.writes(pv)[name]()
			if refused := pv != 0 && pv != 4; refused != errors.Is(err, coord.ErrMoved) || !refused && err != nil {
				t.Errorf("%s under %d: %v", name, pv, err)
			} else if refused && b.db.VisibleSeq() != before {
				t.Errorf("%s under %d has changed something", name, pv)
			}
		}
	}
}

// TestOneOfAFrameIsRefused: the others of its frame go on.
func TestOneOfAFrameIsRefused(t *testing.T) {
	b, _ := newMovedBench(t)
	items := []coord.MergeItem{
		item("a", foreign(0xb2, 1, 1, "a")), item("b", foreign(0xb2, 2, 1, "b")), item("c", foreign(0xb2, 3, 1, "c")),
	}
	items[0].PV, items[1].PV, items[2].PV = 4, 3, 4
	got := b.merge(t, items...)
	b.jobs.run()
	if got[0].err != nil || !errors.Is(got[1].err, coord.ErrMoved) || got[2].err != nil {
		t.Errorf("%v", got)
	}
	for key, want := range map[string]int{"a": 1, "b": 0, "c": 1} {
		b.Read(at(key), func(o []byte, err error) {
			if held := decode(t, o); err != nil || len(held.Siblings) != want {
				t.Errorf("%s holds %v, %v", key, held, err)
			}
		})
		b.jobs.run()
	}
}

// TestRingMovesBeforeTheLock: a write that waits for the key's lock while a new version
// of the ring is published is refused once it has it.
func TestRingMovesBeforeTheLock(t *testing.T) {
	for name := range (&bench{}).writes(0) {
		b, pv := newMovedBench(t)
		a := at("k")
		lock := &b.stripes[stripeOf(appendKey(nil, &a))]
		lock.Lock()
		done := make(chan error)
		go func() { done <- b.writes(4)[name]() }()
		for range 100 {
			runtime.Gosched() // so that it mostly waits
		}
		pv.Store(5)
		lock.Unlock()
		if err := <-done; !errors.Is(err, coord.ErrMoved) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBarrier: when it returns, what was let through under the old version is visible,
// and nothing of it becomes so later.
func TestBarrier(t *testing.T) {
	for range 200 {
		b, pv := newMovedBench(t)
		a := at("k")
		a.PV = 4
		within, wrote := make(chan struct{}), make(chan error)
		go func() {
			_, err := b.Update(a, func(held *causal.Object, mint func() causal.Dot) (causal.Object, error) {
				close(within)
				for range 20 {
					runtime.Gosched()
				}
				return blind("v")(held, mint)
			}, func(error) {})
			wrote <- err
		}()
		<-within
		pv.Store(5)
		b.Barrier()
		if _, _, err := b.db.GetSeq(nil, appendKey(nil, &a)); err != nil {
			t.Fatalf("a write of before is not visible: %v", err)
		}
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
		if _, err := b.Update(a, blind("late"), func(error) {}); !errors.Is(err, coord.ErrMoved) {
			t.Fatalf("a late one: %v", err)
		}
		b.jobs.run()
	}
}

// TestGainerJoinsWhole: what a node gains it joins whole until an old owner has told it
// all by the same change, and from then on as every owner does. What is confirmed may
// live, and come beside something new before anybody has told it; and what is dead goes
// with what another owner holds.
func TestGainerJoinsWhole(t *testing.T) {
	b := newSweepBench(t)
	v, dead, w := causal.Dot{Actor: 8, Counter: 1}, causal.Dot{Actor: 8, Counter: 2}, causal.Dot{Actor: 9, Counter: 1}
	c := b.all(t, dead)
	if err := b.Inherit(theSpan, 0, c, &causal.Confirmed{}, 100); err != nil {
		t.Fatal(err)
	}
	one := func(d causal.Dot) causal.Object {
		return causal.Object{Context: causal.NewContext(d), Siblings: []causal.Sibling{{Dot: d, HLC: d.Actor, Value: []byte{byte(d.Actor)}}}}
	}
	first, second, old := one(v), one(w), one(dead)
	both := causal.Join(&first, &second)
	merge := func(key string, o *causal.Object, change ring.Version, fetched *causal.Confirmed) (err error) {
		a := spanned(key)
		a.LWW = false
		it := coord.MergeItem{Address: a, Object: o.Append(nil), Gaining: change, Refetch: fetched}
		b.Merge([]coord.MergeItem{it}, func(_ int, _ []byte, e error) { err = e })
		b.jobs.run()
		return err
	}
	holds := func(key string, want ...causal.Dot) {
		t.Helper()
		a := spanned(key)
		o := decode(t, b.stored(t, appendKey(nil, &a)))
		for _, d := range want {
			if !o.Has(d) {
				t.Errorf("%s is %v, without %v", key, o, d)
			}
		}
		if len(o.Siblings) != len(want) {
			t.Errorf("%s is %v, and not %v", key, o, want)
		}
	}
	for key, o := range map[string]*causal.Object{"pair": &both, "dead": &old} {
		if err := merge(key, o, 7, nil); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	holds("pair", v, w)
	holds("dead", dead)
	// An old owner has the one whole, and nothing of the other.
	for key, o := range map[string]*causal.Object{"pair": &both, "dead": {}} {
		if err := merge(key, o, 0, c); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	holds("pair", v, w)
	holds("dead")
	if err := b.Told(theSpan, 7); err != nil {
		t.Fatal(err)
	}
	if err := merge("pair", &both, 7, nil); err != nil {
		t.Errorf("what it has: %v", err)
	}
	if err := merge("later", &old, 7, nil); !coord.IsStripped(err) {
		t.Errorf("once all was told: %v", err)
	}
	holds("later")
	if err := merge("later", &old, 0, nil); !coord.IsStripped(err) {
		t.Errorf("as an owner: %v", err)
	}
	if err := merge("later", &old, 9, nil); err != nil {
		t.Errorf("by another change: %v", err)
	}
	holds("later", dead)
	// What was told is gone with the data.
	if err := b.Drop(theSpan, func() bool { return true }); err != nil {
		t.Fatal(err)
	}
	if err := b.Inherit(theSpan, 0, c, &causal.Confirmed{}, 100); err != nil {
		t.Fatal(err)
	}
	if err := merge("pair", &both, 7, nil); err != nil {
		t.Errorf("after a drop: %v", err)
	}
	holds("pair", v, w)
}

// TestGainsOfAnotherRingAreRefused: what an old owner has told of records, and of what is
// confirmed, and that comes when the change is over, is not written: what this node has
// said to have nothing of would come back.
func TestGainsOfAnotherRingAreRefused(t *testing.T) {
	from := newSweepBench(t)
	from.Claim(spanned("k"), []byte("id"), vote(5, 0), noon, func(_ causal.Record, err error) {
		if err != nil {
			t.Error(err)
		}
	})
	from.jobs.run()
	rows, _, err := from.Records(theSpan, nil, 10, true)
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d records, %v", len(rows), err)
	}
	c := &causal.Confirmed{Seen: causal.NewContext(causal.Dot{Actor: 77, Counter: 3})}
	for _, pv := range []ring.Version{0, 3, 4, 5} {
		to := newSweepBench(t)
		voted := to.outvoted(t)
		to.opts.PV = func(ring.Partition) ring.Version { return 4 }
		for name, write := range map[string]func() error{
			"records":   func() error { return to.Restore(theSpan, pv, rows) },
			"confirmed": func() error { return to.Inherit(theSpan, pv, c, &causal.Confirmed{}, 9) },
			"outvoted":  func() error { return to.Outvoted(theSpan, pv, voted) },
		} {
			before := to.db.VisibleSeq()
			err := write()
			if refused := pv != 0 && pv != 4; refused != errors.Is(err, coord.ErrMoved) || !refused && err != nil {
				t.Errorf("%s as of %d end with %v", name, pv, err)
			} else if refused && to.db.VisibleSeq() != before {
				t.Errorf("%s as of %d are written", name, pv)
			}
		}
	}
}
