package coord

import (
	"cmp"
	"math/bits"
	"sync/atomic"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
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
// where there is none or nobody knows. As many have to hold the same vote as need
// says.
//
// A vote never changes within a round, so that no two writes get these votes in
// it. A round in which no write can get them any more, whatever those say that
// have not voted in it, gives way to the next; only the latest round counts.
// A record that is applied says that there was an agreement.
//
// While the owners change, the old ones decide what may win, because they alone may
// have agreed before the change: a write that enough of them vote for is the one
// that further rounds are about, should the new owners have voted for another.
func decide(held []*causal.Record, need quorum.Goal) decision {
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
	var open, most uint16
	var lowest *causal.Record
	for i, r := range held {
		if r == nil || r.Round != d.round {
			open |= 1 << i
			continue
		}
		var votes uint16
		for k, s := range held {
			if s != nil && s.Round == d.round && s.Dot == r.Dot {
				votes |= 1 << k
			}
		}
		if c := cmp.Or(
			bits.OnesCount16(votes&need.First.Members)-bits.OnesCount16(most&need.First.Members),
			bits.OnesCount16(votes)-bits.OnesCount16(most),
		); d.candidate == nil || c > 0 || c == 0 && r.Dot.Compare(d.candidate.Dot) < 0 {
			most, d.candidate = votes, r
		}
		if lowest == nil || r.Dot.Compare(lowest.Dot) < 0 {
			lowest = r
		}
	}
	old := quorum.Goal{First: need.First}
	switch {
	case d.candidate == nil:
	case need.Met(most):
		d.agreed = d.candidate
	case !old.Met(most | open):
		// Whoever sees the same votes asks for the same write.
		d.candidate, d.round = lowest, d.round+1
	case old.Met(most) && !need.Met(most|open):
		d.round++
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
