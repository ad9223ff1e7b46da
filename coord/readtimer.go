package coord

// begin asks the first owners and sets the timers. A read of what is here at ONE is
// nearly always answered at once, and then sets none. For others the timers come
// first: where the deadline of a read and those of its messages are the same
// instant, it is the read that ran out of time. The lock is held and released.
func (r *read) begin() {
	if self := r.mu.u.self; len(r.mu.order) > 0 && r.mu.order[0] == self && r.mu.goal.Met(1<<self) {
		r.advance()
		r.arm()
		return
	}
	r.mu.Unlock()
	r.arm()
	r.mu.Lock()
	r.advance()
}

// arm sets the timers of a read that has not been answered.
func (r *read) arm() {
	c := r.job.c
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.answered {
		return
	}
	r.mu.stop = c.opts.Clock.AfterFunc(c.remaining(r.job.deadline), r.timeout)
	if r.mu.unhedge == nil { // else it writes back by now
		r.mu.unhedge = c.opts.Clock.AfterFunc(r.wait(), r.hedge)
	}
}
