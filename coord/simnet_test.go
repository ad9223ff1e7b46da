package coord_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// network says how messages travel.
type network struct {
	delay, jitter time.Duration
	drop, dup     float64
	cut           map[[2]int]bool // from, to
	slow          map[int]time.Duration
}

func (w *world) jitter(random *rand.Rand, d time.Duration) time.Duration {
	if w.net.jitter > 0 {
		d += time.Duration(random.Int64N(int64(w.net.jitter)))
	}
	return d
}

var errSimLost = errors.New("no answer")

// Send implements coord.Transport.
func (n *simNode) Send(to ring.NodeID, m *coord.Message, reply func(coord.Reply, error)) {
	w := n.w
	p := w.nodes[slices.IndexFunc(w.nodes, func(p *simNode) bool { return p.id == to })]
	sent := *m
	sent.Key, sent.Body = bytes.Clone(m.Key), bytes.Clone(m.Body)
	left := m.Deadline.Sub(n.Now())
	w.note("send %s>%s op %d key %q %d bytes", n.name, p.name, m.Op, m.Key, len(m.Body))
	if !p.up && !w.net.cut[[2]int{n.i, p.i}] {
		// A closed port answers at once.
		reply(coord.Reply{}, fmt.Errorf("dial %s: %w", p.name, coord.ErrNotSent))
		return
	}
	answered, start := false, n.start
	once := func(r coord.Reply, err error) {
		// A process that has died since hears nothing, even if another was
		// started in its place before the request arrived.
		if !answered && n.up && n.start == start {
			answered = true
			w.note("reply %s<%s op %d status %d", n.name, p.name, sent.Op, r.Status)
			reply(r, err)
		}
	}
	n.later(left, func() { once(coord.Reply{}, errSimLost) })
	copies := 1
	random := w.rand(string(m.Key))
	if random.Float64() < w.net.dup && m.Op != coord.OpForward {
		// All but a forwarded write may be served twice and do no harm.
		copies++
	}
	for range copies {
		w.travel(random, n, p, func() { p.serve(random, n, sent, left, once) })
	}
}

// travel brings something from one node to another, or loses it.
func (w *world) travel(random *rand.Rand, from, to *simNode, arrive func()) {
	lost := random.Float64() < w.net.drop
	d := w.jitter(random, w.net.delay) + w.net.slow[from.i] + w.net.slow[to.i]
	var deliver func()
	deliver = func() {
		switch {
		case lost || !to.up || w.net.cut[[2]int{from.i, to.i}] || to.shuns(from):
		case to.paused():
			w.after(to.stopped-w.now, deliver) // its kernel keeps it
		default:
			arrive()
		}
	}
	w.after(d, deliver)
}

func (n *simNode) serve(random *rand.Rand, from *simNode, m coord.Message, left time.Duration, reply func(coord.Reply, error)) {
	m.Deadline = n.Now().Add(left)
	n.coord.HandlePeer(from.id, []coord.Message{m}, func(_ int, r coord.Reply) {
		r.Body = bytes.Clone(r.Body)
		n.w.travel(random, n, from, func() { reply(r, nil) })
	})
}
