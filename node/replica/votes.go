package replica

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/gossip/ring"
)

// maxVotes bounds the votes of a partition that are remembered. With more, those that
// are open are not known until the records are read again.
const maxVotes = 4096

// votes are the idempotency records of a partition that may be votes: those that were
// not applied when they were last looked at. They are candidates, and what is stored
// says whether they count.
type votes struct {
	loading sync.Mutex // held while the records are read

	mu struct {
		sync.Mutex
		// known says that every vote is in open; until then, and while the records
		// are read, gone has the records that are votes no more.
		known bool
		// open has for each storage key of a record that of the key's object.
		open map[string][]byte
		gone map[string]bool
	}
}

// add notes that a record may become a vote. The lock of the record's key is held.
func (v *votes) add(record, object []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mu.open == nil {
		if !v.mu.known && v.mu.gone == nil {
			return // they will be read
		}
		v.mu.open = map[string][]byte{}
	}
	if len(v.mu.open) >= maxVotes {
		v.mu.known, v.mu.open, v.mu.gone = false, nil, nil
		return
	}
	v.mu.open[string(record)] = bytes.Clone(object)
	delete(v.mu.gone, string(record))
}

// remove notes that a record is no vote any more.
func (v *votes) remove(record []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.mu.open, string(record))
	if v.mu.gone != nil && len(v.mu.gone) < maxVotes {
		// One that is not noted is looked at and found to be none.
		v.mu.gone[string(record)] = true
	}
}

// forget says that records went by other ways than writes: they are read again.
func (v *votes) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.known, v.mu.open, v.mu.gone = false, nil, nil
}

// list returns the votes that may be open, and whether these are all.
func (v *votes) list() (candidates map[string][]byte, known bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	candidates = make(map[string][]byte, len(v.mu.open))
	//seams:ordered a copy has no order
	for record, object := range v.mu.open {
		candidates[record] = object
	}
	return candidates, v.mu.known
}

// openVotes returns, for each actor with votes that are open, the counter below the
// lowest of them, sorted by actor; unlike in other contexts that may be 0. known is
// false if there are too many to say.
func (s *Store) openVotes(p ring.Partition) (below causal.Context, known bool, err error) {
	lowest := map[uint64]uint64{}
	known, err = s.eachVote(p, func(_ []byte, dot causal.Dot) {
		if at, ok := lowest[dot.Actor]; !ok || dot.Counter < at {
			lowest[dot.Actor] = dot.Counter
		}
	})
	if err != nil || !known {
		return nil, false, err
	}
	//seams:ordered sorted below
	for actor, counter := range lowest {
		below = append(below, causal.Dot{Actor: actor, Counter: counter - 1})
	}
	slices.SortFunc(below, causal.Dot.Compare)
	return below, true, nil
}

// eachVote calls do with the storage key of each vote that is open, and the dot that it is
// for, in no order. known is false, and do is not called, if there are too many to say.
func (s *Store) eachVote(p ring.Partition, do func(record []byte, dot causal.Dot)) (known bool, err error) {
	v := &s.partition(p).votes
	v.loading.Lock()
	defer v.loading.Unlock()
	if _, known = v.list(); !known {
		if err := s.readVotes(p, v); err != nil {
			return false, err
		}
	}
	candidates, known := v.list()
	if !known {
		return false, nil
	}
	w := s.scratch()
	defer s.putBack(w)
	//seams:ordered whoever is called puts them into an order
	for record, object := range candidates {
		if len(object) == keyHead { // nothing was stored there
			if object, err = s.objectOf([]byte(record)); err != nil {
				return false, err
			}
		}
		dot, open, err := s.openVote([]byte(record), object, w)
		if err != nil {
			return false, err
		}
		if open {
			do([]byte(record), dot)
		} else {
			v.remove([]byte(record))
		}
	}
	return true, nil
}

// openVote reports whether a record is a vote for a write that has not been made here,
// and for which dot. It takes the lock of the record's key, so that what is being
// written is over.
func (s *Store) openVote(record, object []byte, w *scratch) (causal.Dot, bool, error) {
	lock := &s.stripes[stripeOf(object)]
	lock.Lock()
	defer lock.Unlock()
	r, _, err := s.loadRecord(&w.value, record)
	if err != nil || r == nil || r.Applied || !s.opts.Records.holds(tenantOf(record), r, s.opts.Records.now()) {
		return causal.Dot{}, false, err
	}
	if s.settled(record, r.Dot) {
		return causal.Dot{}, false, nil
	}
	w.key = append(w.key[:0], object...)
	h, err := s.load(w)
	return r.Dot, !h.object.Context.Covers(r.Dot), err
}

// settled reports whether the write of a record is confirmed, so that it cannot be made
// here any more, whatever was voted for: an owner before this one has said so, or what
// covered the write has been collected since.
func (s *Store) settled(record []byte, d causal.Dot) bool {
	if s.opts.Tenant == nil {
		return false
	}
	t, ok := s.opts.Tenant(tenantOf(record))
	return ok && s.confirmed(partitionOf(record), t.Class).Seen.Covers(d)
}

// readVotes reads the records of a partition.
func (s *Store) readVotes(p ring.Partition, v *votes) error {
	v.mu.Lock()
	v.mu.known, v.mu.open, v.mu.gone = false, map[string][]byte{}, map[string]bool{}
	v.mu.Unlock()
	found, err := s.scanVotes(p)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil || v.mu.gone == nil { // too many came meanwhile
		v.mu.open, v.mu.gone = nil, nil
		return err
	}
	//seams:ordered the union has no order
	for record, object := range found {
		if !v.mu.gone[record] {
			v.mu.open[record] = object
		}
	}
	v.mu.gone = nil
	if v.mu.known = len(v.mu.open) < maxVotes; !v.mu.known {
		v.mu.open = nil
	}
	return nil
}

// scanVotes returns the votes that are open on disk, at most maxVotes.
func (s *Store) scanVotes(p ring.Partition) (found map[string][]byte, err error) {
	lower := append(binary.BigEndian.AppendUint16(nil, uint16(p)), kindRecord)
	it, err := s.opts.Engine.NewIter(lower, coord.Successor(lower))
	if err != nil {
		return nil, s.readError(p, err)
	}
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			err = s.readError(p, cerr)
		}
	}()
	found = map[string][]byte{}
	w := s.scratch()
	defer s.putBack(w)
	for ok := it.First(); ok && len(found) < maxVotes; ok = it.Next() {
		r, err := causal.DecodeRecord(it.Value())
		if err != nil {
			return nil, s.undecodable(it.Key(), "a stored idempotency record", err)
		}
		if r.Applied || !isRecordKey(it.Key()) {
			continue
		}
		record := bytes.Clone(it.Key())
		object, err := s.objectOf(record)
		if err != nil {
			return nil, err
		}
		_, open, err := s.openVote(record, object, w)
		if err != nil {
			return nil, err
		}
		if open {
			found[string(record)] = object
		}
	}
	return found, nil
}

// objectOf returns the storage key of the object that a record belongs to, of which
// the record has the token and a hash. If nothing is stored there, a key is made up of
// which nothing is stored either.
func (s *Store) objectOf(record []byte) ([]byte, error) {
	head := objectHead(record)
	it, err := s.opts.Engine.NewIter(head, coord.Successor(head))
	if err != nil {
		return nil, s.readError(partitionOf(record), err)
	}
	var found []byte
	for ok := it.First(); ok && found == nil; ok = it.Next() {
		if h := keyHash(it.Key()[keyHead:]); bytes.HasPrefix(record[keyHead:], h[:]) {
			found = bytes.Clone(it.Key())
		}
	}
	if err := it.Close(); err != nil {
		return nil, s.readError(partitionOf(record), err)
	}
	if found == nil {
		found = head
	}
	return found, nil
}

// admits refuses to adopt what covers a write that idempotency votes are open for.
func (s *Store) admits(of repair.Span, c *causal.Confirmed) error {
	below, known, err := s.openVotes(of.Partition)
	if err != nil {
		return err
	}
	for _, d := range below {
		known = known && c.Seen.Counter(d.Actor) <= d.Counter
	}
	if !known {
		return &coord.Error{
			Code: errcode.Unavailable, Outcome: errcode.NotApplied,
			Message: fmt.Sprintf("partition %d has votes for writes that may yet be made; the next round is to leave them out", of.Partition),
		}
	}
	return nil
}
