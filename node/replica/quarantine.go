package replica

import (
	"encoding/binary"
	"errors"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/gossip/ring"
)

// quarantinedText says why a store refuses everything about a partition.
const quarantinedText = "this node's copy of the partition is damaged and is being fetched again"

// Quarantine makes the store refuse everything about the partitions, also what is
// under way and has not answered, until EndQuarantine. When it returns nil that outlives
// a power cut, and whoever asked may take the damaged data out of the engine.
func (s *Store) Quarantine(list []ring.Partition) error {
	_, err := s.marks.Add(list)
	return err
}

// Quarantined returns the partitions that are not served, ascending.
func (s *Store) Quarantined() []ring.Partition { return s.marks.List() }

// QuarantineChanged is closed when there are other ones.
func (s *Store) QuarantineChanged() <-chan struct{} { return s.marks.Changed() }

// EndQuarantine serves partitions again, which have been fetched from other owners since
// Marks.Fetching. Their marks are gone from the disk when it returns nil, but for those
// of which damage has taken more meanwhile: they stay under quarantine. It reads the
// partitions: what damage may have taken beside objects is written again first.
func (s *Store) EndQuarantine(list []ring.Partition) error {
	for _, p := range list {
		if !s.marks.Has(p) {
			continue
		}
		if err := s.reindex(p); err != nil {
			return err
		}
	}
	return s.marks.Remove(list)
}

// sound says why nothing is said about what was read of a partition, nil if there
// is no reason. It is asked after the engine: what damage has taken out of the
// engine was marked before.
func (s *Store) sound(p ring.Partition) error {
	if !s.marks.Has(p) {
		return nil
	}
	return &coord.Error{Code: errcode.Unavailable, Outcome: errcode.NotApplied, Message: quarantinedText}
}

// partitionOf returns the partition of a storage key.
func partitionOf(key []byte) ring.Partition { return ring.Partition(binary.BigEndian.Uint16(key)) }

// readError gives a failed engine read of a partition its code, and tells of damage.
// A read changes nothing.
func (s *Store) readError(p ring.Partition, err error) error {
	if errors.Is(err, base.ErrCorrupt) {
		s.met(Damage{Partition: p, Err: err})
	}
	return readError(err)
}

// undecodable gives a stored value that does not decode its code, and tells of it.
// The engine's checksums hold, so it was stored so.
func (s *Store) undecodable(key []byte, what string, err error) error {
	s.met(Damage{Partition: partitionOf(key), Key: append([]byte(nil), key...), Err: err})
	return &coord.Error{Code: errcode.CorruptedData, Outcome: errcode.NotApplied, Message: what + " does not decode", Err: err}
}

func (s *Store) met(d Damage) {
	if s.opts.Damaged != nil {
		s.opts.Damaged(d)
	}
}

// Damage is what a Store met where it should have found data.
type Damage struct {
	Partition ring.Partition
	// Key is the storage key of a value that does not decode; nil if the engine
	// could not read, as Err, which matches base.ErrCorrupt, says.
	Key []byte
	Err error
}

// RemoveUndecodable removes the value at a storage key if it still does not decode,
// so that another one can be stored there, and returns it. Its partition is under
// quarantine. It returns nil if there is nothing to remove.
func (s *Store) RemoveUndecodable(key []byte) ([]byte, error) {
	if len(key) < keyHead {
		return nil, nil
	}
	// A record is guarded by its key's lock, which its own key does not tell; but
	// nobody reads or writes either while the partition is under quarantine.
	lock := &s.stripes[stripeOf(key)]
	lock.Lock()
	defer lock.Unlock()
	value, _, err := s.opts.Engine.GetSeq(nil, key)
	if errors.Is(err, base.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, readError(err)
	}
	if key[2] == kindRecord {
		_, err = causal.DecodeRecord(value)
	} else {
		_, err = causal.Decode(value)
	}
	if err == nil {
		return nil, nil
	}
	b := new(engine.Batch)
	b.Delete(key)
	c, err := s.opts.Engine.Apply(b, engine.WriteOptions{Sync: true, Frees: true})
	if err != nil {
		return nil, writeError(err, c.Seq() != 0)
	}
	return value, nil
}
