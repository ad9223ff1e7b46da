package rpc

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// linkState is how a peer stands.
type linkState uint8

const (
	linkSeeking linkState = iota // no link; messages wait for it
	linkUp                       // messages are sent
	linkDown                     // no link; messages are refused
	linkGone                     // this peer object is done; messages are refused
)

const (
	firstBackoff = 20 * time.Millisecond
	// sweepEvery is the least time between two looks at the deadlines.
	sweepEvery = 5 * time.Millisecond
	// healthyAfter is how long a link must have lasted for its loss to be
	// followed by an attempt without a pause.
	healthyAfter = time.Second
)

// peer is the dialing side of one other node: its queues, its requests without
// a reply, and the one goroutine that keeps a link.
type peer struct {
	ps   *Peers
	id   ring.NodeID
	kick chan struct{} // ends a pause between attempts
	// tried is closed when the first attempt to connect is over.
	tried chan struct{}

	cluster ring.ClusterID

	mu struct {
		sync.Mutex
		state linkState
		// why is the last error, for the callers that are refused.
		why error
		// losses counts how often the queues were emptied.
		losses  uint64
		lanes   [laneCount]outbox
		pending pendingTable
		// sweepAt is when the timer fires; zero if it is not set.
		sweepAt time.Time
		sweeper *time.Timer
	}
}

func newPeer(ps *Peers, id ring.NodeID) *peer {
	p := &peer{ps: ps, id: id, kick: make(chan struct{}, 1), tried: make(chan struct{}), cluster: ps.opts.Cluster()}
	for i := range p.mu.lanes {
		p.mu.lanes[i].init(&p.mu.Mutex)
	}
	return p
}

// send queues m, or returns why not; reply is then not called.
func (p *peer) send(m *coord.Message, reply func(coord.Reply, error)) error {
	size := requestSize(m)
	if len(m.Key) > maxKeyLen || size > MaxFrameBytes-headerLen {
		return notSent("send %d bytes to %s: %w", size, p.id.Short(), ErrItemTooLarge)
	}
	lane := laneFor(m, size)
	if size >= largeItem {
		return p.sendLarge(m, size, lane, reply)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sendSmallLocked(m, size, lane, reply)
}

// sendSmallLocked puts an item of size bytes into the frame at the tail of a lane.
func (p *peer) sendSmallLocked(m *coord.Message, size int, lane Lane, reply func(coord.Reply, error)) error {
	o := &p.mu.lanes[lane]
	if err := p.admitLocked(o, size); err != nil {
		return err
	}
	f := o.tail(size)
	if f == nil {
		f = p.newFrame(0)
		o.push(f)
	}
	deadline := p.deadline(m, f)
	id := p.mu.pending.add(pendingSlot{reply: reply, deadline: deadline, lane: lane, frame: f.seq})
	f.ids = append(f.ids, id)
	*f.buf = appendRequest(*f.buf, id, m, deadline.Sub(f.begun))
	p.watchLocked(deadline)
	o.add(f, size)
	return nil
}

// sendLarge is send for an item with a frame of its own. It copies the item
// without the lock, which others need meanwhile.
func (p *peer) sendLarge(m *coord.Message, size int, lane Lane, reply func(coord.Reply, error)) error {
	p.mu.Lock()
	o := &p.mu.lanes[lane]
	if err := p.admitLocked(o, size); err != nil {
		p.mu.Unlock()
		return err
	}
	o.reserve(size)
	losses := p.mu.losses
	p.mu.Unlock()

	f := p.newFrame(size)
	deadline := p.deadline(m, f)
	*f.buf = appendRequest(*f.buf, 0, m, deadline.Sub(f.begun))

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.losses != losses {
		// The queue was emptied, and with it the reservation.
		return p.disconnectedLocked()
	}
	o.unreserve(size)
	o.push(f)
	id := p.mu.pending.add(pendingSlot{reply: reply, deadline: deadline, lane: lane, frame: f.seq})
	f.ids = append(f.ids, id)
	binary.BigEndian.PutUint64((*f.buf)[headerLen+requestIDOff:], id)
	p.watchLocked(deadline)
	o.add(f, size)
	return nil
}

// deadline is when the request in frame f expires.
func (p *peer) deadline(m *coord.Message, f *pendingFrame) time.Time {
	if m.Deadline.IsZero() {
		return f.begun.Add(p.ps.opts.DefaultTimeout)
	}
	return m.Deadline
}

// newFrame begins a frame with room for size bytes of items.
func (p *peer) newFrame(size int) *pendingFrame {
	f := &pendingFrame{buf: p.ps.pool.Get(headerLen + size), begun: p.ps.opts.Now()}
	*f.buf = appendHeader(*f.buf, kindRequests, p.cluster, p.ps.opts.Self)
	return f
}

// admitLocked says whether an item of size bytes may be queued now.
func (p *peer) admitLocked(o *outbox, size int) error {
	opts := &p.ps.opts
	switch {
	case p.mu.state == linkDown || p.mu.state == linkGone:
		return p.disconnectedLocked()
	case o.items >= opts.MaxQueuedItems || (o.items > 0 && o.bytes+size > opts.MaxQueuedBytes):
		return notSent("send to %s: %d items, %d bytes wait: %w", p.id.Short(), o.items, o.bytes, ErrOverloaded)
	case p.mu.pending.count >= opts.MaxPending:
		return notSent("send to %s: %d requests wait for a reply: %w", p.id.Short(), p.mu.pending.count, ErrOverloaded)
	}
	return nil
}

// disconnectedLocked is the error while there is no link.
func (p *peer) disconnectedLocked() error {
	if p.mu.why == nil {
		return notSent("send to %s: %w", p.id.Short(), ErrDisconnected)
	}
	return notSent("send to %s: %w: %w", p.id.Short(), ErrDisconnected, p.mu.why)
}

// watchLocked sees to it that the deadlines are looked at in time.
//
// There is one timer, set to the earliest deadline it knows of. Most requests
// are answered long before theirs; when the timer fires it looks at all that
// are left and is set again. So with equal timeouts a look happens once per
// timeout, not once per request, and never when nothing is pending.
func (p *peer) watchLocked(deadline time.Time) {
	if at := p.mu.sweepAt; !at.IsZero() && !deadline.Before(at) {
		return
	}
	p.unwatchLocked()
	p.mu.sweepAt = deadline
	p.ps.wg.Add(1) // run holds one until it calls unwatchLocked for good
	p.mu.sweeper = time.AfterFunc(max(deadline.Sub(p.ps.opts.Now()), sweepEvery), func() {
		defer p.ps.wg.Done()
		p.sweep()
	})
}

func (p *peer) unwatchLocked() {
	if !p.mu.sweepAt.IsZero() && p.mu.sweeper.Stop() {
		p.ps.wg.Done()
	}
	p.mu.sweepAt = time.Time{}
}

// sweep fails the requests whose deadline has passed.
func (p *peer) sweep() {
	p.mu.Lock()
	p.mu.sweepAt = time.Time{}
	over := p.mu.pending.sweep(p.ps.opts.Now())
	var taken [laneCount]uint64
	for i := range p.mu.lanes {
		taken[i] = p.mu.lanes[i].takenSeq
		if len(over) > 0 {
			p.discardExpiredLocked(&p.mu.lanes[i])
		}
	}
	if next := p.mu.pending.next; !next.IsZero() && p.mu.state != linkGone {
		p.watchLocked(next)
	}
	p.mu.Unlock()
	p.ps.stats.expired.Add(uint64(len(over)))
	for _, s := range over {
		if s.frame > taken[s.lane] {
			p.ps.stats.expiredUnsent.Add(1)
			// If it shares its frame with others it is sent yet, but with no
			// time left, and is not served.
			s.reply(coord.Reply{}, notSent("wait in the queue to %s: %w", p.id.Short(), ErrExpired))
			continue
		}
		s.reply(coord.Reply{}, fmt.Errorf("wait for %s: %w", p.id.Short(), ErrExpired))
	}
}

// discardExpiredLocked takes frames out of the queue for which nobody waits any
// more. To a peer that stands still they would keep fresh ones out, and when it
// goes on they would be first.
func (p *peer) discardExpiredLocked(o *outbox) {
	for _, f := range o.discard(func(f *pendingFrame) bool { return !slices.ContainsFunc(f.ids, p.mu.pending.has) }) {
		p.ps.pool.Put(f.buf)
	}
}

// receive hands the replies of one frame to those who wait for them.
func (p *peer) receive(payload []byte) error {
	payload, err := expandFrame(payload)
	if err != nil {
		return err
	}
	h, items, err := decodeHeader(payload)
	if err != nil {
		return err
	}
	if h.cluster != p.cluster || h.sender != p.id {
		return fmt.Errorf("%w: from node %s of cluster %s", errFrame, h.sender, h.cluster)
	}
	type answer struct {
		to func(coord.Reply, error)
		r  coord.Reply
	}
	answers := make([]answer, 0, h.count)
	p.mu.Lock()
	err = decodeReplies(h, items, func(id uint64, r *coord.Reply) {
		if s, ok := p.mu.pending.take(id); ok {
			answers = append(answers, answer{s.reply, *r})
		} else {
			p.ps.stats.late.Add(1)
		}
	})
	p.mu.Unlock()
	p.ps.stats.repliesReceived.Add(uint64(len(answers)))
	for i := range answers {
		answers[i].to(answers[i].r, nil)
	}
	return err
}

// setUp lets messages through to the link.
func (p *peer) setUp() {
	p.mu.Lock()
	p.mu.state, p.mu.why = linkUp, nil
	p.mu.Unlock()
	p.ps.stats.connects.Add(1)
}

// setDown puts the peer into a state without a link, for the reason why, and
// fails all that is queued or waits for a reply.
func (p *peer) setDown(state linkState, why error) {
	p.mu.Lock()
	unsent, sent, refusal := p.emptyLocked(state, why)
	p.mu.Unlock()
	p.failAll(unsent, sent, refusal, why)
}

// endWindow fails what waits for a link, if there still is none.
func (p *peer) endWindow(why error) {
	p.mu.Lock()
	if p.mu.state != linkSeeking {
		p.mu.Unlock()
		return
	}
	unsent, sent, refusal := p.emptyLocked(linkDown, why)
	p.mu.Unlock()
	p.failAll(unsent, sent, refusal, why)
}

// emptyLocked changes the state and returns all requests: those that no sender
// has taken, and those that may have left.
func (p *peer) emptyLocked(state linkState, why error) (unsent, sent []pendingSlot, refusal error) {
	p.mu.state, p.mu.why = state, why
	p.mu.losses++
	for i := range p.mu.lanes {
		o := &p.mu.lanes[i]
		for _, f := range o.drop() {
			for _, id := range f.ids {
				if s, ok := p.mu.pending.take(id); ok {
					unsent = append(unsent, s)
				}
			}
			p.ps.pool.Put(f.buf)
		}
		o.wake.Broadcast()
	}
	sent = p.mu.pending.clear()
	p.unwatchLocked()
	return unsent, sent, p.disconnectedLocked()
}

func (p *peer) failAll(unsent, sent []pendingSlot, refusal, why error) {
	p.ps.stats.lost.Add(uint64(len(unsent) + len(sent)))
	for _, s := range unsent {
		s.reply(coord.Reply{}, refusal)
	}
	for _, s := range sent {
		s.reply(coord.Reply{}, fmt.Errorf("wait for %s: %w: %w", p.id.Short(), ErrLinkLost, why))
	}
}
