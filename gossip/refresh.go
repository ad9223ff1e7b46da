package gossip

import (
	"context"
	"sync"
	"time"
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

// askAll makes one exchange with every live member. It hangs on no caller's
// context, since others may share it; each exchange has CallTimeout.
func (g *Gossip) askAll() {
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, maxCalls)
	snap := g.Snapshot()
	for i := range snap.Members {
		id := snap.Members[i].ID
		if id == g.self || !snap.Alive(id) {
			continue
		}
		room <- struct{}{}
		wg.Go(func() {
			_ = g.exchange(g.ctx, id) // logged there; who fails is not learned from
			<-room
		})
	}
}
