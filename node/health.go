package node

import (
	"context"
	"log/slog"

	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/gossip/ring"
)

// peerChanged logs what the coordinator has come to think of a peer, or of this
// node's own disk and reads.
func (n *Node) peerChanged(id ring.NodeID, from, to peerhealth.State, why string) {
	level := slog.LevelWarn
	if to == peerhealth.Closed {
		level = slog.LevelInfo
	}
	n.log.Log(context.Background(), level, "how a node answers", "component", "coord", "peer", n.nameOf(id), "from", from.String(), "to", to.String(), "why", why)
}

// nameOf is a member's name, or its short id if that is not known.
func (n *Node) nameOf(id ring.NodeID) string {
	if m, ok := n.gossip.Snapshot().Member(id); ok && m.Name != "" {
		return m.Name
	}
	return id.Short()
}

// healthSeries are what the coordinator thinks of each peer that it has asked
// something, and of this node: no more series than the cluster has members, and two.
func (n *Node) healthSeries() ([]series, func(emit)) {
	state := gauge("pairdb_peer_state", "How a node is treated by what it has answered: 0 closed, like any other; 1 slow, asked last; 2 half open, being tried; 3 open, sent nothing but probes. By peer and part: requests, or for this node itself disk and reads.", "peer", "part")
	wait := gauge("pairdb_peer_hedge_delay_seconds", "After how long a read that waits for a node asks one more owner, in seconds, by peer.", "peer")
	return []series{state, wait}, func(e emit) {
		for _, s := range n.coord.PeerHealth() {
			name := n.nameOf(s.ID)
			e(state, float64(s.State), name, string(s.Part))
			if s.Part != peerhealth.Disk {
				e(wait, s.ReadWait.Seconds(), name)
			}
		}
	}
}
