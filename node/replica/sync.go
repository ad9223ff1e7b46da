package replica

import (
	"sync"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/engine/base"
)

// stalledText says why a store whose disk hangs refuses.
const stalledText = "the disk of this node does not answer"

// takesWrites says why nothing is written at present, nil if it is. Without it a
// write could wait for a read of its key with the key's lock held.
func (s *Store) takesWrites() error {
	if writes, _ := s.opts.Engine.Hangs(); writes {
		return &coord.Error{Code: errcode.Unavailable, Outcome: errcode.NotApplied, Message: stalledText}
	}
	return nil
}

// takesReads says why nothing is read at present, nil if it is. While only writes
// hang, what is on disk can be read: it is in memory, or the disk still reads.
func (s *Store) takesReads() error {
	if _, reads := s.opts.Engine.Hangs(); reads {
		return &coord.Error{Code: errcode.Unavailable, Outcome: errcode.NotApplied, Message: stalledText}
	}
	return nil
}

// syncQueue holds what waits for the disk. While anything does, exactly one
// job waits for the engine: it takes all that has gathered, waits for the
// newest of it, hands the wait for what came meanwhile to a new job, and calls
// back. So writes of all clients and peers share syncs, no write has a
// goroutine, and callbacks never hold up the next sync.
type syncQueue struct {
	mu struct {
		sync.Mutex
		waiting []waiter
		// group is what the job that waits for the engine waits for.
		group []waiter
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
	if hangs, _ := s.opts.Engine.Hangs(); hangs {
		// Looked at under the lock, so that FailWaiting finds whoever came before.
		q.mu.Unlock()
		done(writeError(base.ErrStalled, true))
		return
	}
	q.mu.waiting = append(q.mu.waiting, waiter{seq, done})
	start := !q.mu.waits
	q.mu.waits = true
	q.mu.Unlock()
	if start {
		s.opts.Scheduler.Go("replica sync", s.syncOnce)
	}
}

// FailWaiting answers everybody who waits for the disk that it does not answer. It
// is called when the engine has said so, which may be at any time, and then
// Engine.Hangs keeps others from beginning to wait. What they wrote is visible here
// and may become durable later on: whether it will is not known.
func (s *Store) FailWaiting() {
	q := &s.sync
	q.mu.Lock()
	failed := append(q.mu.group, q.mu.waiting...)
	q.mu.group, q.mu.waiting = nil, nil
	q.mu.Unlock()
	for _, w := range failed {
		if s.opts.Engine.DurableSeq() >= w.seq {
			w.done(nil)
		} else {
			w.done(writeError(base.ErrStalled, true))
		}
	}
}

// syncOnce is the job.
func (s *Store) syncOnce() {
	q := &s.sync
	fresh, ok := q.spare.Get().(*[]waiter)
	if !ok {
		fresh = new([]waiter)
	}
	var newest base.SeqNum
	q.mu.Lock()
	q.mu.group = q.mu.waiting
	q.mu.waiting = *fresh
	for _, w := range q.mu.group {
		newest = max(newest, w.seq)
	}
	q.mu.Unlock()

	err := s.opts.Engine.WaitDurable(newest)

	q.mu.Lock()
	// Nobody is left of it if FailWaiting was called meanwhile.
	group := q.mu.group
	q.mu.group = nil
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
