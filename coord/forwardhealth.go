package coord

import (
	"slices"
	"time"

	"github.com/pairdb/pairdb/coord/peerhealth"
)

// forwardKind is what an operation that is handed on is to its new coordinator.
func (j *job) forwardKind() peerhealth.Kind {
	if j.kind == KindGet {
		return peerhealth.ForwardRead
	}
	return peerhealth.ForwardWrite
}

// choose leaves out owners that do not answer: a write that one of them has taken
// would be in doubt. A read may ask them when all others have failed. A slow owner that
// is to be tried comes first. The caller has the lock, or f alone.
func (f *forward) choose() {
	c, u := f.job.c, f.mu.u
	now := c.opts.Clock.Now()
	answers := slices.ContainsFunc(f.mu.order, func(i int) bool { return !c.shut(u, i) })
	f.mu.order = slices.DeleteFunc(f.mu.order, func(i int) bool {
		if !c.shut(u, i) || answers && f.job.kind == KindGet {
			return false
		}
		f.mu.mixed = true
		f.mu.causes = append(f.mu.causes, u.cause(i, c.silent(u, i)))
		return true
	})
	for k, i := range f.mu.order {
		if p := c.record(u, i); p.State() == peerhealth.Slow && p.Probe(now) {
			copy(f.mu.order[1:k+1], f.mu.order[:k])
			f.mu.order[0] = i
			return
		}
	}
}

// mayRetry reports whether one more owner may get the operation, because one refused
// it. If that one has had it (got), this is work done twice, for which there is a
// budget. The lock is held.
func (f *forward) mayRetry(got bool) bool {
	c := f.job.c
	switch {
	case f.mu.next == len(f.mu.order):
		return true // there is none
	case got && !c.health.retries.Take():
		c.opts.Metrics.ForwardRefused()
		return false
	}
	c.opts.Metrics.ForwardRetry()
	return true
}

// wait is how long the owner that gets a read next may take until one more gets it.
// The caller has the lock, or f alone.
func (f *forward) wait() time.Duration {
	if f.mu.next >= len(f.mu.order) {
		return f.job.c.opts.HedgeDelay
	}
	return f.job.c.record(f.mu.u, f.mu.order[f.mu.next]).Wait(peerhealth.ForwardRead)
}

// armHedge gives a read to one more owner after d without an answer.
func (f *forward) armHedge(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.answered {
		return
	}
	f.mu.unhedge = f.job.c.opts.Clock.AfterFunc(d, f.hedge)
}

// hedge gives a read to one more owner, unless there is none, or it does not answer, or
// the budget is spent; then it looks again later, when there may be a newer ring.
func (f *forward) hedge() {
	c := f.job.c
	f.mu.Lock()
	switch {
	case f.mu.answered:
		f.mu.Unlock()
		return
	case f.mu.next == len(f.mu.order):
		f.mu.Unlock()
		f.armHedge(c.opts.HedgeDelay)
		return
	}
	c.hold(1) // the answer may be given before this has sent
	defer c.leave()
	u, next := f.mu.u, f.mu.order[f.mu.next]
	free := false
	for _, i := range f.mu.order[:f.mu.next] {
		free = free || c.shut(u, i)
	}
	if c.shut(u, next) || !c.mayHedge(free) {
		f.mu.Unlock()
		f.armHedge(c.opts.HedgeDelay)
		return
	}
	again := f.wait()
	f.mu.hedged |= 1 << next
	f.advance(true)
	f.armHedge(again)
}
