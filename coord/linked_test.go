package coord

import (
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// TestDeadButLinked: membership is not believed about the death of an owner to which
// there is a connection, unless that does not answer, or the owner has said goodbye.
func TestDeadButLinked(t *testing.T) {
	id := func(i int) ring.NodeID { return ring.NodeID{byte(i + 1)} }
	owners := []ring.NodeID{id(0), id(1), id(2), id(3)}
	members := []schema.Member{
		{ID: id(0), Liveness: schema.Alive},
		{ID: id(1), Liveness: schema.Dead},
		{ID: id(2), Liveness: schema.Dead},
		{ID: id(3), Liveness: schema.Left},
	}
	c := &Coordinator{}
	c.opts.Self = id(0)
	c.opts.Linked = func(to ring.NodeID) bool { return to != id(2) }
	c.health.table = peerhealth.NewTable(c.opts.Self, time.Second)
	u := &unit{self: 0, snap: schema.Build(schema.Snapshot{Members: members}, nil)}
	u.setOwners(owners)
	c.doubtDeath(u)
	for i, want := range []bool{false, false, true, true} {
		if u.down(i) != want {
			t.Errorf("owner %d is down: %v, want %v", i, u.down(i), want)
		}
	}
}
