package coord

import (
	"errors"
	"sync"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/coord/quorum"
)

// errSuperseded says that a re-mint came too late: a later write has replaced
// what it would mint again, and does not win yet over what that was for.
var errSuperseded = errors.New("superseded since it was minted")

// Pauses until a write that was superseded looks again whether what replaced it
// wins.
const (
	supersededPause    = time.Millisecond
	maxSupersededPause = 50 * time.Millisecond
)

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
	// expires is when the value does, however often it is minted.
	expires int64

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
		// pause is the last one until a superseded write looks again.
		pause  time.Duration
		object []byte
		dot    causal.Dot
		hlc    uint64
		seen   causal.Context
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
		// replaced says that an owner held what had superseded the mint.
		replaced bool
		// rivals is what the owners had besides the first mint, and first the tally
		// that says how many have that, nil until there is to be a second.
		rivals rivals
		first  *quorum.Tally
		// stale has a bit for each owner that bounced in this round and
		// waits for catching to end.
		stale    uint16
		catching bool
		answered bool
		stop     func() bool
	}
}

func startUpdate(j *job, u *unit) {
	o := &update{job: j}
	var e *Error
	if o.expires, e = j.instant(); e != nil {
		j.done(result{}, e)
		return
	}
	if j.looked != nil && j.cond == 0 {
		o.covers = j.looked.Context
		if w := j.looked.Winner(); w != nil {
			o.floor = w.HLC
		}
	}
	if len(j.token) > 0 {
		seen, hlc, err := open(u.snap, u.tenant.Number, j.key, j.token)
		if err != nil {
			j.fail(errcode.InvalidArgument, errcode.NotApplied, err.Error())
			return
		}
		o.covers, o.floor = seen, hlc
	}
	o.mu.u, o.mu.tally = u, u.written(j.level).Tally()
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
	if o.mu.answered {
		o.mu.Unlock()
		return // the time ran out before this mint
	}
	u := o.mu.u
	o.mu.Unlock()
	if u.self < 0 {
		o.notMinted(n, u, &Error{Code: errcode.Unavailable, Message: "this node does not own the key any more, and cannot make the write again"})
		return
	}
	c.hold(1)
	disk := c.health.sent(c.health.table.Disk(), peerhealth.Write)
	object, err := c.opts.Replica.Update(u.Address,
		func(held *causal.Object, mint func() causal.Dot) (causal.Object, error) { return o.edit(n, held, mint) },
		func(err error) { c.health.heardDisk(disk, err); o.local(n, err); c.leave() })
	if err != nil {
		c.health.heardDisk(disk, err)
		c.leave()
		o.notMinted(n, u, err)
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
	lost := held.Floor
	held = j.known(held)
	if n == 1 {
		if e := o.mu.u.judge(j, held, o.covers); e != nil {
			return causal.Object{}, e
		}
	}
	seen, floor := o.covers, o.floor
	keep := o.mu.u.keepsSiblings()
	if o.blind() || j.cond != 0 && len(j.token) == 0 {
		seen = held.Context
	} else if w := held.Winner(); keep && w != nil {
		// Where all values stay, the latest one comes first.
		floor = max(floor, w.HLC)
	}
	if keep {
		held, floor = unexpired(held, floor, j.c.opts.Clock.Now())
		if e := o.mu.u.admit(j, held, seen); e != nil {
			return causal.Object{}, e
		}
	}
	if n > 1 {
		here := held.Has(o.mu.dot)
		if here && o.mu.replaced {
			return causal.Object{}, errSuperseded // what replaced it is on its way
		}
		if !here {
			if w := held.Winner(); w == nil || w.HLC <= o.mu.aboveHLC {
				return causal.Object{}, errSuperseded
			}
			// To mint it again would bring it back. What replaced it wins over
			// all that it was to win over, and has to be at as many owners.
			o.mu.mints, o.mu.durable = n, false
			return *held, nil
		}
		seen, floor = causal.JoinContext(held.Context, o.mu.above), o.mu.aboveHLC
	}
	s := causal.Sibling{Dot: mint(), Flags: j.flags(), ExpiresAt: o.expires, Value: j.value}
	s.HLC = causal.NextHLC(j.c.opts.Clock.Now(), max(floor, lost, j.c.reserved.highest(o.mu.u.Token)))
	obj := causal.Mint(held, seen, s)
	for i := range obj.Siblings {
		if t := &obj.Siblings[i]; t.Dot == s.Dot {
			o.mu.hlc = t.HLC
		}
	}
	o.mu.claim = obj.Context
	switch {
	case keep:
		o.mu.claim = claim(&obj, seen, s.Dot)
		if len(obj.Siblings) >= warnSiblings {
			j.c.opts.Metrics.ManySiblings()
		}
	case len(obj.Siblings) > 1:
		s.Past = causal.JoinContext(seen, causal.Context{s.Dot})
		obj.StripLosers(held, &causal.Object{Siblings: []causal.Sibling{s}})
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

// blind reports whether the write supersedes whatever there is, known to its
// minter or not. The lock is held.
func (o *update) blind() bool {
	return len(o.job.token) == 0 && !o.job.looks() && !o.mu.u.keepsSiblings()
}

// notMinted ends a write that this node's replica refused under u, or goes on with it
// if that was because of a newer ring.
func (o *update) notMinted(n int, u *unit, err error) {
	var next *unit
	if errors.Is(err, ErrMoved) {
		next = o.job.c.newer(u)
	}
	o.mu.Lock()
	if o.mu.answered {
		o.mu.Unlock()
		return
	}
	if next != nil && n == 1 {
		// Nothing has been done, so it begins anew, here or at whoever mints now.
		o.mu.answered = true
		o.mu.stop()
		o.mu.Unlock()
		o.job.run()
		return
	}
	if next != nil {
		o.recount(next)
		o.mu.Unlock()
		o.mint(n)
		return
	}
	if n > 1 && errors.Is(err, errSuperseded) {
		m := causal.Sibling{Dot: o.mu.dot, HLC: o.mu.hlc}
		if !o.mu.rivals.mayPrecede(&m, o.mu.seen, o.mu.u.self, o.mu.u.read(o.job.level)) {
			// It was overwritten by what came while it was under way.
			o.mu.answered, o.mu.tally = true, *o.mu.first
			o.mu.stop()
			res := o.response()
			o.mu.Unlock()
			o.job.done(res, nil)
			return
		}
		// What replaced it was minted as blindly, and is about to be minted again.
		o.mu.pause = min(max(2*o.mu.pause, supersededPause), maxSupersededPause)
		d := o.mu.pause
		o.mu.Unlock()
		c := o.job.c
		c.hold(1)
		c.opts.Clock.AfterFunc(d, func() {
			o.mint(n)
			c.leave()
		})
		return
	}
	o.mu.answered = true
	o.mu.stop()
	o.mu.Unlock()
	e := asError(err)
	if gone := o.job.c.deleted(o.job, u.Tenant, errcode.NotApplied); gone != nil {
		e = gone
	}
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
	left := c.leaveOut(u, o.job.level)
	for i := range u.owners {
		switch {
		case i == u.self:
		case u.down(i):
			o.failed(u, i, round, reasonDown)
		case left>>i&1 == 1:
			o.failed(u, i, round, c.silent(u, i))
		default:
			c.hold(1)
			a := c.health.sentTo(u.owners[i], peerhealth.Write)
			o.job.send(u.owners[i], &m, func(r Reply, err error) {
				o.job.c.health.heard(a, err)
				o.reply(u, i, round, r, err)
				o.job.c.leave()
			})
		}
	}
}
