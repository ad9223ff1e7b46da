package coord

import (
	"sync"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// A node that is about to own a partition does not serve it before it knows what the
// old owners have confirmed, or it would take in again what they have collected. What
// arrives before waits, within these bounds.
const (
	maxGainWaits     = 4096
	maxGainWaitBytes = 64 << 20
)

// gainGate counts what waits.
type gainGate struct {
	mu           sync.Mutex
	waits, bytes int
}

// enter takes room, unless there is too little.
func (g *gainGate) enter(waits, bytes int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waits+waits > maxGainWaits || g.bytes+bytes > maxGainWaitBytes {
		return false
	}
	g.waits += waits
	g.bytes += bytes
	return true
}

func (g *gainGate) leave(waits, bytes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waits -= waits
	g.bytes -= bytes
}

// whenKnown reports whether this node may serve p now, which it gains. If not, then is
// called exactly once: with StatusOK when it may, with StatusExpired after the
// deadline, or with StatusOverloaded if too much waits already. n and bytes are what
// the caller keeps meanwhile.
func (c *Coordinator) whenKnown(p ring.Partition, n, bytes int, deadline time.Time, then func(Status)) (now bool) {
	if c.opts.Horizon == nil {
		return true
	}
	if !c.gaining.enter(n, bytes) {
		if c.opts.Horizon(p, func() {}) {
			return true
		}
		then(StatusOverloaded)
		return false
	}
	c.hold(1)
	w := &gainWait{}
	w.end = func(s Status) {
		c.gaining.leave(n, bytes)
		then(s)
		c.leave()
	}
	if c.opts.Horizon(p, func() { w.over(StatusOK) }) {
		c.gaining.leave(n, bytes)
		c.leave()
		return true
	}
	stop := c.opts.Clock.AfterFunc(c.remaining(deadline), func() { w.over(StatusExpired) })
	w.mu.Lock()
	w.stop = stop
	ended := w.ended
	w.mu.Unlock()
	if ended {
		stop()
	}
	return false
}

// gainWait is something that waits until this node may serve a partition.
type gainWait struct {
	end   func(Status)
	mu    sync.Mutex
	ended bool
	stop  func() bool // nil before the timer is set
}

func (w *gainWait) over(s Status) {
	w.mu.Lock()
	if w.ended {
		w.mu.Unlock()
		return
	}
	w.ended = true
	stop := w.stop
	w.mu.Unlock()
	if stop != nil {
		stop()
	}
	w.end(s)
}

// gains is what messages of one frame wait for together.
type gains struct {
	partition ring.Partition
	indices   []int
	bytes     int
	until     time.Time
}

// await keeps a message of a partition that this node gains until it may serve that.
func (f *frame) await(all []gains, i int, now time.Time) []gains {
	m := &f.msgs[i]
	g := -1
	for k := range all {
		if all[k].partition == m.Partition {
			g = k
		}
	}
	if g < 0 {
		g = len(all)
		all = append(all, gains{partition: m.Partition})
	}
	until := m.Deadline
	if until.IsZero() {
		until = now.Add(f.c.opts.WriteTimeout)
	}
	w := &all[g]
	w.indices = append(w.indices, i)
	w.bytes += len(m.Key) + len(m.Body)
	if until.After(w.until) {
		w.until = until
	}
	return all
}

// admit serves what may be served, and lets the rest wait.
func (f *frame) admit(all []gains) {
	for k := range all {
		g := &all[k]
		if f.c.whenKnown(g.partition, len(g.indices), g.bytes, g.until, func(s Status) {
			if s == StatusOK {
				f.run(g.indices)
				return
			}
			for _, i := range g.indices {
				f.reply(i, Reply{Status: s})
			}
		}) {
			// They have passed the fence, and if the ring moves now they do so no more.
			f.serve(g.indices, false, true)
		}
	}
}

// role is what this node is to the owners of a partition.
type role struct {
	// owner: it is written. coordinates: it is one of those that are read, and may mint.
	owner, coordinates bool
	// gains: it is about to become an owner.
	gains bool
}

// roleOf says what a node is to a partition for tenants that want so many copies.
func roleOf(s *schema.Snapshot, id ring.NodeID, p ring.Partition, n ring.Copies) role {
	before := s.Layout.IsOwner(id, p, n.From)
	if !s.Change.Touches(p) {
		return role{owner: before, coordinates: before}
	}
	after := s.Change.Next.IsOwner(id, p, n.To)
	if s.Change.Stage == ring.Committed {
		return role{owner: before || after, coordinates: after}
	}
	return role{owner: before || after, coordinates: before, gains: after && !before}
}

// gainedBy returns the version at which the change was proposed by which this node gains
// what it does not own yet, 0 if there is none or all of that is here.
func (c *Coordinator) gainedBy(s *schema.Snapshot) ring.Version {
	if s.Change == nil || s.Change.Stage != ring.Proposed || s.Report(c.opts.Self).Synced >= s.Change.ProposedAt {
		return 0
	}
	return s.Change.ProposedAt
}
