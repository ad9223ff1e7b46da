package coord

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/schema"
)

// RecordLife is how long an idempotency key is remembered, from the first
// attempt on, by the clock of the node that reserved the write's dot.
const RecordLife = 24 * time.Hour

// errReserved ends an edit that wanted a dot and no write.
var errReserved = errors.New("a dot was reserved")

// once is a put or delete with an idempotency key at the owner that coordinates
// it. First the owners are asked what they know of the key, then they vote for
// one write that it stands for, whichever attempt began it, and only then is
// that write made. So an attempt that loses has written nothing that would have
// to be taken back. DESIGN.md says why.
//
// As in update, no lock is held across calls.
type once struct {
	job     *job
	payload [16]byte
	// floor and covers come from the request's token.
	floor  uint64
	covers causal.Context

	mu struct {
		sync.Mutex
		u     *unit
		phase oncePhase
		// step numbers what was sent; answers to an earlier step do not count.
		step int
		// owners has an entry per owner.
		owners []onceOwner
		// own is the write that this attempt reserved, if it had to.
		own *causal.Record
		// refused is why the write's condition does not hold, if it did not.
		refused *Error
		// begun says that somebody may have been asked to vote, or to make the
		// write.
		begun bool
		// agreed is what the owners chose, tally who has it on disk.
		agreed *causal.Record
		tally  quorum.Tally
		// left are owners that are not asked because they do not answer.
		left uint16
		// stale has a bit for each owner that bounced and waits for catching
		// to end.
		stale    uint16
		catching bool
		answered bool
		stop     func() bool
	}
}

type oncePhase uint8

const (
	looking   oncePhase = iota // lookups are out
	reserving                  // this node's replica is asked for a dot
	voting                     // claims are out
	applying                   // the write is out
)

// onceOwner is what is known of one owner in the present step.
type onceOwner struct {
	state  answerState
	held   Held
	reason string
	err    *Error
	// untouched says that a failed owner has certainly done nothing.
	untouched bool
}

func startOnce(j *job, u *unit) {
	if u.tenant.Policy != schema.PolicyLWW {
		// A reserved dot is covered by later mints of this node, which a
		// tenant that keeps every concurrent write could not bear.
		j.fail(errcode.InvalidArgument, errcode.NotApplied,
			fmt.Sprintf("tenant %q has the conflict policy %v, for which idempotency keys are not served", j.tenant, u.tenant.Policy))
		return
	}
	o := &once{job: j, payload: causal.PayloadHash(j.flags(), j.expiry, j.value)}
	if len(j.token) > 0 {
		seen, hlc, err := open(u.snap, u.tenant.Number, j.key, j.token)
		if err != nil {
			j.fail(errcode.InvalidArgument, errcode.NotApplied, err.Error())
			return
		}
		o.covers, o.floor = seen, hlc
	}
	o.mu.u, o.mu.owners = u, make([]onceOwner, len(u.owners))
	stop := j.c.opts.Clock.AfterFunc(j.c.remaining(j.deadline), o.timeout)
	o.mu.Lock()
	o.mu.stop = stop
	o.begin(u)
}

// votes is how many owners have to vote for the write, lookups how many have to
// be asked first so that one of them knows of any earlier agreement. A level
// that is content with one owner gets what one owner can know.
func (o *once) votes() quorum.Goal {
	return o.mu.u.written(min(o.job.level, quorum.Quorum))
}

func (o *once) lookups() quorum.Goal {
	if o.job.level == quorum.One {
		return o.mu.u.read(quorum.One)
	}
	return o.mu.u.meeting()
}

// begin asks all owners of u what they know. The lock is held and released.
func (o *once) begin(u *unit) {
	u.standBack()
	o.mu.u, o.mu.phase, o.mu.agreed = u, looking, nil
	o.mu.owners = make([]onceOwner, len(u.owners))
	o.mu.step++
	o.mu.left = o.job.c.leaveOut(u, o.job.level)
	var to []int
	for i := range u.owners {
		if o.mu.left>>i&1 == 1 {
			o.mu.owners[i] = onceOwner{state: hasFailed, reason: o.job.c.silent(u, i), untouched: true}
			continue
		}
		if u.down(i) {
			o.mu.owners[i] = onceOwner{state: hasFailed, reason: reasonDown, untouched: true}
			continue
		}
		o.mu.owners[i].state = asked
		to = append(to, i)
	}
	o.ask(OpLookup, to, nil)
}

// in has a bit for each owner in a state. The lock is held.
func (o *once) in(state answerState) (owners uint16) {
	for i := range o.mu.owners {
		if o.mu.owners[i].state == state {
			owners |= 1 << i
		}
	}
	return owners
}

// records returns what the owners are known to hold. The lock is held.
func (o *once) records() []*causal.Record {
	held := make([]*causal.Record, len(o.mu.owners))
	for i := range held {
		held[i] = o.mu.owners[i].held.Record
	}
	return held
}

// advance does whatever the answers so far call for. The lock is held and
// released.
func (o *once) advance() {
	if o.mu.answered {
		o.mu.Unlock()
		return
	}
	switch o.mu.phase {
	case looking:
		o.looked()
	case voting:
		o.vote()
	case applying:
		o.count()
	default:
		o.mu.Unlock()
	}
}

// looked goes on once enough owners have said what they know. The lock is held
// and released.
func (o *once) looked() {
	have := o.in(hasAnswered)
	switch need := o.lookups(); {
	case need.Met(have):
		o.mu.phase = voting
		o.mu.step++
		for i := range o.mu.owners {
			if w := &o.mu.owners[i]; w.state != hasAnswered && !o.mu.u.down(i) && o.mu.left>>i&1 == 0 {
				w.state = notAsked
			}
		}
		o.vote()
	case !need.Met(have|o.in(asked)) && !o.mu.catching:
		o.giveUp("too few owners could be asked about the idempotency key")
	default:
		o.mu.Unlock()
	}
}

// vote counts votes and asks for those that are missing. The lock is held and
// released.
func (o *once) vote() {
	held := o.records()
	d := decide(held, o.votes())
	other := foreign(held, o.payload)
	switch {
	case d.agreed != nil && d.agreed.Payload == o.payload:
		o.apply(d.agreed)
		return
	case d.agreed != nil || other && o.in(asked) == 0:
		o.finish(result{}, &Error{
			Code: errcode.IdempotencyKeyConflict, Outcome: errcode.NotApplied,
			Message: "the idempotency key stands for another write of this key",
		})
		return
	case other:
		o.mu.Unlock()
		return
	case d.candidate == nil && o.mu.own == nil && o.mu.refused != nil:
		o.finish(result{}, o.mu.refused)
		return
	case d.candidate == nil && o.mu.own == nil:
		o.reserve()
		return
	case d.candidate == nil:
		d.candidate = o.mu.own
	}
	var to []int
	for i := range o.mu.owners {
		w := &o.mu.owners[i]
		voted := w.held.Record != nil && w.held.Record.Round >= d.round
		if (w.state == notAsked || w.state == hasAnswered) && !voted {
			w.state = asked
			to = append(to, i)
		}
	}
	if len(to) == 0 {
		if o.in(asked) != 0 || o.mu.catching {
			o.mu.Unlock()
			return
		}
		if o.mu.left != 0 {
			o.recall()
			return
		}
		o.giveUp("too few owners agree on what the idempotency key stands for")
		return
	}
	o.mu.begun = true
	r := *d.candidate
	r.Round = d.round
	o.ask(OpClaim, to, &r)
}

// recall asks the owners for their votes after all that were left out: those of the
// others are divided, and what an earlier attempt left with them may decide. The lock
// is held and released.
func (o *once) recall() {
	for i := range o.mu.owners {
		if o.mu.left>>i&1 == 1 {
			o.mu.owners[i] = onceOwner{state: notAsked}
		}
	}
	o.mu.left = 0
	o.vote()
}

// reserve makes the write that this attempt would have the key stand for: a dot
// of this node, and what the write supersedes. Nothing is written. The lock is
// held and released.
func (o *once) reserve() {
	j, c, u, step := o.job, o.job.c, o.mu.u, o.mu.step
	o.mu.phase = reserving
	if !u.mints() {
		o.notReserved(u, asError(ErrMoved))
		return
	}
	expires, e := j.instant()
	if e != nil {
		o.notReserved(u, e)
		return
	}
	if j.looks() && j.looked == nil {
		o.look()
		return
	}
	seen, floor := o.covers, o.floor
	if len(j.token) == 0 {
		// The owners that were asked know every write acknowledged before, so
		// that none of them is left uncovered: this write needs no second mint.
		for i := range o.mu.owners {
			h := &o.mu.owners[i].held
			seen, floor = causal.JoinContext(seen, h.Context), max(floor, h.HLC)
		}
	}
	o.mu.Unlock()

	var r *causal.Record
	_, err := c.opts.Replica.Update(u.Address, func(held *causal.Object, mint func() causal.Dot) (causal.Object, error) {
		floor := max(floor, held.Floor)
		held = j.known(held)
		if e := u.judge(j, held, o.covers); e != nil {
			return causal.Object{}, e
		}
		r = o.record(u, held, seen, floor, mint())
		r.ExpiresAt = expires
		c.reserved.raise(u.Token, r.HLC)
		return causal.Object{}, errReserved
	}, func(error) {})
	if errors.Is(err, ErrMoved) {
		o.moved(u, step)
		return
	}

	o.mu.Lock()
	if o.mu.answered {
		o.mu.Unlock()
		return
	}
	if !errors.Is(err, errReserved) {
		o.notReserved(u, asError(err))
		return
	}
	if o.mu.own == nil {
		o.mu.own = r
	}
	if step != o.mu.step {
		o.mu.Unlock() // the ring has changed, and the owners are asked anew
		return
	}
	o.mu.phase = voting
	o.vote()
}

// notReserved ends a write for which this node's replica has no dot. The lock is
// held and released.
func (o *once) notReserved(u *unit, e *Error) {
	j := o.job
	if gone := j.c.deleted(j, u.Tenant, errcode.NotApplied); gone != nil {
		e = gone
	}
	switch {
	case e.Code == errcode.PreconditionFailed && o.mu.refused == nil:
		// What stands in the way may be the work of another attempt with this
		// key, since the owners were asked.
		o.mu.refused = e
		o.begin(o.mu.u)
		return
	case o.mu.begun && e.Code != errcode.StaleRing: // then nothing stands for this attempt
		e.Outcome = errcode.Indeterminate
	case !j.forwarded && e.Outcome == errcode.NotApplied && tryElsewhere(j.kind, e.Code):
		o.mu.answered = true
		o.mu.stop()
		o.mu.Unlock()
		startForward(j, u, e)
		return
	}
	o.finish(result{}, e)
}

// record describes a write with the given dot, over what this node holds.
func (o *once) record(u *unit, held *causal.Object, seen causal.Context, floor uint64, d causal.Dot) *causal.Record {
	j := o.job
	if len(j.token) == 0 {
		seen = causal.JoinContext(held.Context, seen)
	} else {
		// The dot makes the context cover what this node minted of the key
		// before, whether the token does or not; so it is said, and the clock
		// is above it.
		seen = causal.JoinContext(seen, causal.NewContext(causal.Dot{Actor: d.Actor, Counter: held.Context.Counter(d.Actor)}))
	}
	for i := range held.Siblings {
		if s := &held.Siblings[i]; seen.Covers(s.Dot) {
			floor = max(floor, s.HLC)
		}
	}
	now := j.c.opts.Clock.Now()
	floor = max(floor, j.c.reserved.highest(u.Token))
	return &causal.Record{
		Dot: d, HLC: causal.NextHLC(now, floor), Flags: j.flags(), Context: seen.With(d),
		Payload: o.payload, Expires: now.Add(RecordLife).UnixMilli(),
	}
}
