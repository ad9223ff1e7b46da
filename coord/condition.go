package coord

import (
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
)

// conditions are what a write asks of what there is before it; a request has at
// most one. They travel between nodes as bits of a request's flags.
type conditions uint8

const (
	// ifClock: the minter's context is the expected one. No read comes before.
	ifClock conditions = 1 << 1
	// ifAbsent: there is no live value.
	ifAbsent conditions = 1 << 3
	// ifMatch: the token covers what the key holds; see covered.
	ifMatch conditions = 1 << 4
	// ifDot: there is one live value, and it is that of the dot.
	ifDot conditions = 1 << 5
	// besideToken is no condition: the request has a token for ifMatch and
	// another to supersede.
	besideToken conditions = 1 << 6
)

// expiryRule is what a valid expiry is, for people.
const expiryRule = "the expiry is either a time to live of 1 ms to 100 years or an instant of the years 1970 to 9999"

// fits reports whether an operation of the kind can have the conditions.
func (c conditions) fits(k Kind) bool {
	switch {
	case bits.OnesCount8(uint8(c)) > 1 || c&besideToken != 0:
		return false
	case k == KindPut:
		return c&ifClock == 0
	case k == KindDelete:
		return c&ifAbsent == 0
	default:
		return c == 0
	}
}

// provided adds the conditions that puts and deletes share.
func (r *request) provided(match []byte, dot causal.Dot) {
	if len(match) > 0 {
		r.cond |= ifMatch
		if len(r.token) > 0 {
			r.cond |= besideToken
		}
		r.token = match
	}
	if !dot.IsZero() {
		r.cond |= ifDot
		r.dot = dot
	}
}

// looks reports whether the write's condition is about what a read at its level
// finds. A minter that missed writes would otherwise judge by old ones.
func (r *request) looks() bool { return r.cond&(ifAbsent|ifMatch|ifDot) != 0 }

// instant is when the value of a put expires that is minted now, in Unix
// milliseconds; 0 if it never does.
func (j *job) instant() (int64, *Error) {
	now := j.c.opts.Clock.Now()
	ms, ok := j.expiry.Instant(now)
	if ok && ms <= now.UnixMilli() {
		return 0, &Error{
			Code: errcode.InvalidArgument, Outcome: errcode.NotApplied,
			Message: fmt.Sprintf("the value would expire at %s, which is past: the clock of the node that makes the write is at %s",
				time.UnixMilli(ms).UTC().Format(time.RFC3339Nano), now.UTC().Format(time.RFC3339Nano)),
		}
	}
	return ms, nil
}

// known is what a conditional write knows under the key's lock: what its minter
// holds and what the read before it found. It is an object like any other, so
// that the write can be minted over it.
func (j *job) known(held *causal.Object) *causal.Object {
	if j.looked == nil || !j.looks() {
		return held
	}
	o := causal.Join(held, j.looked)
	return &o
}

// judge refuses a write whose condition does not hold of what is known; covers is
// what its token does. The key's lock is held.
func (u *unit) judge(j *job, known *causal.Object, covers causal.Context) *Error {
	holds, why := true, ""
	switch j.cond {
	case ifClock:
		holds, why = known.Context.Equal(j.expect), "the key's clock is not the expected one"
	case ifAbsent:
		holds, why = len(u.shown(known, j.c.opts.Clock.Now())) == 0, "the key has a value"
	case ifDot:
		shown := u.shown(known, j.c.opts.Clock.Now())
		holds, why = len(shown) == 1 && shown[0].Dot == j.dot, "the key's value is not the expected one"
	case ifMatch:
		holds, why = u.covered(known, covers), "the key was written since the context was given"
	}
	if holds {
		return nil
	}
	e := &Error{Code: errcode.PreconditionFailed, Outcome: errcode.NotApplied, Message: why}
	if w := known.Winner(); w != nil && j.looks() {
		e.Token = seal(u.snap, u.tenant.Number, u.Key, known.Context, w.HLC)
	}
	return e
}

// covered reports whether a context covers what a key holds, be it a value, a
// tombstone or expired. Where the last writer wins that is the winner: the token of
// a write does not cover what its minter had missed and what lost to it.
func (u *unit) covered(o *causal.Object, covers causal.Context) bool {
	if w := o.Winner(); !u.keepsSiblings() {
		return w == nil || covers.Covers(w.Dot)
	}
	return !slices.ContainsFunc(o.Siblings, func(s causal.Sibling) bool { return !covers.Covers(s.Dot) })
}

// mustLook reports whether the key is to be read before the write: for its
// condition, or because it is a delete that says neither what it deletes nor what
// it expects, of a tenant that keeps siblings.
func (j *job) mustLook(u *unit) bool {
	if j.looked != nil {
		return false
	}
	return j.looks() || j.kind == KindDelete && u.keepsSiblings() && len(j.token) == 0 && j.cond == 0
}

// startLook reads the key at the operation's level before it is written.
//
// A delete without a token supersedes exactly what the read saw, as if its client
// had read: a tombstone beside the values would delete nothing, and one over what
// a minter that is behind happens to hold would leave an acknowledged value in
// place.
func startLook(j *job, u *unit) {
	j.look(u, func(o *causal.Object) {
		j.looked = o
		j.run() // anew: the read may have learned a newer ring
	}, func(e *Error) { j.done(result{}, e) })
}

// look reads the key at the operation's level; one of found and failed is called.
func (j *job) look(u *unit, found func(*causal.Object), failed func(*Error)) {
	look := &job{request: request{
		kind: KindGet, tenant: j.tenant, key: j.key, level: j.level, deadline: j.deadline,
	}, c: j.c, forwarded: j.forwarded, number: j.number, began: j.began}
	look.found = found
	look.answer = func(_ result, e *Error) {
		e.Outcome = errcode.NotApplied
		failed(e)
	}
	startRead(look, u)
}

// look reads the key for the condition of a write with an idempotency key. The
// lock is held and released.
func (o *once) look() {
	u, step := o.mu.u, o.mu.step
	o.mu.Unlock()
	o.job.look(u, func(found *causal.Object) {
		o.mu.Lock()
		if o.job.looked == nil {
			o.job.looked = found
		}
		if o.mu.answered || step != o.mu.step {
			o.mu.Unlock() // the owners are asked anew
			return
		}
		o.reserve()
	}, func(e *Error) {
		o.mu.Lock()
		if o.mu.answered || step != o.mu.step {
			o.mu.Unlock()
			return
		}
		o.notReserved(u, e)
	})
}
