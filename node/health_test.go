package node

import (
	"testing"

	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/gossip/ring"
)

// TestDistinctNames: the label of a peer's series is its name, and tells it from
// another of that name.
func TestDistinctNames(t *testing.T) {
	a, b, c := ring.NodeID{1}, ring.NodeID{2}, ring.NodeID{3}
	names := map[ring.NodeID]string{a: "a", b: "twin", c: "twin"}
	got := distinctNames([]peerhealth.Status{
		{ID: a, Part: peerhealth.Disk}, {ID: a}, {ID: b}, {ID: c},
	}, func(id ring.NodeID) string { return names[id] })
	if got[a] != "a" || got[b] != "twin" || got[c] != "twin "+c.Short() {
		t.Errorf("%q", got)
	}
}
