package rpc

import (
	"cmp"
	"fmt"
	"math/bits"
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
	down, lost := downNodes(snap, up)
	if len(down)+len(lost) == 0 {
		text := fmt.Sprintf("All %d nodes are up.", len(ringNodes(snap)))
		if snap.Change != nil {
			text += " A change of the ring is under way."
		}
		if gone := goneOutsiders(snap, up); len(gone) > 0 {
			text += fmt.Sprintf(" Without partitions and down: %s. Deletes are not cleared away until it has handed over what it may still hold, or is removed (pairdb node remove).", strings.Join(gone, ", "))
		}
		return verdict{"healthy", text}
	}
	var names string
	if len(down) > 0 {
		names = "Down: " + strings.Join(down, ", ") + ". "
	}
	if len(lost) > 0 {
		names += "Given up for lost, to be taken out by a change of the ring: " + strings.Join(lost, ", ") + ". "
	}
	for _, c := range copiesOf(snap) {
		if n := withoutQuorum(snap, c, up); n > 0 {
			return verdict{"unhealthy", fmt.Sprintf(
				"%s%d of %d partitions have no quorum at replication factor %d.", names, n, l.Partitions(), c.From)}
		}
	}
	return verdict{"degraded", names + "Every partition has a quorum."}
}

// goneOutsiders are the members without partitions that are down and may hold something
// that they have not handed over: nobody waits for them but the collection of deletes.
func goneOutsiders(snap *schema.Snapshot, up func(ring.NodeID) bool) []string {
	if snap.Ring == nil {
		return nil
	}
	var names []string
	for _, o := range snap.Ring.Outsiders() {
		if !up(o.ID) && snap.Report(o.ID).Clean < o.Since {
			names = append(names, o.Name)
		}
	}
	slices.Sort(names)
	return names
}

// ringNodes are the nodes of the layout and of the one that is to be, in the order in
// which routes number them: who is to join stands behind.
func ringNodes(snap *schema.Snapshot) []ring.LayoutNode {
	nodes := snap.Layout.Nodes()
	if snap.Change == nil {
		return nodes
	}
	nodes = slices.Clone(nodes)
	for _, n := range snap.Change.Next.Nodes() {
		if _, known := snap.Layout.Node(n.ID); !known {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// downNodes names the nodes that own something, or are to, and are not up, sorted; apart
// from them those that were given up for lost, which nobody has to start again.
func downNodes(snap *schema.Snapshot, up func(ring.NodeID) bool) (down, lost []string) {
	for _, n := range ringNodes(snap) {
		if up(n.ID) {
			continue
		}
		if givenUp(snap, n.ID) {
			lost = append(lost, n.Name)
			continue
		}
		name := n.Name
		if m, ok := snap.Member(n.ID); ok && m.Withdrawn {
			name += " (withdrawn)"
		}
		down = append(down, name)
	}
	slices.Sort(down)
	slices.Sort(lost)
	return down, lost
}

// givenUp says that a node is to be taken out of the ring, or to be replaced, because
// somebody has said that it is lost.
func givenUp(snap *schema.Snapshot, id ring.NodeID) bool {
	if snap.Ring == nil {
		return false
	}
	return snap.Retired(id) || snap.Change != nil && slices.Contains(snap.Change.Removed, id) ||
		slices.ContainsFunc(snap.Ring.Intents(), func(i *ring.IntentRecord) bool {
			return i.Node == id && (i.Verb == ring.VerbRemove || i.Verb == ring.VerbReplace || i.Verb == ring.VerbGiveUp)
		})
}

// copiesOf are the numbers of copies that tenants want, ascending and each once; at least
// one.
func copiesOf(snap *schema.Snapshot) []ring.Copies {
	var all []ring.Copies
	for _, c := range snap.Classes() {
		all = append(all, c.Copies)
	}
	if len(all) == 0 {
		return []ring.Copies{ring.Same(defaultRF)}
	}
	slices.SortFunc(all, func(a, b ring.Copies) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	return slices.Compact(all)
}

// withoutQuorum counts the partitions of which too few owners are up: old or new ones,
// while owners change.
func withoutQuorum(snap *schema.Snapshot, n ring.Copies, up func(ring.NodeID) bool) int {
	isUp := make(map[ring.NodeID]bool)
	for _, n := range ringNodes(snap) {
		isUp[n.ID] = up(n.ID)
	}
	lost := 0
	var room [ring.MaxOwners]ring.NodeID
	for p := range snap.Layout.Partitions() {
		sets := snap.Sets(room[:0], ring.Partition(p), n)
		alive := uint16(0)
		for i, id := range sets.Owners {
			if isUp[id] {
				alive |= 1 << i
			}
		}
		if !hasQuorum(alive, sets.W1) || !hasQuorum(alive, sets.W2) {
			lost++
		}
	}
	return lost
}

// hasQuorum says that so many of a set are alive; of none, none is needed.
func hasQuorum(alive, set uint16) bool {
	n := bits.OnesCount16(set)
	return n == 0 || bits.OnesCount16(alive&set) >= quorum.Need(quorum.Quorum, n)
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
	all := copiesOf(snap)
	most := all[len(all)-1].From
	var owners []ring.NodeID
	for p := range l.Partitions() {
		owners = l.Owners(owners[:0], ring.Partition(p), most)
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
