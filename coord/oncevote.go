package coord

import (
	"sync/atomic"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// decision is what the votes about one idempotency key say.
type decision struct {
	// agreed is the write that the key stands for; nil while that is open.
	agreed *causal.Record
	// candidate is whom to ask votes for, in round; nil if nobody has voted.
	candidate *causal.Record
	round     uint32
}

// decide looks at the records that the owners of a key are known to hold, nil
// where there is none or nobody knows. need owners have to hold the same vote.
//
// A vote never changes within a round, so that no two writes get need votes in
// it. A round in which no write can get them any more, whatever those say that
// have not voted in it, gives way to the next; only the latest round counts.
// A record that is applied says that there was an agreement.
func decide(held []*causal.Record, need int) decision {
	var d decision
	for _, r := range held {
		if r == nil {
			continue
		}
		if r.Applied && (d.agreed == nil || d.agreed.Yields(r)) {
			d.agreed = r
		}
		d.round = max(d.round, r.Round)
	}
	if d.agreed != nil {
		return d
	}
	open, most := 0, 0
	var lowest *causal.Record
	for _, r := range held {
		if r == nil || r.Round != d.round {
			open++
			continue
		}
		n := 0
		for _, s := range held {
			if s != nil && s.Round == d.round && s.Dot == r.Dot {
				n++
			}
		}
		if n > most || n == most && r.Dot.Compare(d.candidate.Dot) < 0 {
			most, d.candidate = n, r
		}
		if lowest == nil || r.Dot.Compare(lowest.Dot) < 0 {
			lowest = r
		}
	}
	switch {
	case most >= need:
		d.agreed = d.candidate
	case d.candidate != nil && most+open < need:
		// Whoever sees the same votes asks for the same write.
		d.candidate, d.round = lowest, d.round+1
	}
	return d
}

// foreign reports whether one of the records is about another payload.
func foreign(held []*causal.Record, payload [16]byte) bool {
	for _, r := range held {
		if r != nil && r.Payload != payload {
			return true
		}
	}
	return false
}

// clocks remember how high the clocks of writes are whose dots were reserved. A
// later mint of this node covers such a dot, whether the write is in the object
// by then or not, since a context says "up to"; and what covers a write must
// have a higher clock. Keys share slots, which makes some clocks higher than
// they need be and nothing worse. A new start has a new actor and begins anew.
type clocks struct{ slots [1024]atomic.Uint64 }

func (c *clocks) slot(t ring.Token) *atomic.Uint64 { return &c.slots[uint64(t)%uint64(len(c.slots))] }

// highest returns the highest clock reserved for a key of that token.
func (c *clocks) highest(t ring.Token) uint64 { return c.slot(t).Load() }

// raise notes a reserved clock. The caller holds the key's lock of the replica.
func (c *clocks) raise(t ring.Token, hlc uint64) {
	for s := c.slot(t); ; {
		old := s.Load()
		if hlc <= old || s.CompareAndSwap(old, hlc) {
			return
		}
	}
}
