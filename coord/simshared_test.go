package coord_test

import (
	"strconv"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// sharedName is a key that has several writers: they never delete, and write
// blindly, with tokens and with idempotency keys, so that writes with reserved
// dots meet all others.
const sharedName = "shared"

type sharedKey struct {
	writes int
	// acked is the last write that was acknowledged, for some writer to use.
	acked coord.WriteResponse
	// keyed are the latest writes with idempotency keys.
	keyed []sharedWrite
}

// sharedWrite is a write and the context that its token covers.
type sharedWrite struct {
	put  coord.PutRequest
	seen causal.Context
}

// retried is how many writes are sent once more in the end.
const retried = 8

func (s *simulation) startShared() {
	s.shared = &sharedKey{}
	for i := range 3 {
		s.writeShared(s.shared, "writer "+strconv.Itoa(i))
	}
	reads := &register{key: sharedName, readAt: atMost}
	for i := range 2 {
		s.read(reads, "reader "+strconv.Itoa(i))
	}
}

func (s *simulation) writeShared(k *sharedKey, client string) {
	s.w.after(s.think(sharedName), func() {
		if s.ended {
			return
		}
		k.writes++
		random := s.w.rand(sharedName)
		value := sharedName + "/" + strconv.Itoa(k.writes)
		x := sharedWrite{put: coord.PutRequest{
			Tenant: simTenant, Key: []byte(sharedName), Value: []byte(value), Level: s.draw(sharedName, atMost),
		}}
		attempts := 1
		die := random.IntN(4)
		if die == 0 || die == 1 && random.IntN(2) == 0 {
			x.put.Token, x.seen = k.acked.Token, k.acked.Context
		}
		if die == 1 || die == 2 {
			x.put.IdempotencyKey = []byte(value)
			attempts += random.IntN(2)
			k.keyed = append(k.keyed[max(0, len(k.keyed)-retried+1):], x)
		}
		open := attempts
		for range attempts {
			s.putShared(k, client, x, func(bool) {
				if open--; open == 0 {
					s.writeShared(k, client)
				}
			})
		}
	})
}

func (s *simulation) putShared(k *sharedKey, client string, x sharedWrite, then func(ok bool)) {
	n := s.pick(sharedName)
	if n == nil {
		s.w.after(s.think(sharedName), func() { then(false) })
		return
	}
	answer := s.call(n, simTenant, check.Call{
		Client: client, Kind: check.Put, Key: sharedName, Level: x.put.Level, Value: string(x.put.Value),
		IdempotencyKey: string(x.put.IdempotencyKey), Seen: x.seen,
	})
	answered := false
	finish := func(r coord.WriteResponse, err error) {
		if answered {
			return
		}
		answered = true
		if err != nil {
			if err.(*coord.Error).Code == errcode.IdempotencyKeyConflict {
				s.fail("%q: %v", x.put.Value, err)
			}
			s.w.note("%v %+v", err, err.(*coord.Error).Causes)
			answer(failed(err))
			then(false)
			return
		}
		s.done["shared"]++
		k.acked = r
		answer(check.Answer{Outcome: check.OK, Dot: r.Dot, Context: r.Context, Duplicate: r.Duplicate})
		then(true)
	}
	s.w.after(clientPatience, func() {
		finish(coord.WriteResponse{}, &coord.Error{Code: errcode.Timeout, Outcome: errcode.Indeterminate})
	})
	n.coord.StartPut(x.put, finish)
}

// healShared sends the latest writes with idempotency keys once more to a healthy
// cluster.
func (s *simulation) healShared(k *sharedKey) {
	for _, x := range k.keyed {
		done := false
		x.put.Level = quorum.Quorum
		s.putShared(k, healClient, x, func(ok bool) { done = ok })
		s.w.advance(healTime)
		if !done {
			s.fail("%q: a healthy cluster refuses it", x.put.Value)
		}
	}
}
