package rpc

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
)

// The parts of an answer are allocated as one piece where their number is known:
// they live and go together, and an answer has up to nine.

func putAnswer(w *coord.WriteResponse) *pairdbv1.PutResponse {
	a := new(struct {
		r   pairdbv1.PutResponse
		dot pairdbv1.Dot
	})
	setDot(&a.dot, w.Dot)
	r := &a.r
	r.Context, r.Dot, r.VectorClock = w.Token, &a.dot, clockOf(w.Context)
	r.Acks, r.Consistency, r.IsDuplicate = uint32(w.Acks), consistencyOf(w.Level), w.Duplicate
	return r
}

func deleteAnswer(w *coord.WriteResponse) *pairdbv1.DeleteResponse {
	a := new(struct {
		r   pairdbv1.DeleteResponse
		dot pairdbv1.Dot
	})
	setDot(&a.dot, w.Dot)
	r := &a.r
	r.Context, r.Dot, r.VectorClock = w.Token, &a.dot, clockOf(w.Context)
	r.Acks, r.Consistency, r.IsDuplicate = uint32(w.Acks), consistencyOf(w.Level), w.Duplicate
	return r
}

func getAnswer(key []byte, r *coord.GetResponse) *pairdbv1.GetResponse {
	var out *pairdbv1.GetResponse
	if len(r.Siblings) == 1 {
		a := new(struct {
			r    pairdbv1.GetResponse
			s    sibling
			list [1]*pairdbv1.Sibling
		})
		a.list[0] = a.s.of(&r.Siblings[0])
		out, a.r.Siblings = &a.r, a.list[:]
	} else {
		out = &pairdbv1.GetResponse{Siblings: siblingsOf(r.Siblings)}
	}
	out.Key, out.Context, out.VectorClock = key, r.Token, clockOf(r.Context)
	return out
}

// sibling is the memory of one.
type sibling struct {
	s         pairdbv1.Sibling
	dot       pairdbv1.Dot
	writtenAt timestamppb.Timestamp
}

func (m *sibling) of(s *causal.Sibling) *pairdbv1.Sibling {
	setDot(&m.dot, s.Dot)
	at := s.WrittenAt()
	m.writtenAt.Seconds, m.writtenAt.Nanos = at.Unix(), int32(at.Nanosecond())
	m.s.Value, m.s.Dot, m.s.WrittenAt, m.s.ExpiresAt = s.Value, &m.dot, &m.writtenAt, expiresAt(s)
	return &m.s
}

func siblingsOf(siblings []causal.Sibling) []*pairdbv1.Sibling {
	wire, backing := make([]*pairdbv1.Sibling, len(siblings)), make([]sibling, len(siblings))
	for i := range siblings {
		wire[i] = backing[i].of(&siblings[i])
	}
	return wire
}

func setDot(out *pairdbv1.Dot, d causal.Dot) { out.Actor, out.Counter = d.Actor, d.Counter }

func clockOf(c causal.Context) []*pairdbv1.ClockEntry {
	var entries []*pairdbv1.ClockEntry
	var backing []pairdbv1.ClockEntry
	if len(c) == 1 {
		a := new(struct {
			list  [1]*pairdbv1.ClockEntry
			entry [1]pairdbv1.ClockEntry
		})
		entries, backing = a.list[:], a.entry[:]
	} else {
		entries, backing = make([]*pairdbv1.ClockEntry, len(c)), make([]pairdbv1.ClockEntry, len(c))
	}
	for i, d := range c {
		e := &backing[i]
		e.Actor, e.Counter = d.Actor, d.Counter
		entries[i] = e
	}
	return entries
}
