package ring

import (
	"math/bits"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestQuorumsOfNeighboursMeet: what is written by a quorum under one entry is met by
// every quorum that reads or writes under the same, the next and the one before.
func TestQuorumsOfNeighboursMeet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ph := drawPhases(t)
		p, tenant := Partition(rapid.IntRange(0, 7).Draw(t, "partition")), rapid.SampledFrom(ph.tenants).Draw(t, "tenant")
		checkMeet(t, ph, p, tenant)
		checkSynced(t, ph, p, tenant)
	})
}

// TestQuorumsMeetForAllFactors: from any replication factor to any other, with the same
// rows, with other rows, and with fewer and more nodes.
func TestQuorumsMeetForAllFactors(t *testing.T) {
	all := testNodes(0, slices.Repeat([]uint32{1}, 10)...)
	for _, nodes := range [][2][]LayoutNode{
		{all[:7], all[:7]},
		{all[:7], all[2:9]},
		{all[:9], all[:3]},
		{all[:3], all[1:8]},
		{all[:1], all[:4]},
		{all[:4], all[3:4]},
	} {
		l, err := NewLayout(8, nodes[0])
		if err != nil {
			t.Fatal(err)
		}
		for from := 1; from <= MaxRF; from++ {
			for to := 1; to <= MaxRF; to++ {
				s, tenants := withTenants(t, l)
				next, err := s.Layout().Rebalance(s.Version()+1, nodes[1])
				if err != nil {
					t.Fatal(err)
				}
				var factors []Factor
				if from != to {
					factors = []Factor{{Tenant: tenants[from-1], RF: uint8(to)}}
				}
				ph := phasesOf(t, s, next, factors...)
				for p := range Partition(2) {
					checkMeet(t, ph, p, tenants[from-1])
					checkSynced(t, ph, p, tenants[from-1])
				}
			}
		}
	}
}

type fatal interface {
	Fatal(...any)
	Fatalf(string, ...any)
}

func checkMeet(t fatal, ph phases, p Partition, tenant TenantNumber) {
	for _, pair := range [][2]*State{
		{ph.before, ph.proposed},
		{ph.proposed, ph.committed},
		{ph.committed, ph.final},
		{ph.proposed, ph.aborted},
		{ph.before, ph.before},
		{ph.proposed, ph.proposed},
		{ph.committed, ph.committed},
		{ph.final, ph.final},
	} {
		for _, order := range [][2]*State{pair, {pair[1], pair[0]}} {
			w, r := sets(order[0], p, tenant), sets(order[1], p, tenant)
			for group := range uint16(1) << len(w.Owners) {
				if !w.quorum(group, w.W1) || !w.quorum(group, w.W2) {
					continue
				}
				// The largest group that does not meet it.
				other := uint16(0)
				for i, id := range r.Owners {
					if at := slices.Index(w.Owners, id); at < 0 || group>>at&1 == 0 {
						other |= 1 << i
					}
				}
				if r.quorum(other, r.R1) || r.quorum(other, r.W1) && r.quorum(other, r.W2) {
					t.Fatalf("%+v: %v was written at %s, %v is asked at %s",
						copiesOf(ph.proposed, tenant), w.members(group), order[0].Version(), r.members(other), order[1].Version())
				}
			}
		}
	}
}

// quorum says whether a group has a majority of a set, which nobody needs of none.
func (s Sets) quorum(group, set uint16) bool {
	return set == 0 || 2*bits.OnesCount16(group&set) > bits.OnesCount16(set)
}

// checkSynced: once all that gain are synced, every quorum of the new owners knows what a
// quorum of the old ones wrote before the change.
func checkSynced(t fatal, ph phases, p Partition, tenant TenantNumber) {
	n := copiesOf(ph.proposed, tenant)
	old, next := ph.before.Layout().Owners(nil, p, n.From), ph.proposed.Change().Next.Owners(nil, p, n.To)
	for group := range uint16(1) << len(old) {
		if 2*bits.OnesCount16(group) <= len(old) {
			continue
		}
		ignorant := 0
		for _, id := range next {
			at := slices.Index(old, id)
			if !ph.proposed.Change().Gains(ph.proposed.Layout(), id, p, n) && (at < 0 || group>>at&1 == 0) {
				ignorant++
			}
		}
		if 2*ignorant > len(next) {
			t.Fatalf("%+v: %d of %d new owners need not know what %d of %d old ones wrote", n, ignorant, len(next), bits.OnesCount16(group), len(old))
		}
	}
}

// TestGuardsOfFactors: a change is not committed before all are synced that must, and not
// finalised while so many do not know of the COMMIT that they are a quorum of old owners,
// of any tenant.
func TestGuardsOfFactors(t *testing.T) {
	committed, finalised := false, false
	rapid.Check(t, func(t *rapid.T) {
		ph := drawPhases(t)
		said := map[NodeID]Report{}
		late := rapid.SliceOfNDistinct(rapid.SampledFrom(ph.proposed.Members()), 0, 2, func(n LayoutNode) NodeID { return n.ID }).Draw(t, "late")
		for _, m := range ph.proposed.Members() {
			said[m.ID] = Report{Acked: ph.committed.Version(), Synced: ph.proposed.Version()}
		}
		for _, m := range late {
			said[m.ID] = Report{}
		}
		commit, _ := ph.proposed.MayCommit(reports(said))
		finalise, _ := ph.committed.MayFinalize(reports(said))
		c := ph.proposed.Change()
		for p := range Partition(8) {
			for _, tenant := range ph.tenants {
				n := copiesOf(ph.proposed, tenant)
				for _, m := range late {
					if commit && c.Gains(ph.proposed.Layout(), m.ID, p, n) {
						t.Fatalf("partition %d, %+v: it may be committed, and %s is not synced", p, n, m.Name)
					}
				}
				owners := sets(ph.committed, p, tenant)
				unaware := 0
				for i, id := range owners.Owners {
					if owners.W1>>i&1 != 0 && said[id].Acked < ph.committed.Version() {
						unaware++
					}
				}
				if finalise && owners.Stage == Committed && 2*unaware > bits.OnesCount16(owners.W1) {
					t.Fatalf("partition %d, %+v: it may be finalised, and %d of %d old owners do not know", p, n, unaware, bits.OnesCount16(owners.W1))
				}
			}
		}
		committed, finalised = committed || commit && len(late) > 0, finalised || finalise && len(late) > 0
	})
	if !committed || !finalised {
		t.Errorf("with some late: ever committed %v, finalised %v", committed, finalised)
	}
}
