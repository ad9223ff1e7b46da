package engine

import (
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// The names of the pools, as they stand in metrics and as Scheduler.Go gets
// them.
const (
	poolFlush   = "flush"
	poolCompact = "compact"
	poolClean   = "clean"
)

// pools is the default Scheduler: for each name a bounded number of goroutines
// that exist only while there is work for them.
type pools struct {
	wg     sync.WaitGroup
	limits map[string]int

	mu    sync.Mutex
	pools map[string]*pool
}

type pool struct {
	queue   []func()
	workers int
}

func newPools(limits map[string]int) *pools {
	return &pools{limits: limits, pools: make(map[string]*pool)}
}

// Go runs f once a worker of the pool is free. The queue is as long as the
// callers make it: the DB hands over no job twice.
func (p *pools) Go(name string, f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.pools[name]
	if w == nil {
		w = &pool{}
		p.pools[name] = w
	}
	w.queue = append(w.queue, f)
	if w.workers < max(1, p.limits[name]) {
		w.workers++
		p.wg.Go(func() { p.work(w) })
	}
}

func (p *pools) work(w *pool) {
	for {
		p.mu.Lock()
		if len(w.queue) == 0 {
			w.workers--
			p.mu.Unlock()
			return
		}
		f := w.queue[0]
		w.queue = w.queue[1:]
		p.mu.Unlock()
		f()
	}
}

// wait returns after the last goroutine ended. Nothing may be handed over any
// more.
func (p *pools) wait() { p.wg.Wait() }

// poolStats count the jobs of a pool, whoever runs them.
type poolStats struct {
	queued, busy, jobs, panics atomic.Int64
	busyNanos, waitNanos       atomic.Int64
}

// PoolMetrics describe the background jobs of one kind.
type PoolMetrics struct {
	Queued, Busy int64 // now
	Jobs, Panics int64
	// BusyTime is the time spent in jobs, WaitTime that between handing over
	// and beginning.
	BusyTime, WaitTime time.Duration
}

func (s *poolStats) metrics() PoolMetrics {
	return PoolMetrics{
		Queued: s.queued.Load(), Busy: s.busy.Load(), Jobs: s.jobs.Load(), Panics: s.panics.Load(),
		BusyTime: time.Duration(s.busyNanos.Load()), WaitTime: time.Duration(s.waitNanos.Load()),
	}
}

// poolSet holds the counters of the pools.
type poolSet struct{ flush, compact, clean poolStats }

func (p *poolSet) of(name string) *poolStats {
	switch name {
	case poolFlush:
		return &p.flush
	case poolCompact:
		return &p.compact
	default:
		return &p.clean
	}
}

// spawn hands a job to the scheduler. A panic in it ends all writing; it never
// ends the process or the worker.
func (db *DB) spawn(name string, f func()) {
	s := db.stats.pools.of(name)
	s.queued.Add(1)
	asked := db.opts.Now()
	db.sched.Go(name, func() {
		s.queued.Add(-1)
		s.waitNanos.Add(int64(db.opts.Now().Sub(asked)))
		_ = db.guard(name, func() error { f(); return nil }) // guard has told of it
	})
}

// protect does a job and counts it and its time.
func (db *DB) protect(name string, f func() error) error {
	s := db.stats.pools.of(name)
	s.busy.Add(1)
	start := db.opts.Now()
	err := db.guard(name, f)
	s.busyNanos.Add(int64(db.opts.Now().Sub(start)))
	s.jobs.Add(1)
	s.busy.Add(-1)
	return err
}

// guard makes of a panic an error that is final for the DB.
func (db *DB) guard(name string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			db.stats.pools.of(name).panics.Add(1)
			err = db.panicked(name, p)
		}
	}()
	return f()
}

// panicked makes the DB read-only: what a job that broke off left in memory
// cannot be trusted, what is on disk can.
func (db *DB) panicked(name string, p any) error {
	err := fmt.Errorf("%w: panic in %s: %v", ErrReadOnly, name, p)
	db.opts.Logger.Error("background job panicked", "job", name, "dir", db.dir, "panic", p, "stack", string(debug.Stack()))
	db.mu.Lock()
	first := db.failLocked(err)
	db.mu.Unlock()
	if first {
		db.reportFailure(err)
	}
	return err
}
