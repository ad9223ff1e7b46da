package coord

import (
	"errors"
	"slices"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/coord/quorum"
)

// startRepair joins the whole objects of all that answered, but for those that only
// confirm. The lock is held and released.
func (r *read) startRepair() {
	held := make([]*causal.Object, len(r.mu.answers))
	for i := range r.mu.answers {
		if a := &r.mu.answers[i]; a.state == hasAnswered && r.mu.u.confirms>>i&1 == 0 {
			held[i] = a.object
		}
	}
	joined, lacking := plan(held)
	for i := range r.mu.answers {
		// Of the others the digest says what they hold.
		if a := &r.mu.answers[i]; a.state == hasAnswered && held[i] == nil && a.digest != joined.Digest() {
			lacking |= 1 << i
		}
	}
	if !r.mu.u.keepsSiblings() {
		joined.StripLosers(held...)
	}
	if len(joined.Siblings) > 1 {
		r.job.c.opts.Metrics.Conflict()
	}
	r.mu.joined, r.mu.encoded = &joined, joined.Append(make([]byte, 0, joined.EncodedLen()))
	r.mu.tally = r.mu.goal.Tally()
	r.mu.op = writeBackOp(held, r.mu.u.keepsSiblings())
	r.mu.left = r.job.c.leaveOut(r.mu.u, r.job.level)
	var send []int
	for i := range held {
		switch said := r.mu.answers[i].state == hasAnswered; {
		case !said && r.mu.u.down(i):
			r.mu.tally.Fail(i, reasonDown)
		case !said && r.mu.answers[i].state == hasFailed:
			r.mu.tally.Fail(i, r.mu.answers[i].reason)
		case !said && r.mu.left>>i&1 == 1:
			r.mu.tally.Fail(i, r.job.c.silent(r.mu.u, i))
		case !said: // not asked, or slow: it may get the join later
		case lacking>>i&1 == 1:
			send = append(send, i)
			r.mu.sent |= 1 << i
		default:
			r.mu.tally.Ack(i)
		}
	}
	u, round := r.mu.u, r.mu.round
	r.mu.Unlock()
	// Writing takes longer than reading, for which the present delay is.
	r.armHedge(r.job.c.opts.HedgeDelay)
	r.writeBack(u, round, send)
	r.mu.Lock()
	r.advance()
}

// advanceRepair answers once enough owners hold the join. While those that
// lack it fail, others are asked to hold it. The lock is held and released.
func (r *read) advanceRepair() {
	switch r.mu.tally.Verdict() {
	case quorum.Reached:
		r.finish(r.mu.joined, nil)
	case quorum.Lost:
		if r.mu.catching {
			r.mu.Unlock()
			return
		}
		r.giveUp("too few owners could be brought up to date")
	default:
		var send []int
		acks, fails := r.mu.tally.Answered()
		may := acks | r.mu.sent&^fails
		for i := range r.mu.answers {
			if r.mu.answers[i].state != hasAnswered && (r.mu.sent|fails)>>i&1 == 0 && r.mu.goal.Helps(i, may) {
				send = append(send, i)
				may |= 1 << i
			}
		}
		for _, i := range send {
			r.mu.sent |= 1 << i
		}
		u, round := r.mu.u, r.mu.round
		r.mu.Unlock()
		r.writeBack(u, round, send)
	}
}

// writeBackOp says how to write the join of what owners hold back, nil for one that has
// not said.
//
// An owner that has a delete shows neither it nor its context once all owners have had
// it. So a read that got a value from one owner before a round brought the delete there,
// and then nothing from another, does not see that the value is gone. Whoever holds
// the delete does, and is asked to say so: it is one of any quorum. Likewise where all
// values stay, if the delete has been collected and the key written again since.
//
// Where the last write wins what was written again wins, too, and whoever shows anything
// else shows the context. Then a write that has superseded the join began after the
// read, and a key that is written all the time does not make its readers start over.
func writeBackOp(held []*causal.Object, keepsSiblings bool) Op {
	hides := func(o *causal.Object) bool { return o != nil && o.IsZero() }
	if keepsSiblings || slices.ContainsFunc(held, hides) {
		return OpFound
	}
	return OpMerge
}

// writeBack sends the join to owners. It is a merge like any other, except
// that no write counts its answer.
func (r *read) writeBack(u *unit, round int, to []int) {
	c := r.job.c
	r.mu.Lock()
	object, op := r.mu.encoded, r.mu.op
	r.mu.Unlock()
	c.hold(len(to))
	for _, i := range to {
		c.opts.Metrics.ReadRepair()
		if i == u.self {
			item := MergeItem{Address: u.Address, Object: object, LastWriteWins: !u.keepsSiblings(), Found: op == OpFound}
			c.opts.Replica.Merge([]MergeItem{item}, func(_ int, uncovered []byte, err error) {
				rep := Reply{Status: StatusOK, Body: uncovered}
				switch {
				case errors.Is(err, ErrMoved):
					rep = Reply{Status: StatusStale}
				case err != nil:
					rep = Reply{Status: StatusError, Body: EncodeError(asError(err))}
				}
				r.written(i, round, rep, nil)
				c.leave()
			})
			continue
		}
		m := u.message(op)
		m.Body = object
		m.Deadline = r.job.began.Add(c.opts.WriteTimeout)
		a := c.health.sentTo(u.owners[i], peerhealth.Write)
		r.job.send(u.owners[i], &m, func(rep Reply, err error) {
			c.health.heard(a, err)
			r.written(i, round, rep, err)
			c.leave()
		})
	}
}

// written hears what became of a write-back.
func (r *read) written(i, round int, rep Reply, err error) {
	if err == nil && rep.Status == StatusStale {
		r.bounce(i, round, &rep)
		return
	}
	if err == nil && rep.Status != StatusOK {
		if _, e, _ := refused(&rep, nil); saysDeleted(e) {
			r.deleted()
			return
		}
	}
	r.mu.Lock()
	if round != r.mu.round {
		r.mu.Unlock()
		return
	}
	switch held, bad := causal.Decode(rep.Body); {
	case err == nil && rep.Stripped():
		// That owner knows that some of the join has been superseded, or has learned
		// since it was asked that all owners have had what did: what is shown now says
		// which of it is left. It is asked first, since the others may not know yet.
		if !r.mu.answered {
			r.reset(r.mu.u)
			r.prefer(i)
		}
	case err != nil || rep.Status != StatusOK:
		reason, _, _ := refused(&rep, err)
		r.mu.tally.Fail(i, reason)
	case bad != nil:
		r.mu.tally.Fail(i, "sent an answer that does not decode")
	case !r.mu.answered && r.mu.u.confirms>>i&1 == 0 && r.outdone(&held):
		r.reset(r.mu.u)
	default:
		r.mu.tally.Ack(i)
	}
	r.advance()
}

// prefer makes owner i the first to be asked. The lock is held.
func (r *read) prefer(i int) {
	if k := slices.Index(r.mu.order, i); k > 0 {
		copy(r.mu.order[1:k+1], r.mu.order[:k])
		r.mu.order[0] = i
	}
}

// outdone reports whether what an owner held besides the join wins over it
// without having seen it. The answer would then be a value that no later read
// returns: the write of a minter that had missed an acknowledged one, seen in
// the moment before it is minted again. The read starts over. A write that has
// seen the winner does no harm: the read came before it. The lock is held.
func (r *read) outdone(held *causal.Object) bool {
	mine, theirs := r.mu.joined.Winner(), held.Winner()
	if r.mu.u.keepsSiblings() || mine == nil || theirs == nil || r.mu.joined.Context.Covers(theirs.Dot) {
		return false
	}
	seen := held.Replaced(mine.Dot) && held.Saw(theirs, mine.Dot)
	return !seen && theirs.Beats(mine)
}

// bounce learns the ring that an owner has before this operation, unless that is this
// node, which knows it by now; the read then starts over.
func (r *read) bounce(i, round int, rep *Reply) {
	c := r.job.c
	if rep.Version != 0 {
		c.opts.Metrics.StaleBounce()
	}
	r.mu.Lock()
	if round != r.mu.round || r.mu.answered {
		r.mu.Unlock()
		return
	}
	u := r.mu.u
	r.mu.stale |= 1 << i
	start := !r.mu.catching
	r.mu.catching = true
	r.mu.Unlock()
	switch {
	case !start:
	case i == u.self:
		r.caughtUp(u)
	default:
		c.catchUp(u.owners[i], rep.Version, func() { r.caughtUp(u) })
	}
}

// caughtUp goes on once the ring has been learned, or has not.
func (r *read) caughtUp(u *unit) {
	now, err := r.job.c.locate(r.job)
	r.mu.Lock()
	stale := r.mu.stale
	r.mu.catching, r.mu.stale = false, 0
	switch {
	case r.mu.answered:
		r.mu.Unlock()
		return
	case err != nil:
		r.finish(nil, err)
		return
	case !now.same(u):
		now.standBack()
		r.reset(now)
	case r.mu.joined != nil:
		for i := range r.mu.answers {
			if stale>>i&1 == 1 {
				r.mu.tally.Fail(i, reasonStale)
			}
		}
	default:
		for i := range r.mu.answers {
			if stale>>i&1 == 1 {
				r.mu.answers[i] = answer{state: hasFailed, reason: reasonStale}
			}
		}
	}
	r.advance()
}

// plan joins what owners hold, nil for one that has not said, and returns the
// join with a bit set for each owner that said and lacks some of it. The result
// shares values with what is held.
func plan(held []*causal.Object) (joined causal.Object, lacking uint16) {
	for _, o := range held {
		if o != nil {
			joined = causal.Join(&joined, o)
		}
	}
	for i, o := range held {
		if o != nil && !o.Equal(&joined) {
			lacking |= 1 << i
		}
	}
	return joined, lacking
}
