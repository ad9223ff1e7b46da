//go:build !race

// The race detector makes pools forget at random, so that allocations are not
// counted under it.

package replica

import (
	"testing"

	"github.com/pairdb/pairdb/coord/causal"
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
