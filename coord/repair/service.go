package repair

import (
	"errors"
	"sync"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
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
