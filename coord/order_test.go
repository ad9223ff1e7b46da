package coord

import (
	"slices"
	"testing"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// TestOrderOfOwners: who has withdrawn is asked after those that have not, who is
// down is not asked at all, and this node is first in any case: what it has in
// memory it can read.
func TestOrderOfOwners(t *testing.T) {
	id := func(i int) ring.NodeID { return ring.NodeID{byte(i + 1)} }
	for name, c := range map[string]struct {
		self    int
		members []schema.Member
		want    []int
	}{
		"all well":          {1, []schema.Member{{}, {}, {}}, []int{1, 0, 2}},
		"no owner":          {-1, []schema.Member{{}, {}, {}}, []int{0, 1, 2}},
		"one has withdrawn": {-1, []schema.Member{{Withdrawn: true}, {}, {}}, []int{1, 2, 0}},
		"one is drained":    {-1, []schema.Member{{Drained: true}, {}, {}}, []int{1, 2, 0}},
		"all have":          {-1, []schema.Member{{Withdrawn: true}, {Withdrawn: true}, {Withdrawn: true}}, []int{0, 1, 2}},
		"this node has":     {2, []schema.Member{{}, {}, {Withdrawn: true}}, []int{2, 0, 1}},
		"one is down, one has withdrawn": {
			-1, []schema.Member{{Withdrawn: true}, {Liveness: schema.Dead}, {}}, []int{2, 0},
		},
	} {
		var owners []ring.NodeID
		for i := range c.members {
			m := &c.members[i]
			m.ID = id(i)
			if m.Liveness == schema.LivenessUnknown {
				m.Liveness = schema.Alive
			}
			owners = append(owners, m.ID)
		}
		u := &unit{self: c.self, snap: schema.Build(schema.Snapshot{Members: c.members}, nil)}
		u.setOwners(owners)
		if got := u.order(nil); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
