package rpc

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// verdict is one word and one sentence on a cluster.
type verdict struct{ word, reason string }

// judge says how the cluster is, given which nodes are up: healthy if every
// owner of every partition is, degraded if each partition has a quorum, for
// each replication factor in use, unhealthy else.
func judge(snap *schema.Snapshot, up func(ring.NodeID) bool) verdict {
	l := snap.Layout
	switch {
	case l == nil:
		return verdict{"unhealthy", "The cluster is not founded yet."}
	case !snap.Ready:
		return verdict{"unhealthy", "The cluster is founded, but not all founders have acknowledged it."}
	}
	down := downNodes(snap, up)
	if len(down) == 0 {
		return verdict{"healthy", fmt.Sprintf("All %d nodes are up.", len(l.Nodes()))}
	}
	names := strings.Join(down, ", ")
	for _, rf := range factors(snap) {
		if n := withoutQuorum(l, rf, up); n > 0 {
			return verdict{"unhealthy", fmt.Sprintf(
				"Down: %s. %d of %d partitions have no quorum at replication factor %d.", names, n, l.Partitions(), rf)}
		}
	}
	return verdict{"degraded", fmt.Sprintf("Down: %s. Every partition has a quorum.", names)}
}

// downNodes names the nodes of the layout that are not up, sorted.
func downNodes(snap *schema.Snapshot, up func(ring.NodeID) bool) []string {
	var names []string
	for _, n := range snap.Layout.Nodes() {
		if up(n.ID) {
			continue
		}
		name := n.Name
		if m, ok := snap.Member(n.ID); ok && m.Withdrawn {
			name += " (withdrawn)"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// factors are the replication factors in use, ascending; at least one.
func factors(snap *schema.Snapshot) []int {
	var rfs []int
	for _, t := range snap.Tenants() {
		rfs = append(rfs, t.RF)
	}
	if len(rfs) == 0 {
		return []int{defaultRF}
	}
	slices.Sort(rfs)
	return slices.Compact(rfs)
}

// withoutQuorum counts the partitions of which too few owners are up.
func withoutQuorum(l *ring.Layout, rf int, up func(ring.NodeID) bool) int {
	isUp := make(map[ring.NodeID]bool, len(l.Nodes()))
	for _, n := range l.Nodes() {
		isUp[n.ID] = up(n.ID)
	}
	lost := 0
	var owners []ring.NodeID
	for p := range l.Partitions() {
		owners = l.Owners(owners[:0], ring.Partition(p), rf)
		alive := 0
		for _, id := range owners {
			if isUp[id] {
				alive++
			}
		}
		if alive < quorum.Need(quorum.Quorum, len(owners)) {
			lost++
		}
	}
	return lost
}

// share is a node's part of the ring: partitions it is the first owner of, and
// an owner of at the largest replication factor in use.
type share struct{ first, all uint32 }

// sharesOf counts every node's share; empty without a layout.
func sharesOf(snap *schema.Snapshot) map[ring.NodeID]share {
	shares := make(map[ring.NodeID]share)
	l := snap.Layout
	if l == nil {
		return shares
	}
	rfs := factors(snap)
	var owners []ring.NodeID
	for p := range l.Partitions() {
		owners = l.Owners(owners[:0], ring.Partition(p), rfs[len(rfs)-1])
		for i, id := range owners {
			s := shares[id]
			if s.all++; i == 0 {
				s.first++
			}
			shares[id] = s
		}
	}
	return shares
}
