package coord

import (
	"errors"
	"sync"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
)

// read is a get at an owner. It goes through up to three phases: collect
// answers from as many owners as the level needs, whole from one and digests
// from the others; if they differ, fetch all of them whole; if some lack what
// others have, write the join back to them and wait until enough owners hold
// it. Only then may it answer: the next read may ask other owners.
//
// As in update, no lock is held across calls.
type read struct {
	job *job

	mu struct {
		sync.Mutex
		u    *unit
		goal quorum.Goal
		// round numbers the questions; it rises when the ring version changes.
		round int
		// order is whom to ask, begun says that somebody was.
		order []int
		begun bool
		// answers has an entry per owner.
		answers []answer
		// whole says that digests are no longer enough.
		whole bool
		// joined, encoded and tally are those of the write-back; nil before it.
		joined  *causal.Object
		encoded []byte
		// op is how the join is written back.
		op    Op
		tally quorum.Tally
		sent  uint16 // owners the join was sent to
		// hedged are owners asked because others kept the read waiting, left those
		// that are not written back to because they do not answer.
		hedged, left uint16
		stale        uint16
		catching     bool
		answered     bool
		// stop ends the wait for the deadline, unhedge that for the next hedge; nil
		// before begin has set them.
		stop    func() bool
		unhedge func() bool
		// orderRoom and answerRoom are what order and answers are in, unless there
		// are more owners.
		orderRoom  [ring.MaxRF]int
		answerRoom [usualOwners]answer
	}
}

// usualOwners is how many owners a read has room for without another allocation.
const usualOwners = 3

// answer is what one owner said.
type answer struct {
	state  answerState
	object *causal.Object // nil if only the digest is known
	digest [16]byte
	reason string
	err    *Error
}

type answerState uint8

const (
	notAsked answerState = iota
	asked
	hasAnswered
	hasFailed
)

func startRead(j *job, u *unit) {
	r := &read{job: j}
	r.mu.order = r.mu.orderRoom[:0]
	r.reset(u)
	j.c.health.hedges.Earn()
	r.mu.Lock()
	r.begin()
}

// reset begins anew with the owners of u. The lock is held, or nobody else
// holds r.
func (r *read) reset(u *unit) {
	r.mu.u, r.mu.goal = u, u.read(r.job.level)
	r.mu.order = r.job.c.order(u, r.mu.order[:0])
	r.mu.begun, r.mu.whole, r.mu.joined, r.mu.sent = false, false, nil, 0
	r.mu.hedged, r.mu.left = 0, 0
	if n := len(u.owners); n <= len(r.mu.answerRoom) {
		r.mu.answerRoom = [usualOwners]answer{}
		r.mu.answers = r.mu.answerRoom[:n]
	} else {
		r.mu.answers = make([]answer, n)
	}
	r.mu.round++
}

// question is one thing to ask of one owner.
type question struct {
	i     int
	whole bool
}

// count returns a bit for each owner that answered, and for each that has been asked
// and may yet answer.
func (r *read) count() (answers, open uint16) {
	for i := range r.mu.answers {
		switch r.mu.answers[i].state {
		case hasAnswered:
			answers |= 1 << i
		case asked:
			open |= 1 << i
		}
	}
	return answers, open
}

// next returns the owner to ask next, given those that answer, -1 if there is none.
func (r *read) next(answers uint16) int {
	for _, i := range r.mu.order {
		if r.mu.answers[i].state == notAsked && r.mu.goal.Helps(i, answers) {
			return i
		}
	}
	return -1
}

// advance does whatever the answers so far call for. The lock is held and
// released.
func (r *read) advance() {
	if r.mu.answered {
		r.mu.Unlock()
		return
	}
	if r.mu.joined != nil {
		r.advanceRepair()
		return
	}
	have, open := r.count()
	if r.mu.goal.Met(have) {
		r.compare()
		return
	}
	var room [ring.MaxRF]question
	ask := room[:0]
	for i := r.next(have | open); i >= 0; i = r.next(have | open) {
		ask = append(ask, r.askOwner(i))
		open |= 1 << i
	}
	if !r.mu.goal.Met(have|open) && !r.mu.catching {
		r.giveUp("too few owners answered")
		return
	}
	u, round := r.mu.u, r.mu.round
	r.mu.Unlock()
	r.ask(u, round, ask)
}

// askOwner marks an owner as asked. The first is asked for everything.
func (r *read) askOwner(i int) question {
	q := question{i, r.mu.whole || !r.mu.begun}
	r.mu.begun = true
	r.mu.answers[i].state = asked
	return q
}

// compare looks at enough answers. The lock is held and released.
func (r *read) compare() {
	var base *causal.Object
	var digest *[16]byte
	confirms := r.mu.u.confirms
	equal := true // those whose answers are shown
	for i := range r.mu.answers {
		a := &r.mu.answers[i]
		if a.state != hasAnswered || confirms>>i&1 == 1 {
			continue
		}
		if a.object != nil {
			base = a.object
		}
		if digest == nil {
			digest = &a.digest
		}
		equal = equal && *digest == a.digest
	}
	level := equal // those that confirm hold the same
	var same *causal.Object
	for i := range r.mu.answers {
		if a := &r.mu.answers[i]; level && a.state == hasAnswered && confirms>>i&1 == 1 {
			if level = *digest == a.digest; a.object != nil {
				same = a.object
			}
		}
	}
	if level && base == nil {
		base = same // else what is shown is joined, and theirs is not part of that
	}
	if equal && base != nil && (level || base.IsZero()) { // of nothing, nothing is to be held
		r.finish(base, nil)
		return
	}
	// Fetch whole what is known by digest only: all of it if the owners
	// differ, one copy if they agree.
	var ask []question
	for i := range r.mu.answers {
		if a := &r.mu.answers[i]; a.state == hasAnswered && a.object == nil && confirms>>i&1 == 0 &&
			(!equal || base == nil && len(ask) == 0) {
			a.state = asked
			ask = append(ask, question{i, true})
		}
	}
	if len(ask) > 0 {
		r.mu.whole = true
		u, round := r.mu.u, r.mu.round
		r.mu.Unlock()
		r.ask(u, round, ask)
		return
	}
	r.startRepair()
}

// ask sends the questions, which are marked as asked already.
func (r *read) ask(u *unit, round int, qs []question) {
	c := r.job.c
	c.hold(len(qs))
	for _, q := range qs {
		if q.i == u.self {
			r.askSelf(u, round, q)
			continue
		}
		op := OpDigest
		if q.whole {
			op = OpRead
		}
		m := u.message(op)
		m.Deadline = r.job.deadline
		a := c.health.sentTo(u.owners[q.i], peerhealth.Read)
		r.job.send(u.owners[q.i], &m, func(rep Reply, err error) {
			c.health.heard(a, err)
			r.reply(q, round, rep, err)
			c.leave()
		})
	}
}

// askSelf asks this node's own replica.
func (r *read) askSelf(u *unit, round int, q question) {
	c := r.job.c
	a := c.health.sent(c.health.table.Reads(), peerhealth.Read)
	if q.whole {
		c.opts.Replica.Read(u.Address, func(object []byte, err error) {
			c.health.heard(a, nil)
			r.local(q, round, object, [16]byte{}, c.unmoved(u.Partition, u.Tenant, u.pv, err))
			c.leave()
		})
		return
	}
	c.opts.Replica.ReadDigest(u.Address, func(digest [16]byte, err error) {
		c.health.heard(a, nil)
		r.local(q, round, nil, digest, c.unmoved(u.Partition, u.Tenant, u.pv, err))
		c.leave()
	})
}

func (r *read) local(q question, round int, object []byte, digest [16]byte, err error) {
	switch {
	case errors.Is(err, ErrMoved):
		r.bounce(q.i, round, &Reply{Status: StatusStale})
		return
	case err != nil:
		e := asError(err)
		r.heard(q.i, round, answer{state: hasFailed, reason: e.reason(), err: e})
		return
	}
	r.reply(q, round, Reply{Status: StatusOK, Body: object, Digest: digest}, nil)
}

func (r *read) reply(q question, round int, rep Reply, err error) {
	switch {
	case err == nil && rep.Status == StatusStale:
		r.bounce(q.i, round, &rep)
	case err != nil || rep.Status != StatusOK:
		reason, e, _ := refused(&rep, err)
		if saysDeleted(e) {
			r.deleted()
			return
		}
		r.heard(q.i, round, answer{state: hasFailed, reason: reason, err: e})
	case !q.whole:
		r.heard(q.i, round, answer{state: hasAnswered, digest: rep.Digest})
	default:
		o, err := causal.Decode(rep.Body)
		if err != nil {
			r.heard(q.i, round, answer{state: hasFailed, reason: "sent an object that does not decode"})
			return
		}
		r.heard(q.i, round, answer{state: hasAnswered, object: &o, digest: o.Digest()})
	}
}

func (r *read) heard(i, round int, a answer) {
	r.mu.Lock()
	if round != r.mu.round || r.mu.joined != nil || r.mu.answers[i].state != asked {
		r.mu.Unlock()
		return
	}
	r.mu.answers[i] = a
	r.advance()
}

// deleted ends a read of which an owner says that the tenant is no more.
func (r *read) deleted() {
	r.mu.Lock()
	if r.mu.answered {
		r.mu.Unlock()
		return
	}
	r.finish(nil, &Error{Code: errcode.TenantNotFound, Message: deletedText(r.job.tenant)})
}

// lost is the error of a read that missed its level. The lock is held.
func (r *read) lost(code errcode.Code, msg string) *Error {
	u := r.mu.u
	t := r.mu.tally
	if r.mu.joined == nil {
		t = r.mu.goal.Tally()
		for i := range r.mu.answers {
			switch a := &r.mu.answers[i]; {
			case a.state == hasAnswered:
				t.Ack(i)
			case a.state == hasFailed:
				t.Fail(i, a.reason)
			case u.down(i):
				t.Fail(i, reasonDown)
			}
		}
	}
	e := u.quorumError(r.job, &t, code, "", msg)
	if len(u.owners) == 1 && r.mu.answers[0].err != nil {
		e.Code = r.mu.answers[0].err.Code
	}
	return e
}

// giveUp fails a read that cannot reach its level, unless there is a newer ring under
// which it may. The lock is held and released.
func (r *read) giveUp(msg string) {
	u, round := r.mu.u, r.mu.round
	r.mu.Unlock()
	next := r.job.c.newer(u)
	r.mu.Lock()
	switch {
	case r.mu.answered || round != r.mu.round:
		r.mu.Unlock()
	case next != nil:
		next.standBack()
		r.reset(next)
		r.advance()
	default:
		r.finish(nil, r.lost(errcode.QuorumNotReached, msg))
	}
}

func (r *read) timeout() {
	r.mu.Lock()
	if r.mu.answered {
		r.mu.Unlock()
		return
	}
	r.finish(nil, r.lost(errcode.Timeout, "the deadline passed before enough owners answered"))
}

// finish answers with what o holds, or with e, and then brings up to date who
// was not waited for. The lock is held and released.
func (r *read) finish(o *causal.Object, e *Error) {
	r.mu.answered = true
	if r.mu.stop != nil {
		r.mu.stop()
	}
	if r.mu.unhedge != nil {
		r.mu.unhedge()
	}
	u, round := r.mu.u, r.mu.round
	if e == nil && r.hedgeWon() {
		r.job.c.opts.Metrics.HedgeWon()
	}
	var rest []int
	if o != nil && r.mu.joined != nil {
		for i := range r.mu.answers {
			if (r.mu.sent|r.mu.left)>>i&1 == 0 && !r.mu.tally.Acked(i) && !u.down(i) {
				r.mu.sent |= 1 << i
				rest = append(rest, i)
			}
		}
	}
	r.mu.Unlock()
	switch {
	case e != nil:
		r.job.done(result{}, e)
	case r.job.found != nil:
		r.job.found(o)
	default:
		r.job.done(r.result(u, o))
	}
	r.writeBack(u, round, rest)
}

// result shows an object to a client.
func (r *read) result(u *unit, o *causal.Object) (result, *Error) {
	var now time.Time
	if o.Expires() { // a look at the clock is not free
		now = r.job.c.opts.Clock.Now()
	}
	shown := u.shown(o, now)
	if len(shown) == 0 {
		return result{}, &Error{Code: errcode.KeyNotFound, Message: "the key has no value"}
	}
	return result{get: GetResponse{
		Siblings: shown,
		Token:    seal(u.snap, u.tenant.Number, u.Key, o.Context, o.Winner().HLC),
		Context:  o.Context,
	}}, nil
}
