package coord

import (
	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// apply has the write made by all owners that have not said that they have it.
// The lock is held and released.
func (o *once) apply(agreed *causal.Record) {
	u := o.mu.u
	o.mu.phase, o.mu.agreed, o.mu.tally = applying, agreed, u.written(o.job.level).Tally()
	o.mu.step++
	o.mu.begun = true
	var to []int
	var without uint16 // the write
	for i := range o.mu.owners {
		w := &o.mu.owners[i]
		switch r := w.held.Record; {
		case r != nil && r.Applied && r.Dot == agreed.Dot:
			o.mu.tally.Ack(i)
		case o.mu.left>>i&1 == 1:
			o.mu.tally.Fail(i, o.job.c.silent(u, i))
			without |= 1 << i
		case u.down(i):
			o.mu.tally.Fail(i, reasonDown)
			without |= 1 << i
		default:
			w.state = asked
			to = append(to, i)
		}
	}
	if o.mu.tally.Verdict() == quorum.Reached {
		to = nil
	}
	r := *agreed
	r.Applied = true
	o.ask(OpApply, to, &r)
	o.job.c.hintAll(u, without, o.job.idempotencyKey)
}

// count answers when enough owners have the write on disk. The lock is held and
// released.
func (o *once) count() {
	switch v := o.mu.tally.Verdict(); {
	case v == quorum.Reached:
		o.finish(o.response(), nil)
	case v == quorum.Lost && !o.mu.catching:
		o.giveUp("too few owners have the write on disk")
	default:
		o.mu.Unlock()
	}
}

// giveUp fails a write that cannot reach its level, unless there is a newer ring
// under which it may. The lock is held and released.
func (o *once) giveUp(msg string) {
	u, step := o.mu.u, o.mu.step
	o.mu.Unlock()
	next := o.job.c.newer(u)
	o.mu.Lock()
	switch {
	case o.mu.answered || step != o.mu.step:
		o.mu.Unlock()
	case next != nil:
		o.begin(next)
	default:
		o.finish(result{}, o.failure(errcode.QuorumNotReached, msg))
	}
}

// response says what the write became, or had become before. The lock is held.
func (o *once) response() result {
	u, r := o.mu.u, o.mu.agreed
	return result{write: WriteResponse{
		Token: seal(u.snap, u.tenant.Number, u.Key, r.Context, r.HLC),
		Dot:   r.Dot, Context: r.Context,
		Acks: o.mu.tally.Acks(), Replicas: u.replicas(), Level: o.job.level,
		Duplicate: o.mu.own == nil || o.mu.own.Dot != r.Dot,
	}}
}

// outcome is what may have become of a write that has failed: before anybody was
// asked for more than what is known, nothing; afterwards another attempt may
// finish it. The lock is held.
func (o *once) outcome() errcode.Outcome {
	if o.mu.begun && !(o.mu.phase == voting && o.voteless()) {
		return errcode.Indeterminate
	}
	return errcode.NotApplied
}

// failure is the error of a write that missed its level. The lock is held.
func (o *once) failure(code errcode.Code, msg string) *Error {
	u := o.mu.u
	t := o.mu.tally
	if o.mu.phase != applying {
		need := o.votes()
		if o.mu.phase == looking {
			need = o.lookups()
		}
		d := decide(o.records(), o.votes())
		t = need.Tally()
		for i := range o.mu.owners {
			switch w := &o.mu.owners[i]; {
			case w.state == hasFailed:
				t.Fail(i, w.reason)
			case w.state == hasAnswered && o.mu.phase == voting && d.candidate != nil && w.held.Record != nil && w.held.Record.Dot != d.candidate.Dot:
				t.Fail(i, "votes for another attempt")
			case w.state == hasAnswered:
				t.Ack(i)
			}
		}
	}
	e := u.quorumError(o.job, &t, code, o.outcome(), msg)
	if why := o.refusal(); why != "" && code != errcode.Timeout {
		e.Code = why
	}
	return e
}

// voteless reports whether it is certain that no owner holds a vote.
func (o *once) voteless() bool {
	for i := range o.mu.owners {
		if w := &o.mu.owners[i]; w.state != hasFailed || !w.untouched || w.held.Record != nil {
			return false
		}
	}
	return true
}

// refusal is the code with which all owners have failed, empty if they have not
// or differ: then it is no matter of how many of them there are.
func (o *once) refusal() (code errcode.Code) {
	for i := range o.mu.owners {
		w := &o.mu.owners[i]
		if w.state != hasFailed || w.err == nil || code != "" && w.err.Code != code {
			return ""
		}
		code = w.err.Code
	}
	return code
}

// finish answers. The lock is held and released.
func (o *once) finish(res result, e *Error) {
	o.mu.answered = true
	if o.mu.stop != nil {
		o.mu.stop()
	}
	o.mu.Unlock()
	if e == nil && res.write.Duplicate {
		o.job.c.opts.Metrics.Duplicate()
	}
	o.job.done(res, e)
}

func (o *once) timeout() {
	o.mu.Lock()
	if o.mu.answered {
		o.mu.Unlock()
		return
	}
	o.finish(result{}, o.failure(errcode.Timeout, "the deadline passed before enough owners had the write on disk"))
}
