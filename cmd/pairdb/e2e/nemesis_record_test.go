package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// patience is when a client gives up: its node may be stopped.
const patience = 4 * time.Second

// think pauses a client, for mean on average, and reports whether it is to go on.
func (s *storm) think(rng *rand.Rand, mean time.Duration) bool {
	select {
	case <-s.ended:
		return false
	case <-time.After(time.Duration(rng.Int64N(int64(2 * mean)))):
		return true
	}
}

func (s *storm) pick(rng *rand.Rand) int {
	here := s.present()
	return here[rng.IntN(len(here))]
}

// do sends an operation to one node and to no other, and has it recorded. seen
// is the token of the call's context, if it has one. It returns the answer and
// the token that came with it.
func (s *storm) do(at int, c check.Call, seen client.Context) (check.Answer, client.Context) {
	c.Node, c.LWW = s.agents[at].name, c.Tenant != siblingTenant
	c.At = time.Since(s.began)
	id := s.rec.Call(c)
	a, token := s.send(at, &c, seen)
	a.At = time.Since(s.began)
	s.rec.Answer(id, a)
	outcome := string(a.Outcome)
	if a.Outcome == check.NotApplied {
		outcome = "not applied"
	}
	s.note(string(c.Kind)+" "+c.Level.String()+" "+outcome, 1)
	return a, token
}

func (s *storm) send(at int, c *check.Call, seen client.Context) (check.Answer, client.Context) {
	cl, ctx := s.clients[at], context.Background() // the client has a timeout
	opts := []client.CallOption{client.WithTenant(c.Tenant), client.WithLevel(clientLevel(c.Level)), client.WithContext(seen)}
	if c.IdempotencyKey != "" {
		opts = append(opts, client.WithIdempotencyKey(c.IdempotencyKey))
	}
	if c.Fades != nil {
		opts = append(opts, client.WithExpiry(s.began.Add((c.Fades.From+c.Fades.To)/2)))
	}
	switch c.Kind {
	case check.Put:
		r, err := cl.Put(ctx, c.Key, []byte(c.Value), opts...)
		if err != nil {
			return s.failed(err), client.Context{}
		}
		return written(r.Dot, r.Proto().GetVectorClock(), r.Duplicate), r.Context
	case check.Delete:
		r, err := cl.Delete(ctx, c.Key, opts...)
		if err != nil {
			return s.failed(err), client.Context{}
		}
		return written(r.Dot, r.Proto().GetVectorClock(), r.Duplicate), r.Context
	}
	r, err := cl.Get(ctx, c.Key, opts...)
	if errors.Is(err, client.ErrKeyNotFound) {
		return check.Answer{Outcome: check.OK}, client.Context{}
	}
	if err != nil {
		return s.failed(err), client.Context{}
	}
	a := check.Answer{Outcome: check.OK, Context: clock(r.Proto().GetVectorClock())}
	for _, v := range r.Siblings {
		a.Siblings = append(a.Siblings, check.Version{Dot: causal.Dot(v.Dot), Value: string(v.Value)})
	}
	return a, r.Context
}

// failed is the answer that is an error. A read that failed is told no outcome.
func (s *storm) failed(err error) check.Answer {
	var e *client.Error
	if !errors.As(err, &e) {
		s.wrong("an error without a type: %v", err)
		return check.Answer{Outcome: check.Indeterminate}
	}
	if e.Code == errcode.IdempotencyKeyConflict || e.Code == errcode.Internal {
		s.wrong("%v", err)
	}
	a := check.Answer{Outcome: check.Indeterminate, Code: string(e.Code)}
	if e.Outcome == errcode.NotApplied {
		a.Outcome = check.NotApplied
	}
	return a
}

func written(d client.Dot, entries []*pairdbv1.ClockEntry, duplicate bool) check.Answer {
	return check.Answer{Outcome: check.OK, Dot: causal.Dot(d), Context: clock(entries), Duplicate: duplicate}
}

func clock(entries []*pairdbv1.ClockEntry) causal.Context {
	var dots []causal.Dot
	for _, e := range entries {
		dots = append(dots, causal.Dot{Actor: e.GetActor(), Counter: e.GetCounter()})
	}
	return causal.NewContext(dots...)
}

func clientLevel(l quorum.Level) client.Level {
	switch l {
	case quorum.One:
		return client.LevelOne
	case quorum.All:
		return client.LevelAll
	}
	return client.LevelQuorum
}
