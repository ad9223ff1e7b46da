package replica

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
)

// leaver is a tenant that was born in the class of theSpan and leaves it, as soon as left
// says so, for leaverClass.
const leaver = ring.TenantNumber(9)

var (
	leaverClass = ring.OwnClass(leaver, 3)
	leaverSpan  = repair.Span{Partition: 3, Class: leaverClass}
)

// leaveBench is a bench whose node may know that the tenant has left.
type leaveBench struct {
	*bench
	left *atomic.Bool
}

func newLeaveBench(t *testing.T) leaveBench {
	b := leaveBench{newBench(t), new(atomic.Bool)}
	b.opts.Tenant = func(n ring.TenantNumber) (Tenant, bool) {
		if n == leaver && b.left.Load() {
			return Tenant{Class: leaverClass, LWW: true}, true
		}
		return Tenant{Class: theSpan.Class, LWW: true}, true
	}
	b.opts.Own = func() []ring.Class {
		if b.left.Load() {
			return []ring.Class{leaverClass}
		}
		return nil
	}
	return b
}

// again is a store of the next start, which knows of no class that it does not find.
func (b leaveBench) again(t *testing.T, marks *Marks) *Store {
	t.Helper()
	opts := b.opts
	opts.Sums, opts.Marks, opts.Own = newSums(), marks, nil
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (b leaveBench) of(key string) coord.Address {
	a := spanned(key)
	if a.Tenant = leaver; b.left.Load() {
		a.Class = leaverClass
	}
	return a
}

func upTo(n uint64) *causal.Confirmed {
	return &causal.Confirmed{Seen: causal.NewContext(causal.Dot{Actor: 5, Counter: n}), Expired: int64(n)}
}

// expect checks what a store knows of both spans now.
func expect(t *testing.T, when string, s *Store, shared, own, ownReleased *causal.Confirmed) {
	t.Helper()
	for _, w := range []struct {
		of   repair.Span
		want *causal.Confirmed
	}{{theSpan, shared}, {leaverSpan, own}} {
		c, r, _, err := s.Known(w.of)
		if err != nil || !c.Equal(w.want) || !r.Within(&c) {
			t.Errorf("%s: of %s %v is confirmed, not %v; released %v, %v", when, w.of.Class, c, *w.want, r, err)
		}
		st, err := s.State(w.of)
		if err != nil || !st.Confirmed.Equal(w.want) || !st.Released.Equal(&r) {
			t.Errorf("%s: %s has the state %v, %v", when, w.of.Class, st, err)
		}
		if !s.confirmed(3, w.of.Class).Equal(w.want) {
			t.Errorf("%s: reads of %s go by %v, not %v", when, w.of.Class, *s.confirmed(3, w.of.Class), *w.want)
		}
	}
	if _, r, _, _ := s.Known(leaverSpan); !r.Equal(ownReleased) {
		t.Errorf("%s: of the own class %v is released, not %v", when, r, *ownReleased)
	}
}

// TestOwnClassParts: what is known of a class when a tenant leaves it holds for that tenant,
// and nothing that is found out of the others later, in whatever way, now or after the next
// start; nor the other way round.
func TestOwnClassParts(t *testing.T) {
	none := &causal.Confirmed{}
	for _, before := range []*causal.Confirmed{none, upTo(2)} {
		for name, grow := range map[string]func(b leaveBench) error{
			"adopt":   func(b leaveBench) error { return b.Adopt(theSpan, upTo(4)) },
			"release": func(b leaveBench) error { return b.Release(theSpan, upTo(4)) },
			"inherit": func(b leaveBench) error { return b.Inherit(theSpan, 0, upTo(4), upTo(3), 7) },
		} {
			b := newLeaveBench(t)
			if err := b.Release(theSpan, before); err != nil {
				t.Fatal(err)
			}
			name = fmt.Sprintf("%s after %v", name, *before)
			b.left.Store(true)
			expect(t, name+": left", b.Store, before, before, before)
			expect(t, name+": left, next start", b.again(t, nil), before, before, before)
			floor := b.floor(3, leaverClass)
			if err := grow(b); err != nil {
				t.Fatal(err)
			}
			expect(t, name, b.Store, upTo(4), before, before)
			expect(t, name+", next start", b.again(t, nil), upTo(4), before, before)
			if got := b.floor(3, leaverClass); got != floor {
				t.Errorf("%s: the floor of the own class was %d, and is %d", name, floor, got)
			}
			if err := b.Adopt(leaverSpan, upTo(9)); err != nil {
				t.Fatal(err)
			}
			expect(t, name+": the own class goes on", b.Store, upTo(4), upTo(9), before)
			expect(t, name+": the own class goes on, next start", b.again(t, nil), upTo(4), upTo(9), before)
		}
	}
}

// TestOwnClassGrowsFirst: what is confirmed of the tenant first is not so of the others, and
// what was confirmed of all of them still is of it.
func TestOwnClassGrowsFirst(t *testing.T) {
	for name, grow := range map[string]func(b leaveBench, c *causal.Confirmed) error{
		"adopt": func(b leaveBench, c *causal.Confirmed) error { return b.Adopt(leaverSpan, c) },
		"inherit": func(b leaveBench, c *causal.Confirmed) error {
			return b.Inherit(leaverSpan, 0, c, &causal.Confirmed{}, 0)
		},
	} {
		b := newLeaveBench(t)
		if err := b.Inherit(theSpan, 0, upTo(2), upTo(1), causal.HLCAt(noon)+1<<40); err != nil {
			t.Fatal(err)
		}
		floor := b.floor(3, theSpan.Class)
		b.left.Store(true)
		c := &causal.Confirmed{Seen: causal.NewContext(causal.Dot{Actor: 6, Counter: 1})}
		if err := grow(b, c); err != nil {
			t.Fatal(err)
		}
		own := upTo(2).Join(c)
		if b.floor(3, leaverClass) < floor {
			t.Errorf("%s: the floor was lost", name)
		}
		for when, s := range map[string]*Store{name: b.Store, name + ", next start": b.again(t, nil)} {
			expect(t, when, s, upTo(2), &own, upTo(1))
		}
		if err := b.Adopt(theSpan, upTo(4)); err != nil {
			t.Fatal(err)
		}
		expect(t, name+", then the others", b.again(t, nil), upTo(4), &own, upTo(1))
	}
}

// TestOwnClassKnownLate: what comes to be confirmed of a class before this node knows that a
// tenant has left holds for that, and a late Adopt of a round of then, which comes
// afterwards, does not.
func TestOwnClassKnownLate(t *testing.T) {
	b := newLeaveBench(t)
	if err := b.Adopt(theSpan, upTo(2)); err != nil {
		t.Fatal(err)
	}
	b.left.Store(true)
	if err := b.Adopt(theSpan, upTo(3)); err != nil {
		t.Fatal(err)
	}
	if err := b.Adopt(theSpan, upTo(2)); err != nil {
		t.Fatal(err)
	}
	none := &causal.Confirmed{}
	expect(t, "late", b.Store, upTo(3), upTo(2), none)
	expect(t, "late, next start", b.again(t, nil), upTo(3), upTo(2), none)
}

// TestToldWhileItGrows: what others are told of the tenant holds from then on, also if more
// comes to be known of the class that it has just left, by a call that began before.
func TestToldWhileItGrows(t *testing.T) {
	for name, told := range map[string]func(s *Store) causal.Confirmed{
		"known": func(s *Store) causal.Confirmed {
			c, _, _, err := s.Known(leaverSpan)
			if err != nil {
				t.Error(err)
			}
			return c
		},
		"state": func(s *Store) causal.Confirmed {
			st, err := s.State(leaverSpan)
			if err != nil {
				t.Error(err)
			}
			return st.Confirmed
		},
	} {
		b := newLeaveBench(t)
		if err := b.Adopt(theSpan, upTo(2)); err != nil {
			t.Fatal(err)
		}
		answer := make(chan causal.Confirmed, 1)
		b.db.duringWait = func() {
			b.db.duringWait = nil
			b.left.Store(true)
			go func() { answer <- told(b.Store) }()
			for range 1000 {
				runtime.Gosched() // so that it mostly asks meanwhile
			}
		}
		if err := b.Adopt(theSpan, upTo(4)); err != nil {
			t.Fatal(err)
		}
		was := <-answer
		if err := b.Adopt(theSpan, upTo(5)); err != nil {
			t.Fatal(err)
		}
		if is := told(b.Store); !is.Equal(&was) {
			t.Errorf("%s: %v was told, and is %v", name, was, is)
		}
	}
}

// TestDropOfTheSharedClass: the tenant that has left it keeps what is known of it, and its
// data.
func TestDropOfTheSharedClass(t *testing.T) {
	b := newLeaveBench(t)
	if err := b.Adopt(theSpan, upTo(2)); err != nil {
		t.Fatal(err)
	}
	b.left.Store(true)
	for _, a := range []coord.Address{b.of("k"), spanned("k")} {
		if _, err := b.mergeAt(t, a, foreign(77, 1, 1, "v")); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := b.Foreign(notOwned); err != nil || !slices.Equal(all, []repair.Span{theSpan, leaverSpan}) {
		t.Errorf("foreign are %v, %v", all, err)
	}
	if err := b.Drop(theSpan, func() bool { return true }); err != nil {
		t.Fatal(err)
	}
	none := &causal.Confirmed{}
	expect(t, "dropped", b.Store, none, upTo(2), none)
	expect(t, "dropped, next start", b.again(t, nil), none, upTo(2), none)
	if n, other := b.kinds(t, leaver), b.kinds(t, 7); n[kindObject] != 1 || other[kindObject] != 0 {
		t.Errorf("of the tenant that left there are %v, of the others %v", n, other)
	}
	if all, err := b.Foreign(notOwned); err != nil || !slices.Equal(all, []repair.Span{leaverSpan}) {
		t.Errorf("foreign are %v, %v", all, err)
	}
}

// TestDropOfAnOwnClass: what is dropped does not come back with what is known of the class
// that the tenant was born in: what the next owner of it is sent is taken, although it
// would be stripped as what the others have had. What is left is foreign no more.
func TestDropOfAnOwnClass(t *testing.T) {
	for _, parted := range []bool{false, true} {
		b := newLeaveBench(t)
		if err := b.Release(theSpan, upTo(2)); err != nil {
			t.Fatal(err)
		}
		value := foreign(5, 1, 1, "needed")
		b.left.Store(true)
		a := b.of("k")
		if _, err := b.mergeAt(t, a, foreign(77, 1, 1, "v")); err != nil {
			t.Fatal(err)
		}
		if parted {
			if err := b.Adopt(leaverSpan, upTo(3)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.mergeAt(t, a, value); !coord.IsStripped(err) {
			t.Errorf("what was confirmed is taken: %v", err)
		}
		if err := b.Drop(leaverSpan, func() bool { return true }); err != nil {
			t.Fatal(err)
		}
		none := &causal.Confirmed{}
		expect(t, "dropped", b.Store, upTo(2), none, none)
		expect(t, "dropped, next start", b.again(t, nil), upTo(2), none, none)
		if n := b.kinds(t, leaver); n != [kindSpan]int{} {
			t.Errorf("%v are left", n)
		}
		if all, err := b.Foreign(func(of repair.Span) bool { return of == theSpan }); err != nil || len(all) > 0 {
			t.Errorf("foreign are %v, %v", all, err)
		}
		if err := b.Adopt(theSpan, upTo(4)); err != nil {
			t.Fatal(err)
		}
		expect(t, "the others go on", b.again(t, nil), upTo(4), none, none)
		// The tenant comes back.
		if _, err := b.mergeAt(t, a, value); err != nil {
			t.Errorf("what the new owner is sent: %v", err)
		}
		if err := b.Inherit(leaverSpan, 0, upTo(3), none, 0); err != nil {
			t.Fatal(err)
		}
		expect(t, "inherited", b.again(t, nil), upTo(4), upTo(3), none)
	}
}

// TestSweepWhileATenantLeaves: what was released of the others when the tenant had left is
// not released of it, even if the sweep has found its keys before; once they have parted,
// its own sweep goes by what was released until then.
func TestSweepWhileATenantLeaves(t *testing.T) {
	b := newLeaveBench(t)
	dead := func(a coord.Address, n uint64) {
		o := foreign(5, n, n, "")
		o.Siblings[0].Flags, o.Siblings[0].Value = causal.FlagTombstone, nil
		if _, err := b.mergeAt(t, a, o); err != nil {
			t.Fatal(err)
		}
	}
	stays := b.of("stays")
	dead(b.of("goes"), 1)
	dead(stays, 3)
	dead(spanned("other"), 4)
	// The sweep of what is released now has not begun when the tenant leaves.
	if err := b.Release(theSpan, upTo(1)); err != nil {
		t.Fatal(err)
	}
	keys, _, err := b.candidates(theSpan, nil, upTo(9))
	if err != nil || len(keys) != 3 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	b.left.Store(true)
	if err := b.Release(theSpan, upTo(4)); err != nil {
		t.Fatal(err)
	}
	if err := b.collectKeys(b.spanOf(3, theSpan.Class), theSpan, keys); err != nil {
		t.Fatal(err)
	}
	if n := b.kinds(t, leaver); n[kindObject] != 2 {
		t.Errorf("the sweep of the others has left %d of the tenant's 2 keys", n[kindObject])
	}
	if n := b.kinds(t, 7); n[kindObject] != 0 {
		t.Errorf("the sweep has left %d keys of the others", n[kindObject])
	}
	b.jobs.run()
	if n := b.kinds(t, leaver); n[kindObject] != 1 || b.stored(t, appendKey(nil, &stays)) == nil {
		t.Errorf("the tenant has %v, of which one was released", n)
	}
	if got := b.floor(3, leaverClass); got < 1 {
		t.Errorf("the floor of the own class is %d", got)
	}
	if st, err := b.State(leaverSpan); err != nil || st.Sweeping {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestReadersWhileAClassParts: whoever looks while the class that a tenant has left comes to
// be known more of never sees that of the tenant.
func TestReadersWhileAClassParts(t *testing.T) {
	for range 50 {
		b := newLeaveBench(t)
		if err := b.Adopt(theSpan, upTo(2)); err != nil {
			t.Fatal(err)
		}
		b.left.Store(true)
		var stop atomic.Bool
		done := make(chan error)
		for range 2 {
			go func() {
				for !stop.Load() {
					k := b.partition(3).known(leaverClass)
					if c, st := b.confirmed(3, leaverClass), k.confirmed; !c.Equal(upTo(2)) || !st.Equal(upTo(2)) {
						done <- fmt.Errorf("of the tenant %v is confirmed", *c)
						return
					}
					runtime.Gosched()
				}
				done <- nil
			}()
		}
		for n := range uint64(3) {
			if err := b.Adopt(theSpan, upTo(4+n)); err != nil {
				t.Error(err)
			}
		}
		stop.Store(true)
		for range 2 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestLostOwnClass: if damage took what was stored of an own class, what is known of the
// class that the tenant was born in, and may be more by now, does not take its place: not
// at the next start, nor after the quarantine.
func TestLostOwnClass(t *testing.T) {
	b := newLeaveBench(t)
	none := &causal.Confirmed{}
	b.left.Store(true)
	if err := b.Adopt(leaverSpan, upTo(1)); err != nil {
		t.Fatal(err)
	}
	if err := b.Adopt(theSpan, upTo(4)); err != nil {
		t.Fatal(err)
	}
	batch := engine.NewBatch()
	batch.Delete(spanKey(leaverSpan))
	if _, err := b.db.Apply(batch, engine.WriteOptions{Sync: true}); err != nil {
		t.Fatal(err)
	}
	marks := NewMarks(vfs.NewMem(), "quarantine")
	if _, err := marks.Add([]ring.Partition{3}); err != nil {
		t.Fatal(err)
	}
	s := b.again(t, marks)
	expect(t, "under quarantine", s, upTo(4), none, none)
	s.opts.Own = b.opts.Own
	marks.Fetching(3)
	if err := s.EndQuarantine([]ring.Partition{3}); err != nil || len(marks.List()) != 0 {
		t.Fatal(marks.List(), err)
	}
	expect(t, "after quarantine", s, upTo(4), none, none)
	expect(t, "next start", b.again(t, nil), upTo(4), none, none)
}

// TestCrashWhileAClassParts: whatever call is the last one, what is known of the tenant at
// the next start is what was when it left.
func TestCrashWhileAClassParts(t *testing.T) {
	shared, own := repair.Span{Partition: 1, Class: 3}, repair.Span{Partition: 1, Class: leaverClass}
	for name, grow := range map[string]func(s *Store) error{
		"adopt": func(s *Store) error { return s.Adopt(shared, upTo(4)) },
		"drop":  func(s *Store) error { return s.Drop(shared, func() bool { return true }) },
	} {
		for call := 1; ; call++ {
			whole := false
			for _, mode := range vfs.CrashModes() {
				rng := rand.New(rand.NewPCG(uint64(call), uint64(mode)))
				b := newSumBench(t)
				b.opts.Own = func() []ring.Class { return []ring.Class{leaverClass, ring.OwnClass(11, 3), ring.OwnClass(12, 2)} }
				b.opts.Tenant = func(ring.TenantNumber) (Tenant, bool) { return Tenant{}, false }
				if err := b.Adopt(shared, upTo(2)); err != nil {
					t.Fatal(err)
				}
				for _, sp := range []repair.Span{own, {Partition: 1, Class: ring.OwnClass(11, 3)}} {
					if b.spanOf(1, sp.Class).confirmed.Load() == nil {
						t.Fatal("it has not parted")
					}
				}
				// From here on as if they had not: this start is another one.
				batch := engine.NewBatch()
				batch.Delete(spanKey(own))
				batch.Delete(spanKey(repair.Span{Partition: 1, Class: ring.OwnClass(11, 3)}))
				if _, err := b.db.Apply(batch, engine.WriteOptions{Sync: true}); err != nil {
					t.Fatal(err)
				}
				b.partition(1).own.Store(nil)
				b.breaks = b.calls + call
				err := grow(b.Store)
				whole = b.calls < b.breaks
				if whole != (err == nil) {
					t.Fatalf("%s, call %d: %v", name, call, err)
				}
				b.crash(t, mode, rng)
				for _, c := range []ring.Class{leaverClass, ring.OwnClass(11, 3)} {
					if got, _, _, err := b.Known(repair.Span{Partition: 1, Class: c}); err != nil || !got.Equal(upTo(2)) {
						t.Errorf("%s, call %d: %s has %v, %v", name, call, c, got, err)
					}
				}
				if err := b.db.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if whole {
				if call < 2 {
					t.Errorf("%s took %d calls", name, call)
				}
				break
			}
		}
	}
}

// TestManyOwnClassesPart: all of them do, in more than one batch, and each sweep is due
// once.
func TestManyOwnClassesPart(t *testing.T) {
	b := newLeaveBench(t)
	var own []ring.Class
	for i := range 3*parted - 1 {
		own = append(own, ring.OwnClass(ring.TenantNumber(100+i), 3))
	}
	b.opts.Own = func() []ring.Class { return own }
	b.partition(3).shared[3].confirmed.Store(upTo(2))
	b.partition(3).shared[3].released.Store(upTo(1))
	for range 2 {
		if err := b.Release(theSpan, upTo(3)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range own {
		if k, r, _, err := b.again(t, nil).Known(repair.Span{Partition: 3, Class: c}); err != nil || !k.Equal(upTo(2)) || !r.Equal(upTo(1)) {
			t.Fatalf("%s: %v, %v, %v", c, k, r, err)
		}
	}
	if n := len(b.sweeps.mu.due); n != len(own)+1 {
		t.Errorf("%d sweeps are due, not %d", n, len(own)+1)
	}
}

// TestFailedParting: if what is known of the tenant cannot be stored, no more is known of
// the others either.
func TestFailedParting(t *testing.T) {
	b := newLeaveBench(t)
	if err := b.Adopt(theSpan, upTo(2)); err != nil {
		t.Fatal(err)
	}
	b.left.Store(true)
	b.db.applyErr = errors.New("broken disk")
	for _, err := range []error{b.Adopt(theSpan, upTo(4)), b.Adopt(leaverSpan, upTo(4)), b.Drop(theSpan, func() bool { return true })} {
		if err == nil {
			t.Error("it is said to be done")
		}
	}
	none := &causal.Confirmed{}
	expect(t, "failed", b.Store, upTo(2), upTo(2), none)
	b.db.applyErr = nil
	if err := b.Adopt(theSpan, upTo(4)); err != nil {
		t.Fatal(err)
	}
	expect(t, "again", b.Store, upTo(4), upTo(2), none)
}
