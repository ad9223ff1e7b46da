package repair

// start lets the service notice when the process stands still.
func (s *service) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.ticked = s.opts.Clock.Now()
	s.armLocked()
}

func (s *service) armLocked() {
	if !s.mu.closed {
		s.mu.stop = s.opts.Clock.AfterFunc(s.opts.Settle/4, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.lookLocked()
			s.mu.ticked = s.opts.Clock.Now()
			s.armLocked()
		})
	}
}

// lookLocked notices that the process stood still: what lay in its sockets then may be
// applied later than everybody thinks that it is over. For the others it is as if it
// had been restarted.
func (s *service) lookLocked() {
	if s.opts.Clock.Now().Sub(s.mu.ticked) > s.opts.Settle*3/4 {
		s.mu.pauses++
		s.mu.ticked = s.opts.Clock.Now()
	}
}

// session is that of this start of the process, of which pauses make another one. The
// replica is asked for it once.
func (s *service) session(span Span) (uint64, error) {
	s.mu.Lock()
	known := s.mu.known
	s.mu.Unlock()
	if !known {
		st, err := s.opts.Replica.State(span)
		if err != nil {
			return 0, err
		}
		return s.began(st.Session), nil
	}
	return s.began(0), nil
}

// began notes the session that the replica tells, if it is not 0, and returns that to
// tell others.
func (s *service) began(start uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if start != 0 {
		s.mu.begun, s.mu.known = start, true
	}
	s.lookLocked()
	return s.mu.begun + s.mu.pauses*0x9e3779b97f4a7c15
}

// sameSession refuses what follows from what another start of this node said.
func (s *service) sameSession(it *spanItem) error {
	session, err := s.session(it.Span)
	if err == nil && session != it.session {
		err = errRestarted
	}
	return err
}
