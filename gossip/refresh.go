package gossip

import (
	"context"
	"time"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
)

// refreshEach is the least time between the starts of two rounds of Refresh.
const refreshEach = 250 * time.Millisecond

// round is one turn of asking everybody. Who asks shares one that has not begun: what
// happened elsewhere before is then found by it.
type round struct {
	// begun and began are written with Gossip.mu held.
	begun bool
	began time.Time
	// informed says what Refresh does; it is written before over is closed.
	informed bool
	over     chan struct{}
}

// Refresh exchanges metadata once with every live member, at the same time, and
// returns when enough of them have answered or all have failed, at the latest when ctx or
// the node ends. What was learned is in Snapshot then. It is for what this node has not
// heard of, such as a tenant just created elsewhere.
//
// It returns whether so many voters were heard, this node included, that every tenant
// that was there when Refresh was called is in the Snapshot now. All callers together
// start at most one round in 250 ms, and none before the last one is over.
func (g *Gossip) Refresh(ctx context.Context) (informed bool) {
	if ctx.Err() != nil {
		return false
	}
	g.mu.Lock()
	r := g.mu.round
	if r == nil || r.begun {
		last := r
		r = &round{over: make(chan struct{})}
		g.mu.round = r
		g.goLocked(func() {
			defer close(r.over)
			g.runRound(last, r)
		})
	}
	g.mu.Unlock()
	select {
	case <-r.over:
		return r.informed
	case <-ctx.Done():
	case <-g.ctx.Done():
	}
	return false
}

// runRound makes a round when it is time after the last one, nil if there was none.
func (g *Gossip) runRound(last, r *round) {
	if last != nil {
		select {
		case <-last.over:
		case <-g.ctx.Done():
			return
		}
		t := time.NewTimer(refreshEach - time.Since(last.began))
		defer t.Stop()
		select {
		case <-t.C:
		case <-g.ctx.Done():
			return
		}
	}
	g.mu.Lock()
	r.begun, r.began = true, time.Now()
	g.mu.Unlock()
	r.informed = g.askAll() && g.decide()
}

// decide brings the next slot of the log to its end if somebody has voted there for a tenant,
// which may have been made: who did, and knows, may be out of reach. It returns whether
// nothing is open any more.
func (g *Gossip) decide() bool {
	g.mu.Lock()
	open, at := g.mu.core.Undecided(), g.mu.core.Version()
	g.mu.Unlock()
	if !open {
		return true
	}
	if _, err := g.inTurn(g.ctx, (*meta.Core).Decide); err != nil {
		g.log.Debug("an entry that another node began came to nothing here", "error", err)
	}
	return g.Snapshot().Version > at
}

// askAll makes one exchange with every live member, and if those that answer are too
// few to know all, with the others, since gossip alone may be cut. It hangs on no caller's context,
// since others may share it; each question has CallTimeout. It returns whether enough answered,
// as soon as they have: one that stands still is not waited for then.
func (g *Gossip) askAll() bool {
	snap := g.Snapshot()
	if snap.Layout == nil {
		return false
	}
	type answer struct {
		from ring.NodeID
		ok   bool
	}
	answers, room := make(chan answer, len(snap.Members)), make(chan struct{}, maxCalls)
	ask := func(want func(ring.NodeID) bool) (asked int) {
		g.mu.Lock()
		defer g.mu.Unlock()
		for i := range snap.Members {
			id := snap.Members[i].ID
			if id == g.self || !want(id) {
				continue
			}
			asked++
			g.goLocked(func() {
				room <- struct{}{}
				answers <- answer{id, g.hear(id)}
				<-room
			})
		}
		return asked
	}
	heard := map[ring.NodeID]bool{g.self: true}
	// Those that vote by what was learned on the way: who voted before may not know what has
	// been decided since.
	enough := func() bool {
		voters, n := g.Snapshot().Ring.Voters(), 0
		for _, id := range voters {
			if heard[id] {
				n++
			}
		}
		return n >= ring.Majority(len(voters))
	}
	gather := func(asked int) bool {
		for ; asked > 0; asked-- {
			select {
			case a := <-answers:
				if heard[a.from] = a.ok; a.ok && enough() {
					return true
				}
			case <-g.ctx.Done():
				return false
			}
		}
		return enough()
	}
	return gather(ask(snap.Alive)) || gather(ask(func(id ring.NodeID) bool { return !snap.Alive(id) }))
}

// hear learns what a peer knows of the log, and how it has voted. Its votes come only with an
// answer to who had all of its log before. It returns whether it did; an error is logged.
func (g *Gossip) hear(id ring.NodeID) bool {
	before := g.Snapshot().Version
	if g.exchange(g.ctx, id) != nil {
		return false
	}
	return g.Snapshot().Version == before || g.exchange(g.ctx, id) == nil
}
