package repair

import (
	"errors"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

const (
	// maxServed bounds the requests of peers that are served at once, maxWaiting
	// those that wait for that; what comes beyond is refused as overloaded.
	maxServed  = 16
	maxWaiting = 256
)

// service answers what other owners ask, and this node itself when it drives.
type service struct {
	opts   *Options
	fibers *fibers
	// dirty is told of spans that are to be compared soon, voted of those of which votes
	// hold back what is confirmed.
	dirty, voted func(Span)

	mu struct {
		sync.Mutex
		ledger map[Span]*entry
		// begun is the replica's session, if it is known.
		begun  uint64
		known  bool
		served int
		queue  []func()
		closed bool
		// pauses counts how often this process seems to have been stopped for a
		// while, and ticked is when it was last seen to run.
		pauses uint64
		ticked time.Time
		stop   func() bool
	}
}

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

// The errors of what a span is asked for; they travel as phrases.
var (
	errMoved       = errors.New("something else was confirmed meanwhile")
	errQuarantined = errors.New("its copy is under quarantine")
	errRestarted   = errors.New("it was restarted or stood still meanwhile")
	errForeign     = errors.New("it does not own the partition")
	errRing        = errors.New("it has another ring version")
	errDeleted     = errors.New("the tenant was deleted")
	errClosed      = errors.New("the node is stopping")
)

func (s *service) init(opts *Options, fs *fibers, dirty, voted func(Span)) {
	s.opts, s.fibers, s.dirty, s.voted = opts, fs, dirty, voted
	s.mu.ledger = make(map[Span]*entry)
	s.mu.ticked = opts.Clock.Now()
}

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

func (s *service) close() {
	s.mu.Lock()
	s.mu.closed = true
	if s.mu.stop != nil {
		s.mu.stop()
	}
	waiting := s.mu.queue
	s.mu.queue = nil
	s.mu.Unlock()
	for _, f := range waiting {
		f() // which finds that it is closed
	}
}

// serve answers a request of a peer.
func (s *service) serve(m *coord.Message, reply func(coord.Reply)) {
	q, err := decodeRequest(m.Body)
	if err != nil {
		reply(failed(errcode.InvalidArgument, err.Error()))
		return
	}
	run := func() {
		ok := s.fibers.spawn("repair for a peer", func(fb *fiber) {
			defer s.leave()
			body, err := s.answer(fb, q)
			if err != nil {
				reply(failed(errcode.Unavailable, err.Error()))
				return
			}
			reply(coord.Reply{Status: coord.StatusOK, Body: body})
		})
		if !ok {
			reply(coord.Reply{Status: coord.StatusOverloaded})
			s.leave()
		}
	}
	s.mu.Lock()
	switch {
	case s.mu.closed || len(s.mu.queue) >= maxWaiting:
		s.mu.Unlock()
		reply(coord.Reply{Status: coord.StatusOverloaded})
	case s.mu.served >= maxServed:
		s.mu.queue = append(s.mu.queue, run)
		s.mu.Unlock()
	default:
		s.mu.served++
		s.mu.Unlock()
		run()
	}
}

func failed(code errcode.Code, why string) coord.Reply {
	e := &coord.Error{Code: code, Outcome: errcode.NotApplied, Message: why}
	return coord.Reply{Status: coord.StatusError, Body: coord.EncodeError(e)}
}

// leave lets the next request be served.
func (s *service) leave() {
	s.mu.Lock()
	var next func()
	if len(s.mu.queue) > 0 {
		next, s.mu.queue = s.mu.queue[0], s.mu.queue[1:]
	} else {
		s.mu.served--
	}
	s.mu.Unlock()
	if next != nil {
		next()
	}
}

// answer does what a request asks for.
func (s *service) answer(fb *fiber, q *request) ([]byte, error) {
	switch q.kind {
	case kindState, kindAdopt, kindRelease, kindDirty, kindKnown:
		all, err := s.many(fb, q, true)
		return encodeStates(q.kind, all), err
	}
	if err := s.fence(&q.spans[0]); err != nil {
		return nil, err
	}
	span := q.spans[0].Span
	session, err := s.session(span)
	if err != nil {
		return nil, err
	}
	switch q.kind {
	case kindSums:
		a, err := s.sums(span, q)
		if err != nil {
			return nil, err
		}
		a.session = session
		return a.encode(), nil
	case kindDiff:
		a, err := s.diff(span, q)
		if err != nil {
			return nil, err
		}
		a.session = session
		return a.encode(), nil
	case kindObjects:
		a, err := s.objects(fb, span, q)
		if err != nil {
			return nil, err
		}
		a.session = session
		return a.encode(), nil
	case kindApplied:
		rows, err := s.opts.Replica.Applied(span, q.rows)
		if err != nil {
			return nil, err
		}
		return (&recordReply{session: session, rows: rows}).encode(), nil
	default:
		rows, more, err := s.opts.Replica.Records(span, q.after, maxRows, q.votes)
		if err != nil {
			return nil, err
		}
		return (&recordReply{session, rows, more}).encode(), nil
	}
}

// clip bounds a phrase for the wire.
func clip(why string) string { return why[:min(len(why), maxWhy)] }

// fence refuses spans that are not this node's to tell of.
func (s *service) fence(it *spanItem) error {
	v := s.opts.View()
	switch {
	case v.Layout == nil || v.Layout.PV(it.Partition) != it.pv:
		return errRing
	case v.Copies(it.Class).From == 0:
		return errDeleted
	case !v.Layout.IsOwner(s.opts.Self, it.Partition, v.Copies(it.Class).From):
		return errForeign
	case s.opts.Quarantined(it.Partition):
		return errQuarantined
	}
	return nil
}

// handed bounds the spans that are adopted at once: they share syncs.
const handed = 16

// many does what is asked for many spans. Those that are not owned, or are under
// quarantine, are fenced only for others.
func (s *service) many(fb *fiber, q *request, fenced bool) ([]stateReply, error) {
	all := make([]stateReply, len(q.spans))
	limit := handed
	if q.kind == kindState || q.kind == kindDirty || q.kind == kindKnown {
		limit = 1
	}
	ok := fb.each(len(all), limit, func(_ *fiber, i int) {
		it := &q.spans[i]
		err := s.admit(it, fenced)
		switch {
		case err != nil:
		case q.kind == kindState:
			all[i].state, err = s.state(it.Span)
		case q.kind == kindDirty:
			s.dirty(it.Span)
		case q.kind == kindKnown:
			err = s.known(it.Span, &all[i])
		default:
			err = s.hand(it, q.kind, fenced)
		}
		if err != nil {
			all[i].why = clip(err.Error())
		}
	})
	if !ok {
		return nil, errClosed
	}
	return all, nil
}

// admit is fence, but for what this node may be told by itself.
func (s *service) admit(it *spanItem, fenced bool) error {
	err := s.fence(it)
	if !fenced && (errors.Is(err, errQuarantined) || errors.Is(err, errForeign)) {
		return nil
	}
	return err
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

// sameSession refuses what follows from what another start of this node said.
func (s *service) sameSession(it *spanItem) error {
	session, err := s.session(it.Span)
	if err == nil && session != it.session {
		err = errRestarted
	}
	return err
}
