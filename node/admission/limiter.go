package admission

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Reason is why an operation was refused.
type Reason uint8

// The reasons. Their texts are label values of a metric.
const (
	// QueueFull: as many wait as may.
	QueueFull Reason = iota
	// Deadline: it could not have been answered before its deadline.
	Deadline
	// Waited: it waited for as long as one may, or would have had to.
	Waited
	// Gone: whoever asked gave up while it waited.
	Gone

	reasons = iota
)

// String returns the reason as a metric's label has it.
func (r Reason) String() string {
	return [...]string{"queue_full", "deadline", "waited", "gone"}[r]
}

// Reasons lists all reasons.
func Reasons() []Reason { return []Reason{QueueFull, Deadline, Waited, Gone} }

// Bounds are the settings of a Limiter. All are required.
type Bounds struct {
	// Floor and Ceiling bound the limit, in operations under way. The floor is what
	// group commit and the frames to other nodes need to be full: below it a node
	// that is slow gets slower.
	Floor, Ceiling int
	// Queue bounds those that wait, in operations.
	Queue int
	// Wait bounds how long one waits.
	Wait time.Duration
}

const (
	// sampled is how many operations there are to one whose time is taken; a power
	// of two. Reading the clock costs as much as all the rest.
	sampled = 8
	// windowTime is the shortest window of the law, and windowSamples what it has at
	// the least, unless it is windowLimit long.
	windowTime, windowLimit = 100 * time.Millisecond, time.Second
	windowSamples           = 8
	// nearly is the part of the limit from which on it binds.
	nearly = 0.8
)

// Limiter lets operations in while fewer are under way than a limit that follows
// their latency, makes a few wait, and refuses the others. Each counts with a
// weight, at least 1. It is safe for concurrent use; make one with NewLimiter.
//
// Invariants: those under way have the limit and one weight at most, until the
// limit shrinks; those that wait have Bounds.Queue at most; each Acquire that
// succeeded is followed by one Release.
type Limiter struct {
	bounds Bounds
	// base is the origin of times here: only differences are taken, which reads
	// one clock instead of two.
	base time.Time

	limit   atomic.Int64 // weights that may be under way
	waiting atomic.Int64 // weights that wait; changed with mu held
	// state has the weights under way in its lower half and those let in so far,
	// which wrap around, in its upper one: one atomic step for both.
	state   atomic.Uint64
	refused [reasons]atomic.Int64
	// service is how long an operation takes now, in nanoseconds.
	service atomic.Int64

	mu struct {
		sync.Mutex
		law law
		// queue is in the order of arrival.
		queue []*waiter
		// The window: when it began, how long the operations took that were looked
		// at, and whether the limit was reached.
		since   time.Duration
		total   time.Duration
		samples int64
		bound   bool
	}
}

// waiter is an operation in the queue. in is closed when it is let in, which
// happens with mu held and takes it out of the queue.
type waiter struct {
	weight int64
	in     chan struct{}
}

// Token is what an operation has been let in with. The zero Token was let in by
// nobody, and its Release does nothing.
type Token struct {
	l      *Limiter
	weight int64
	began  time.Duration // 0: its time is not taken
}

// NewLimiter returns a limiter at its floor.
func NewLimiter(b Bounds) *Limiter {
	l := &Limiter{bounds: b, base: time.Now().Add(-time.Second)}
	l.mu.law = newLaw(b.Floor, b.Ceiling)
	l.mu.since = l.now()
	l.limit.Store(int64(b.Floor))
	return l
}

// now is the time since base, never 0.
func (l *Limiter) now() time.Duration { return time.Since(l.base) }

// clip makes a weight one that can be let in at all.
func (l *Limiter) clip(weight int) int64 { return int64(min(max(weight, 1), l.bounds.Floor)) }

// TryAcquire lets an operation in if there is room and nobody waits.
func (l *Limiter) TryAcquire(weight int) (Token, bool) {
	w := l.clip(weight)
	if l.waiting.Load() == 0 {
		if n := l.state.Add(both(w)); l.room(n, w) {
			return l.token(w, n), true
		}
		l.giveBack(w)
	}
	return Token{}, false
}

// both is a weight in both halves of the state.
func both(w int64) uint64 { return uint64(w)<<32 | uint64(w) }

// room says whether one with weight w may stay that is in the state already. One
// that weighs more than the limit, which may have gone below the floor, goes alone.
func (l *Limiter) room(state uint64, w int64) bool {
	n := int64(uint32(state))
	return n <= l.limit.Load() || n == w
}

// admitted is how many were let in so far; it wraps around.
func (l *Limiter) admitted() uint32 { return uint32(l.state.Load() >> 32) }

func (l *Limiter) underWay() int64 { return int64(uint32(l.state.Load())) }

// giveBack takes back what was added for somebody who is not let in. Others may
// have found no room for it meanwhile.
func (l *Limiter) giveBack(w int64) {
	l.state.Add(-both(w))
	if l.waiting.Load() > 0 {
		l.mu.Lock()
		l.grantLocked()
		l.mu.Unlock()
	}
}

// token is for an operation that is counted as under way. state is what it was
// when it was, or thereabouts: it chooses those whose time is taken. Heavy ones take
// longer than others and say nothing about them, but below the floor they may be all
// there is to say that the node is well again.
func (l *Limiter) token(w int64, state uint64) Token {
	t := Token{l: l, weight: w}
	if w == 1 && state>>32%sampled == 0 || w > 1 && l.limit.Load() < int64(l.bounds.Floor) {
		t.began = l.now()
	}
	return t
}

// Acquire lets an operation in, at once or after a wait in the queue, or says
// with false why not. It waits no longer than Bounds.Wait, than ctx lasts, and
// than there is time to do the operation before left, the time to its deadline,
// is over; 0: there is none.
func (l *Limiter) Acquire(ctx context.Context, weight int, left time.Duration) (Token, Reason, bool) {
	// Half of them take less than the mean, or thereabouts: what has half of it may
	// be in time.
	if left > 0 && l.Busy() && left < time.Duration(l.service.Load())/2 {
		l.refused[Deadline].Add(1)
		return Token{}, Deadline, false
	}
	if t, ok := l.TryAcquire(weight); ok {
		return t, 0, true
	}
	w := l.clip(weight)
	l.mu.Lock()
	l.mu.bound = true
	wait, reason, ok := l.mayWaitLocked(w, left)
	if !ok {
		l.mu.Unlock()
		l.refused[reason].Add(1)
		return Token{}, reason, false
	}
	me := &waiter{weight: w, in: make(chan struct{})}
	l.mu.queue = append(l.mu.queue, me)
	// First to be seen waiting, then to look for room: whoever makes room does it
	// the other way round.
	l.waiting.Add(w)
	l.grantLocked()
	l.mu.Unlock()

	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-me.in:
		return l.token(w, l.state.Load()), 0, true
	case <-timer.C:
		reason = Waited
	case <-ctx.Done():
		reason = Gone
	}
	if !l.leave(me) {
		return l.token(w, l.state.Load()), 0, true // both at once: it is in
	}
	l.refused[reason].Add(1)
	return Token{}, reason, false
}

// Refuses says whether one more operation would be refused now, and counts it as
// refused if so. It is for an edge that can spare itself the work of looking at a
// request; nothing is promised if it is false.
func (l *Limiter) Refuses(left time.Duration) (Reason, bool) {
	if l.waiting.Load() == 0 {
		return 0, false
	}
	l.mu.Lock()
	_, reason, ok := l.mayWaitLocked(1, left)
	l.mu.Unlock()
	if ok {
		return 0, false
	}
	l.refused[reason].Add(1)
	return reason, true
}

// mayWaitLocked says how long an operation may wait, or why it may not.
func (l *Limiter) mayWaitLocked(w int64, left time.Duration) (time.Duration, Reason, bool) {
	waiting := l.waiting.Load()
	if waiting+w > int64(l.bounds.Queue) {
		return 0, QueueFull, false
	}
	// By Little's law, limit/service operations end in a unit of time, and as many
	// of those that wait get their turn.
	service := l.mu.law.service()
	turn := time.Duration(float64(service) * float64(waiting+w) / float64(max(l.limit.Load(), 1)))
	wait := l.bounds.Wait
	if left > 0 {
		if turn+service > left {
			return 0, Deadline, false
		}
		wait = min(wait, left-service)
	}
	if turn > l.bounds.Wait {
		return 0, Waited, false
	}
	return wait, 0, true
}

// grantLocked lets those in, in the order in which they came, for whom there is
// room.
func (l *Limiter) grantLocked() {
	n := 0
	for _, q := range l.mu.queue {
		if n := l.state.Add(both(q.weight)); !l.room(n, q.weight) {
			l.state.Add(-both(q.weight))
			break
		}
		l.waiting.Add(-q.weight)
		close(q.in)
		n++
	}
	if n > 0 {
		l.dropLocked(0, n)
	}
}

// dropLocked takes n out of the queue, from at on, and keeps no pointer to them.
func (l *Limiter) dropLocked(at, n int) {
	rest := append(l.mu.queue[:at], l.mu.queue[at+n:]...)
	clear(l.mu.queue[len(rest):])
	l.mu.queue = rest
}

// leave takes w out of the queue; false if it was let in before.
func (l *Limiter) leave(w *waiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, q := range l.mu.queue {
		if q == w {
			l.dropLocked(i, 1)
			l.waiting.Add(-w.weight)
			// It may have been what those behind it waited for.
			l.grantLocked()
			return true
		}
	}
	return false
}

// Release says that the operation has ended, however it did.
func (t Token) Release() {
	l := t.l
	if l == nil {
		return
	}
	l.state.Add(-uint64(t.weight)) // the lower half has it, so nothing is borrowed
	if t.began != 0 {
		now := l.now()
		l.mu.Lock()
		l.observeLocked(now-t.began, now)
		l.grantLocked()
		l.mu.Unlock()
		return
	}
	if l.waiting.Load() > 0 {
		l.mu.Lock()
		l.grantLocked()
		l.mu.Unlock()
	}
}

// observeLocked takes in how long an operation took that ended now.
func (l *Limiter) observeLocked(took, now time.Duration) {
	l.mu.total += took
	l.mu.samples++
	limit := l.limit.Load()
	l.mu.bound = l.mu.bound || float64(l.underWay()) >= nearly*float64(limit)
	if age := now - l.mu.since; age < windowTime || l.mu.samples < windowSamples && age < windowLimit {
		return
	}
	limit = int64(l.mu.law.step(window{mean: l.mu.total / time.Duration(l.mu.samples), bound: l.mu.bound}))
	l.limit.Store(limit)
	l.service.Store(int64(l.mu.law.service()))
	l.mu.since, l.mu.total, l.mu.samples, l.mu.bound = now, 0, 0, false
}

// part is a Token for n of those that t was let in with together. Its holder
// releases the parts instead of t. Their times are not taken.
func (t Token) part(n int64) Token { return Token{l: t.l, weight: n} }

// countRefused counts an operation that was refused without asking.
func (l *Limiter) countRefused(why Reason) { l.refused[why].Add(1) }

// Stats are the figures of a Limiter. Weights are in operations.
type Stats struct {
	// Limit is how many may be under way now.
	Limit int64
	// UnderWay and Waiting are those that are, and that wait to be.
	UnderWay, Waiting int64
	// Service is how long an operation takes now; 0 if nothing is known.
	Service time.Duration
	// Refused counts operations by Reason.
	Refused [reasons]int64
}

// Stats returns the figures.
func (l *Limiter) Stats() Stats {
	s := Stats{
		Limit: l.limit.Load(), UnderWay: l.underWay(), Waiting: l.waiting.Load(),
		Service: time.Duration(l.service.Load()),
	}
	for i := range s.Refused {
		s.Refused[i] = l.refused[i].Load()
	}
	return s
}

// Busy says that so much is under way that it pays to look at a deadline before
// the work is begun.
func (l *Limiter) Busy() bool { return 2*l.underWay() > l.limit.Load() }
