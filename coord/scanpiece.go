package coord

import (
	"sync"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/coord/quorum"
)

// partitionScan asks the owners of one partition for a piece of it: one of them
// for objects, and then, if the level needs more, others for digests of as much.
//
// As in read, no lock is held across calls.
type partitionScan struct {
	page *page
	i    int // in the round
	// ask is what the owners are asked, but for Mode and Until.
	ask ScanRange

	mu struct {
		sync.Mutex
		u     *unit
		goal  quorum.Goal
		round int
		order []int
		// answers has an entry per owner.
		answers []scanAnswer
		// hedged are owners asked because others kept the page waiting.
		hedged   uint16
		stale    uint16
		catching bool
		ended    bool
		unhedge  func() bool
	}
}

// scanAnswer is what one owner said.
type scanAnswer struct {
	state answerState
	// whole says that it was asked for objects.
	whole  bool
	piece  ownerPiece
	reason string
	err    *Error
}

// scanQuestion is one thing to ask of one owner.
type scanQuestion struct {
	i int
	r ScanRange
}

// start begins. The caller has a hold.
func (s *partitionScan) start() {
	u, err := s.locate()
	if err == nil {
		err = u.reachable(s.page.job)
	}
	if err == nil {
		// What does not answer is asked last, and not refused: few pages are made at
		// once, and one that fails says where it ended.
		c := s.page.job.c
		c.health.hedges.Earn()
		c.probe(u, &s.ask)
	}
	s.mu.Lock()
	if err != nil {
		s.end(partitionPart{err: err})
		return
	}
	s.reset(u)
	s.armHedge(s.wait())
	s.advance()
}

func (s *partitionScan) locate() (*unit, *Error) {
	c := s.page.job.c
	snap, t, err := c.look(s.page.job)
	if err != nil {
		return nil, err
	}
	return c.placeToken(snap, t, s.ask.From.Token), nil
}

// reset begins anew with the owners of u. The lock is held.
func (s *partitionScan) reset(u *unit) {
	s.mu.u, s.mu.goal = u, u.read(s.page.job.level)
	// The tenant may have another one by now.
	s.ask.Class = u.Class
	s.mu.order = s.page.job.c.order(u, s.mu.order[:0])
	s.mu.answers = make([]scanAnswer, len(u.owners))
	s.mu.hedged = 0
	s.mu.round++
}

// next is that of read. The lock is held.
func (s *partitionScan) next(answers uint16) int {
	for _, i := range s.mu.order {
		if s.mu.answers[i].state == notAsked && s.mu.goal.Helps(i, answers) {
			return i
		}
	}
	return -1
}

// count returns a bit for each owner that answered and for each that may yet answer,
// and the reach of one that has sent objects.
func (s *partitionScan) count() (answers, open uint16, whole bool, until *Position, awaited bool) {
	for i := range s.mu.answers {
		a := &s.mu.answers[i]
		switch a.state {
		case hasAnswered:
			answers |= 1 << i
			if a.whole {
				whole, until = true, a.piece.reach
			}
		case asked:
			open |= 1 << i
			awaited = awaited || a.whole
		}
	}
	return answers, open, whole, until, awaited
}

// advance does whatever the answers so far call for. The lock is held and
// released.
func (s *partitionScan) advance() {
	if s.mu.ended {
		s.mu.Unlock()
		return
	}
	have, open, whole, until, awaited := s.count()
	if whole && s.mu.goal.Met(have) {
		s.conclude()
		return
	}
	var ask []scanQuestion
	short := false
	switch i := s.next(have | open); {
	case whole:
		for ; i >= 0; i = s.next(have | open) {
			ask = append(ask, s.askOwner(i, true, until))
			open |= 1 << i
		}
		short = !s.mu.goal.Met(have | open)
	case !awaited && i >= 0:
		ask = append(ask, s.askOwner(i, false, nil))
	case !awaited:
		short = true
	}
	if short && !s.mu.catching {
		s.giveUp()
		return
	}
	u, round := s.mu.u, s.mu.round
	s.mu.Unlock()
	s.send(u, round, ask)
}

// askOwner marks an owner as asked: for objects, or once somebody has sent them for
// digests as far as those go. The lock is held.
func (s *partitionScan) askOwner(i int, digests bool, until *Position) scanQuestion {
	q := scanQuestion{i, s.ask}
	if digests {
		q.r.Mode, q.r.Until = ScanDigests, until
	}
	s.mu.answers[i] = scanAnswer{state: asked, whole: !digests}
	return q
}

// send sends the questions, which are marked as asked already.
func (s *partitionScan) send(u *unit, round int, qs []scanQuestion) {
	c := s.page.job.c
	c.hold(len(qs))
	for i := range qs {
		q := &qs[i]
		if q.i == u.self {
			s.sendSelf(u, round, q)
			continue
		}
		m := u.message(OpScan)
		m.Body, m.Deadline = encodeScanRange(&q.r), s.page.job.deadline
		a := c.health.sentTo(u.owners[q.i], peerhealth.Scan)
		c.opts.Transport.Send(u.owners[q.i], &m, func(rep Reply, err error) {
			c.health.heard(a, err)
			s.reply(q, round, rep, err)
			c.leave()
		})
	}
}

// sendSelf asks this node's own replica, once it may be asked. It leaves one hold.
func (s *partitionScan) sendSelf(u *unit, round int, q *scanQuestion) {
	c := s.page.job.c
	ask := func() {
		a := c.health.sent(c.health.table.Reads(), peerhealth.Scan)
		c.opts.Replica.Scan(&q.r, func(p ScanPiece, err error) {
			c.health.heard(a, nil)
			// If it has moved, the partition is asked anew once nobody else can answer.
			if err = c.unmoved(u.Partition, u.Tenant, u.pv, err); err != nil {
				e := asError(err)
				s.heard(q.i, round, scanAnswer{state: hasFailed, reason: e.reason(), err: e})
			} else {
				s.take(q, round, &p)
			}
			c.leave()
		})
	}
	if u.gains && !c.whenKnown(u.Partition, 1, 0, s.page.job.deadline, func(st Status) {
		if st == StatusOK {
			ask()
			return
		}
		s.heard(q.i, round, scanAnswer{state: hasFailed, reason: "does not know yet what it may show"})
		c.leave()
	}) {
		return
	}
	ask()
}

func (s *partitionScan) reply(q *scanQuestion, round int, rep Reply, err error) {
	if err == nil && rep.Status == StatusStale {
		s.bounce(q.i, round, &rep)
		return
	}
	if err != nil || rep.Status != StatusOK {
		reason, e, _ := refused(&rep, err)
		if saysDeleted(e) {
			s.deleted()
			return
		}
		s.heard(q.i, round, scanAnswer{state: hasFailed, reason: reason, err: e})
		return
	}
	p, err := decodeScanPiece(rep.Body, &q.r)
	if err != nil {
		s.heard(q.i, round, scanAnswer{state: hasFailed, reason: "sent an answer that does not decode"})
		return
	}
	s.take(q, round, &p)
}

// deleted ends the scan of a tenant that is no more, as an owner says.
func (s *partitionScan) deleted() {
	s.mu.Lock()
	if s.mu.ended {
		s.mu.Unlock()
		return
	}
	s.end(partitionPart{err: &Error{Code: errcode.TenantNotFound, Message: deletedText(s.page.job.tenant)}})
}

func (s *partitionScan) take(q *scanQuestion, round int, p *ScanPiece) {
	piece, err := checkPiece(&q.r, p)
	if err != nil {
		s.heard(q.i, round, scanAnswer{state: hasFailed, reason: err.Error()})
		return
	}
	s.heard(q.i, round, scanAnswer{state: hasAnswered, whole: q.r.Mode != ScanDigests, piece: piece})
}

func (s *partitionScan) heard(i, round int, a scanAnswer) {
	s.mu.Lock()
	if s.mu.ended || round != s.mu.round || s.mu.answers[i].state != asked {
		s.mu.Unlock()
		return
	}
	s.mu.answers[i] = a
	s.advance()
}

// conclude makes of enough answers what the page may show. The lock is held and
// released.
func (s *partitionScan) conclude() {
	var pieces []ownerPiece
	part := partitionPart{}
	for i := range s.mu.answers {
		if a := &s.mu.answers[i]; a.state == hasAnswered {
			pieces = append(pieces, a.piece)
			part.scanned = max(part.scanned, a.piece.scanned)
		}
	}
	if s.hedgeWon() {
		s.page.job.c.opts.Metrics.HedgeWon()
	}
	u, now := s.mu.u, s.page.job.c.opts.Clock.Now()
	keys, reach := agree(pieces)
	part.reach = reach
	for i := range keys {
		k := &keys[i]
		if k.object == nil {
			part.slots = append(part.slots, slot{at: k.at, size: len(k.at.Key) + k.size})
			continue
		}
		shown := u.shown(k.object, now)
		if len(shown) == 0 {
			continue
		}
		it := &ScanItem{
			Key: k.at.Key, Siblings: shown, Context: k.object.Context,
			Token: seal(u.snap, u.tenant.Number, k.at.Key, k.object.Context, k.object.Winner().HLC),
		}
		part.slots = append(part.slots, slot{at: k.at, item: it, size: itemSize(it)})
	}
	s.end(part)
}

// end hands the result to the page. The lock is held and released.
func (s *partitionScan) end(part partitionPart) {
	s.stopLocked()
	s.mu.Unlock()
	s.page.heard(s.i, part)
}

func (s *partitionScan) stopLocked() {
	s.mu.ended = true
	if s.mu.unhedge != nil {
		s.mu.unhedge()
	}
}

// abandon ends it without a result.
func (s *partitionScan) abandon() {
	s.mu.Lock()
	s.stopLocked()
	s.mu.Unlock()
}

// lost is the error of a partition whose owners do not meet the level. The lock is
// held.
func (s *partitionScan) lost(code errcode.Code, msg string) *Error {
	u := s.mu.u
	t := s.mu.goal.Tally()
	for i := range s.mu.answers {
		switch a := &s.mu.answers[i]; {
		case a.state == hasAnswered:
			t.Ack(i)
		case a.state == hasFailed:
			t.Fail(i, a.reason)
		case u.down(i):
			t.Fail(i, reasonDown)
		}
	}
	e := u.quorumError(s.page.job, &t, code, "", msg)
	if len(u.owners) == 1 && s.mu.answers[0].err != nil {
		e.Code = s.mu.answers[0].err.Code
	}
	return e
}
