package coord_test

import (
	"strconv"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// keptKey is a key of a tenant that keeps siblings, and what its several
// writers did to it.
type keptKey struct {
	key string
	// writeAt and readAt are the levels of which each operation draws one.
	writeAt, readAt []quorum.Level
	// blindDeletes says that some deletes have no token, and hot that most puts
	// have none.
	blindDeletes, hot bool
	writes            []*keptWrite
	// read and wrote are the last answers with a context, for some writer to
	// use.
	read  coord.GetResponse
	wrote coord.WriteResponse
}

// keptWrite is one write. Its answer names it; a read may.
type keptWrite struct {
	value string
	del   bool
	// covers is what its token covers; look says that it is a delete without.
	covers       causal.Context
	look         bool
	dot          causal.Dot // zero while nobody knows
	began, ended time.Duration
	acked, never bool
	// gone is an acknowledged write that may have superseded it, if one is known.
	gone *keptWrite
}

// runSiblings has several writers and readers a key of a tenant that keeps
// siblings.
func (s *simulation) runSiblings() {
	for i := range 6 {
		k := &keptKey{key: "s" + strconv.Itoa(i), writeAt: atQuorum, readAt: atMost}
		switch i {
		case 1:
			k.blindDeletes = true
		case 2:
			k.hot = true
		case 3:
			k.writeAt, k.readAt = atOne, atOne
		case 4:
			k.writeAt, k.readAt = atAll, atEvery
		case 5:
			k.writeAt, k.readAt = atEvery, atEvery
		}
		if !s.starts(k.key) {
			continue
		}
		s.kept = append(s.kept, k)
		for range 3 {
			s.change(k)
		}
		for range 2 {
			s.look(k)
		}
	}
	s.w.advance(s.plan.until())
	s.heal()
	dumps := s.readAll(simKeeper)
	s.whole(dumps)
	s.verdict(dumps)
}

// change is the next operation of one of a key's writers.
func (s *simulation) change(k *keptKey) {
	s.w.after(s.think(k.key), func() {
		n := s.pick(k.key)
		if s.ended {
			return
		}
		if n == nil {
			s.change(k)
			return
		}
		x, token := s.chooseChange(k)
		c := check.Call{Client: "writer", Kind: check.Put, Key: k.key, Level: s.draw(k.key, k.writeAt), Value: x.value, Seen: x.covers}
		if x.del {
			c.Kind, c.Value = check.Delete, ""
		}
		answer := s.call(n, simKeeper, c)
		answered := false
		finish := func(r coord.WriteResponse, err error) {
			if answered {
				return
			}
			answered = true
			answer(s.changed(k, x, c.Level, r, err))
			if x.never {
				s.w.after(time.Second, func() { s.change(k) }) // who is refused waits
				return
			}
			s.change(k)
		}
		s.w.after(clientPatience, func() {
			finish(coord.WriteResponse{}, &coord.Error{Code: errcode.Timeout, Outcome: errcode.Indeterminate})
		})
		if x.del {
			n.coord.StartDelete(coord.DeleteRequest{Tenant: simKeeper, Key: []byte(k.key), Level: c.Level, Token: token}, finish)
		} else {
			n.coord.StartPut(coord.PutRequest{Tenant: simKeeper, Key: []byte(k.key), Value: []byte(x.value), Level: c.Level, Token: token}, finish)
		}
	})
}

// chooseChange says what is written next, and with what token.
func (s *simulation) chooseChange(k *keptKey) (x *keptWrite, token []byte) {
	random := s.w.rand(k.key)
	x = &keptWrite{value: k.key + "/" + strconv.Itoa(len(k.writes)), began: s.w.now, ended: 1 << 62}
	k.writes = append(k.writes, x)
	die := random.IntN(100)
	if k.hot {
		die /= 2
	}
	switch {
	case die < 40 || k.read.Token == nil:
	case die < 55 && k.wrote.Token != nil:
		token, x.covers = k.wrote.Token, k.wrote.Context
	case die < 85:
		token, x.covers = k.read.Token, k.read.Context
	default:
		x.del, token, x.covers = true, k.read.Token, k.read.Context
		if k.blindDeletes && random.IntN(2) == 0 {
			x.look, token, x.covers = true, nil, nil
		}
	}
	return x, token
}

func (s *simulation) changed(k *keptKey, x *keptWrite, at quorum.Level, r coord.WriteResponse, err error) check.Answer {
	x.ended = s.w.now
	if err != nil {
		e := err.(*coord.Error)
		s.done["failed "+string(e.Outcome)]++
		if e.Code == errcode.PreconditionFailed {
			s.done["refused at the limit"]++
			if len(e.Token) == 0 {
				s.fail("%s: a refusal without a context: %v", x.value, err)
			}
		}
		x.never = e.Outcome == errcode.NotApplied
		return failed(err)
	}
	s.done["written"]++
	if at == quorum.All {
		s.done["written to all"]++
	}
	x.dot, x.acked = r.Dot, true
	if (len(r.Token) == 0) != (len(r.Context) == 0) {
		s.fail("%s: the answer has a context of %v and a token of %d bytes", x.value, r.Context, len(r.Token))
	}
	if len(r.Token) == 0 {
		s.done["no context"]++
	} else {
		k.wrote = r
	}
	// A write may claim what it superseded and itself, not a value that its
	// client was never shown.
	for _, y := range k.writes {
		shown := y == x || y.del || x.look || y.dot == causal.Dot{} || !r.Context.Covers(y.dot) || x.covers.Covers(y.dot)
		if !shown && !s.superseded(k, y, x.ended) {
			s.fail("%s: the answer claims %s, which its client was not shown", x.value, y.value)
		}
	}
	return check.Answer{Outcome: check.OK, Dot: r.Dot, Context: r.Context}
}

// superseded reports whether some write that began before the given time may
// have replaced x: its token covered it, or it is a delete that looked after x
// had begun.
func (s *simulation) superseded(k *keptKey, x *keptWrite, by time.Duration) bool {
	if x.gone != nil && x.gone.began <= by {
		return true
	}
	for _, y := range k.writes {
		switch {
		case y == x || y.never || y.began > by:
		case y.look && y.ended > x.began, !y.look && y.covers.Covers(x.dot):
			if y.acked {
				x.gone = y
			}
			return true
		}
	}
	return false
}

// look is the next operation of one of a key's readers.
func (s *simulation) look(k *keptKey) {
	s.w.after(s.think(k.key), func() {
		n := s.pick(k.key)
		if s.ended {
			return
		}
		if n == nil {
			s.look(k)
			return
		}
		level := s.draw(k.key, k.readAt)
		answer := s.call(n, simKeeper, check.Call{Client: "reader", Kind: check.Get, Key: k.key, Level: level})
		answered := false
		finish := func(r coord.GetResponse, err error) {
			if answered {
				return
			}
			answered = true
			answer(s.saw(r, err))
			if err == nil {
				k.read = r
				s.inOrder(k, r)
			}
			s.look(k)
		}
		s.w.after(clientPatience, func() { finish(coord.GetResponse{}, &coord.Error{Code: errcode.Timeout}) })
		n.coord.StartGet(coord.GetRequest{Tenant: simKeeper, Key: []byte(k.key), Level: level}, finish)
	})
}

// inOrder checks the order of what a read returned: who would win where the last
// writer does, and then all others by their dots.
func (s *simulation) inOrder(k *keptKey, r coord.GetResponse) {
	if len(r.Siblings) > 1 {
		s.done["read several"]++
	}
	for i := range r.Siblings {
		v := &r.Siblings[i]
		switch {
		case i > 0 && v.Beats(&r.Siblings[0]):
			s.fail("%s: %s wins over %s, which came first", k.key, v.Value, r.Siblings[0].Value)
		case i > 1 && v.Dot.Compare(r.Siblings[i-1].Dot) <= 0:
			s.fail("%s: the siblings after the first are not in order", k.key)
		}
	}
}

// whole checks that owners hold all values, and that the last read showed them.
func (s *simulation) whole(dumps []check.Dump) {
	for _, d := range dumps {
		for k, o := range d.Objects {
			live := 0
			for i := range o.Siblings {
				if v := &o.Siblings[i]; v.Live(time.Time{}) {
					live++
				} else if !v.Tombstone() {
					s.fail("%s: %s dropped the value of %s", k.Key, d.Replica, s.w.dotString(v.Dot))
				}
			}
			if live != s.shown[k.Key] {
				s.fail("%s: the read showed %d of %d values that %s has", k.Key, s.shown[k.Key], live, d.Replica)
			}
		}
	}
}
