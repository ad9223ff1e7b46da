package gossip

import (
	"context"
	"sync"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
)

// refreshEach is the least time between the starts of two rounds of Refresh.
const refreshEach = 250 * time.Millisecond

// round is one turn of asking everybody.
type round struct {
	began time.Time
	over  chan struct{} // closed at its end; nil: there was none yet
}

// serves says that a caller at now shares the round: it is under way, or began so
// lately that another is not worth its cost.
func (r round) serves(now time.Time) bool {
	if r.over == nil {
		return false
	}
	select {
	case <-r.over:
		return now.Sub(r.began) < refreshEach
	default:
		return true
	}
}

// Refresh exchanges metadata once with every live member, at the same time, and
// returns when all have answered or failed, at the latest when ctx or the node
// ends. What was learned is in Snapshot then. It is for what this node has not
// heard of, such as a tenant just created elsewhere.
//
// All callers together start at most one round in 250 ms: a caller meanwhile
// shares the last one, so what happened elsewhere since then may be missing.
func (g *Gossip) Refresh(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	g.mu.Lock()
	if now := time.Now(); !g.mu.round.serves(now) {
		r := round{began: now, over: make(chan struct{})}
		g.mu.round = r
		g.goLocked(func() {
			defer close(r.over)
			g.askAll()
		})
	}
	over := g.mu.round.over
	g.mu.Unlock()
	select {
	case <-over:
	case <-ctx.Done():
	case <-g.ctx.Done():
	}
}

// askAll makes one exchange with every live member, and if those that answer are too
// few to know all, with the others, since gossip alone may be cut. It hangs on no caller's context,
// since others may share it; each exchange has CallTimeout.
func (g *Gossip) askAll() {
	began := time.Now()
	snap := g.Snapshot()
	if snap.Layout == nil {
		return
	}
	var mu sync.Mutex
	answered := map[ring.NodeID]bool{g.self: true}
	ask := func(want func(ring.NodeID) bool) {
		var wg sync.WaitGroup
		room := make(chan struct{}, maxCalls)
		for i := range snap.Members {
			id := snap.Members[i].ID
			if id == g.self || !want(id) {
				continue
			}
			room <- struct{}{}
			wg.Go(func() {
				if g.exchange(g.ctx, id) == nil { // an error is logged there
					mu.Lock()
					answered[id] = true
					mu.Unlock()
				}
				<-room
			})
		}
		wg.Wait()
	}
	ask(snap.Alive)
	voters := snap.Ring.Voters()
	enough := func() bool {
		n := 0
		for _, id := range voters {
			if answered[id] {
				n++
			}
		}
		return n >= ring.Majority(len(voters))
	}
	if !enough() {
		ask(func(id ring.NodeID) bool { return !snap.Alive(id) })
	}
	if enough() {
		g.informed.Store(&began)
	}
}

// informedFor is how long what a round has brought is taken for all there is. Rounds
// are asked for one by one, so it covers the way from one to who asked.
const informedFor = 2 * time.Second

// Informed says whether a round of Refresh has lately, within 2 s, heard from so many
// voters, this node included, that every tenant created before it is known here.
func (g *Gossip) Informed() bool {
	began := g.informed.Load()
	return began != nil && time.Since(*began) < informedFor
}
