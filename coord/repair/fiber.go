package repair

import (
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pairdb/pairdb/coord"
)

// fibers run what has to wait for peers and timers, step by step: a fiber is a
// coroutine that the scheduler's jobs carry on, so what it does reads from top to
// bottom, and yet nothing blocks a job and no goroutine is started. In a simulation
// all of it takes place in one goroutine.
type fibers struct {
	clock coord.Clock
	sched coord.Scheduler

	mu struct {
		sync.Mutex
		// live has the fibers that have not ended.
		live   map[*fiber]struct{}
		closed bool
		// idle is closed when there are none any more; nil if nobody waits.
		idle chan struct{}
	}
}

// fiber is one of them. Only what it runs may call its methods.
type fiber struct {
	fs *fibers
	// running is held while a job carries it on.
	running sync.Mutex
	next    func() (struct{}, bool)
	yield   func(struct{}) bool
	// parked is the wait that the fiber is in, nil if it runs or has ended.
	parked atomic.Pointer[wait]
}

// wait is what a fiber waits for. Its state goes from 0 to waits or to over, and
// from waits to over.
type wait struct{ state atomic.Int32 }

const (
	waits = 1
	over  = 2
)

// spawn runs f in a fiber of its own; it reports false, and runs nothing, once the
// fibers are closed.
func (fs *fibers) spawn(name string, f func(*fiber)) bool {
	fb := &fiber{fs: fs}
	fs.mu.Lock()
	if fs.mu.closed {
		fs.mu.Unlock()
		return false
	}
	fb.next, _ = iter.Pull(func(yield func(struct{}) bool) {
		fb.yield = yield
		f(fb)
	})
	if fs.mu.live == nil {
		fs.mu.live = make(map[*fiber]struct{})
	}
	fs.mu.live[fb] = struct{}{}
	fs.mu.Unlock()
	fs.sched.Go(name, fb.carryOn)
	return true
}

// carryOn runs the fiber until it waits or ends.
func (fb *fiber) carryOn() {
	fb.running.Lock()
	_, more := fb.next()
	fb.running.Unlock()
	if more {
		return
	}
	fs := fb.fs
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(fs.mu.live, fb)
	if len(fs.mu.live) == 0 && fs.mu.idle != nil {
		close(fs.mu.idle)
		fs.mu.idle = nil
	}
}

// isClosed reports whether the fibers are to end.
func (fs *fibers) isClosed() bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.mu.closed
}

// await calls start and returns when done was called, which may be before start
// returns and from any goroutine, or when the fibers are closed. It reports false for
// the latter; done then may still be called, and what it would have changed must
// not be looked at.
func (fb *fiber) await(start func(done func())) bool {
	if fb.fs.isClosed() {
		return false
	}
	w := new(wait)
	fb.parked.Store(w)
	start(func() { fb.wake(w) })
	if w.state.CompareAndSwap(0, waits) {
		if fb.fs.isClosed() {
			// Whoever closed them may not have seen this one wait.
			fb.wake(w)
		}
		fb.yield(struct{}{})
	}
	fb.parked.Store(nil)
	return !fb.fs.isClosed()
}

// wake ends a wait; only the first call counts.
func (fb *fiber) wake(w *wait) {
	if w.state.Swap(over) == waits {
		fb.fs.sched.Go("repair", fb.carryOn)
	}
}

// sleep waits for d.
func (fb *fiber) sleep(d time.Duration) bool {
	var stop func() bool
	ok := fb.await(func(done func()) { stop = fb.fs.clock.AfterFunc(d, done) })
	if stop != nil {
		stop()
	}
	return ok
}

// gather starts n things and waits for all of them.
func (fb *fiber) gather(n int, start func(i int, done func())) bool {
	if n == 0 {
		return !fb.fs.isClosed()
	}
	var left atomic.Int64
	left.Store(int64(n))
	return fb.await(func(all func()) {
		for i := range n {
			start(i, func() {
				if left.Add(-1) == 0 {
					all()
				}
			})
		}
	})
}

// each runs f for 0 to n-1 in up to limit fibers and returns when these have ended, also
// once the fibers are closed: then they end soon, and what they were about to change may
// be looked at. It reports false in that case.
func (fb *fiber) each(n, limit int, f func(fb *fiber, i int)) bool {
	if n == 0 {
		return !fb.fs.isClosed()
	}
	var next atomic.Int64
	limit = min(n, limit)
	w := new(wait) // which close does not know of
	end := newCountdown(limit, func() { fb.wake(w) })
	for range limit {
		ok := fb.fs.spawn("repair", func(child *fiber) {
			defer end()
			for i := int(next.Add(1)) - 1; i < n && !fb.fs.isClosed(); i = int(next.Add(1)) - 1 {
				f(child, i)
			}
		})
		if !ok {
			end()
		}
	}
	if w.state.CompareAndSwap(0, waits) {
		fb.yield(struct{}{})
	}
	return !fb.fs.isClosed()
}

// close ends all waits and returns a channel that is closed when no fiber is left.
func (fs *fibers) close() <-chan struct{} {
	fs.mu.Lock()
	fs.mu.closed = true
	idle := fs.mu.idle
	if idle == nil {
		idle = make(chan struct{})
		if len(fs.mu.live) == 0 {
			close(idle)
		} else {
			fs.mu.idle = idle
		}
	}
	var all []*fiber
	//seams:ordered all are woken, and end without doing anything that is seen
	for fb := range fs.mu.live {
		all = append(all, fb)
	}
	fs.mu.Unlock()
	for _, fb := range all {
		if w := fb.parked.Load(); w != nil {
			fb.wake(w)
		}
	}
	return idle
}

// newCountdown returns a function whose n-th call calls done; with n 0, done is called
// at once.
func newCountdown(n int, done func()) func() {
	if n == 0 {
		done()
		return func() {}
	}
	var left atomic.Int64
	left.Store(int64(n))
	return func() {
		if left.Add(-1) == 0 {
			done()
		}
	}
}
