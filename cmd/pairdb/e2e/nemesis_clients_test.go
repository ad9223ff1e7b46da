package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

const (
	// lwwTenant and otherTenant have keys of the same names, with the last
	// writer winning.
	lwwTenant   = client.DefaultTenant
	otherTenant = "other"
	// siblingTenant keeps siblings.
	siblingTenant = "carts"
)

// clientKinds are the clients that run at the same time, and how many there are
// of each.
var clientKinds = []struct {
	count int
	run   func(s *storm, i int, rng *rand.Rand)
}{
	{registers, (*storm).writeRegister},
	{registers, (*storm).readRegister},
	{2, (*storm).writeSet},
	{2, (*storm).readSet},
	{4, (*storm).mixLevels},
	{12, (*storm).shop},
	{onceWriters, (*storm).writeOnce},
	{6, (*storm).recreate},
}

// registers is how many single writers there are at a time.
const registers = 6

// recent are the latest keys that somebody else wrote, for readers.
type recent struct {
	mu   sync.Mutex
	keys []string
}

func (r *recent) add(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = append(r.keys, key)
}

// some returns one of the last n, "" if there is none.
func (r *recent) some(rng *rand.Rand, n int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.keys) == 0 {
		return ""
	}
	return r.keys[len(r.keys)-1-rng.IntN(min(n, len(r.keys)))]
}

// writeRegister is the one writer of one key after another. A key whose last
// write may or may not be there is a register no more if it is written again, so
// it is left to its readers.
func (s *storm) writeRegister(i int, rng *rand.Rand) {
	var key string
	var writes, keys int
	var token client.Context
	var seen causal.Context
	for s.think(rng, 60*time.Millisecond) {
		if key == "" || writes == 40 {
			keys, writes, token, seen = keys+1, 0, client.Context{}, nil
			key = fmt.Sprintf("register/%d/%d", i, keys)
			s.registers[i].add(key)
		}
		writes++
		c := check.Call{Client: fmt.Sprintf("writer %d", i), Kind: check.Put, Tenant: lwwTenant, Key: key, Level: quorum.Quorum}
		if rng.IntN(8) == 0 {
			c.Level = quorum.All
		}
		if rng.IntN(4) == 0 {
			c.Kind = check.Delete
		} else {
			c.Value = check.Canary(c.Tenant, fmt.Sprintf("%s/%d", key, writes))
		}
		var with client.Context
		if rng.IntN(2) == 0 {
			with, c.Seen = token, seen
		}
		switch a, got := s.do(s.pick(rng), c, with); a.Outcome {
		case check.OK:
			token, seen = got, a.Context
		case check.Indeterminate:
			key = ""
			s.note("registers retired", 1)
		}
	}
}

func (s *storm) readRegister(i int, rng *rand.Rand) {
	for s.think(rng, 40*time.Millisecond) {
		if key := s.registers[i].some(rng, 3); key != "" {
			s.do(s.pick(rng), check.Call{Client: fmt.Sprintf("reader %d", i), Kind: check.Get, Tenant: lwwTenant, Key: key, Level: quorum.Quorum}, client.Context{})
		}
	}
}

// writeSet writes each key once. Those that are acknowledged are read for ever.
func (s *storm) writeSet(i int, rng *rand.Rand) {
	for n := 1; s.think(rng, 40*time.Millisecond); n++ {
		key := fmt.Sprintf("set/%d/%d", i, n)
		c := check.Call{
			Client: fmt.Sprintf("adder %d", i), Kind: check.Put, Tenant: lwwTenant, Key: key, Level: quorum.Quorum,
			Value: check.Canary(lwwTenant, key),
		}
		if a, _ := s.do(s.pick(rng), c, client.Context{}); a.Outcome == check.OK {
			s.set.add(key)
		}
	}
}

func (s *storm) readSet(i int, rng *rand.Rand) {
	for s.think(rng, 40*time.Millisecond) {
		if key := s.set.some(rng, 1<<20); key != "" {
			s.do(s.pick(rng), check.Call{Client: fmt.Sprintf("looker %d", i), Kind: check.Get, Tenant: lwwTenant, Key: key, Level: quorum.Quorum}, client.Context{})
		}
	}
}

// epoch is when all clients go on to new keys, so that no key has too many
// operations to judge.
func (s *storm) epoch(each time.Duration) int { return int(time.Since(s.began) / each) }

// mixLevels is one of several clients that write, delete and read a few keys of
// two tenants at all levels.
func (s *storm) mixLevels(i int, rng *rand.Rand) {
	levels := []quorum.Level{quorum.One, quorum.Quorum, quorum.All}
	for n := 1; s.think(rng, 40*time.Millisecond); n++ {
		c := check.Call{
			Client: fmt.Sprintf("mixer %d", i), Kind: check.Get, Tenant: lwwTenant, Level: levels[rng.IntN(3)],
			Key: fmt.Sprintf("mixed/%d/%d", s.epoch(8*time.Second), rng.IntN(3)),
		}
		if rng.IntN(2) == 0 {
			c.Tenant = otherTenant
		}
		switch rng.IntN(6) {
		case 0:
			c.Kind = check.Delete
		case 1, 2:
			c.Kind, c.Value = check.Put, check.Canary(c.Tenant, fmt.Sprintf("%d.%d", i, n))
		}
		s.do(s.pick(rng), c, client.Context{})
	}
}

// carts are keys of several shoppers: what is put in stays, as every shopper
// merges the carts it reads into the one it writes. shelves are likewise, but
// are emptied now and then.
const carts, shelves = "cart", "shelf"

// shop is one of three clients of a cart or shelf. Mostly it reads and then
// writes; sometimes it goes on from what it wrote last. A put without a context
// makes a sibling, which the next one merges.
func (s *storm) shop(i int, rng *rand.Rand) {
	kind := []string{carts, shelves}[i%2]
	var last struct {
		key   string
		items []string
		seen  causal.Context
		token client.Context
	}
	for n := 1; s.think(rng, 120*time.Millisecond); n++ {
		key := fmt.Sprintf("%s/%d/%d", kind, i%4, s.epoch(5*time.Second))
		c := check.Call{Client: fmt.Sprintf("shopper %d", i), Tenant: siblingTenant, Key: key, Level: quorum.Quorum}
		// known is what the context covers as far as the client was told.
		known, seen, token := last.items, last.seen, last.token
		if last.key != key || token.IsZero() || rng.IntN(3) > 0 {
			c.Kind = check.Get
			a, got := s.do(s.pick(rng), c, client.Context{})
			if a.Outcome != check.OK {
				continue
			}
			known, seen, token = nil, a.Context, got
			for _, v := range a.Siblings {
				known = append(known, inCart(v.Value)...)
			}
		}
		die := rng.IntN(10)
		if die < 3 {
			known, seen, token = nil, nil, client.Context{}
		}
		own := fmt.Sprintf("%d.%d", i, n)
		slices.Sort(known)
		// The first item is nobody else's, so no two values are the same.
		items := append([]string{own}, slices.Compact(known)...)
		c.Kind, c.Seen = check.Put, seen
		if kind == shelves && die%5 == 0 {
			c.Kind, items = check.Delete, nil
		} else {
			c.Value = check.Canary(siblingTenant, strings.Join(items, " "))
		}
		a, got := s.do(s.pick(rng), c, token)
		last.key, last.items, last.seen, last.token = key, items, a.Context, got
		if a.Outcome == check.OK && kind == carts {
			s.note("items in carts", 1)
		}
	}
}

// inCart returns what a value says is in a cart.
func inCart(value string) []string {
	_, items, _ := strings.Cut(value, "/")
	return strings.Fields(items)
}
