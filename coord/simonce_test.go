package coord_test

import (
	"fmt"
	"strconv"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/coord"
)

// oncePrefix begins the keys that are written only with idempotency keys.
const oncePrefix = "once"

// onceWriter is the one writer of a key that sends each write several times,
// each time through a node of its own, until one is acknowledged, and now and
// then once more much later. All attempts at a write are one operation of a
// register like any other.
type onceWriter struct {
	k       *register
	deletes map[int]bool
	acked   map[int]bool
}

func (s *simulation) startOnce(key string) {
	o := &onceWriter{k: &register{key: key, writeAt: atMost, readAt: atMost}, deletes: map[int]bool{}, acked: map[int]bool{}}
	s.keys = append(s.keys, o.k)
	s.once = append(s.once, o)
	s.w.after(s.think(o.k.key), func() { s.nextOnce(o) })
	s.read(o.k, "reader")
}

// nextOnce begins the next write.
func (s *simulation) nextOnce(o *onceWriter) {
	if s.ended {
		return
	}
	o.k.writes++
	o.deletes[o.k.writes] = s.w.rand(o.k.key).IntN(4) == 0
	s.burst(o, o.k.writes)
}

// burst sends write i one to four times at about the same time. Until one of
// them is acknowledged it is sent again.
func (s *simulation) burst(o *onceWriter, i int) {
	n := 1 + s.w.rand(o.k.key).IntN(4)
	open := n
	for range n {
		s.w.after(time.Duration(s.w.rand(o.k.key).IntN(30))*time.Millisecond, func() {
			s.attempt(o, i, func(bool) {
				if open--; open > 0 || s.ended || o.acked[i] {
					return
				}
				s.w.after(s.think(o.k.key), func() {
					if !s.ended {
						s.burst(o, i)
					}
				})
			})
		})
	}
}

// attempt sends write i once.
func (s *simulation) attempt(o *onceWriter, i int, then func(ok bool)) {
	n := s.pick(o.k.key)
	if n == nil {
		then(false)
		return
	}
	id := fmt.Sprintf("id/%d", i)
	c := check.Call{Client: "writer", Kind: check.Put, Key: o.k.key, Level: s.draw(o.k.key, o.k.writeAt), Value: o.k.key + "/" + strconv.Itoa(i), IdempotencyKey: id}
	if o.deletes[i] {
		c.Kind, c.Value = check.Delete, ""
	}
	answer := s.call(n, simTenant, c)
	answered := false
	finish := func(r coord.WriteResponse, err error) {
		if answered {
			return
		}
		answered = true
		if err == nil {
			answer(check.Answer{Outcome: check.OK, Dot: r.Dot, Context: r.Context, Duplicate: r.Duplicate})
			s.ackedOnce(o, i)
		} else {
			if err.(*coord.Error).Code == errcode.IdempotencyKeyConflict {
				s.fail("%s write %d: %v", o.k.key, i, err)
			}
			s.w.note("%v %+v", err, err.(*coord.Error).Causes)
			answer(failed(err))
		}
		then(err == nil)
	}
	s.w.after(clientPatience, func() {
		finish(coord.WriteResponse{}, &coord.Error{Code: errcode.Timeout, Outcome: errcode.Indeterminate})
	})
	key := []byte(o.k.key)
	if o.deletes[i] {
		n.coord.StartDelete(coord.DeleteRequest{Tenant: simTenant, Key: key, Level: c.Level, IdempotencyKey: []byte(id)}, finish)
	} else {
		n.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: key, Value: []byte(c.Value), Level: c.Level, IdempotencyKey: []byte(id)}, finish)
	}
}

func (s *simulation) ackedOnce(o *onceWriter, i int) {
	if o.acked[i] {
		return
	}
	o.acked[i] = true
	s.done["written once"]++
	s.w.after(s.think(o.k.key), func() { s.nextOnce(o) })
	if s.w.rand(o.k.key).IntN(2) == 0 {
		// Long after the next writes.
		s.w.after(time.Duration(s.w.rand(o.k.key).IntN(2000))*time.Millisecond, func() {
			if !s.ended {
				s.attempt(o, i, func(ok bool) {
					if ok {
						s.done["late retries"]++
					}
				})
			}
		})
	}
}

// healOnce sends the latest writes once more to a healthy cluster: those that
// were acknowledged are answered as before, and the last is made if it was not.
func (s *simulation) healOnce(o *onceWriter) {
	for i := max(1, o.k.writes-8); i <= o.k.writes; i++ {
		answered := 0
		s.attempt(o, i, func(ok bool) {
			answered++
			if !ok {
				s.fail("%s: a healthy cluster refuses write %d", o.k.key, i)
			}
		})
		s.w.advance(healTime)
		if answered != 1 {
			s.fail("%s write %d: %d answers", o.k.key, i, answered)
		}
	}
}
