package coord

import (
	"sync"

	"github.com/pairdb/pairdb/gossip/ring"
)

// maxCatchUpWaiters bounds the frames and operations that wait for a newer ring.
const maxCatchUpWaiters = 4096

// catchUps shares exchanges of the ring: a change makes every frame of a peer
// that is ahead ask for the same entries at once. Each peer is asked for one
// version at a time. Who needs another one waits for that, and asks again only
// if it did not bring it.
type catchUps struct {
	mu struct {
		sync.Mutex
		peers map[ring.NodeID]*catchUpPeer
		// waiting counts the callbacks of all peers.
		waiting int
	}
}

// catchUpPeer is the exchange that is under way with one peer.
type catchUpPeer struct {
	atLeast ring.Version
	joined  []func()
	next    []catchUpWaiter
}

type catchUpWaiter struct {
	atLeast ring.Version
	then    func()
}

// catchUp learns what from knows of the ring, up to atLeast or more, and calls
// then, exactly once and maybe before it returns. Whether it worked shows in
// the snapshot; when too many wait, then is called at once. Close waits for it.
func (c *Coordinator) catchUp(from ring.NodeID, atLeast ring.Version, then func()) {
	s := &c.catching
	c.hold(1)
	s.mu.Lock()
	if s.mu.waiting >= maxCatchUpWaiters {
		s.mu.Unlock()
		then()
		c.leave()
		return
	}
	s.mu.waiting++
	p := s.mu.peers[from]
	switch {
	case p == nil:
		if s.mu.peers == nil {
			s.mu.peers = map[ring.NodeID]*catchUpPeer{}
		}
		s.mu.peers[from] = &catchUpPeer{atLeast: atLeast, joined: []func(){then}}
	case p.atLeast == atLeast:
		p.joined = append(p.joined, then)
	default:
		// Not even a higher version will do: the peer may not have had what
		// this one needs when the exchange began, and never have the other.
		p.next = append(p.next, catchUpWaiter{atLeast, then})
	}
	s.mu.Unlock()
	if p == nil {
		c.exchange(from, atLeast)
	}
}

func (c *Coordinator) exchange(from ring.NodeID, atLeast ring.Version) {
	c.opts.CatchUp(from, atLeast, func(error) { c.exchanged(from) })
}

// exchanged calls those that waited for the exchange with a peer that has
// ended, and begins the next one if somebody needs it.
func (c *Coordinator) exchanged(from ring.NodeID) {
	s := &c.catching
	now := c.opts.View().Version
	s.mu.Lock()
	p := s.mu.peers[from]
	ready := p.joined
	again := &catchUpPeer{}
	for _, w := range p.next {
		if w.atLeast <= now {
			ready = append(ready, w.then)
			continue
		}
		again.atLeast = max(again.atLeast, w.atLeast)
		again.joined = append(again.joined, w.then)
	}
	delete(s.mu.peers, from)
	if len(again.joined) > 0 {
		s.mu.peers[from] = again
	}
	s.mu.waiting -= len(ready)
	s.mu.Unlock()
	if len(again.joined) > 0 {
		c.exchange(from, again.atLeast)
	}
	for _, then := range ready {
		then()
		c.leave()
	}
}
