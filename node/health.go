package node

import (
	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/node/admission"
	"github.com/pairdb/pairdb/node/events"
)

// peerChanged notes what the coordinator has come to think of a peer, or of this
// node's own disk and reads.
func (n *Node) peerChanged(id ring.NodeID, from, to peerhealth.State, why string) {
	text, severity := "a node answers again", events.Info
	switch to {
	case peerhealth.Slow:
		text, severity = "a node answers late: it is asked last", events.Warning
	case peerhealth.Open:
		text, severity = "a node does not answer: it is left out until it does", events.Warning
	}
	n.happened.Add(events.Breaker, severity, text, "peer", n.nameOf(id), "from", from.String(), "to", to.String(), "why", why)
}

// linkChanged notes a link to a peer that has come or gone; its own log says more.
func (n *Node) linkChanged(id ring.NodeID, up bool, why string) {
	if up {
		n.happened.AddLogged(events.Link, events.Info, "connected to a node", "peer", n.nameOf(id))
		return
	}
	n.happened.AddLogged(events.Link, events.Warning, "the connection to a node is lost", "peer", n.nameOf(id), "why", why)
}

// shedding notes when requests begin to be refused, and when that is over.
func (n *Node) shedding(began bool, why admission.Reason) {
	if began {
		n.happened.Add(events.Shedding, events.Warning, "more requests than this node can answer in time: some are refused with RATE_LIMITED", "reason", why.String())
		return
	}
	n.happened.Add(events.Shedding, events.Info, "no request was refused for 5 s")
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
		peers := n.coord.PeerHealth()
		names := distinctNames(peers, n.nameOf)
		for _, s := range peers {
			name := names[s.ID]
			e(state, float64(s.State), name, string(s.Part))
			if s.Part != peerhealth.Disk {
				e(wait, s.ReadWait.Seconds(), name)
			}
		}
	}
}

// distinctNames are the names of peers as a label, which has to tell them apart: a
// series that is there twice is an error of all. Of several that have one name, as
// when a node was given that of one that is down, all but the first have their short
// id behind it.
func distinctNames(peers []peerhealth.Status, nameOf func(ring.NodeID) string) map[ring.NodeID]string {
	names, taken := make(map[ring.NodeID]string, len(peers)), make(map[string]bool, len(peers))
	for _, s := range peers {
		if _, ok := names[s.ID]; ok {
			continue // this node's other part
		}
		name := nameOf(s.ID)
		if taken[name] {
			name += " " + s.ID.Short()
		}
		names[s.ID], taken[name] = name, true
	}
	return names
}
