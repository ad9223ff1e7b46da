package coord

import (
	"sync"
	"time"
)

// maxRefreshWaiters bounds the operations that wait for fresher metadata.
const maxRefreshWaiters = 1024

// refresher gathers operations whose tenant is unknown and asks for newer
// metadata on behalf of all of them, at most once per interval.
type refresher struct {
	c  *Coordinator
	mu struct {
		sync.Mutex
		// waiting run after the refresh that is scheduled or, with asking,
		// under way.
		waiting []*job
		asking  bool
		last    time.Time
	}
}

// ask has j run after a refresh that begins from now on. It returns false when there
// is nobody to ask or too many wait: the caller then goes on with what is known.
func (r *refresher) ask(j *job) bool {
	if r.c.opts.Refresh == nil {
		j.informed = true
		return false
	}
	now := r.c.opts.Clock.Now()
	r.mu.Lock()
	if len(r.mu.waiting) >= maxRefreshWaiters {
		r.mu.Unlock()
		return false
	}
	r.mu.waiting = append(r.mu.waiting, j)
	first := len(r.mu.waiting) == 1 && !r.mu.asking
	wait := r.c.opts.RefreshInterval - now.Sub(r.mu.last)
	if r.mu.last.IsZero() || wait > r.c.opts.RefreshInterval {
		wait = 0
	}
	r.mu.Unlock()
	switch {
	case !first:
	case wait > 0:
		r.c.opts.Clock.AfterFunc(wait, func() { r.begin(j.tenant) })
	default:
		r.begin(j.tenant)
	}
	return true
}

func (r *refresher) begin(tenant string) {
	now := r.c.opts.Clock.Now()
	r.mu.Lock()
	batch := r.mu.waiting
	r.mu.waiting = nil
	r.mu.asking = true
	r.mu.last = now
	r.mu.Unlock()
	r.c.opts.Refresh(tenant, func(informed bool) {
		r.mu.Lock()
		r.mu.asking = false
		again := len(r.mu.waiting) > 0
		r.mu.Unlock()
		if again {
			r.c.opts.Clock.AfterFunc(r.c.opts.RefreshInterval, func() { r.begin(tenant) })
		}
		for _, j := range batch {
			j.informed = informed
			j.run()
		}
	})
}
