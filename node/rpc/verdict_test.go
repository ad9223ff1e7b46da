package rpc

import (
	"strings"
	"testing"

	"github.com/pairdb/pairdb/gossip/ring"
)

// TestVerdictNamesWhoIsGoneForGood: a joiner that was turned away and is down keeps
// deletes from being collected, which nothing else would tell.
func TestVerdictNamesWhoIsGoneForGood(t *testing.T) {
	c := newRing(t, 3)
	c.propose(nil, nil, layoutNode(0), layoutNode(1), layoutNode(2), layoutNode(3))
	c.add(&ring.Entry{Kind: ring.KindAbort, Step: &ring.Step{Change: c.state.Change().ID}})
	for _, down := range []bool{false, true} {
		v := judge(c.meta.Snapshot(), func(id ring.NodeID) bool { return !down || id != layoutNode(3).ID })
		if v.word != "healthy" || !strings.HasPrefix(v.reason, "All 3 nodes are up.") || strings.Contains(v.reason, "node3") != down {
			t.Errorf("down %v: %s, %s", down, v.word, v.reason)
		}
	}
}
