package repair

import (
	"errors"
	"fmt"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// askTimeout bounds one question to a peer: it may have to read ranges from disk.
const askTimeout = 20 * time.Second

// askError says why a peer did not do what it was asked for.
type askError struct {
	peer ring.NodeID
	why  string
	// again says that the same may go well a little later: it did not answer, or had
	// too much to do.
	again bool
	// silent says that it did not answer at all.
	silent bool
	// void says that what was found out before does not count any more.
	void bool
}

func (e *askError) Error() string { return fmt.Sprintf("node %s: %s", e.peer.Short(), e.why) }

// askWithin sends one request and returns the body of the answer.
func (m *Manager) askWithin(fb *fiber, to ring.NodeID, q *request, timeout time.Duration) ([]byte, error) {
	msg := coord.Message{
		Op: coord.OpRepair, Partition: q.spans[0].Partition, PV: q.spans[0].pv, Body: q.encode(), Background: q.kind != kindKnown,
		Deadline: m.opts.Clock.Now().Add(timeout),
	}
	if q.kind == kindSums || q.kind == kindDiff {
		m.figures.compared(len(msg.Body))
	}
	var rep coord.Reply
	var err error
	ok := fb.await(func(done func()) {
		m.opts.Transport.Send(to, &msg, func(r coord.Reply, e error) {
			rep, err = r, e
			done()
		})
	})
	if !ok {
		return nil, errClosed
	}
	if e := refusal(to, &rep, err); e != nil {
		return nil, e
	}
	if q.kind == kindSums || q.kind == kindDiff {
		m.figures.compared(len(rep.Body))
	}
	return rep.Body, nil
}

// refusal is what an answer other than StatusOK means, nil for that.
func refusal(peer ring.NodeID, rep *coord.Reply, err error) error {
	e := &askError{peer: peer}
	switch {
	case err != nil:
		e.why, e.again, e.silent = "did not answer", true, true
	case rep.Status == coord.StatusOK:
		return nil
	case rep.Status == coord.StatusOverloaded, rep.Status == coord.StatusExpired:
		e.why, e.again = "has too much to do", true
	case rep.Status == coord.StatusStale, rep.Status == coord.StatusNotOwner:
		e.why, e.void = errRing.Error(), true
	default:
		e.why = "failed"
		if d, err := coord.DecodeError(rep.Body); err == nil {
			e.why = d.Message
			for _, v := range []error{errMoved, errQuarantined, errRestarted, errForeign, errRing} {
				e.void = e.void || d.Message == v.Error()
			}
		}
	}
	return e
}

// attempts is how often a question is put to a peer that does not answer it, before
// what it is about is left for another round.
const attempts = 3

// askAgain is ask, again and again after pauses while that may help: what was done
// before is not done anew. A source of a span that is gained, j, is not waited for if
// others can stand in for it; j is nil for what is about anything else.
func (m *Manager) askAgain(fb *fiber, j *job, to ring.NodeID, q *request) (body []byte, err error) {
	for i := range attempts {
		if i > 0 && !fb.sleep(time.Second<<i) {
			return nil, errClosed
		}
		if i > 0 && !m.healthy(m.opts.View(), to) {
			break // it has been given up meanwhile
		}
		var e *askError
		if body, err = m.askWithin(fb, to, q, m.patience(j, to)); !errors.As(err, &e) || !e.again {
			break
		}
		if j != nil && len(j.order) > 0 {
			m.quiet(to, err)
		}
		if e.silent && m.spare(j, to) {
			break
		}
	}
	return body, err
}

// askMany puts kindState, kindAdopt, kindRelease or kindDirty about many spans to one
// owner, which may be this node. j is as in askAgain.
func (m *Manager) askMany(fb *fiber, j *job, to ring.NodeID, k kind, spans []spanItem) []stateReply {
	all := make([]stateReply, 0, len(spans))
	for len(spans) > 0 {
		q := &request{kind: k, spans: chunk(spans)}
		var some []stateReply
		var err error
		if to == m.opts.Self {
			some, err = m.service.many(fb, q, false)
		} else {
			var body []byte
			if body, err = m.askAgain(fb, j, to, q); err == nil {
				if some, err = decodeStates(k, body); err == nil && len(some) != len(q.spans) {
					err = errBody
				}
			}
		}
		if err != nil {
			some = make([]stateReply, len(q.spans))
			for i := range some {
				some[i].why, some[i].lost = err.Error(), true
			}
		}
		all, spans = append(all, some...), spans[len(q.spans):]
		if err != nil && !errors.Is(err, errBody) {
			// It is not there: do not wait for it once more for each chunk.
			for range spans {
				all = append(all, stateReply{why: err.Error(), lost: true})
			}
			break
		}
	}
	return all
}

// maxRequest bounds the bytes of one request about many spans.
const maxRequest = 512 << 10

// chunk returns as many of the first spans as go into one request.
func chunk(spans []spanItem) []spanItem {
	size := 0
	for i := range spans {
		size += 64 + 20*len(spans[i].confirmed.Seen)
		if i == maxSpans || i > 0 && size > maxRequest {
			return spans[:i]
		}
	}
	return spans
}
