package coord

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

// armHedge asks one more owner after each delay without an answer.
func (s *partitionScan) armHedge() {
	c := s.page.job.c
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.ended {
		s.mu.unhedge = c.opts.Clock.AfterFunc(c.opts.HedgeDelay, s.hedge)
	}
}

func (s *partitionScan) hedge() {
	c := s.page.job.c
	s.mu.Lock()
	if s.mu.ended || s.mu.next == len(s.mu.order) {
		s.mu.Unlock()
		return
	}
	c.hold(1) // the page may be answered before this has sent
	defer c.leave()
	_, _, whole, until, _ := s.count()
	q := s.askNext(whole, until)
	u, round := s.mu.u, s.mu.round
	s.mu.Unlock()
	s.send(u, round, []scanQuestion{q})
	s.armHedge()
}
