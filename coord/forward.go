package coord

import (
	"sync"

	"github.com/pairdb/pairdb/api/errcode"
)

// forward is an operation at a node that does not own the key, or whose own
// copy cannot take it. It is handed to one owner. Another is tried only when
// the one before certainly did nothing, or when it is a read.
type forward struct {
	job  *job
	body []byte

	mu struct {
		sync.Mutex
		u     *unit
		order []int
		next  int
		// out is how many owners have it and have not answered.
		out    int
		causes []Cause
		// why is what the last owner said that refused. mixed says that one
		// failed in another way, so that its code would be half the story.
		why   *Error
		mixed bool
		// short is what the last owner said that had too few others.
		short *Error
		// hedged are owners that got it because others kept it waiting.
		hedged   uint16
		answered bool
		stop     func() bool
		unhedge  func() bool
	}
}

// startForward hands j to another owner. local is why this node's own copy
// refused, nil if it has none.
func startForward(j *job, u *unit, local *Error) {
	f := &forward{job: j, body: j.request.encode()}
	if local != nil && u.self >= 0 {
		f.mu.why = local
		f.mu.causes = append(f.mu.causes, u.cause(u.self, local.reason()))
	}
	f.target(u)
	c := j.c
	c.health.retries.Earn()
	wait := c.opts.HedgeDelay
	if j.kind == KindGet {
		c.health.hedges.Earn()
		wait = f.wait()
	}
	f.mu.Lock()
	f.mu.stop = c.opts.Clock.AfterFunc(c.remaining(j.deadline), f.timeout)
	f.advance(true)
	if j.kind == KindGet {
		f.armHedge(wait)
	}
}

// target lists the owners that may coordinate the operation. Nobody else holds f.
func (f *forward) target(u *unit) {
	f.mu.u = u
	for _, i := range f.job.c.order(u, nil) {
		if i != u.self && u.r1>>i&1 == 1 {
			f.mu.order = append(f.mu.order, i)
		}
	}
	if f.job.c.health.table.Impaired() {
		f.choose()
	}
}

// advance sends to the next owner if more is set, and ends the operation if
// there is none and nobody is left to answer. The lock is held and released.
func (f *forward) advance(more bool) {
	if f.mu.answered {
		f.mu.Unlock()
		return
	}
	u := f.mu.u
	if !more || f.mu.next == len(f.mu.order) {
		if f.mu.out > 0 {
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		next := f.job.c.newer(u)
		f.mu.Lock()
		switch {
		case f.mu.answered:
			f.mu.Unlock()
			return
		case next != nil: // nobody has done anything, and there may be others now
			f.again()
			return
		case f.mu.short != nil:
			f.finish(result{}, f.mu.short)
			return
		}
		if e := f.job.c.deleted(f.job, u.Tenant, errcode.NotApplied); e != nil {
			f.finish(result{}, e)
			return
		}
		e := &Error{
			Code: errcode.Unavailable, Outcome: outcome(&f.job.request, errcode.NotApplied),
			Causes: f.mu.causes, Message: "no owner of the key took the request",
		}
		for i := range u.owners {
			if u.down(i) {
				e.Causes = append(e.Causes, u.cause(i, reasonDown))
				f.mu.mixed = true
			}
		}
		if f.mu.why != nil && !f.mu.mixed {
			// All of them refused, so it is no matter of reaching one.
			e.Code = f.mu.why.Code
		}
		f.finish(result{}, e)
		return
	}
	i := f.mu.order[f.mu.next]
	f.mu.next++
	f.mu.out++
	f.mu.Unlock()

	c := f.job.c
	c.opts.Metrics.Forward()
	m := u.message(OpForward)
	m.Key, m.Body, m.Deadline = nil, f.body, f.job.deadline
	c.hold(1)
	a := c.health.sentTo(u.owners[i], f.job.forwardKind())
	f.job.send(u.owners[i], &m, func(r Reply, err error) {
		c.health.heard(a, err)
		f.reply(u, i, r, err)
		c.leave()
	})
}

// finish answers. The lock is held and released.
func (f *forward) finish(res result, e *Error) {
	f.end()
	f.job.done(res, e)
}

// again begins the operation anew under a newer ring, which may say that it is to be
// coordinated here. The lock is held and released.
func (f *forward) again() {
	f.end()
	f.job.run()
}

// end leaves nothing for others to do. The lock is held and released.
func (f *forward) end() {
	f.mu.answered = true
	f.mu.stop()
	if f.mu.unhedge != nil {
		f.mu.unhedge()
	}
	f.mu.Unlock()
}

func (f *forward) reply(u *unit, i int, r Reply, err error) {
	read := f.job.kind == KindGet
	var res result
	var bad error
	if ok := err == nil && r.Status == StatusOK; ok && read {
		res.get, bad = decodeGetResponse(r.Body)
	} else if ok {
		res.write, bad = decodeWriteResponse(r.Body)
	}
	f.mu.Lock()
	f.mu.out--
	switch {
	case f.mu.answered:
		f.mu.Unlock()
	case err == nil && r.Status == StatusOK && bad == nil:
		if f.mu.hedged>>i&1 == 1 && f.mu.out > 0 {
			f.job.c.opts.Metrics.HedgeWon()
		}
		f.finish(res, nil)
	case err == nil && r.Status == StatusStale:
		f.bounce(u, i, &r)
	case bad != nil:
		f.lost(u, i, "sent an answer that does not decode", nil)
	default:
		reason, e, untouched := refused(&r, err)
		switch {
		case e != nil && !((untouched || read) && tryElsewhere(f.job.kind, e.Code)):
			f.finish(res, e)
		case untouched || read:
			f.mu.mixed = f.mu.mixed || e == nil || f.mu.why != nil && f.mu.why.Code != e.Code
			f.mu.why = e
			if e != nil && e.Code == errcode.QuorumNotReached {
				f.mu.short = e
			}
			f.mu.causes = append(f.mu.causes, u.cause(i, reason))
			f.advance(f.mayRetry(err == nil && r.Status != StatusNotOwner))
		default:
			f.lost(u, i, reason, nil)
		}
	}
}

// lost deals with an owner that may have done its work without our learning
// it. The lock is held and released.
func (f *forward) lost(u *unit, i int, reason string, err error) {
	f.mu.causes = append(f.mu.causes, u.cause(i, reason))
	if f.job.kind == KindGet {
		f.advance(true)
		return
	}
	f.finish(result{}, &Error{
		Code: errcode.Unavailable, Outcome: errcode.Indeterminate, Causes: f.mu.causes,
		Message: "the owner that took the request did not answer", Err: err,
	})
}

// bounce learns the ring of an owner that refused because this node's is
// behind, and begins the operation anew. The lock is held and released.
func (f *forward) bounce(u *unit, i int, r *Reply) {
	c := f.job.c
	f.mu.out++ // catching up counts as somebody who will answer
	f.mu.Unlock()
	c.opts.Metrics.StaleBounce()
	c.catchUp(u.owners[i], r.Version, func() {
		now, err := c.locate(f.job)
		f.mu.Lock()
		f.mu.out--
		switch {
		case f.mu.answered:
			f.mu.Unlock()
			return
		case err != nil:
			f.finish(result{}, err)
			return
		case now.same(u):
			f.mu.mixed = true
			f.mu.causes = append(f.mu.causes, u.cause(i, reasonStale))
		default:
			f.again()
			return
		}
		f.advance(true)
	})
}

func (f *forward) timeout() {
	f.mu.Lock()
	if f.mu.answered {
		f.mu.Unlock()
		return
	}
	o := errcode.NotApplied
	if f.mu.out > 0 {
		o = errcode.Indeterminate
	}
	f.finish(result{}, &Error{
		Code: errcode.Timeout, Outcome: outcome(&f.job.request, o), Causes: f.mu.causes,
		Message: "the deadline passed before an owner of the key answered",
	})
}
