package coord

import (
	"errors"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/gossip/ring"
)

// ask sends op to owners, which are marked as asked, and then does what the
// answers call for. r is the record of a claim or of the write. The lock is held
// and released.
func (o *once) ask(op Op, to []int, r *causal.Record) {
	j, c, u, step := o.job, o.job.c, o.mu.u, o.mu.step
	o.mu.Unlock()
	m := u.message(op)
	m.Body, m.Deadline = j.idempotencyKey, j.deadline
	var object []byte
	if op == OpClaim {
		m.Body = appendClaim(nil, j.idempotencyKey, r)
	}
	if op == OpApply && len(to) > 0 {
		obj := r.Object(j.value)
		b := make([]byte, 0, claimLen(j.idempotencyKey, r)+obj.EncodedLen())
		b = appendClaim(b, j.idempotencyKey, r)
		m.Body = obj.Append(b)
		object = m.Body[len(b):]
		// The replicas' part outlives the answer and the client's patience.
		m.Deadline = j.began.Add(c.opts.WriteTimeout)
	}
	c.hold(len(to))
	for _, i := range to {
		if i == u.self {
			o.askSelf(u, step, op, r, object)
			continue
		}
		a := c.health.sentTo(u.owners[i], peerhealth.Write)
		j.send(u.owners[i], &m, func(rep Reply, err error) {
			c.health.heard(a, err)
			o.reply(u, i, step, op, r, rep, err)
			c.leave()
		})
	}
	o.mu.Lock()
	o.advance()
}

// askSelf asks this node's own replica.
func (o *once) askSelf(u *unit, step int, op Op, r *causal.Record, object []byte) {
	c, key := o.job.c, o.job.idempotencyKey
	heard := func(h Held, err error) {
		if errors.Is(err, ErrMoved) {
			o.bounce(u, u.self, step, op, 0)
		} else if err != nil {
			e := asError(err)
			o.failed(u.self, step, e.reason(), e, e.Outcome == errcode.NotApplied)
		} else {
			o.heard(u.self, step, op, h)
		}
		c.leave()
	}
	now := c.opts.Clock.Now()
	switch op {
	case OpLookup:
		c.opts.Replica.Lookup(u.Address, key, now, heard)
	case OpClaim:
		c.opts.Replica.Claim(u.Address, key, r, now, func(held causal.Record, err error) { heard(Held{Record: &held}, err) })
	default:
		item := MergeItem{Address: u.Address, Object: object, LastWriteWins: true, IdempotencyKey: key, Record: r}
		c.opts.Replica.Merge([]MergeItem{item}, func(_ int, _ []byte, err error) { heard(Held{}, err) })
	}
}

// reply hears from another owner of u about what step sent.
func (o *once) reply(u *unit, i, step int, op Op, r *causal.Record, rep Reply, err error) {
	if err == nil && rep.Status == StatusStale {
		o.bounce(u, i, step, op, rep.Version)
		return
	}
	if err != nil || rep.Status != StatusOK {
		if op == OpApply {
			// Whether it still counts or not.
			o.job.c.hint(u, i, o.job.idempotencyKey)
		}
		reason, e, untouched := refused(&rep, err)
		if saysDeleted(e) {
			o.deleted()
			return
		}
		o.failed(i, step, reason, e, untouched)
		return
	}
	var h Held
	reason := ""
	switch op {
	case OpLookup:
		if h, err = decodeHeld(rep.Body); err != nil {
			reason = "sent an answer that does not decode"
		}
	case OpClaim:
		kept, err := causal.DecodeRecord(rep.Body)
		h.Record = &kept
		switch {
		case err != nil:
			reason = "sent a record that does not decode"
		case kept.GivesWay(r):
			// It would be asked for ever.
			reason = "holds a vote that has to give way"
		}
	}
	if reason != "" {
		o.failed(i, step, reason, nil, false)
		return
	}
	o.heard(i, step, op, h)
}

// failed notes why owner i did not do its part.
func (o *once) failed(i, step int, reason string, e *Error, untouched bool) {
	o.mu.Lock()
	if step != o.mu.step {
		o.mu.Unlock()
		return
	}
	o.lost(i, reason, e, untouched)
	o.advance()
}

// deleted ends a write of which an owner says that the tenant is no more.
func (o *once) deleted() {
	o.mu.Lock()
	if o.mu.answered {
		o.mu.Unlock()
		return
	}
	o.finish(result{}, &Error{Code: errcode.TenantNotFound, Outcome: o.outcome(), Message: deletedText(o.job.tenant)})
}

// heard notes what owner i answered to op.
func (o *once) heard(i, step int, op Op, h Held) {
	o.mu.Lock()
	if step != o.mu.step {
		o.mu.Unlock()
		return
	}
	w := &o.mu.owners[i]
	w.state = hasAnswered
	switch op {
	case OpApply:
		o.mu.tally.Ack(i)
	case OpClaim:
		w.held.Record = h.Record
	default:
		w.held = h
	}
	o.advance()
}

// bounce learns the ring that owner i of u has before this node, unless that is this
// node, which knows it by now.
func (o *once) bounce(u *unit, i, step int, op Op, v ring.Version) {
	c := o.job.c
	if i != u.self {
		c.opts.Metrics.StaleBounce()
	}
	o.mu.Lock()
	if step != o.mu.step || o.mu.answered {
		late := o.mu.answered
		o.mu.Unlock()
		if late && op == OpApply {
			c.hint(u, i, o.job.idempotencyKey)
		}
		return
	}
	o.mu.stale |= 1 << i
	start := !o.mu.catching
	o.mu.catching = true
	o.mu.Unlock()
	switch {
	case !start:
	case i == u.self:
		o.caughtUp()
	default:
		c.catchUp(u.owners[i], v, o.caughtUp)
	}
}

// moved starts over if this node has no dot to reserve because the ring has changed.
func (o *once) moved(u *unit, step int) {
	next := o.job.c.newer(u)
	o.mu.Lock()
	switch {
	case o.mu.answered || step != o.mu.step:
		o.mu.Unlock()
	case next != nil:
		o.begin(next)
	default:
		o.notReserved(u, asError(ErrMoved))
	}
}

// caughtUp starts over under a newer ring version, or gives up on the owners
// that bounced if there is none. The write that was reserved stays the same.
func (o *once) caughtUp() {
	c := o.job.c
	s := c.opts.View()
	o.mu.Lock()
	stale := o.mu.stale
	o.mu.catching, o.mu.stale = false, 0
	u := o.mu.u
	applied := o.mu.phase == applying
	if o.mu.answered {
		o.mu.Unlock()
		if applied {
			c.hintAll(u, stale, o.job.idempotencyKey)
		}
		return
	}
	if t, ok := s.TenantByNumber(u.Tenant); ok && s.Layout != nil {
		u = c.place(s, t, u.Key)
	}
	switch {
	case u.same(o.mu.u):
		for i := range o.mu.owners {
			if stale>>i&1 == 1 {
				o.lost(i, reasonStale, nil, true)
			}
		}
		o.advance()
		if applied {
			c.hintAll(u, stale, o.job.idempotencyKey)
		}
	default:
		o.begin(u)
	}
}

// lost notes why owner i will not do its part. The lock is held.
func (o *once) lost(i int, reason string, e *Error, untouched bool) {
	w := &o.mu.owners[i]
	w.state, w.reason, w.err, w.untouched = hasFailed, reason, e, untouched
	if o.mu.phase == applying {
		o.mu.tally.Fail(i, reason)
	}
}
