package replica

import (
	"sync"

	"github.com/pairdb/pairdb/engine/base"
)

// syncQueue holds what waits for the disk. While anything does, exactly one
// job waits for the engine: it takes all that has gathered, waits for the
// newest of it, hands the wait for what came meanwhile to a new job, and calls
// back. So writes of all clients and peers share syncs, no write has a
// goroutine, and callbacks never hold up the next sync.
type syncQueue struct {
	mu struct {
		sync.Mutex
		waiting []waiter
		// waits says that a job is under way that will look at waiting.
		waits bool
	}
	spare sync.Pool // *[]waiter
}

type waiter struct {
	seq  base.SeqNum
	done func(error)
}

// whenDurable calls done once everything up to seq is on disk, or with an error
// when that may never be. Nothing that done does can be undone by a crash. The
// caller holds no lock.
func (s *Store) whenDurable(seq base.SeqNum, done func(error)) {
	if s.opts.Engine.DurableSeq() >= seq {
		done(nil)
		return
	}
	q := &s.sync
	q.mu.Lock()
	q.mu.waiting = append(q.mu.waiting, waiter{seq, done})
	start := !q.mu.waits
	q.mu.waits = true
	q.mu.Unlock()
	if start {
		s.opts.Scheduler.Go("replica sync", s.syncOnce)
	}
}

// syncOnce is the job.
func (s *Store) syncOnce() {
	q := &s.sync
	fresh, ok := q.spare.Get().(*[]waiter)
	if !ok {
		fresh = new([]waiter)
	}
	q.mu.Lock()
	group := q.mu.waiting
	q.mu.waiting = *fresh
	q.mu.Unlock()

	var newest base.SeqNum
	for _, w := range group {
		newest = max(newest, w.seq)
	}
	err := s.opts.Engine.WaitDurable(newest)

	q.mu.Lock()
	more := len(q.mu.waiting) > 0
	q.mu.waits = more
	q.mu.Unlock()
	if more {
		s.opts.Scheduler.Go("replica sync", s.syncOnce)
	}

	if err != nil {
		err = writeError(err, true)
	}
	durable := s.opts.Engine.DurableSeq()
	for i, w := range group {
		if err != nil && w.seq > durable {
			w.done(err)
		} else {
			w.done(nil)
		}
		group[i] = waiter{}
	}
	group = group[:0]
	*fresh = group
	q.spare.Put(fresh)
}
