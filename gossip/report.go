package gossip

import "github.com/pairdb/pairdb/gossip/ring"

// acknowledge waits until nothing goes on under an older version than the one published,
// and then says so. The lock is not held meanwhile.
func (g *Gossip) acknowledge() {
	for {
		v := g.Snapshot().Version
		g.opts.Barrier()
		g.mu.Lock()
		g.acked(v)
		g.settle()
		if g.mu.closed || g.mu.core.Fatal() != nil || g.Snapshot().Version <= v {
			g.mu.acking = false
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
	}
}

// acked acknowledges a version. The caller holds mu.
func (g *Gossip) acked(v ring.Version) {
	if err := g.mu.core.SetAcked(v); err != nil && g.mu.core.Fatal() == nil {
		g.log.Error("a version of the ring could not be acknowledged", "version", uint64(v), "error", err)
	}
}

// SetSynced says that this node has fetched all that it gains by the change that was
// proposed at v: durably first, and then to the members. It never goes back.
func (g *Gossip) SetSynced(v ring.Version) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.closed {
		return ErrClosed
	}
	err := g.mu.core.SetSynced(v)
	g.settle()
	return err
}

// SetClean says that under version v this node holds nothing of what it does not own:
// durably first, and then to the members. It never goes back.
func (g *Gossip) SetClean(v ring.Version) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.closed {
		return ErrClosed
	}
	err := g.mu.core.SetClean(v)
	g.settle()
	return err
}
