package coord

import (
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/peerhealth"
)

// bounce learns the ring that an owner has before this node; the partition is then
// asked anew.
func (s *partitionScan) bounce(i, round int, rep *Reply) {
	c := s.page.job.c
	c.opts.Metrics.StaleBounce()
	s.mu.Lock()
	if round != s.mu.round || s.mu.ended {
		s.mu.Unlock()
		return
	}
	u := s.mu.u
	s.mu.stale |= 1 << i
	start := !s.mu.catching
	s.mu.catching = true
	s.mu.Unlock()
	if start {
		c.catchUp(u.owners[i], rep.Version, func() { s.caughtUp(u) })
	}
}

func (s *partitionScan) caughtUp(u *unit) {
	now, err := s.locate()
	s.mu.Lock()
	stale := s.mu.stale
	s.mu.catching, s.mu.stale = false, 0
	switch {
	case s.mu.ended:
		s.mu.Unlock()
		return
	case err != nil:
		s.end(partitionPart{err: err})
		return
	case !now.same(u):
		s.reset(now)
	default:
		for i := range s.mu.answers {
			if stale>>i&1 == 1 {
				s.mu.answers[i] = scanAnswer{state: hasFailed, reason: reasonStale}
			}
		}
	}
	s.advance()
}

// giveUp fails the partition, unless there is a newer ring under which its owners may
// answer. The lock is held and released.
func (s *partitionScan) giveUp() {
	u, round := s.mu.u, s.mu.round
	s.mu.Unlock()
	next := s.page.job.c.newer(u)
	s.mu.Lock()
	switch {
	case s.mu.ended || round != s.mu.round:
		s.mu.Unlock()
	case next != nil:
		s.reset(next)
		s.advance()
	default:
		s.end(partitionPart{err: s.lost(errcode.QuorumNotReached, "too few owners of a partition answered")})
	}
}

// wait is how long the owner that is asked next may take until one more is. The lock
// is held.
func (s *partitionScan) wait() time.Duration {
	have, _, _, _, _ := s.count()
	i := s.next(have)
	if i < 0 {
		return s.page.job.c.opts.HedgeDelay
	}
	return s.page.job.c.record(s.mu.u, i).Wait(peerhealth.Scan)
}

// armHedge asks one more owner after d without an answer. The lock is held.
func (s *partitionScan) armHedge(d time.Duration) {
	if !s.mu.ended {
		s.mu.unhedge = s.page.job.c.opts.Clock.AfterFunc(d, s.hedge)
	}
}

func (s *partitionScan) hedge() {
	c := s.page.job.c
	s.mu.Lock()
	if s.mu.ended {
		s.mu.Unlock()
		return
	}
	have, _, whole, until, _ := s.count()
	next := s.next(have)
	if next < 0 {
		s.armHedge(c.opts.HedgeDelay) // a newer ring may bring others
		s.mu.Unlock()
		return
	}
	c.hold(1) // the page may be answered before this has sent
	defer c.leave()
	u, round := s.mu.u, s.mu.round
	again := c.opts.HedgeDelay
	var ask []scanQuestion
	free := false
	for i := range s.mu.answers {
		free = free || s.mu.answers[i].state == asked && c.shut(u, i)
	}
	if !c.shut(u, next) && c.mayHedge(free) {
		again = s.wait()
		ask = append(ask, s.askOwner(next, whole, until))
		s.mu.hedged |= 1 << next
	}
	s.armHedge(again)
	s.mu.Unlock()
	s.send(u, round, ask)
}

// hedgeWon is that of read. The lock is held.
func (s *partitionScan) hedgeWon() bool {
	won, waits := false, false
	for i := range s.mu.answers {
		switch a := s.mu.answers[i].state; {
		case a == asked:
			waits = true
		case a == hasAnswered && s.mu.hedged>>i&1 == 1:
			won = true
		}
	}
	return won && waits
}
