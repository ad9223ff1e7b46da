package coord_test

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// sharedKey has several writers that never delete, blindly, with tokens and with
// idempotency keys, so that writes with reserved dots meet all others. Nothing is
// promised about their order; but there is always a value, and one that came
// with an idempotency key has one dot.
type sharedKey struct {
	key   string
	n     int
	acked bool
	token []byte
	// dots are those of the values that came with an idempotency key.
	dots map[string]causal.Dot
	// values are those of dots that were read.
	values map[causal.Dot]string
}

// keyedMark ends the values that come with an idempotency key.
const keyedMark = "!"

func (s *simulation) startShared() {
	k := &sharedKey{key: "shared", dots: map[string]causal.Dot{}, values: map[causal.Dot]string{}}
	s.shared = k
	for range 3 {
		s.writeShared(k)
	}
	for range 2 {
		s.readShared(k)
	}
}

func (s *simulation) writeShared(k *sharedKey) {
	s.w.after(s.think(), func() {
		if s.ended {
			return
		}
		k.n++
		r := coord.PutRequest{Tenant: simTenant, Key: []byte(k.key)}
		value := k.key + "/" + strconv.Itoa(k.n)
		attempts := 1
		switch s.w.rng.IntN(4) {
		case 0:
			r.Token = k.token
		case 1, 2:
			value += keyedMark
			r.IdempotencyKey = []byte(value)
			attempts = 1 + s.w.rng.IntN(2)
			if s.w.rng.IntN(4) == 0 {
				r.Token = k.token
			}
		}
		r.Value = []byte(value)
		open := attempts
		for range attempts {
			s.putShared(k, r, func() {
				if open--; open == 0 {
					s.writeShared(k)
				}
			})
		}
	})
}

func (s *simulation) putShared(k *sharedKey, r coord.PutRequest, then func()) {
	n := s.pick()
	if n == nil {
		s.w.after(s.think(), then)
		return
	}
	answered := false
	finish := func(w coord.WriteResponse, err error) {
		if answered {
			return
		}
		answered = true
		if err == nil {
			s.done["shared"]++
			k.acked, k.token = true, w.Token
			s.keyedDot(k, string(r.Value), w.Dot)
		} else if err.(*coord.Error).Code == errcode.IdempotencyKeyConflict {
			s.fail("%q: %v", r.Value, err)
		}
		s.w.note("put %q: %s, %v", r.Value, dotString(w.Dot), err)
		then()
	}
	s.w.after(7*time.Second, func() {
		finish(coord.WriteResponse{}, &coord.Error{Code: errcode.Timeout, Outcome: errcode.Indeterminate})
	})
	n.coord.StartPut(r, finish)
}

func (s *simulation) keyedDot(k *sharedKey, value string, d causal.Dot) {
	if !strings.HasSuffix(value, keyedMark) {
		return
	}
	if old, ok := k.dots[value]; ok && old != d {
		s.fail("%q was made twice, as %s and as %s", value, dotString(old), dotString(d))
	}
	k.dots[value] = d
}

func (s *simulation) readShared(k *sharedKey) {
	s.w.after(s.think(), func() {
		n := s.pick()
		if s.ended {
			return
		}
		if n == nil {
			s.readShared(k)
			return
		}
		acked, answered := k.acked, false
		finish := func(r coord.GetResponse, err error) {
			if answered {
				return
			}
			answered = true
			s.sawShared(k, acked, r, err)
			s.readShared(k)
		}
		s.w.after(7*time.Second, func() { finish(coord.GetResponse{}, &coord.Error{Code: errcode.Timeout}) })
		n.coord.StartGet(coord.GetRequest{Tenant: simTenant, Key: []byte(k.key)}, finish)
	})
}

func (s *simulation) sawShared(k *sharedKey, acked bool, r coord.GetResponse, err error) {
	switch {
	case err == nil:
		v := string(r.Siblings[0].Value)
		if old, ok := k.values[r.Siblings[0].Dot]; ok && old != v {
			s.fail("dot %s is %q and %q", dotString(r.Siblings[0].Dot), old, v)
		}
		k.values[r.Siblings[0].Dot] = v
		s.keyedDot(k, v, r.Siblings[0].Dot)
		s.w.note("read %q", v)
	case acked && err.(*coord.Error).Code == errcode.KeyNotFound:
		s.fail("%s has no value, though one was acknowledged", k.key)
	}
}

// healShared sends the latest writes with idempotency keys once more and
// compares the owners.
func (s *simulation) healShared(k *sharedKey) {
	w := s.w
	for i := max(1, k.n-8); i <= k.n; i++ {
		value := fmt.Sprintf("%s/%d%s", k.key, i, keyedMark)
		if _, ok := k.dots[value]; !ok {
			continue
		}
		done := false
		s.putShared(k, coord.PutRequest{Tenant: simTenant, Key: []byte(k.key), Value: []byte(value), IdempotencyKey: []byte(value)}, func() { done = true })
		w.advance(4 * time.Second)
		if !done {
			s.fail("%q: no answer", value)
		}
	}
	w.node("a").coord.StartGet(coord.GetRequest{Tenant: simTenant, Key: []byte(k.key), Level: quorum.All}, func(r coord.GetResponse, err error) {
		if err != nil && (k.acked || err.(*coord.Error).Code != errcode.KeyNotFound) {
			s.fail("%s: %v", k.key, err)
			return
		}
		s.sawShared(k, k.acked, r, err)
	})
	w.advance(4 * time.Second)
	at := w.address(k.key)
	var first causal.Object
	for i, id := range w.layout.Owners(nil, at.Partition, 3) {
		o := w.nodes[id[0]-1].disk.object(at)
		if i == 0 {
			first = o
		} else if !o.Equal(&first) {
			s.fail("%s: owners differ: %s and %s", k.key, objectString(first), objectString(o))
		}
	}
}
