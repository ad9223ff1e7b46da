package replica

import (
	"encoding/binary"
	"errors"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/gossip/ring"
)

// reindexed is how many keys reindex holds in memory.
const reindexed = 256

// reindex writes what damage may have taken of a partition beside its objects: their
// entries in the index, without which nothing collects them, and what is known of its
// spans, which would be forgotten at the next start. Objects that were there all along
// are not written by a refetch. The partition is under quarantine.
func (s *Store) reindex(p ring.Partition) error {
	for from := append(binary.BigEndian.AppendUint16(nil, uint16(p)), kindObject); from != nil; {
		var err error
		if from, err = s.reindexPiece(p, from); err != nil {
			return err
		}
	}
	if err := s.storeSpans(p); err != nil {
		return err
	}
	return s.awaitDurable(s.opts.Engine.VisibleSeq())
}

// reindexPiece does so for some objects from a storage key on, and returns where the
// next ones begin, nil if there are none.
func (s *Store) reindexPiece(p ring.Partition, from []byte) (next []byte, err error) {
	keys, next, err := s.transient(p, from)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if err := s.reindexKey(p, key); err != nil {
			return nil, err
		}
	}
	return next, nil
}

// transient returns the storage keys of objects that the index has to name.
func (s *Store) transient(p ring.Partition, from []byte) (keys [][]byte, next []byte, err error) {
	upper := coord.Successor(append(binary.BigEndian.AppendUint16(nil, uint16(p)), kindObject))
	it, err := s.opts.Engine.NewIter(from, upper)
	if err != nil {
		return nil, nil, s.readError(p, err)
	}
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			err = s.readError(p, cerr)
		}
	}()
	for ok := it.First(); ok; ok = it.Next() {
		if len(keys) == reindexed {
			return keys, append([]byte(nil), it.Key()...), nil
		}
		o, err := causal.Decode(it.Value())
		if err != nil {
			return nil, nil, s.undecodable(it.Key(), "the stored object", err)
		}
		if o.Transient() {
			keys = append(keys, append([]byte(nil), it.Key()...))
		}
	}
	return keys, nil, nil
}

// reindexKey writes the entry of one object.
func (s *Store) reindexKey(p ring.Partition, key []byte) error {
	lock := &s.stripes[stripeOf(key)]
	lock.Lock()
	defer lock.Unlock()
	value, _, err := s.opts.Engine.GetSeq(nil, key)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return s.readError(p, err)
	}
	o, err := causal.Decode(value)
	if err != nil {
		return s.undecodable(key, "the stored object", err)
	}
	b := s.batches.Get().(*engine.Batch)
	defer s.releaseBatch(b)
	var nothing causal.Object
	putIndex(b, nil, key, &nothing, &o)
	if b.Len() == 0 {
		return nil
	}
	_, err = s.apply(b, false)
	return err
}

// storeSpans writes what is known of the spans of a partition, and has them swept.
func (s *Store) storeSpans(p ring.Partition) error {
	at := s.partitions[p].Load()
	if at == nil {
		return nil
	}
	if at.lost.Load() && s.opts.Own != nil {
		// Of those that were not told of by other owners nothing is known, and that is
		// to be so after the next start, too.
		for _, c := range s.opts.Own() {
			if err := s.storeLost(repair.Span{Partition: p, Class: c}); err != nil {
				return err
			}
		}
	}
	var err error
	at.spans(func(c ring.Class, sp *span) {
		if err != nil {
			return
		}
		of := repair.Span{Partition: p, Class: c}
		if err = s.storeSpan(of, sp); err == nil && !loaded(&sp.released).IsZero() {
			s.sweep(of)
		}
	})
	if err == nil {
		at.lost.Store(false)
	}
	return err
}

// storeLost has a class that a tenant has for itself part from the one that it was born in,
// knowing what it does.
func (s *Store) storeLost(of repair.Span) error {
	h, err := s.hold(of)
	switch {
	case errors.Is(err, errDeleted):
		return nil
	case err != nil:
		return err
	}
	defer h.free()
	if h.born == nil {
		return nil // it has
	}
	return h.store(h.known, false)
}

func (s *Store) storeSpan(of repair.Span, sp *span) error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	t, own := of.Class.Own()
	switch {
	case own && (!sp.split() || s.gone(t)):
		return nil
	case !own && loaded(&sp.confirmed).IsZero():
		return nil
	}
	confirmed, released := loaded(&sp.confirmed), loaded(&sp.released)
	// The highest clock of what was collected may be among what is lost. By the clock
	// of this node nothing that was collected is from the future.
	sp.floor.Store(causal.NextHLC(s.opts.Records.now(), sp.floor.Load()))
	b := s.batches.Get().(*engine.Batch)
	defer s.releaseBatch(b)
	b.Set(spanKey(of), appendSpan(nil, sp.floor.Load(), confirmed, released))
	_, err := s.apply(b, false)
	return err
}
