package coord

import (
	"errors"
	"sync"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
)

// errSuperseded says that a re-mint came too late: a later write has replaced
// what it would mint again.
var errSuperseded = errors.New("superseded since it was minted")

// update is a put or delete at the owner that coordinates and mints it. It
// mints, sends the whole object to the other owners, counts, and answers; what
// comes after the answer only ends the wait of Close.
//
// No lock is held while the replica, the transport or the caller is called:
// any of them may call back at once.
type update struct {
	job *job
	// floor and covers come from the request's token, or from the read before
	// a delete.
	floor  uint64
	covers causal.Context

	mu struct {
		sync.Mutex
		u     *unit
		tally quorum.Tally
		// round numbers the counts: answers to what an earlier round sent do
		// not count. It rises when the write is minted again and when the
		// ring version changes under it.
		round int
		// mints is how often this write was minted, 0 to 2.
		mints int
		// minting says that object is still that of the first mint while
		// everything else is the second's.
		minting bool
		// firstAcks is the count the first mint had when the second was made.
		firstAcks int
		object    []byte
		dot       causal.Dot
		hlc       uint64
		seen      causal.Context
		// claim is what the answer may say that the write has seen.
		claim causal.Context
		// durable says that the latest mint is on this node's disk.
		durable  bool
		localErr error
		// above is what owners held that the mint did not cover, and
		// aboveHLC the highest HLC among it.
		above    causal.Context
		aboveHLC uint64
		// stale has a bit for each owner that bounced in this round and
		// waits for catching to end.
		stale    uint16
		catching bool
		answered bool
		stop     func() bool
	}
}

func startUpdate(j *job, u *unit) {
	o := &update{job: j, covers: j.seen, floor: j.floor}
	if len(j.token) > 0 {
		seen, hlc, err := open(u.snap, u.tenant.Number, j.key, j.token)
		if err != nil {
			j.fail(errcode.InvalidArgument, errcode.NotApplied, err.Error())
			return
		}
		o.covers, o.floor = seen, hlc
	}
	o.mu.u, o.mu.tally = u, u.tally(j.level)
	left := j.deadline.Sub(j.c.opts.Clock.Now())
	stop := j.c.opts.Clock.AfterFunc(left, o.timeout)
	o.mu.Lock()
	o.mu.stop = stop
	o.mu.Unlock()
	o.mint(1)
}

// mint writes to this node's own replica, for the n-th time, and sends what it
// made to the other owners.
func (o *update) mint(n int) {
	c := o.job.c
	o.mu.Lock()
	u := o.mu.u
	o.mu.Unlock()
	c.hold(1)
	object, err := c.opts.Replica.Update(u.Address,
		func(held *causal.Object, mint func() causal.Dot) (causal.Object, error) { return o.edit(n, held, mint) },
		func(err error) { o.local(n, err); c.leave() })
	if err != nil {
		c.leave()
		o.notMinted(n, err)
		return
	}
	o.mu.Lock()
	o.mu.object, o.mu.minting = object, false
	o.replicate()
}

// edit makes the new object from what this node holds, under the key's lock.
func (o *update) edit(n int, held *causal.Object, mint func() causal.Dot) (causal.Object, error) {
	j := o.job
	o.mu.Lock()
	defer o.mu.Unlock()
	if n == 1 && j.hasExpect && !held.Context.Equal(j.expect) {
		return causal.Object{}, &Error{
			Code: errcode.PreconditionFailed, Outcome: errcode.NotApplied,
			Message: "the key's clock is not the expected one",
		}
	}
	seen, floor := o.covers, o.floor
	keep := o.mu.u.keepsSiblings()
	if o.blind() || j.hasExpect && len(j.token) == 0 {
		seen = held.Context
	} else if w := held.Winner(); keep && w != nil {
		// Where all values stay, the latest one comes first.
		floor = max(floor, w.HLC)
	}
	if keep {
		if e := o.mu.u.admit(j, held, seen); e != nil {
			return causal.Object{}, e
		}
	}
	if n > 1 {
		if !held.Has(o.mu.dot) {
			return causal.Object{}, errSuperseded
		}
		seen, floor = causal.JoinContext(held.Context, o.mu.above), o.mu.aboveHLC
	}
	s := causal.Sibling{Dot: mint(), HLC: causal.NextHLC(j.c.opts.Clock.Now(), floor), Value: j.value}
	if j.kind == KindDelete {
		s.Flags |= causal.FlagTombstone
	}
	if j.json {
		s.Flags |= causal.FlagJSON
	}
	obj := causal.Mint(held, seen, s)
	for i := range obj.Siblings {
		if t := &obj.Siblings[i]; t.Dot == s.Dot {
			o.mu.hlc = t.HLC
		}
	}
	o.mu.claim = obj.Context
	if !keep {
		obj.StripLosers()
	} else {
		o.mu.claim = claim(&obj, seen, s.Dot)
		if len(obj.Siblings) >= warnSiblings {
			j.c.opts.Metrics.ManySiblings()
		}
	}
	o.mu.dot, o.mu.seen, o.mu.mints, o.mu.durable = s.Dot, obj.Context, n, false
	return obj, nil
}

// blind reports whether the write supersedes whatever its minter knows. The
// lock is held.
func (o *update) blind() bool { return len(o.job.token) == 0 && !o.mu.u.keepsSiblings() }

// notMinted ends a write that this node's replica refused.
func (o *update) notMinted(n int, err error) {
	o.mu.Lock()
	if o.mu.answered {
		o.mu.Unlock()
		return
	}
	o.mu.answered = true
	o.mu.stop()
	if n > 1 && errors.Is(err, errSuperseded) {
		// The write had its level before a later one replaced it; see DESIGN.md.
		res := o.response()
		res.write.Acks = o.mu.firstAcks
		o.mu.Unlock()
		o.job.done(res, nil)
		return
	}
	u := o.mu.u
	o.mu.Unlock()
	e := asError(err)
	switch {
	case n > 1:
		e.Outcome = errcode.Indeterminate
	case !o.job.forwarded && e.Outcome == errcode.NotApplied && tryElsewhere(o.job.kind, e.Code):
		startForward(o.job, u, e)
		return
	}
	o.job.done(result{}, e)
}

// replicate sends the present object to the other owners in the present round.
// The lock is held and released.
func (o *update) replicate() {
	c := o.job.c
	u, round, object := o.mu.u, o.mu.round, o.mu.object
	o.mu.Unlock()
	m := u.message(OpMerge)
	m.Body = object
	// The replicas' part outlives the answer and the client's patience.
	m.Deadline = o.job.began.Add(c.opts.WriteTimeout)
	for i := range u.owners {
		switch {
		case i == u.self:
		case u.down(i):
			o.failed(i, round, reasonDown)
		default:
			c.hold(1)
			c.opts.Transport.Send(u.owners[i], &m, func(r Reply, err error) {
				o.reply(i, round, r, err)
				c.leave()
			})
		}
	}
}

func (o *update) failed(i, round int, reason string) {
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

// reply hears from owner i about what round sent.
func (o *update) reply(i, round int, r Reply, err error) {
	o.mu.Lock()
	if round != o.mu.round {
		o.mu.Unlock()
		return
	}
	switch {
	case err == nil && r.Status == StatusOK:
		if o.note(r.Body) {
			o.mu.tally.Ack(i)
		} else {
			o.mu.tally.Fail(i, "sent an answer that does not decode")
		}
	case err == nil && r.Status == StatusStale:
		o.bounce(i, r.Version)
		return
	default:
		reason, _, _ := refused(&r, err)
		o.mu.tally.Fail(i, reason)
	}
	o.advance()
}

// note remembers what an owner held that the mint did not cover. The lock is
// held.
func (o *update) note(body []byte) bool {
	held, err := causal.Decode(body)
	if err != nil {
		return false
	}
	if held.Context.Covers(o.mu.dot) && !held.Has(o.mu.dot) {
		// A later write had already replaced this one there: to mint it
		// again would bring it back.
		return true
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
	from := o.mu.u.owners[i]
	o.mu.Unlock()
	if start {
		c.catchUp(from, v, o.caughtUp)
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
		o.advance()
		return
	}
	o.mu.u, o.mu.tally = u, u.tally(o.job.level)
	o.mu.round++
	o.countLocal()
	if o.mu.minting {
		// What has the first mint must not count for the second, which mint
		// sends under the new version.
		o.mu.Unlock()
		return
	}
	o.replicate()
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
		o.mu.firstAcks = o.mu.tally.Acks()
		o.mu.tally = o.mu.u.tally(o.job.level)
		// From here on answers about the first mint are too late.
		o.mu.mints, o.mu.minting, o.mu.durable, o.mu.localErr = 2, true, false, nil
		o.mu.Unlock()
		o.mint(2)
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
		Token: seal(u.snap, u.tenant.Number, u.Key, o.mu.claim, max(o.mu.hlc, o.mu.aboveHLC)),
		Dot:   o.mu.dot, Context: o.mu.claim,
		Acks: o.mu.tally.Acks(), Replicas: len(u.owners), Level: o.job.level,
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

// asError returns err as an *Error that the caller may change.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		copied := *e
		return &copied
	}
	return &Error{Code: errcode.Internal, Outcome: errcode.Indeterminate, Message: "the node's own replica failed", Err: err}
}

// reason is the error as a cause's phrase.
func (e *Error) reason() string {
	why := "failed with " + string(e.Code)
	if e.Message != "" {
		why += ": " + e.Message
	}
	return why
}

// tryElsewhere reports whether another owner may do better than one that
// answered code and did nothing.
func tryElsewhere(k Kind, code errcode.Code) bool {
	switch code {
	case errcode.Unavailable, errcode.StaleRing, errcode.ResourceExhausted,
		errcode.CommitLogFailed, errcode.DiskFull, errcode.DiskThrottled, errcode.InsufficientSpace:
		return true
	case errcode.ChecksumFailed, errcode.CorruptedData, errcode.Internal, errcode.SSTableFailed:
		return k == KindGet
	default:
		return false
	}
}

// remaining is the time until t.
func (c *Coordinator) remaining(t time.Time) time.Duration { return t.Sub(c.opts.Clock.Now()) }
