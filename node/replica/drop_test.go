package replica

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
)

// Tenants of TestDrop: two with different replication factors, and one that nobody knows.
const (
	wideTenant, narrowTenant, lostTenant = ring.TenantNumber(7), ring.TenantNumber(9), ring.TenantNumber(11)
)

func dropTenants(t ring.TenantNumber) (Tenant, bool) {
	switch t {
	case wideTenant:
		return Tenant{Class: 3, LWW: true}, true
	case narrowTenant:
		return Tenant{Class: 1, LWW: true}, true
	}
	return Tenant{}, false
}

func of(t ring.TenantNumber, key string) coord.Address {
	a := spanned(key)
	if a.Tenant = t; t != wideTenant {
		a.Class = 1
	}
	return a
}

// fillSpans puts values, deletes and records of all tenants into a partition.
func (b *bench) fillSpans(t *testing.T) {
	t.Helper()
	b.opts.Tenant = dropTenants
	n := uint64(0)
	for _, tenant := range []ring.TenantNumber{wideTenant, narrowTenant, lostTenant} {
		for i := range 20 {
			n++
			o := foreign(77, n, n, "value")
			if i%4 == 0 {
				o.Siblings[0].Flags, o.Siblings[0].Value = causal.FlagTombstone, nil
			}
			if _, err := b.mergeAt(t, of(tenant, fmt.Sprint("k", i)), o); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 3 {
			r := vote(uint64(100+i), 0)
			b.Claim(of(tenant, "voted"), fmt.Append(nil, "id", i), r, noon, func(_ causal.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
			b.jobs.run()
		}
	}
}

// kinds counts what is stored of a tenant in partition 3, by kind.
func (b *bench) kinds(t *testing.T, tenant ring.TenantNumber) (n [kindSpan]int) {
	t.Helper()
	it, err := b.db.NewIter(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		if key := it.Key(); key[2] < kindSpan && tenantOf(key) == tenant {
			n[key[2]]++
		}
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

func notOwned(repair.Span) bool { return false }

// TestDrop: what is not owned is listed span by span, and a drop takes all of one and
// nothing of another. Sums and what records take are as if it had never been there;
// counters go on, and data of a tenant that nobody knows stays.
func TestDrop(t *testing.T) {
	b := newBench(t)
	b.fillSpans(t)
	full := [kindSpan]int{20, 3, 5}
	narrow := repair.Span{Partition: 3, Class: 1}
	if err := b.Adopt(theSpan, &causal.Confirmed{Seen: causal.NewContext(causal.Dot{Actor: 77, Counter: 3}), Expired: 1}); err != nil {
		t.Fatal(err)
	}
	if all, err := b.Foreign(notOwned); err != nil || !slices.Equal(all, []repair.Span{narrow, theSpan}) {
		t.Errorf("foreign are %v, %v", all, err)
	}
	if all, err := b.Foreign(func(of repair.Span) bool { return of.Class == 3 }); err != nil || !slices.Equal(all, []repair.Span{narrow}) {
		t.Errorf("foreign are %v, %v", all, err)
	}
	before, _ := b.opts.Records.Bytes()
	dot := b.write(t, "mine", causal.Sibling{HLC: 1, Value: []byte("v")})
	if err := b.Drop(theSpan, func() bool { return false }); !errors.Is(err, repair.ErrNotForeign) {
		t.Errorf("a drop that is not wanted any more ends with %v", err)
	}
	if n := b.kinds(t, wideTenant); n != [kindSpan]int{21, 3, 5} {
		t.Errorf("it took something: %v", n)
	}
	if err := b.Drop(theSpan, func() bool { return true }); err != nil {
		t.Fatal(err)
	}
	for tenant, want := range map[ring.TenantNumber][kindSpan]int{wideTenant: {}, narrowTenant: full, lostTenant: full} {
		if n := b.kinds(t, tenant); n != want {
			t.Errorf("of tenant %d there are %v, not %v", tenant, n, want)
		}
	}
	if b.stored(t, spanKey(theSpan)) != nil || !b.confirmed(3, 3).IsZero() || b.floor(3, 3) != 0 {
		t.Error("what was known of the span is still there")
	}
	if after, _ := b.opts.Records.Bytes(); after != before/3*2 {
		t.Errorf("records take %d bytes, not two thirds of %d", after, before)
	}
	first, last := ring.Token(3)<<54, ring.Token(4)<<54-1
	for tenant, want := range map[ring.TenantNumber]uint64{wideTenant: 0, narrowTenant: 20} {
		s, err := b.Sums(repair.Range{Partition: 3, Tenant: tenant, First: first, Last: last}, 0)
		if err != nil || s[0].Count != want {
			t.Errorf("the sums of tenant %d have %v siblings, %v", tenant, s, err)
		}
	}
	if n, err := b.VerifySums(3); n != 0 || err != nil {
		t.Errorf("%d sums are wrong, %v", n, err)
	}
	if all, err := b.Foreign(notOwned); err != nil || !slices.Equal(all, []repair.Span{narrow}) {
		t.Errorf("foreign are %v, %v", all, err)
	}
	if st, err := b.State(theSpan); err != nil || st.VotesUnknown {
		t.Errorf("state %+v, %v", st, err)
	}
	// The span comes back.
	if next := b.write(t, "mine", causal.Sibling{HLC: 1, Value: []byte("v")}); next.Counter != dot.Counter+1 {
		t.Errorf("after %v comes %v", dot, next)
	}
	if n, err := b.VerifySums(3); n != 0 || err != nil {
		t.Errorf("%d sums are wrong, %v", n, err)
	}
}

// TestCrashAtEveryCallOfADrop: whatever call of a drop is the last one, all of the span
// is there at the next start or nothing, what it did not belong to is whole, and the sums
// are right.
func TestCrashAtEveryCallOfADrop(t *testing.T) {
	tenants := func(t ring.TenantNumber) (Tenant, bool) { return Tenant{Class: ring.Class(t)}, true }
	span := repair.Span{Partition: 1, Class: 1}
	for call := 1; ; call++ {
		whole := false
		for _, mode := range vfs.CrashModes() {
			rng := rand.New(rand.NewPCG(uint64(call), uint64(mode)))
			b := newSumBench(t)
			for range 80 {
				b.act(t, rng, 40)
			}
			if err := b.SaveSums(b.disk(), "data/sums"); err != nil {
				t.Fatal(err)
			}
			for range 40 {
				b.act(t, rng, 40)
			}
			if err := b.db.WaitDurable(b.db.VisibleSeq()); err != nil {
				t.Fatal(err)
			}
			had, other := b.keysOf(t, 1, 1), b.keysOf(t, 1, 2)
			b.opts.Tenant = tenants
			b.breaks = b.calls + call
			err := b.Drop(span, func() bool { return true })
			whole = b.calls < b.breaks
			if whole != (err == nil) {
				t.Fatalf("call %d: %v", call, err)
			}
			b.crash(t, mode, rng)
			if n := b.keysOf(t, 1, 1); n != 0 && (n != had || whole) {
				t.Errorf("call %d: %d of %d keys are left", call, n, had)
			}
			if n := b.keysOf(t, 1, 2); n != other {
				t.Errorf("call %d: another tenant has %d of %d keys", call, n, other)
			}
			b.check(t)
			if err := b.db.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if whole {
			if call < 2 {
				t.Errorf("a drop took %d calls", call)
			}
			return
		}
	}
}

// keysOf counts the objects of a tenant in a partition.
func (b *sumBench) keysOf(t require, p ring.Partition, tenant ring.TenantNumber) (n int) {
	at := coord.Address{Partition: p, Tenant: tenant}
	lower := appendHead(nil, kindObject, &at)
	it, err := b.db.NewIter(lower, coord.Successor(lower[:7]))
	if err != nil {
		t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestInherit: what old owners know holds at once, and after the next start; it grows
// only, and new writes are above the clocks of what was collected.
func TestInherit(t *testing.T) {
	b := newSweepBench(t)
	dead := foreign(5, 1, 1, "old")
	confirmed := &causal.Confirmed{Seen: causal.NewContext(causal.Dot{Actor: 5, Counter: 2}), Expired: 10}
	released := &causal.Confirmed{Seen: causal.NewContext(causal.Dot{Actor: 5, Counter: 1}), Expired: 5}
	floor := causal.HLCAt(noon) + 1<<40
	if err := b.Inherit(theSpan, 0, confirmed, released, floor); err != nil {
		t.Fatal(err)
	}
	if _, err := b.mergeAt(t, spanned("k"), dead); !coord.IsStripped(err) {
		t.Errorf("what was collected elsewhere is taken: %v", err)
	}
	if _, err := b.mergeAt(t, spanned("k"), foreign(5, 3, 1, "new")); err != nil {
		t.Error(err)
	}
	if b.write(t, "fresh", causal.Sibling{Value: []byte("v")}); b.shown(t, "fresh").Siblings[0].HLC <= floor {
		t.Error("a new write has a clock below the floor")
	}
	less := &causal.Confirmed{Seen: causal.NewContext(causal.Dot{Actor: 5, Counter: 1})}
	if err := b.Inherit(theSpan, 0, less, &causal.Confirmed{}, 1); err != nil {
		t.Fatal(err)
	}
	check := func(s *Store) {
		t.Helper()
		c, r, f, err := s.Known(theSpan)
		if err != nil || !c.Equal(confirmed) || !r.Equal(released) || f < floor {
			t.Errorf("known are %v, %v, floor %d of %d, %v", c, r, f, floor, err)
		}
	}
	check(b.Store)
	again, err := New(Options{Engine: b.db, Actor: 9, Scheduler: b.jobs, Records: b.opts.Records, Sums: newSums(), Tenant: lwwTenants})
	if err != nil {
		t.Fatal(err)
	}
	check(again)
}

// TestInheritUnderVotes: a vote for a write that the old owners have confirmed does not
// keep their horizon out, nor what rounds confirm afterwards, also after a restart: here
// that write cannot be made any more.
func TestInheritUnderVotes(t *testing.T) {
	b := newSweepBench(t)
	r := vote(5, 0)
	b.Claim(spanned("k"), []byte("id"), r, noon, func(_ causal.Record, err error) {
		if err != nil {
			t.Error(err)
		}
	})
	b.jobs.run()
	c := b.all(t, r.Dot)
	if err := b.Adopt(theSpan, c); err == nil {
		t.Fatal("a round confirms what a vote is open for")
	}
	if err := b.Inherit(theSpan, 0, c, &causal.Confirmed{}, 0); err != nil {
		t.Error(err)
	}
	again, err := New(b.opts)
	if err != nil {
		t.Fatal(err)
	}
	more := b.all(t, causal.Dot{Actor: r.Dot.Actor, Counter: r.Dot.Counter + 1})
	for i, s := range []*Store{b.Store, again} {
		if st, err := s.State(theSpan); err != nil || len(st.Votes) > 0 {
			t.Errorf("store %d has the open votes %v: %v", i, st.Votes, err)
		}
		if err := s.Adopt(theSpan, more); err != nil {
			t.Errorf("store %d: %v", i, err)
		}
	}
}

// TestVotesAreCopied: with its records an owner hands over its votes, which count at the
// other one as if it had been asked: not over what was agreed or a later round, and not
// for what is confirmed.
func TestVotesAreCopied(t *testing.T) {
	from, to := newSweepBench(t), newSweepBench(t)
	claim := func(b *bench, id string, r *causal.Record) {
		b.Claim(spanned("k"), []byte(id), r, noon, func(_ causal.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
		b.jobs.run()
	}
	held := func(b *bench, id string) (r causal.Record) {
		b.Lookup(spanned("k"), []byte(id), noon, func(h coord.Held, err error) {
			if err != nil {
				t.Error(err)
			}
			if h.Record != nil {
				r = *h.Record
			}
		})
		b.jobs.run()
		return r
	}
	for i, id := range []string{"new", "later", "earlier", "agreed", "late"} {
		claim(from, id, vote(uint64(10+i), 2))
	}
	claim(to, "later", vote(20, 3))
	claim(to, "earlier", vote(21, 1))
	agreed := applied("k", "agreed", vote(22, 1))
	agreed.Address = spanned("k")
	to.Merge([]coord.MergeItem{agreed}, func(_ int, _ []byte, err error) {
		if err != nil {
			t.Error(err)
		}
	})
	to.jobs.run()
	if err := to.Inherit(theSpan, 0, to.all(t, vote(14, 2).Dot), &causal.Confirmed{}, 0); err != nil {
		t.Fatal(err)
	}
	if rows, _, err := from.Records(theSpan, nil, 100, false); err != nil || len(rows) != 0 {
		t.Errorf("votes count as applied: %v, %v", rows, err)
	}
	rows, more, err := from.Records(theSpan, nil, 100, true)
	if err != nil || more || len(rows) != 5 {
		t.Fatalf("%d records, more %v, %v", len(rows), more, err)
	}
	if err := to.Restore(theSpan, 0, rows); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]uint64{"new": 10, "later": 20, "earlier": 12, "agreed": 22, "late": 0} {
		if r := held(to, id); r.Dot.Actor != want {
			t.Errorf("%s is a record of %d, not %d", id, r.Dot.Actor, want)
		}
	}
	// Rounds know of them.
	st, err := to.State(theSpan)
	if err != nil || st.VotesUnknown {
		t.Fatalf("%+v, %v", st, err)
	}
	for _, actor := range []uint64{10, 12, 20} {
		if !slices.ContainsFunc(st.Votes, func(d causal.Dot) bool { return d.Actor == actor }) {
			t.Errorf("no vote of %d among %v", actor, st.Votes)
		}
	}
}
