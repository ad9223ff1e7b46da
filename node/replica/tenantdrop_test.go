package replica

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/node/replica/sums"
)

func never() bool { return false }

// TestDropTenant: nothing is left of a tenant that was deleted, in any partition, and
// nothing of others is touched; as long as it was not deleted nothing is dropped.
func TestDropTenant(t *testing.T) {
	b := newBench(t)
	b.fillSpans(t)
	deleted := false
	b.opts.Deleted = func(n ring.TenantNumber) bool { return deleted && n == wideTenant }
	elsewhere := of(wideTenant, "elsewhere")
	elsewhere.Partition, elsewhere.Token = 1000, 1000<<54
	if _, err := b.mergeAt(t, elsewhere, foreign(77, 1, 1, "value")); err != nil {
		t.Fatal(err)
	}
	own := ring.OwnClass(wideTenant, 3)
	for _, p := range []ring.Partition{3, 17} {
		if err := b.Adopt(repair.Span{Partition: p, Class: own}, upTo(1)); err != nil {
			t.Fatal(err)
		}
	}
	other := ring.OwnClass(narrowTenant, 3)
	if err := b.Adopt(repair.Span{Partition: 17, Class: other}, upTo(1)); err != nil {
		t.Fatal(err)
	}
	before, _ := b.opts.Records.Bytes()
	if n, err := b.DropTenant(wideTenant, never); n != 0 || !errors.Is(err, ErrTenantInUse) {
		t.Errorf("a tenant that was not deleted: %d partitions, %v", n, err)
	}
	all := []ring.TenantNumber{wideTenant, narrowTenant, lostTenant}
	if here, err := b.TenantsHere(never); err != nil || !slices.Equal(here, all) {
		t.Errorf("there are the tenants %v, %v", here, err)
	}
	deleted = true
	if _, err := b.TenantsHere(func() bool { return true }); !errors.Is(err, ErrStopped) {
		t.Errorf("a scan that is to stop: %v", err)
	}
	if _, err := b.DropTenant(wideTenant, func() bool { return true }); !errors.Is(err, ErrStopped) {
		t.Errorf("a drop that is to stop: %v", err)
	}
	if n, err := b.DropTenant(wideTenant, never); n != 3 || err != nil {
		t.Fatalf("it was dropped in %d partitions, %v", n, err)
	}
	full := [kindSpan]int{20, 3, 5}
	for tenant, want := range map[ring.TenantNumber][kindSpan]int{wideTenant: {}, narrowTenant: full, lostTenant: full} {
		if n := b.kinds(t, tenant); n != want {
			t.Errorf("of tenant %d there are %v, not %v", tenant, n, want)
		}
	}
	if after, _ := b.opts.Records.Bytes(); after != before/3*2 {
		t.Errorf("records take %d bytes, not two thirds of %d", after, before)
	}
	for _, p := range []ring.Partition{3, 1000} {
		first, last := ring.Token(p)<<54, (ring.Token(p)+1)<<54-1
		if s, err := b.Sums(repair.Range{Partition: p, Tenant: wideTenant, First: first, Last: last}, 0); err != nil || s[0].Count != 0 {
			t.Errorf("the sums of partition %d have %v, %v", p, s, err)
		}
		if n, err := b.VerifySums(p); n != 0 || err != nil {
			t.Errorf("%d sums of partition %d are wrong, %v", n, p, err)
		}
	}
	for _, p := range []ring.Partition{3, 17} {
		if b.stored(t, spanKey(repair.Span{Partition: p, Class: own})) != nil || b.spanOf(p, own) != nil {
			t.Errorf("what was known of its class in partition %d is still there", p)
		}
	}
	if b.confirmed(17, other).IsZero() {
		t.Error("what is known of another class is gone")
	}
	if here, err := b.TenantsHere(never); err != nil || !slices.Equal(here, all[1:]) {
		t.Errorf("there are the tenants %v, %v", here, err)
	}
	if n, err := b.DropTenant(wideTenant, never); n != 0 || err != nil {
		t.Errorf("once more: %d partitions, %v", n, err)
	}
	// Of three times three votes those of the tenant are open no more: each tenant voted for
	// the same writes.
	if st, err := b.State(repair.Span{Partition: 3, Class: 1}); err != nil || st.VotesUnknown || len(st.Votes) != 3 {
		t.Errorf("state %+v, %v", st, err)
	}
}

// TestWritesOfADeletedTenant: all are refused for good, also those that were let through
// before and wait for their key, and change nothing; other tenants write on.
func TestWritesOfADeletedTenant(t *testing.T) {
	final := func(err error) bool {
		e, ok := errors.AsType[*coord.Error](err)
		return ok && e.Code == errcode.TenantNotFound && e.Outcome == errcode.NotApplied
	}
	for name := range (&bench{}).writes(0) {
		b := newBench(t)
		var deleted atomic.Bool
		b.opts.Deleted = func(n ring.TenantNumber) bool { return n == 7 && deleted.Load() }
		a := at("k")
		lock := &b.stripes[stripeOf(appendKey(nil, &a))]
		lock.Lock()
		done, forgot := make(chan error), make(chan struct{})
		go func() { done <- b.writes(0)[name]() }()
		for range 100 {
			runtime.Gosched() // so that it mostly waits
		}
		deleted.Store(true)
		go func() { b.Forget(); close(forgot) }()
		for !b.forgets.Load() {
			runtime.Gosched()
		}
		before := b.db.VisibleSeq()
		lock.Unlock()
		if err := <-done; !final(err) {
			t.Errorf("%s that waited: %v", name, err)
		}
		<-forgot
		if err := b.writes(0)[name](); !final(err) {
			t.Errorf("%s: %v", name, err)
		}
		if b.db.VisibleSeq() != before {
			t.Errorf("%s has changed something", name)
		}
		other := at("k")
		other.Tenant = 8
		if _, err := b.Update(other, blind("v"), func(error) {}); err != nil {
			t.Errorf("another tenant: %v", err)
		}
	}
}

// TestForget: when it returns, what was let through before is visible, so that a drop takes
// it away.
func TestForget(t *testing.T) {
	for range 100 {
		b := newBench(t)
		var deleted atomic.Bool
		b.opts.Deleted = func(ring.TenantNumber) bool { return deleted.Load() }
		a := at("k")
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
		deleted.Store(true)
		if n, err := b.DropTenant(7, never); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
		if n := b.kinds(t, 7); n != [kindSpan]int{} {
			t.Fatalf("%v are left", n)
		}
	}
}

// TestSpansOfADeletedTenant: nothing is stored any more of its class, and records that
// another owner sends of it are left out.
func TestSpansOfADeletedTenant(t *testing.T) {
	from, b := newLeaveBench(t), newLeaveBench(t)
	b.left.Store(true)
	if err := b.Adopt(leaverSpan, upTo(1)); err != nil {
		t.Fatal(err)
	}
	from.Claim(from.of("k"), []byte("id"), vote(5, 0), noon, func(_ causal.Record, err error) {
		if err != nil {
			t.Error(err)
		}
	})
	from.jobs.run()
	rows, _, err := from.Records(theSpan, nil, 10, true)
	if err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	b.opts.Deleted = func(n ring.TenantNumber) bool { return n == leaver }
	if _, err := b.DropTenant(leaver, never); err != nil {
		t.Fatal(err)
	}
	before := b.db.VisibleSeq()
	if err := b.Restore(leaverSpan, 0, rows); err != nil {
		t.Error(err)
	}
	_, stateErr := b.State(leaverSpan)
	for name, err := range map[string]error{
		"adopt":   b.Adopt(leaverSpan, upTo(2)),
		"release": b.Release(leaverSpan, upTo(2)),
		"inherit": b.Inherit(leaverSpan, 0, upTo(2), upTo(2), 3),
		"told":    b.Told(leaverSpan, 3),
		"drop":    b.Drop(leaverSpan, func() bool { return true }),
		"state":   stateErr,
	} {
		if !errors.Is(err, errDeleted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A snapshot of before may still name the class.
	if err := b.Adopt(theSpan, upTo(2)); err != nil {
		t.Fatal(err)
	}
	if b.stored(t, spanKey(leaverSpan)) != nil {
		t.Error("what was known of its class is stored again")
	}
	if b.db.VisibleSeq() == before {
		t.Error("of the others nothing was stored")
	}
	if here, err := b.TenantsHere(never); err != nil || len(here) > 0 {
		t.Errorf("there are %v, %v", here, err)
	}
}

// TestCrashAtEveryCallOfATenantDrop: whatever call of it is the last one, the next start
// finds what is left and takes it away; what belongs to others is whole, and the sums are
// right.
func TestCrashAtEveryCallOfATenantDrop(t *testing.T) {
	own := repair.Span{Partition: 1, Class: ring.OwnClass(1, 3)}
	deleted := func(n ring.TenantNumber) bool { return n == 1 }
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
			if err := b.Adopt(own, upTo(1)); err != nil {
				t.Fatal(err)
			}
			had, other := 0, 0
			for p := range ring.Partition(sumParts) {
				had, other = had+b.keysOf(t, p, 1), other+b.keysOf(t, p, 2)
			}
			if had == 0 || other == 0 {
				t.Fatal("there is nothing to drop, or to keep")
			}
			b.opts.Deleted = deleted
			b.breaks = b.calls + call
			_, err := b.DropTenant(1, never)
			whole = b.calls < b.breaks
			if whole != (err == nil) {
				t.Fatalf("call %d: %v", call, err)
			}
			b.crash(t, mode, rng)
			b.opts.Deleted = deleted
			here, err := b.TenantsHere(never)
			if err != nil || whole && slices.Contains(here, 1) {
				t.Fatalf("call %d: the next start finds the tenants %v, %v", call, here, err)
			}
			b.check(t)
			left := 0
			for p := range ring.Partition(sumParts) {
				left += b.keysOf(t, p, 1)
			}
			if found := slices.Contains(here, 1); found != (left > 0 || b.spanOf(1, own.Class).split()) {
				t.Errorf("call %d: %d keys are left, found %v", call, left, found)
			}
			if _, err := b.DropTenant(1, never); err != nil {
				t.Fatal(err)
			}
			for p := range ring.Partition(sumParts) {
				other -= b.keysOf(t, p, 2)
			}
			if here, err := b.TenantsHere(never); err != nil || !slices.Equal(here, []ring.TenantNumber{2}) || other != 0 {
				t.Errorf("call %d: there are %v, and %d keys of others are missing, %v", call, here, other, err)
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

// TestDropTenantWithoutACluster: how many partitions there are is not known.
func TestDropTenantWithoutACluster(t *testing.T) {
	b := newBench(t)
	b.opts.Sums = sums.New(func() int { return 0 })
	b.opts.Deleted = func(ring.TenantNumber) bool { return true }
	e, ok := errors.AsType[*coord.Error](func() error { _, err := b.DropTenant(7, never); return err }())
	if !ok || e.Code != errcode.Unavailable {
		t.Errorf("%v", e)
	}
}
