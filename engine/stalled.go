package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/pairdb/pairdb/engine/vfs"
)

// stallState is what the DB knows of a disk that does not answer.
type stallState struct {
	watch *vfs.Watch
	count atomic.Int64
	// writes says that the disk does not answer, so that none is taken; reads
	// that reads of tables hang, too.
	writes, reads atomic.Bool

	check sync.Mutex // held by checkStalls, so that events come in order
	rule  stallRule  // guarded by check
	mu    sync.Mutex
	now   vfs.Pending // the call that hangs or did; Age is 0 if the disk answers
}

const (
	// After the disk came back it is on trial for trialFactor times SlowAfter:
	// meanwhile a call that hangs for a trialPart of SlowAfter is enough.
	trialFactor, trialPart = 10, 3
)

// stallRule decides whether the disk answers. It is a function of what it is
// told.
//
// A disk that fails may let each call take seconds and yet end it. Were it taken
// back as soon as a call ends, writers would hang for SlowAfter each time. So it
// comes back on trial: at once the first time, and if it hangs again during that,
// sooner out and SlowAfter after its call has ended. Writers then hang for a third
// of SlowAfter out of the time that a call takes and SlowAfter.
type stallRule struct {
	slow, stall time.Duration
	// out says that the disk does not answer, since when.
	out   bool
	since time.Time
	// pause is how long it stays out after no call hangs any more; quiet is
	// since when none does, zero while one does.
	pause time.Duration
	quiet time.Time
	// trial is until when the disk is on trial.
	trial time.Time
	// looked is when judge was called last, late that it was long before.
	looked time.Time
	late   bool
}

// judge is told the oldest call of all and the oldest of those that readers and
// writers wait for, zero if there is none, and returns the one that hangs, if any
// does. It changes nothing if it was not called for long: then the whole process
// was not running, and calls that have ended did not get to say so. The next time
// it is believed.
func (r *stallRule) judge(now time.Time, oldest, waited vfs.Pending) (hanging vfs.Pending) {
	gap := now.Sub(r.looked)
	first := r.looked.IsZero()
	r.looked = now
	if r.late = !first && !r.late && gap > r.slow; r.late {
		return vfs.Pending{}
	}
	limit := r.limit(now)
	switch {
	case waited.Age >= limit:
		hanging = waited
	case oldest.Age >= r.stall:
		hanging = oldest
	}
	switch {
	case hanging.Age > 0 && !r.out:
		r.out, r.since, r.pause = true, now.Add(-hanging.Age), 0
		if now.Before(r.trial) {
			r.pause = r.slow
		}
		r.quiet = time.Time{}
	case hanging.Age > 0:
		r.quiet = time.Time{}
	case r.out:
		if r.quiet.IsZero() {
			r.quiet = now
		}
		if now.Sub(r.quiet) >= r.pause {
			r.out, r.trial = false, now.Add(trialFactor*r.slow)
		}
	}
	return hanging
}

// limit is for how long a call that somebody waits for may be under way.
func (r *stallRule) limit(now time.Time) time.Duration {
	if r.out || now.Before(r.trial) {
		return r.slow / trialPart
	}
	return r.slow
}

// waitedFor says of which calls readers and writers wait for the end.
func waitedFor(op vfs.OpKind, file vfs.FileKind) bool {
	switch file {
	case vfs.FileLog:
		return op != vfs.OpRead && op != vfs.OpRemove
	default:
		return readOfTable(op, file)
	}
}

func readOfTable(op vfs.OpKind, file vfs.FileKind) bool {
	return file == vfs.FileTable && op == vfs.OpRead
}

// checkStalls finds out whether the disk answers, and reports when that changes.
// It touches no file.
func (db *DB) checkStalls() {
	s := &db.stalls
	s.check.Lock()
	defer s.check.Unlock()
	now := db.opts.Now()
	oldest, _ := s.watch.Look()
	waited, _ := s.watch.Oldest(waitedFor)
	reads, _ := s.watch.Oldest(readOfTable)
	limit := s.rule.limit(now)
	hanging := s.rule.judge(now, oldest, waited)
	s.reads.Store(s.rule.out && reads.Age >= limit)
	s.writes.Store(s.rule.out)
	s.mu.Lock()
	old := s.now
	switch {
	case !s.rule.out:
		s.now = vfs.Pending{}
	case hanging.Age > 0:
		s.now = hanging
		fallthrough
	default:
		s.now.Age = max(now.Sub(s.rule.since), time.Millisecond)
	}
	p := s.now
	s.mu.Unlock()
	switch {
	case p.Age > 0 && old.Age == 0:
		s.count.Add(1)
		db.opts.Logger.Error("disk does not answer", "dir", db.dir, "op", p.Op.String(), "file", p.File.String(), "for", p.Age)
		if f := db.opts.Events.DiskStalled; f != nil {
			f(p)
		}
		// Writers that wait for room are refused.
		db.mu.Lock()
		db.progress.Broadcast()
		db.mu.Unlock()
	case p.Age == 0 && old.Age > 0:
		db.opts.Logger.Info("disk answers again", "dir", db.dir, "op", old.Op.String(), "file", old.File.String(), "after", old.Age)
		if f := db.opts.Events.DiskRecovered; f != nil {
			f(old)
		}
	}
}

// Hangs says, at the cost of a load or two, whether the disk does not answer:
// then writes are refused with ErrStalled and what waits to be durable may wait
// for long; and whether reads of tables hang, too. Other reads are served.
func (db *DB) Hangs() (writes, reads bool) {
	return db.stalls.writes.Load(), db.stalls.reads.Load()
}
