package coord

import (
	"errors"
	"sync"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
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
		// claim is what the answer may say that the write has seen, claimHLC
		// the highest HLC among it.
		claim    causal.Context
		claimHLC uint64
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
		return causal.Object{}, errNotExpected()
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
	s := causal.Sibling{Dot: mint(), Flags: j.flags(), Value: j.value}
	s.HLC = causal.NextHLC(j.c.opts.Clock.Now(), max(floor, j.c.reserved.highest(o.mu.u.Token)))
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
	// The token may cover writes that this one lost to. What is written with it
	// supersedes them too, and has to have a clock above theirs.
	o.mu.claimHLC = 0
	for i := range obj.Siblings {
		if t := &obj.Siblings[i]; o.mu.claim.Covers(t.Dot) {
			o.mu.claimHLC = max(o.mu.claimHLC, t.HLC)
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
