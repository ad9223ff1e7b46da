package hints

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/pairdb/pairdb/gossip/ring"
)

// batch is one transaction: hints that come and go, and the summaries of their
// targets.
type batch struct {
	d        *disk
	epoch    int
	removals []removal
	adds     []string

	// What commits changes of what is known in memory, once it is on disk.
	after   map[ring.NodeID]*backlog
	stored  []string
	dropped []removal
	gone    []removal
	again   []string // those that were there, for marks of what is in flight
}

// take moves what fits from the lists into the batch, and returns the rest.
func (b *batch) take(removals []removal, adds []string) ([]removal, []string) {
	n := min(len(removals), maxBatch)
	b.removals, removals = removals[:n], removals[n:]
	size, i := 0, 0
	for i < len(adds) && i < maxBatch-n && size < maxBatchBytes {
		size += len(adds[i])
		i++
	}
	b.adds, adds = adds[:i], adds[i:]
	return removals, adds
}

// dropAll drops the hints that the batch was to add.
func (b *batch) dropAll(why Reason) {
	s := b.d.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range b.adds {
		s.dropLocked(k, why)
	}
}

// commit does it. After an error nothing of it is done.
func (b *batch) commit() error {
	s := b.d.s
	db := b.d.db
	if db == nil {
		b.dropAll(Broken)
		return nil
	}
	if len(b.adds) > 0 && !s.opts.Room() {
		b.dropAll(NoRoom)
		b.adds = nil
	}
	b.after = map[ring.NodeID]*backlog{}
	err := db.Update(func(tx *badger.Txn) error {
		for _, r := range b.removals {
			if err := b.remove(tx, r); err != nil {
				return err
			}
		}
		for _, k := range b.adds {
			if err := b.add(tx, k); err != nil {
				return err
			}
		}
		for id, l := range b.after {
			var err error
			if l.count > 0 {
				err = tx.Set(summaryKey(id), l.encode())
			} else {
				err = tx.Delete(summaryKey(id))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.note()
	return nil
}

// of returns what the target will have.
func (b *batch) of(id ring.NodeID) *backlog {
	if l := b.after[id]; l != nil {
		return l
	}
	l := new(backlog)
	b.d.s.mu.Lock()
	if t := b.d.s.mu.targets[id]; t != nil {
		*l = t.backlog
		l.ages = slices.Clone(l.ages)
	}
	b.d.s.mu.Unlock()
	b.after[id] = l
	return l
}

func (b *batch) slot(ms int64) int64 {
	return ms / max(b.d.s.opts.Window.Milliseconds()/ageSlots, 1)
}

func (b *batch) remove(tx *badger.Txn, r removal) error {
	if r.epoch != b.epoch {
		return nil // of a store that is gone
	}
	if r.reason != Window && b.d.s.wroteMeanwhile(r.key) {
		return nil
	}
	item, err := tx.Get([]byte(r.key))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	v, err := item.ValueCopy(nil)
	if err != nil {
		return err
	}
	if len(v) != 8 {
		return errHint
	}
	if err := tx.Delete([]byte(r.key)); err != nil {
		return err
	}
	b.of(targetOf(r.key)).remove(sizeOf(r.key), b.slot(int64(binary.BigEndian.Uint64(v))))
	b.gone = append(b.gone, r)
	return nil
}

// wroteMeanwhile ends the delivery of a hint, and reports whether the hint has to
// stay because another write came meanwhile, which the target may lack.
func (s *Store) wroteMeanwhile(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.mu.targets[targetOf(key)]
	if t == nil {
		return false
	}
	again := t.inFlight[key]
	delete(t.inFlight, key)
	return again
}

func (b *batch) add(tx *badger.Txn, k string) error {
	s := b.d.s
	now := s.opts.Now()
	switch _, err := tx.Get([]byte(k)); {
	case err == nil:
		b.again = append(b.again, k)
		return nil
	case !errors.Is(err, badger.ErrKeyNotFound):
		return err
	}
	id := targetOf(k)
	l := b.of(id)
	s.mu.Lock()
	t := s.mu.targets[id]
	overdue := t != nil && t.overdue(now, s.opts.Window)
	s.mu.Unlock()
	switch {
	case overdue:
		b.dropped = append(b.dropped, removal{key: k, reason: Window})
		return nil
	case l.bytes+sizeOf(k) > s.opts.MaxBytes:
		b.dropped = append(b.dropped, removal{key: k, reason: Cap})
		return nil
	}
	ms := now.UnixMilli()
	if err := tx.Set([]byte(k), binary.BigEndian.AppendUint64(nil, uint64(ms))); err != nil {
		return err
	}
	l.add(sizeOf(k), ms, b.slot(ms))
	b.stored = append(b.stored, k)
	return nil
}

// note makes what is on disk known.
func (b *batch) note() {
	s := b.d.s
	var notices []Notice
	s.mu.Lock()
	s.mu.stats.Stored += uint64(len(b.stored))
	s.mu.stats.Coalesced += uint64(len(b.again))
	for _, k := range b.again {
		if t := s.mu.targets[targetOf(k)]; t != nil {
			if _, flies := t.inFlight[k]; flies {
				t.inFlight[k] = true
			}
		}
	}
	for _, r := range b.dropped {
		s.dropLocked(r.key, r.reason)
	}
	delivered := map[ring.NodeID]bool{}
	for _, r := range b.gone {
		if r.reason == Window {
			s.dropLocked(r.key, r.reason)
			continue
		}
		s.mu.stats.Removed[r.reason]++
		delivered[targetOf(r.key)] = true
	}
	began := false
	for id, l := range b.after {
		t := s.mu.targets[id]
		if t == nil {
			t = &target{inFlight: map[string]bool{}}
			s.mu.targets[id] = t
		}
		before := t.count
		t.backlog = *l
		switch {
		case before == 0 && l.count > 0:
			began = true
			notices = append(notices, Notice{Target: id, Kept: true})
		case before > 0 && l.count == 0 && delivered[id]:
			notices = append(notices, Notice{Target: id, Emptied: true})
		}
		if l.count == 0 && t.away.IsZero() && len(t.inFlight) == 0 {
			delete(s.mu.targets, id)
		}
	}
	s.mu.Unlock()
	if began {
		s.notifyChanged()
	}
	for _, n := range notices {
		s.opts.Notice(n)
	}
}
