package coord_test

import (
	"fmt"
	"strconv"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// onceWriter is the one writer of a key that sends each write several times,
// each time through a node of its own, until one is acknowledged, and now and
// then once more much later. Readers hold the key to what they hold every other
// register to; beside that each write must have one dot.
type onceWriter struct {
	k *register
	// dots has the dot of each value that was acknowledged or seen.
	dots map[string]causal.Dot
	// acked has the dot of each acknowledged write, first whether an attempt was
	// answered as the one that began it.
	acked map[int]causal.Dot
	first map[int]bool
}

func (s *simulation) startOnce(key string) {
	k := &register{key: key, level: quorum.Quorum, writes: make([]written, 1)}
	k.writes[0].deleted = true
	o := &onceWriter{k: k, dots: map[string]causal.Dot{}, acked: map[int]causal.Dot{}, first: map[int]bool{}}
	s.keys = append(s.keys, k)
	s.once = append(s.once, o)
	s.w.after(s.think(), func() { s.nextOnce(o) })
	s.read(k)
}

// nextOnce begins the next write.
func (s *simulation) nextOnce(o *onceWriter) {
	if s.ended {
		return
	}
	i := len(o.k.writes)
	o.k.writes = append(o.k.writes, written{deleted: s.w.rng.IntN(4) == 0})
	s.burst(o, i)
}

// burst sends write i one to four times at about the same time. Until one of
// them is acknowledged it is sent again.
func (s *simulation) burst(o *onceWriter, i int) {
	n := 1 + s.w.rng.IntN(4)
	open := n
	for range n {
		s.w.after(time.Duration(s.w.rng.IntN(30))*time.Millisecond, func() {
			s.attempt(o, i, func(bool) {
				if open--; open > 0 || s.ended {
					return
				}
				if _, ok := o.acked[i]; !ok {
					s.w.after(s.think(), func() {
						if !s.ended {
							s.burst(o, i)
						}
					})
				}
			})
		})
	}
}

// attempt sends write i once.
func (s *simulation) attempt(o *onceWriter, i int, then func(ok bool)) {
	n := s.pick()
	if n == nil {
		then(false)
		return
	}
	answered := false
	finish := func(r coord.WriteResponse, err error) {
		if answered {
			return
		}
		answered = true
		if err == nil {
			s.ackedOnce(o, i, r)
		} else if e := err.(*coord.Error); e.Outcome == "" || e.Code == errcode.IdempotencyKeyConflict {
			s.fail("%s write %d: %v with the outcome %q", o.k.key, i, err, e.Outcome)
		}
		s.w.note("%s write %d: %s duplicate %v, %v", o.k.key, i, dotString(r.Dot), r.Duplicate, err)
		then(err == nil)
	}
	s.w.after(7*time.Second, func() {
		finish(coord.WriteResponse{}, &coord.Error{Code: errcode.Timeout, Outcome: errcode.Indeterminate})
	})
	id := fmt.Appendf(nil, "id/%d", i)
	key := []byte(o.k.key)
	if o.k.writes[i].deleted {
		n.coord.StartDelete(coord.DeleteRequest{Tenant: simTenant, Key: key, IdempotencyKey: id}, finish)
	} else {
		n.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: key, Value: []byte(o.value(i)), IdempotencyKey: id}, finish)
	}
}

func (o *onceWriter) value(i int) string { return o.k.key + "/" + strconv.Itoa(i) }

func (s *simulation) ackedOnce(o *onceWriter, i int, r coord.WriteResponse) {
	old, again := o.acked[i]
	if again && old != r.Dot {
		s.fail("%s write %d was acknowledged as %s and as %s", o.k.key, i, dotString(old), dotString(r.Dot))
	}
	if !r.Duplicate && o.first[i] {
		s.fail("%s write %d was begun twice", o.k.key, i)
	}
	o.acked[i] = r.Dot
	o.first[i] = o.first[i] || !r.Duplicate
	if !o.k.writes[i].deleted {
		s.onlyDot(o.k.key, o.value(i), r.Dot)
	}
	if again {
		return
	}
	s.done["written once"]++
	o.k.least = max(o.k.least, i)
	o.k.seen = causal.JoinContext(o.k.seen, r.Context)
	s.w.after(s.think(), func() { s.nextOnce(o) })
	if s.w.rng.IntN(2) == 0 {
		// Long after the next writes.
		s.w.after(time.Duration(s.w.rng.IntN(2000))*time.Millisecond, func() {
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

// onlyDot checks that a value of a key that is written once has one dot.
func (s *simulation) onlyDot(key, value string, d causal.Dot) {
	for _, o := range s.once {
		if o.k.key != key {
			continue
		}
		if old, ok := o.dots[value]; ok && old != d {
			s.fail("%q was made twice, as %s and as %s", value, dotString(old), dotString(d))
		}
		o.dots[value] = d
	}
}

// healOnce sends the latest writes once more to a healthy cluster: those that
// were acknowledged are answered as before, and the last is made if it was not.
func (s *simulation) healOnce(o *onceWriter) {
	w := s.w
	for i := max(1, len(o.k.writes)-8); i < len(o.k.writes); i++ {
		answered := 0
		s.attempt(o, i, func(ok bool) {
			answered++
			if !ok {
				s.fail("%s: a healthy cluster refuses write %d", o.k.key, i)
			}
		})
		w.advance(4 * time.Second)
		if answered != 1 {
			s.fail("%s write %d: %d answers", o.k.key, i, answered)
		}
	}
}
