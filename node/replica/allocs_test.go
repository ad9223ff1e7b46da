//go:build !race

// The race detector makes pools forget at random, so that allocations are not
// counted under it.

package replica

import (
	"testing"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// TestCallsAllocate: a digest allocates nothing, and a write the object that its caller
// keeps, beside what making it does.
func TestCallsAllocate(t *testing.T) {
	b := newBench(t)
	b.put(t, "k", "value")
	b.jobs.run()
	where := at("k")
	digest := func([16]byte, error) {}
	if n := testing.AllocsPerRun(100, func() { b.ReadDigest(where, digest) }); n > 0 {
		t.Errorf("a digest: %v allocations", n)
	}
	fixed := causal.Mint(&causal.Object{}, nil, causal.Sibling{Dot: causal.Dot{Actor: actor, Counter: 1}, Value: []byte("value")})
	edit := func(*causal.Object, func() causal.Dot) (causal.Object, error) { return fixed, nil }
	durable := func(error) {}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := b.Update(where, edit, durable); err != nil {
			t.Fatal(err)
		}
	}); n > 4 {
		t.Errorf("an update: %v allocations", n)
	}
}

// TestKnownAllocatesNothing: what is confirmed is looked at by each read and write.
func TestKnownAllocatesNothing(t *testing.T) {
	b := newBench(t)
	if err := b.Adopt(theSpan, upTo(2)); err != nil {
		t.Fatal(err)
	}
	look := func(when string) {
		if n := testing.AllocsPerRun(100, func() {
			for _, of := range []ring.Class{theSpan.Class, leaverClass} {
				if b.confirmed(3, of).IsZero() || b.floor(3, of) > 1 {
					t.Error("it is lost")
				}
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations", when, n)
		}
	}
	look("an own class that has not parted")
	if err := b.Adopt(leaverSpan, upTo(3)); err != nil {
		t.Fatal(err)
	}
	look("one that has")
}
