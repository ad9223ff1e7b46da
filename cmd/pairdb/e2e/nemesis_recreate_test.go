package e2e

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// clockSlack bounds what the clocks of nodes and clients, which are on one machine,
// differ in; an instant of expiry has whole milliseconds.
const clockSlack = 50 * time.Millisecond

// recreate is one of several clients that put, delete and put again a few keys of two
// tenants, one of which keeps siblings. Half of the values expire. What is gone has to
// stay gone, though the same keys have values all the time.
func (s *storm) recreate(i int, rng *rand.Rand) {
	type known struct {
		seen  causal.Context
		token client.Context
	}
	last := map[check.Key]known{}
	for n := 1; s.think(rng, 60*time.Millisecond); n++ {
		k := check.Key{Tenant: lwwTenant, Key: fmt.Sprintf("again/%d/%d", s.epoch(6*time.Second), rng.IntN(4))}
		if rng.IntN(2) == 0 {
			k.Tenant = siblingTenant
		}
		c := check.Call{
			Client: fmt.Sprintf("recreator %d", i), Kind: check.Get, Tenant: k.Tenant, Key: k.Key,
			Level: []quorum.Level{quorum.Quorum, quorum.Quorum, quorum.Quorum, quorum.All}[rng.IntN(4)],
		}
		var with client.Context
		switch rng.IntN(5) {
		case 0, 1:
			c.Kind, c.Value = check.Put, check.Canary(c.Tenant, fmt.Sprintf("%d.%d", i, n))
			if rng.IntN(2) == 0 {
				at := time.Since(s.began) + time.Duration(200+rng.IntN(4000))*time.Millisecond
				c.Fades = &check.Fading{From: at - clockSlack, To: at + clockSlack}
				s.note("values that expire", 1)
			}
		case 2:
			c.Kind = check.Delete
		}
		if c.Kind != check.Get && rng.IntN(2) == 0 {
			with, c.Seen = last[k].token, last[k].seen
		}
		a, token := s.do(s.pick(rng), c, with)
		if a.Outcome == check.OK {
			last[k] = known{a.Context, token}
		}
	}
}
