package coord

import (
	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
)

// failed notes that owner i of u is not sent the write.
func (o *update) failed(u *unit, i, round int, reason string) {
	o.job.c.hint(u, i, nil)
	o.mu.Lock()
	if round == o.mu.round {
		o.mu.tally.Fail(i, reason)
	}
	o.advance()
}

// local hears that the n-th mint is on this node's disk, or never will be.
func (o *update) local(n int, err error) {
	o.mu.Lock()
	if n != o.mu.mints {
		o.mu.Unlock()
		return
	}
	o.mu.durable, o.mu.localErr = err == nil, err
	o.countLocal()
	o.advance()
}

// countLocal enters this node's own part into the tally. The lock is held.
func (o *update) countLocal() {
	switch self := o.mu.u.self; {
	case self < 0:
	case o.mu.durable:
		o.mu.tally.Ack(self)
	case o.mu.localErr != nil:
		o.mu.tally.Fail(self, asError(o.mu.localErr).reason())
	}
}

// reply hears from owner i of u about what round sent.
func (o *update) reply(u *unit, i, round int, r Reply, err error) {
	if err != nil || r.Status != StatusOK && r.Status != StatusStale {
		// Whether it still counts or not.
		o.job.c.hint(u, i, nil)
	}
	o.mu.Lock()
	if round != o.mu.round {
		if o.mu.minting && round == o.mu.round-1 && u == o.mu.u && err == nil && r.Status == StatusOK {
			// It is too late to count, but says what was there.
			if held, err := causal.Decode(r.Body); err == nil {
				o.mu.rivals.heard(i, &held)
			}
		}
		o.mu.Unlock()
		return
	}
	switch {
	case err == nil && r.Status == StatusOK:
		if o.note(i, r.Body) {
			o.mu.tally.Ack(i)
		} else {
			o.mu.tally.Fail(i, "sent an answer that does not decode")
		}
	case err == nil && r.Status == StatusStale:
		o.bounce(i, r.Version)
		return
	default:
		reason, e, _ := refused(&r, err)
		if saysDeleted(e) {
			o.deleted()
			return
		}
		o.mu.tally.Fail(i, reason)
	}
	o.advance()
}

// deleted ends a write of which an owner says that the tenant is no more. Others may
// have it, and may have shown it. The lock is held and released.
func (o *update) deleted() {
	if o.mu.answered {
		o.mu.Unlock()
		return
	}
	o.mu.answered = true
	o.mu.stop()
	o.mu.Unlock()
	o.job.fail(errcode.TenantNotFound, errcode.Indeterminate, deletedText(o.job.tenant))
}

// note remembers what owner i held that the mint did not cover. The lock is
// held.
func (o *update) note(i int, body []byte) bool {
	held, err := causal.Decode(body)
	if err != nil {
		return false
	}
	if o.mu.mints == 1 {
		o.mu.rivals.heard(i, &held)
	}
	if held.Replaced(o.mu.dot) {
		// A later write had already replaced this one there: to mint it
		// again would bring it back.
		o.mu.replaced = true
		if w := held.Winner(); w == nil || held.Saw(w, o.mu.dot) {
			return true
		}
		// But it loses to what this one was to win over.
	}
	var top uint64
	found := false
	for i := range held.Siblings {
		if s := &held.Siblings[i]; !o.mu.seen.Covers(s.Dot) {
			top, found = max(top, s.HLC), true
		}
	}
	if found {
		o.job.c.opts.Metrics.Conflict()
		o.mu.above = causal.JoinContext(o.mu.above, held.Context)
		o.mu.aboveHLC = max(o.mu.aboveHLC, top)
	}
	return true
}

// bounce learns the ring that owner i has before this node. The lock is held
// and released.
func (o *update) bounce(i int, v ring.Version) {
	c := o.job.c
	c.opts.Metrics.StaleBounce()
	o.mu.stale |= 1 << i
	start := !o.mu.catching && !o.mu.answered
	o.mu.catching = o.mu.catching || start
	late := !o.mu.catching
	u := o.mu.u
	o.mu.Unlock()
	switch {
	case start:
		c.catchUp(u.owners[i], v, o.caughtUp)
	case late:
		c.hint(u, i, nil)
	}
}

// caughtUp counts anew under a newer ring version, with the same object, or
// gives up on the owners that bounced if there is none.
func (o *update) caughtUp() {
	c := o.job.c
	s := c.opts.View()
	o.mu.Lock()
	stale := o.mu.stale
	o.mu.catching, o.mu.stale = false, 0
	u := o.mu.u
	if t, ok := s.TenantByNumber(u.Tenant); ok && s.Layout != nil {
		u = c.place(s, t, u.Key)
	}
	if o.mu.answered || u.same(o.mu.u) {
		for i := range o.mu.u.owners {
			if stale>>i&1 == 1 {
				o.mu.tally.Fail(i, reasonStale)
			}
		}
		u = o.mu.u
		o.advance()
		c.hintAll(u, stale, nil)
		return
	}
	o.renew(u)
}

// recount begins the count anew under u, unless it goes by something newer already.
// The lock is held.
func (o *update) recount(u *unit) {
	if u.pv < o.mu.u.pv || u.tenant.Version < o.mu.u.tenant.Version {
		return
	}
	u.standBack()
	o.mu.u, o.mu.tally = u, u.written(o.job.level).Tally()
	o.mu.rivals.moved = true
	o.mu.round++
	o.countLocal()
}

// renew sends the same object to the owners of u. The lock is held and released.
func (o *update) renew(u *unit) {
	o.recount(u)
	if o.mu.minting {
		// What has the first mint must not count for the second, which mint
		// sends under the new version.
		o.mu.Unlock()
		return
	}
	o.replicate()
	o.mu.Lock()
	o.advance() // who is left to own it may be those that have it already
}

// stranded goes on under a newer ring, if there is one, with a write that cannot reach
// its level any more. The lock is held; it is released if there is nothing else to do.
func (o *update) stranded() (done bool) {
	u, round := o.mu.u, o.mu.round
	o.mu.Unlock()
	next := o.job.c.newer(u)
	o.mu.Lock()
	switch {
	case o.mu.answered || round != o.mu.round:
		o.mu.Unlock()
	case next != nil:
		o.renew(next)
	default:
		return false
	}
	return true
}

// advance answers or mints again, if it is time. The lock is held and
// released.
func (o *update) advance() {
	v := o.mu.tally.Verdict()
	if o.mu.answered || v == quorum.Pending {
		o.mu.Unlock()
		return
	}
	if v == quorum.Reached && o.blind() && o.mu.mints == 1 && o.mu.above != nil && o.mu.aboveHLC >= o.mu.hlc && o.mu.object != nil {
		o.job.c.opts.Metrics.Remint()
		o.mu.round++
		first := o.mu.tally
		o.mu.first = &first
		o.mu.tally = o.mu.u.written(o.job.level).Tally()
		// From here on answers about the first mint are too late.
		o.mu.mints, o.mu.minting, o.mu.durable, o.mu.localErr = 2, true, false, nil
		o.mu.Unlock()
		o.mint(2)
		return
	}
	if v == quorum.Lost && o.stranded() {
		return
	}
	o.mu.answered = true
	o.mu.stop()
	if v == quorum.Reached {
		res := o.response()
		o.mu.Unlock()
		o.job.done(res, nil)
		return
	}
	u := o.mu.u
	e := u.quorumError(o.job, &o.mu.tally, errcode.QuorumNotReached, errcode.Indeterminate, "too few owners have the write on disk")
	if len(u.owners) == 1 && o.mu.localErr != nil {
		e.Code, e.Err = asError(o.mu.localErr).Code, o.mu.localErr
	}
	o.mu.Unlock()
	o.job.done(result{}, e)
}

// response says what the write became. The lock is held.
func (o *update) response() result {
	u := o.mu.u
	return result{write: WriteResponse{
		Token: seal(u.snap, u.tenant.Number, u.Key, o.mu.claim, max(o.mu.claimHLC, o.mu.aboveHLC)),
		Dot:   o.mu.dot, Context: o.mu.claim,
		Acks: o.mu.tally.Acks(), Replicas: u.replicas(), Level: o.job.level,
	}}
}

func (o *update) timeout() {
	o.mu.Lock()
	if o.mu.answered {
		o.mu.Unlock()
		return
	}
	o.mu.answered = true
	t := o.mu.tally
	e := o.mu.u.quorumError(o.job, &t, errcode.Timeout, errcode.Indeterminate, "the deadline passed before enough owners had the write on disk")
	o.mu.Unlock()
	o.job.done(result{}, e)
}
