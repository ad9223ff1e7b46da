package repair

import (
	"errors"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// entry is what this node knows of a span since its start.
type entry struct {
	confirmed causal.Confirmed
	hash      uint64
	// changing counts calls of Adopt under way: what is told meanwhile may be
	// settled in either way.
	changing int
	// handed counts what a round has confirmed or released and is being taken in.
	handed int
	// repairedAt is when the last round began that ended with all owners equal, in
	// Unix milliseconds, by the clock of whoever drove it.
	repairedAt int64
	// toldAt is when this node was last told so, by its own clock.
	toldAt time.Time
}

// known tells what is known of a span. Nothing is being adopted meanwhile: whoever was
// told of this version of the ring, and asks now, is told all that this node ever adopts
// as of an older one.
func (s *service) known(span Span, a *stateReply) (err error) {
	s.mu.Lock()
	handed := s.entryLocked(span).handed > 0
	s.mu.Unlock()
	if handed {
		return errMoved
	}
	a.state.Confirmed, a.state.Released, a.floor, err = s.opts.Replica.Known(span)
	return err
}

// state asks the replica, and notes what is confirmed.
func (s *service) state(span Span) (State, error) {
	st, err := s.opts.Replica.State(span)
	if err != nil {
		return State{}, err
	}
	s.mu.Lock()
	e := s.entryLocked(span)
	if e.changing == 0 {
		e.note(&st.Confirmed)
	}
	s.mu.Unlock()
	st.Session = s.began(st.Session)
	if len(st.Votes) > 0 {
		s.voted(span)
	}
	return st, nil
}

func (s *service) entryLocked(span Span) *entry {
	e := s.mu.ledger[span]
	if e == nil {
		e = new(entry)
		e.note(&causal.Confirmed{})
		s.mu.ledger[span] = e
	}
	return e
}

func (e *entry) note(c *causal.Confirmed) {
	e.confirmed = e.confirmed.Join(c)
	e.hash = hashOf(&e.confirmed)
}

// hashOf stands for what is confirmed.
func hashOf(c *causal.Confirmed) uint64 { return xxh3.Hash(c.Append(nil)) }

// hand takes in what a round has confirmed or released.
func (s *service) hand(it *spanItem, k kind, fenced bool) error {
	if err := s.sameSession(it); err != nil {
		return err
	}
	handing := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.entryLocked(it.Span).handed += n
	}
	handing(1)
	defer handing(-1)
	// Once more: known leaves out nothing of an older ring then.
	err := s.fence(it)
	switch {
	case err == nil && k == kindRelease:
		return s.opts.Replica.Release(it.Span, &it.confirmed)
	case err == nil, !fenced && errors.Is(err, errQuarantined):
		err = s.change(it.Span, &it.confirmed, it.repairedAt, func() error {
			return s.opts.Replica.Adopt(it.Span, &it.confirmed)
		})
		if err != nil {
			return err
		}
		// A tenant may have left the class before it was adopted: then it was not adopted
		// of that one, and nobody may take it to be released.
		return s.admit(it, fenced)
	case !fenced && errors.Is(err, errForeign):
		return s.inherit(it.Span, it.pv, &stateReply{state: State{Confirmed: it.confirmed}})
	}
	return err
}

// inherit takes over what old owners know of a span.
func (s *service) inherit(span Span, pv ring.Version, a *stateReply) error {
	if s.opts.View().Copies(span.Class).From == 0 {
		return errDeleted // or it would be here when all else of the tenant is gone
	}
	c := a.state.Confirmed.Join(&a.state.Released)
	return s.change(span, &c, 0, func() error {
		return s.opts.Replica.Inherit(span, pv, &a.state.Confirmed, &a.state.Released, a.floor)
	})
}

// change does something after which c is confirmed here. Nothing is told meanwhile that
// would be settled in one way or the other.
func (s *service) change(span Span, c *causal.Confirmed, repairedAt int64, do func() error) error {
	s.mu.Lock()
	e := s.entryLocked(span)
	e.changing++
	s.mu.Unlock()
	err := do()
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.changing--; err == nil {
		e.note(c)
		e.repairedAt = max(e.repairedAt, repairedAt)
		if repairedAt > 0 {
			e.toldAt = s.opts.Clock.Now()
		}
	}
	return err
}

// drop has the replica remove a span, and forgets what is known of it.
func (s *service) drop(span Span, still func() bool) error {
	return s.change(span, &causal.Confirmed{}, 0, func() error {
		err := s.opts.Replica.Drop(span, still)
		if err == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			e := s.entryLocked(span)
			e.confirmed, e.repairedAt, e.toldAt = causal.Confirmed{}, 0, time.Time{}
		}
		return err
	})
}

// forget lets go of what is known of classes that have no tenants any more.
func (s *service) forget(v *schema.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	//seams:ordered each is let go of by itself
	for span, e := range s.mu.ledger {
		if e.changing == 0 && e.handed == 0 && !hasClass(v, span.Class) {
			delete(s.mu.ledger, span)
		}
	}
}

// repaired returns what is known of when each of the spans was repaired.
func (s *service) repaired() map[Span]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[Span]int64, len(s.mu.ledger))
	//seams:ordered a map is made of it
	for span, e := range s.mu.ledger {
		out[span] = e.repairedAt
	}
	return out
}
