// Package repair plans how copies of a key are brought together. It is pure.
package repair

import "github.com/pairdb/pairdb/coord/causal"

// Plan joins what owners hold, nil for one that has not said, and returns the
// join with a bit set for each owner that said and lacks some of it. There are
// at most 16 owners. The result shares values with what is held.
func Plan(held []*causal.Object) (joined causal.Object, lacking uint16) {
	for _, o := range held {
		if o != nil {
			joined = causal.Join(&joined, o)
		}
	}
	for i, o := range held {
		if o != nil && !o.Equal(&joined) {
			lacking |= 1 << i
		}
	}
	return joined, lacking
}
