package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/pairdb/pairdb/engine/pace"
)

// paceSlice is how long a compaction waits before it looks whether it still has
// to, or the DB is being closed.
const paceSlice = 20 * time.Millisecond

// pacing slows compactions down; see package pace.
type pacing struct {
	waits, waitNanos atomic.Int64

	mu        sync.Mutex
	pacer     pace.Pacer
	at        time.Time // when the rate was thought over
	syncs     int64     // of the log, for writers, until then
	syncNanos int64
}

// pace is told that a compaction wrote n bytes more and waits as long as it has
// to before it writes on, unless it is stopped. It holds nothing that writers or
// flushes wait for.
func (db *DB) pace(n int64, stopped func() error) error {
	p := &db.pacing
	p.mu.Lock()
	p.adjust(db)
	p.pacer.Take(db.opts.Now(), n)
	wait := p.pacer.Wait(db.opts.Now())
	p.mu.Unlock()
	if wait <= 0 {
		return nil
	}
	p.waits.Add(1)
	start := db.opts.Now()
	defer func() { p.waitNanos.Add(int64(db.opts.Now().Sub(start))) }()
	for ; wait > 0; wait -= paceSlice {
		if err := stopped(); err != nil {
			return err
		}
		db.opts.Sleep(min(wait, paceSlice))
		p.mu.Lock()
		p.adjust(db)
		left := p.pacer.Wait(db.opts.Now())
		p.mu.Unlock()
		if left <= 0 {
			return nil
		}
	}
	return nil
}

// adjust thinks the rate over if it is time.
func (p *pacing) adjust(db *DB) {
	now := db.opts.Now()
	elapsed := now.Sub(p.at)
	if elapsed < pace.Interval {
		return
	}
	c := &db.stats
	syncs := c.syncs.Load() - c.ownSyncs.Load()
	nanos := c.syncNanos.Load() - c.ownSyncNanos.Load()
	load := pace.Load{
		Syncs: syncs - p.syncs, SyncTime: time.Duration(nanos - p.syncNanos),
		Elapsed: elapsed, Urgency: db.urgency(),
	}
	if p.at.IsZero() {
		load.Elapsed = 0
	}
	p.at, p.syncs, p.syncNanos = now, syncs, nanos
	p.pacer.Adjust(load)
}

// urgency says how near writers are to waiting for compactions; see pace.Load.
func (db *DB) urgency() float64 {
	o := &db.opts
	rs := db.acquireState()
	defer rs.release()
	if len(rs.imm) >= o.MaxImmutable {
		return 1
	}
	depth := float64(rs.v.depth-o.L0CompactionTrigger) / float64(o.L0SlowdownTrigger-o.L0CompactionTrigger)
	debt := float64(rs.v.tree.Debt()) / float64(8*o.LBaseBytes)
	return max(depth, debt)
}

// rate returns the bytes a second that compactions may write now, 0 for no bound.
func (p *pacing) rate() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pacer.Rate()
}
