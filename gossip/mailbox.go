package gossip

import (
	"fmt"
	"sync"

	"github.com/pairdb/pairdb/gossip/ring"
)

// mailbox takes what memberlist's goroutines have to say, without ever making
// them wait. There is one entry for each node, the newest.
type mailbox struct {
	mu sync.Mutex
	// peers are all nodes met in this life.
	peers map[ring.NodeID]sighting
	// fresh are those of peers whose sighting was not looked at yet.
	fresh map[ring.NodeID]struct{}
	// digests that differ from ours, or did when they came.
	digests map[ring.NodeID][16]byte
	// foreign are the clusters met that are not ours.
	foreign map[ring.ClusterID]struct{}
	// twin: a later life of this node was met, and said so.
	twin bool
	wake chan<- struct{}
}

// maxPeers bounds the nodes a mailbox knows.
const maxPeers = 4 * ring.MaxNodes

func (b *mailbox) init(wake chan<- struct{}) {
	b.peers, b.fresh = map[ring.NodeID]sighting{}, map[ring.NodeID]struct{}{}
	b.digests, b.foreign, b.wake = map[ring.NodeID][16]byte{}, map[ring.ClusterID]struct{}{}, wake
}

func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is awake already
	}
}

// sighted implements swimEvents.
func (g *Gossip) sighted(s sighting) {
	b := &g.box
	b.mu.Lock()
	old, known := b.peers[s.id]
	if s.id != g.self && (known || len(b.peers) < maxPeers) && s.incarnation >= old.incarnation {
		s.leaving = s.leaving || old.leaving && old.incarnation == s.incarnation
		b.peers[s.id], b.fresh[s.id] = s, struct{}{}
	}
	b.mu.Unlock()
	poke(b.wake)
}

// heard implements swimEvents.
func (g *Gossip) heard(id ring.NodeID, digest [16]byte) {
	if id == g.self {
		return
	}
	b := &g.box
	b.mu.Lock()
	_, known := b.peers[id]
	if known {
		b.digests[id] = digest
	}
	b.mu.Unlock()
	if known && digest != g.face.Load().digest {
		poke(b.wake)
	}
}

// leaving implements swimEvents. It may come before or after the failure detector
// has noticed.
func (g *Gossip) leaving(id ring.NodeID, incarnation uint64) {
	b := &g.box
	b.mu.Lock()
	if s, ok := b.peers[id]; ok && s.incarnation == incarnation {
		s.leaving = true
		b.peers[id], b.fresh[id] = s, struct{}{}
	}
	b.mu.Unlock()
	poke(b.wake)
}

// local implements swimEvents.
func (g *Gossip) local() (card, [16]byte) {
	f := g.face.Load()
	return f.card, f.digest
}

// admit implements swimEvents: whom to listen to. Two clusters must never run into one,
// and who is retired is not heard any more. A node without a cluster is met, so that it
// can join; whether it may is for the members' metadata to say.
func (g *Gossip) admit(s sighting) error {
	f := g.face.Load()
	if s.id == g.self {
		// Anyone can send such a packet, so it ends nothing: ErrIdentity takes
		// the signed entry of the other life, which the peers pass on.
		if s.alive && s.incarnation > g.inc && g.box.meetTwin() {
			g.log.Warn("gossip claims that a later life of this node is running; it is refused. If it is no forgery, the data directory was copied or set back",
				"node", g.self.Short(), "address", s.gossip, "incarnation", s.incarnation, "own_incarnation", g.inc)
		}
		return fmt.Errorf("node %s is this node, in another life", s.id.Short())
	}
	switch {
	case !s.cluster.IsZero() && !f.cluster.IsZero() && s.cluster != f.cluster:
		if g.box.meet(s.cluster) {
			g.log.Warn("a node of another cluster is refused", "node", s.id.Short(), "address", s.gossip,
				"cluster_id", s.cluster.String(), "own_cluster_id", f.cluster.String())
		}
		return fmt.Errorf("node %s at %s %w: %s", s.id.Short(), s.gossip, ErrOtherCluster, s.cluster)
	case f.ring.IsRetired(s.id):
		return fmt.Errorf("node %s at %s: %w", s.id.Short(), s.gossip, ErrRetired)
	}
	return nil
}

// meet notes a cluster that is not ours and says whether it is the first time.
func (b *mailbox) meet(id ring.ClusterID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	const clusters = 64
	_, known := b.foreign[id]
	if known || len(b.foreign) >= clusters {
		return false
	}
	b.foreign[id] = struct{}{}
	poke(b.wake)
	return true
}

// meetTwin notes a later life of this node and says whether it is the first time.
func (b *mailbox) meetTwin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := !b.twin
	b.twin = true
	return first
}

// take gives the sightings not looked at yet and the peers whose digest differs.
func (b *mailbox) take(own [16]byte) (seen []sighting, differ []ring.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.fresh {
		seen = append(seen, b.peers[id])
	}
	clear(b.fresh)
	for id, d := range b.digests {
		if d == own || !b.peers[id].alive {
			continue
		}
		differ = append(differ, id)
		delete(b.digests, id) // the exchange makes it old; the next one tells
	}
	return seen, differ
}

// doubt makes the next tick ask a peer again, after a question that failed.
func (b *mailbox) doubt(id ring.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.peers[id]; ok {
		b.digests[id] = [16]byte{}
	}
}

// stranger gives a cluster met that is not ours.
func (b *mailbox) stranger() (ring.ClusterID, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.foreign {
		return id, true
	}
	return ring.ClusterID{}, false
}

func (b *mailbox) peer(id ring.NodeID) (sighting, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.peers[id]
	return s, ok
}

// alive gives the peers that answer, in no order.
func (b *mailbox) alive() (out []sighting) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.peers {
		if s.alive {
			out = append(out, s)
		}
	}
	return out
}
