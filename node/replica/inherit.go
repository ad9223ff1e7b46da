package replica

import (
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/gossip/ring"
)

// Known implements repair.Replica. Reads hide what was confirmed and may go, also where
// it was not collected yet: whoever takes this copy over gets the clocks of that with
// the floor, which by this node's clock is above all of them.
func (s *Store) Known(of repair.Span) (confirmed, released causal.Confirmed, floor uint64, err error) {
	at, err := s.find(of)
	if err == nil {
		err = s.takesReads()
	}
	if err != nil {
		return confirmed, released, 0, err
	}
	k := at.told(of.Class)
	released, confirmed, floor = *k.released, *k.confirmed, k.floor
	if !confirmed.IsZero() {
		floor = causal.NextHLC(s.opts.Records.now(), floor)
	}
	return confirmed, released, floor, nil
}

// Inherit implements repair.Replica. Unlike Adopt it is not refused for the sake of
// idempotency votes: what others have confirmed of a span that this node takes over is
// so, whatever was voted for here before.
func (s *Store) Inherit(of repair.Span, pv ring.Version, confirmed, released *causal.Confirmed, floor uint64) error {
	if err := s.takesWrites(); err != nil {
		return err
	}
	h, err := s.hold(of)
	if err != nil {
		return err
	}
	defer h.free()
	// A drop holds the same lock, so that nothing is left behind by what comes after it.
	if s.moved(&coord.Address{Partition: of.Partition, PV: pv}) {
		return coord.ErrMoved
	}
	held := h.known
	all := confirmed.Join(released) // what is released was adopted by everybody
	news, sweep := !all.Within(held.confirmed), !released.Within(held.released)
	if !news && !sweep && floor <= held.floor {
		return nil
	}
	all, gone := all.Join(held.confirmed), released.Join(held.released)
	if floor = max(floor, held.floor); news {
		floor = causal.NextHLC(s.opts.Records.now(), floor)
	}
	return h.store(known{&all, &gone, floor}, sweep)
}

// Told implements repair.Replica. When it returns, no merge is under way any more that
// joins whole, and what such merges have brought is visible.
func (s *Store) Told(of repair.Span, change ring.Version) error {
	at, err := s.find(of)
	if err != nil {
		return err
	}
	at.add(of.Class).told.Store(uint64(change))
	s.passLocks()
	return nil
}

// told reports whether an old owner has told all there is of the span that an item is of.
// The key's lock is held.
func (s *Store) told(in *coord.MergeItem) bool {
	sp := s.spanOf(in.Partition, in.Class)
	return sp != nil && sp.told.Load() == uint64(in.Gaining)
}
