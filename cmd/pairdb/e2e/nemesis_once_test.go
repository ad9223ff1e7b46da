package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/coord/quorum"
)

// onceWriters is how many clients send writes with idempotency keys.
const onceWriters = 12

// oncePrefix begins the keys of those writes.
const oncePrefix = "once/"

// errand is one write with an idempotency key.
type errand struct {
	call check.Call
	seen client.Context
	// answer and token are those of the first acknowledgement.
	answer check.Answer
	token  client.Context
}

// writeOnce makes one write after another, each of a key of its own and each
// sent two to four times through different nodes at about the same time, and
// then again until it is acknowledged. Some are sent once more much later, after
// the key was overwritten or deleted by another such write.
func (s *storm) writeOnce(i int, rng *rand.Rand) {
	for n := 1; s.think(rng, 200*time.Millisecond); n++ {
		key := fmt.Sprintf("%s%d/%d", oncePrefix, i, n)
		e := &errand{call: check.Call{
			Client: fmt.Sprintf("sender %d", i), Kind: check.Put, Tenant: lwwTenant, Key: key, Level: quorum.Quorum,
			Value: check.Canary(lwwTenant, key), IdempotencyKey: "first",
		}}
		if !s.errand(e, rng) {
			return
		}
		look := e.call
		look.Client, look.Kind, look.Value, look.IdempotencyKey = fmt.Sprintf("checker %d", i), check.Get, "", ""
		s.do(s.pick(rng), look, client.Context{})
		if rng.IntN(4) == 0 {
			next := &errand{call: e.call}
			next.call.IdempotencyKey = "second"
			if next.call.Value += "/again"; rng.IntN(3) == 0 {
				next.call.Kind, next.call.Value = check.Delete, ""
			}
			if rng.IntN(2) == 0 {
				next.seen, next.call.Seen = e.token, e.answer.Context
			}
			if !s.errand(next, rng) {
				return
			}
			s.do(s.pick(rng), look, client.Context{})
		}
		if rng.IntN(3) == 0 {
			s.sendLate(e, rng.Uint64())
		}
	}
}

// errand sends a write until it is acknowledged. It goes on after the clients
// have been told to end, in a cluster that heals.
func (s *storm) errand(e *errand, rng *rand.Rand) bool {
	s.note("idempotent writes", 1)
	attempts := 2 + rng.IntN(3)
	order := slices.Clone(s.present())
	rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	var mu sync.Mutex // guards e.answer and e.token
	send := func(at int) {
		s.note("idempotent attempts", 1)
		a, token := s.do(at, e.call, e.seen)
		mu.Lock()
		defer mu.Unlock()
		if a.Outcome == check.OK && e.answer.Outcome != check.OK {
			e.answer, e.token = a, token
		}
	}
	var wg sync.WaitGroup
	for k := range attempts {
		after := time.Duration(rng.IntN(40)) * time.Millisecond
		wg.Go(func() {
			<-time.After(after)
			send(order[k%len(order)])
		})
	}
	wg.Wait()
	for late := time.After(4 * time.Minute); e.answer.Outcome != check.OK; {
		select {
		case <-late:
			s.wrong("%s: no attempt was acknowledged", e.call.Key)
			return false
		case <-time.After(time.Duration(rng.IntN(300)) * time.Millisecond):
			send(s.pick(rng))
		}
	}
	return true
}

// sendLate sends a write that was acknowledged once more, some time later or
// when the clients end.
func (s *storm) sendLate(e *errand, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	s.late.Go(func() {
		select {
		case <-s.ended:
		case <-time.After(time.Duration(rng.IntN(10_000)) * time.Millisecond):
		}
		s.note("idempotent attempts", 1)
		s.note("late attempts", 1)
		s.do(s.pick(rng), e.call, e.seen)
	})
}
