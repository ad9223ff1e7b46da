package replica

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
)

// TestMergesAreJoins: whatever comes in frames, what a key holds is the join of it
// in order, byte for byte, and each item hears what it did not cover.
func TestMergesAreJoins(t *testing.T) {
	for _, lww := range []bool{true, false} {
		for seed := range uint64(20) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			b := newBench(t)
			held := map[string]causal.Object{}
			past := map[string][]causal.Object{}
			counter := uint64(0)
			for range 30 {
				var items []coord.MergeItem
				var want [][]byte
				for range 1 + rnd.IntN(12) {
					key := fmt.Sprint("k", rnd.IntN(5))
					var o causal.Object
					if known := past[key]; len(known) > 0 {
						o = known[rnd.IntN(len(known))]
						if rnd.IntN(3) == 0 {
							o = causal.Join(&o, &known[rnd.IntN(len(known))])
						}
					}
					if rnd.IntN(4) > 0 {
						counter++
						seen := o.Context
						if rnd.IntN(3) == 0 {
							seen = nil
						}
						o = causal.Mint(&o, seen, causal.Sibling{
							Dot: causal.Dot{Actor: 1 + rnd.Uint64N(3), Counter: counter}, HLC: rnd.Uint64N(100), Value: fmt.Append(nil, counter),
						})
					}
					past[key] = append(past[key], o)
					in := item(key, o)
					in.LastWriteWins = lww
					items = append(items, in)

					before := held[key]
					var uncovered []byte
					if stub, ok := causal.Uncovered(&before, &o); ok {
						uncovered = stub.Append(nil)
					}
					want = append(want, uncovered)
					after := causal.Join(&before, &o)
					if lww {
						after.StripLosers()
					}
					held[key] = after
				}
				b.Merge(items, func(i int, uncovered []byte, err error) {
					if got := withoutPast(t, uncovered); err != nil || !bytes.Equal(got, want[i]) {
						t.Errorf("seed %d: item %d does not cover %x, want %x: %v", seed, i, got, want[i], err)
					}
				})
				b.jobs.run()
				for key, o := range held {
					b.Read(at(key), func(body []byte, err error) {
						if got := withoutPast(t, body); err != nil || !o.IsZero() && !bytes.Equal(got, o.Append(nil)) {
							t.Fatalf("seed %d: %s holds\n%x\n%x: %v", seed, key, got, o.Append(nil), err)
						}
					})
				}
			}
		}
	}
}

// withoutPast is an encoded object without what its siblings have seen at most: that is
// written only with something else.
func withoutPast(t *testing.T, b []byte) []byte {
	t.Helper()
	if len(b) == 0 {
		return b
	}
	o := decode(t, b)
	for i := range o.Siblings {
		o.Siblings[i].Past = nil
	}
	return o.Append(nil)
}

// TestMergeAllocates: what a frame of writes over others costs does not grow with
// its items.
func TestMergeAllocates(t *testing.T) {
	b := newBench(t)
	const n = 100
	items := make([]coord.MergeItem, n)
	objects := make([]causal.Object, n)
	frame := func() {
		for i := range items {
			o := &objects[i]
			*o = causal.Mint(o, o.Context, causal.Sibling{Dot: causal.Dot{Actor: 9, Counter: o.Context.Counter(9) + 1}, HLC: 1, Value: make([]byte, 100)})
			items[i] = item(fmt.Sprint("k", i), *o)
		}
	}
	frame()
	whole := testing.AllocsPerRun(20, func() {
		frame()
		b.merge(t, items...)
		b.jobs.run()
	})
	alone := testing.AllocsPerRun(20, func() {
		frame()
		for range items {
			decode(t, nil)
		}
	})
	if whole-alone > n/2 {
		t.Errorf("%v allocations for %d items", whole-alone, n)
	}
}
