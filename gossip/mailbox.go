package gossip

import (
	"fmt"
	"net"
	"slices"
	"strconv"
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
	// foreign are the clusters met that are not ours, with the peer addresses of
	// a few nodes each.
	foreign map[ring.ClusterID][]string
	// twin: a later life of this node was met, and said so.
	twin bool
	wake chan<- struct{}
}

// maxPeers bounds the nodes a mailbox knows.
const maxPeers = 4 * ring.MaxNodes

func (b *mailbox) init(wake chan<- struct{}) {
	b.peers, b.fresh = map[ring.NodeID]sighting{}, map[ring.NodeID]struct{}{}
	b.digests, b.foreign, b.wake = map[ring.NodeID][16]byte{}, map[ring.ClusterID][]string{}, wake
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

// admit implements swimEvents: who may be a member. Liveness of strangers is of
// no use, and two clusters must never run into one.
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
	mine, theirs := f.card.cluster, s.cluster
	switch {
	case !theirs.IsZero() && mine.IsZero() && !f.pledged:
		if s.alive { // the dead may be this very node, before it was wiped
			g.box.meet(theirs, s.peer())
		}
		return &FrozenError{Name: g.opts.ClusterName, Cluster: theirs}
	case !theirs.IsZero() && !mine.IsZero() && theirs != mine:
		if g.box.meet(theirs, s.peer()) {
			g.log.Warn("a node of another cluster is refused", "node", s.id.Short(), "address", s.gossip,
				"cluster_id", theirs.String(), "own_cluster_id", mine.String())
		}
		return fmt.Errorf("node %s at %s %w: %s", s.id.Short(), s.gossip, ErrOtherCluster, theirs)
	case f.layout != nil:
		if _, ok := f.layout.Node(s.id); !ok {
			return fmt.Errorf("node %s at %s is not in the layout", s.id.Short(), s.gossip)
		}
	}
	return nil
}

// meet notes a cluster that is not ours and says whether it is the first time.
func (b *mailbox) meet(id ring.ClusterID, address string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	const clusters, nodes = 64, 4
	known, ok := b.foreign[id]
	if !ok && len(b.foreign) >= clusters {
		return false
	}
	if len(known) < nodes && !slices.Contains(known, address) {
		b.foreign[id] = append(known, address)
	}
	if !ok {
		poke(b.wake)
	}
	return !ok
}

// strangers gives peer addresses of a cluster that is not ours.
func (b *mailbox) strangers(id ring.ClusterID) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.foreign[id])
}

// meetTwin notes a later life of this node and says whether it is the first time.
func (b *mailbox) meetTwin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := !b.twin
	b.twin = true
	return first
}

// peer is the address of a node's peer listener.
func (s *sighting) peer() string { return net.JoinHostPort(s.host, strconv.Itoa(int(s.peerPort))) }

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
