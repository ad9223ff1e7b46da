package rpc

import (
	"errors"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// SendAll is Send for each of msgs. The small ones are queued under one lock, so
// that they leave in the frame at the tail of the queue and in as few more as
// hold them. See coord.Bundler.
func (ps *Peers) SendAll(to ring.NodeID, msgs []coord.Outgoing) {
	p, err := ps.peer(to)
	if err != nil {
		for i := range msgs {
			ps.refuse(laneFor(&msgs[i].Message, requestSize(&msgs[i].Message)), msgs[i].Reply, err)
		}
		return
	}
	var refused []refusal
	p.mu.Lock()
	for i := range msgs {
		m := &msgs[i]
		if size := requestSize(&m.Message); size < largeItem {
			lane := laneFor(&m.Message, size)
			if err := p.sendSmallLocked(&m.Message, size, lane, m.Reply); err != nil {
				refused = append(refused, refusal{lane, m.Reply, err})
			}
		}
	}
	p.mu.Unlock()
	for i := range msgs {
		m := &msgs[i]
		if size := requestSize(&m.Message); size >= largeItem {
			if err := p.send(&m.Message, m.Reply); err != nil {
				refused = append(refused, refusal{laneFor(&m.Message, size), m.Reply, err})
			}
		}
	}
	for _, r := range refused {
		ps.refuse(r.lane, r.reply, r.err)
	}
}

// refusal is a message that was not queued.
type refusal struct {
	lane  Lane
	reply func(coord.Reply, error)
	err   error
}

func (ps *Peers) refuse(lane Lane, reply func(coord.Reply, error), err error) {
	c := &ps.stats.lanes[lane]
	switch {
	case errors.Is(err, ErrOverloaded):
		c.overloaded.Add(1)
	case errors.Is(err, ErrItemTooLarge):
		c.tooLarge.Add(1)
	default:
		c.disconnected.Add(1)
	}
	reply(coord.Reply{}, err)
}
