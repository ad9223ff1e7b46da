//go:build !race

// The race detector makes pools forget at random, so that allocations are not
// counted under it.

package coord

import (
	"testing"

	"github.com/pairdb/pairdb/coord/causal"
)

func TestSealAllocates(t *testing.T) {
	s, key, seen := keys(2), []byte("key"), causal.Context{{Actor: 1, Counter: 2}, {Actor: 9, Counter: 300}}
	if n := testing.AllocsPerRun(1000, func() { seal(s, 7, key, seen, 42) }); n > 1 {
		t.Errorf("%v allocations, want that of the token", n)
	}
}
