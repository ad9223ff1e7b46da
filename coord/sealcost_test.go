//go:build !race

// The race detector makes pools forget at random, so that allocations are not
// counted under it.

package coord

import (
	"testing"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/schema"
)

// TestSealAllocates: a token costs the memory it takes.
func TestSealAllocates(t *testing.T) {
	s := &schema.Snapshot{TokenKeys: []schema.TokenKey{{ID: 1}}}
	seen := causal.Context{{Actor: 1, Counter: 2}}
	key := []byte("key")
	if n := testing.AllocsPerRun(1000, func() { seal(s, 5, key, seen, 77) }); n > 1.1 {
		t.Errorf("%v allocations", n)
	}
}
