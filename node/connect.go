package node

import "context"

// callMembers makes links to all members, for what comes before there is one waits for it
// no longer than a second. Each channel is closed when a member has been called once.
func (n *Node) callMembers() (calls []<-chan struct{}) {
	snap := n.gossip.Snapshot()
	for i := range snap.Members {
		if id := snap.Members[i].ID; id != snap.Self {
			calls = append(calls, n.peers.Connect(id))
		}
	}
	return calls
}

// meet returns when all members have been called once, or ctx ends. One that does not
// even refuse is waited for as long as an attempt to connect may take.
func (n *Node) meet(ctx context.Context) {
	for _, call := range n.callMembers() {
		select {
		case <-call:
		case <-ctx.Done():
			return
		}
	}
}
