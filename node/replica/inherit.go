package replica

import (
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/gossip/ring"
)

// Known implements repair.Replica. Reads hide what was confirmed and may go, also where
// it was not collected yet: whoever takes this copy over gets the clocks of that with
// the floor, which by this node's clock is above all of them.
func (s *Store) Known(of repair.Span) (confirmed, released causal.Confirmed, floor uint64, err error) {
	sp, err := s.find(of)
	if err == nil {
		err = s.takesReads()
	}
	if err != nil {
		return confirmed, released, 0, err
	}
	// What is released first, since that is adopted before.
	released, confirmed, floor = *loaded(&sp.released), *loaded(&sp.confirmed), sp.floor.Load()
	if !confirmed.IsZero() {
		floor = causal.NextHLC(s.opts.Records.now(), floor)
	}
	return confirmed, released, floor, nil
}

// Inherit implements repair.Replica. Unlike Adopt it is not refused for the sake of
// idempotency votes: what others have confirmed of a span that this node takes over is
// so, whatever was voted for here before.
func (s *Store) Inherit(of repair.Span, pv ring.Version, confirmed, released *causal.Confirmed, floor uint64) error {
	sp, err := s.find(of)
	if err == nil {
		err = s.takesWrites()
	}
	if err != nil {
		return err
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	// A drop holds sp.mu, too, so that nothing is left behind by what comes after it.
	if s.moved(&coord.Address{Partition: of.Partition, PV: pv}) {
		return coord.ErrMoved
	}
	heldConfirmed, heldReleased, heldFloor := loaded(&sp.confirmed), loaded(&sp.released), sp.floor.Load()
	all := confirmed.Join(released) // what is released was adopted by everybody
	news, sweep := !all.Within(heldConfirmed), !released.Within(heldReleased)
	if !news && !sweep && floor <= heldFloor {
		return nil
	}
	all, gone := all.Join(heldConfirmed), released.Join(heldReleased)
	if floor = max(floor, heldFloor); news {
		floor = causal.NextHLC(s.opts.Records.now(), floor)
	}
	b := s.batches.Get().(*engine.Batch)
	defer s.releaseBatch(b)
	b.Set(spanKey(of), appendSpan(nil, floor, &all, &gone))
	// Before it is stored: nobody mints below what is known here to be gone.
	sp.floor.Store(floor)
	seq, err := s.apply(b, false)
	if err == nil {
		if err = s.opts.Engine.WaitDurable(seq); err != nil {
			err = writeError(err, true)
		}
	}
	if err != nil {
		return err
	}
	sp.confirmed.Store(&all)
	sp.released.Store(&gone)
	s.passLocks()
	if sweep {
		s.sweep(of)
	}
	return nil
}

// Told implements repair.Replica. When it returns, no merge is under way any more that
// joins whole, and what such merges have brought is visible.
func (s *Store) Told(of repair.Span, change ring.Version) error {
	sp, err := s.find(of)
	if err != nil {
		return err
	}
	sp.told.Store(uint64(change))
	s.passLocks()
	return nil
}

// told reports whether an old owner has told all there is of the span that an item is of.
// The key's lock is held.
func (s *Store) told(in *coord.MergeItem) bool {
	sp := s.spanOf(in.Partition, in.RF)
	return sp != nil && sp.told.Load() == uint64(in.Gaining)
}
