package coord

import (
	"sync"

	"github.com/pairdb/pairdb/gossip/ring"
)

const (
	// bundleItems is how many operations that start together hold their
	// messages back for one another at the most: each mints first, some 10 µs.
	bundleItems = 128
	// bundleBytes is how many bytes to one peer are held back: about a frame.
	bundleBytes = 256 << 10
)

// bundle holds back what operations that start together send, so that what goes
// to one peer leaves as one frame, and is one batch and one sync there. It is
// safe for concurrent use; a bundle that is closed holds nothing back.
type bundle struct {
	c  *Coordinator
	mu struct {
		sync.Mutex
		closed bool
		peers  []bundled
	}
	few [ring.MaxRF]bundled // what peers begins with
}

// bundled is what waits for one peer.
type bundled struct {
	to    ring.NodeID
	msgs  *[]Outgoing // nil for none
	bytes int
}

func (c *Coordinator) newBundle() *bundle {
	b := &bundle{c: c}
	b.mu.peers = b.few[:0]
	return b
}

// send sends m, or keeps it until the bundle is flushed.
func (b *bundle) send(to ring.NodeID, m *Message, reply func(Reply, error)) {
	b.mu.Lock()
	if b.mu.closed {
		b.mu.Unlock()
		b.c.opts.Transport.Send(to, m, reply)
		return
	}
	p := b.peerLocked(to)
	if p.msgs == nil {
		p.msgs = b.c.outgoing()
	}
	*p.msgs = append(*p.msgs, Outgoing{Message: *m, Reply: reply})
	p.bytes += len(m.Key) + len(m.Body)
	var full *[]Outgoing
	if p.bytes >= bundleBytes {
		full, p.msgs, p.bytes = p.msgs, nil, 0
	}
	b.mu.Unlock()
	if full != nil {
		b.c.sendAll(to, full)
	}
}

func (b *bundle) peerLocked(to ring.NodeID) *bundled {
	for i := range b.mu.peers {
		if b.mu.peers[i].to == to {
			return &b.mu.peers[i]
		}
	}
	b.mu.peers = append(b.mu.peers, bundled{to: to})
	return &b.mu.peers[len(b.mu.peers)-1]
}

// flush sends what waits. The caller holds no lock: replies may come at once.
func (b *bundle) flush() { b.empty(false) }

// close flushes for the last time.
func (b *bundle) close() { b.empty(true) }

func (b *bundle) empty(last bool) {
	b.mu.Lock()
	b.mu.closed = last
	peers := b.mu.peers
	b.mu.peers = nil
	b.mu.Unlock()
	for i := range peers {
		if peers[i].msgs != nil {
			b.c.sendAll(peers[i].to, peers[i].msgs)
		}
	}
}

// outgoing returns an empty list, one that was sent before if there is one.
func (c *Coordinator) outgoing() *[]Outgoing {
	if l, ok := c.sent.Get().(*[]Outgoing); ok {
		return l
	}
	return new([]Outgoing)
}

// sendAll hands messages to one peer over together, if the transport can, and
// keeps the list for others.
func (c *Coordinator) sendAll(to ring.NodeID, list *[]Outgoing) {
	msgs := *list
	if t, ok := c.opts.Transport.(Bundler); ok {
		t.SendAll(to, msgs)
	} else {
		for i := range msgs {
			c.opts.Transport.Send(to, &msgs[i].Message, msgs[i].Reply)
		}
	}
	clear(msgs)
	*list = msgs[:0]
	c.sent.Put(list)
}

// send sends a message of the operation, with those of the operations that
// start with it.
func (j *job) send(to ring.NodeID, m *Message, reply func(Reply, error)) {
	if j.bundle != nil {
		j.bundle.send(to, m, reply)
		return
	}
	j.c.opts.Transport.Send(to, m, reply)
}
