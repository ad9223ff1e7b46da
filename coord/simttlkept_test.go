package coord_test

import (
	"fmt"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// keptMortals is a key of a tenant that keeps siblings: puts without contexts stand
// beside one another, and each expires by itself.
type keptMortals struct {
	n     int
	acked []*mortal
}

func (s *ttlRun) startKept() {
	s.kept = &keptMortals{}
	s.putKept()
	s.getKept(quorum.Quorum)
}

const keeperKey = "kept"

func (s *ttlRun) putKept() {
	k := s.kept
	s.w.after(s.think(keeperKey)*3, func() {
		n := s.pick(keeperKey)
		if s.ended {
			return
		}
		if n == nil {
			s.putKept()
			return
		}
		k.n++
		m := &mortal{value: fmt.Sprintf("%s/%d", keeperKey, k.n)}
		s.written[m.value] = m
		ttl, began, answered := time.Duration(1+s.w.rand(keeperKey).IntN(2000))*time.Millisecond, s.w.now, false
		finish := func(r coord.WriteResponse, err error) {
			if answered {
				return
			}
			answered = true
			if err == nil {
				m.dot, m.acked = r.Dot, true
				m.ends, m.from, m.to = true, began+s.slowest+ttl-time.Millisecond, s.w.now+s.fastest+ttl
				k.acked = append(k.acked, m)
			} else if err.(*coord.Error).Code == errcode.PreconditionFailed {
				s.fail("%s: what has expired counts against the limit: %v", keeperKey, err)
			}
			s.putKept()
		}
		s.w.after(clientPatience, func() { finish(coord.WriteResponse{}, &coord.Error{Code: errcode.Timeout}) })
		n.coord.StartPut(coord.PutRequest{
			Tenant: simKeeper, Key: []byte(keeperKey), Value: []byte(m.value), Expiry: causal.ExpiresAfter(ttl),
		}, finish)
	})
}

func (s *ttlRun) getKept(level quorum.Level) {
	s.w.after(s.think(keeperKey), func() {
		n := s.pick(keeperKey)
		if s.ended {
			return
		}
		if n == nil {
			s.getKept(level)
			return
		}
		began, must, answered := s.w.now, s.kept.acked, false
		finish := func(r coord.GetResponse, err error) {
			if answered {
				return
			}
			answered = true
			if err == nil || err.(*coord.Error).Code == errcode.KeyNotFound {
				s.sawKept(must, r.Siblings, began)
			}
			s.getKept(level)
		}
		s.w.after(clientPatience, func() { finish(coord.GetResponse{}, &coord.Error{Code: errcode.Timeout}) })
		n.coord.StartGet(coord.GetRequest{Tenant: simKeeper, Key: []byte(keeperKey), Level: level}, finish)
	})
}

// sawKept judges a read of the key: must are the values acknowledged before it.
func (s *ttlRun) sawKept(must []*mortal, shown []causal.Sibling, began time.Duration) {
	there := map[string]bool{}
	for i := range shown {
		s.sawMortal(&shown[i], 0, began)
		there[string(shown[i].Value)] = true
	}
	if len(shown) > 1 {
		s.done["beside"]++
	}
	for _, m := range must {
		if !there[m.value] && s.surelyLive(m, s.w.now) {
			s.fail("%q is hidden at %v, it ends from %v to %v", m.value, s.w.now, m.from, m.to)
		}
	}
}
