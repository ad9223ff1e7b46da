package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/gossip/ring"
)

const (
	// recordSlot is how finely the ages of records are told apart.
	recordSlot = 10 * time.Second
	// youngRecord is the age up to which no record is dropped to make room: the
	// owners may still be voting about it.
	youngRecord = time.Minute
)

// RecordSpace bounds what idempotency records take on this node, tenant by
// tenant. A tenant over its limit loses its oldest records, which then count as
// absent like those that expired; one that fills its limit within a minute is
// refused more. It counts keys and values as they are stored, in bytes, and is
// safe for concurrent use. What it forgets at a restart comes back with Count;
// records that were dropped before and are still there count again then.
type RecordSpace struct {
	limit int64
	now   func() time.Time

	mu      sync.Mutex
	tenants map[ring.TenantNumber]*recordAges
	bytes   int64 // of all tenants
	dropped int64 // since the start
}

// recordAges are the records of one tenant by when they expire.
type recordAges struct {
	bytes int64
	slots map[int64]int64 // bytes by slot of the expiry
	// first is the oldest slot that counts: those before it have expired or were
	// dropped.
	first int64
}

// NewRecordSpace returns a space without records. limit is in bytes, for each
// tenant, and above 0; now must be safe for concurrent use.
func NewRecordSpace(limit int64, now func() time.Time) *RecordSpace {
	return &RecordSpace{limit: limit, now: now, tenants: map[ring.TenantNumber]*recordAges{}}
}

func slotOf(ms int64) int64 { return ms / recordSlot.Milliseconds() }

// Bytes returns how many bytes of records count now, and how many were dropped
// since the start because a tenant had too many.
func (s *RecordSpace) Bytes() (held, dropped int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := slotOf(s.now().UnixMilli())
	//seams:ordered tenants are independent and sums have no order
	for _, t := range s.tenants {
		s.forget(t, now)
	}
	return s.bytes, s.dropped
}

// holds reports whether a record counts: it has neither expired nor been
// dropped.
func (s *RecordSpace) holds(tenant ring.TenantNumber, r *causal.Record, now time.Time) bool {
	if !r.Live(now) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tenants[tenant]
	return t == nil || slotOf(r.Expires) >= t.first
}

// Drop reports whether a stored value is a record that does not count any more.
// It is a filter for the engine's compactions. A record that does not decode is
// damage, and stays to be found.
func (s *RecordSpace) Drop(key, value []byte) bool {
	if !isRecordKey(key) {
		return false
	}
	r, err := causal.DecodeRecord(value)
	return err == nil && !s.holds(tenantOf(key), &r, s.now())
}

func isRecordKey(key []byte) bool { return len(key) > keyHead && key[2] == kindRecord }

// tenantOf is the tenant in a storage key.
func tenantOf(key []byte) ring.TenantNumber {
	return ring.TenantNumber(binary.BigEndian.Uint32(key[3:]))
}

// remove takes size bytes of records out that expire in one slot.
func (s *RecordSpace) remove(tenant ring.TenantNumber, slot, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tenants[tenant]; t != nil {
		s.count(t, slot, -size)
	}
}

// drop takes all records of a tenant out.
func (s *RecordSpace) drop(tenant ring.TenantNumber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tenants[tenant]; t != nil {
		s.bytes -= t.bytes
		delete(s.tenants, tenant)
	}
}

// replace counts a record of size bytes in the place of one that had was bytes
// and expired at before, 0 and 0 if there was none, and makes room.
func (s *RecordSpace) replace(tenant ring.TenantNumber, before, was, expires, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tenants[tenant]
	if t == nil {
		t = &recordAges{slots: map[int64]int64{}}
		s.tenants[tenant] = t
	}
	now := s.now()
	s.forget(t, slotOf(now.UnixMilli()))
	s.count(t, slotOf(before), -was)
	s.count(t, slotOf(expires), size)
	young := slotOf(now.Add(coord.RecordLife - youngRecord).UnixMilli())
	for t.bytes > s.limit {
		oldest := young
		//seams:ordered a minimum has no order
		for slot := range t.slots {
			oldest = min(oldest, slot)
		}
		if oldest == young {
			return
		}
		s.dropped += t.slots[oldest]
		s.forget(t, oldest+1)
	}
}

// room returns an error if a tenant has so many young records that none more is
// taken.
func (s *RecordSpace) room(tenant ring.TenantNumber, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tenants[tenant]
	if t == nil || t.bytes+size <= s.limit {
		return nil
	}
	young := slotOf(s.now().Add(coord.RecordLife - youngRecord).UnixMilli())
	//seams:ordered all are asked for one that is old
	for slot := range t.slots {
		if slot < young {
			return nil // it can be dropped
		}
	}
	return &coord.Error{
		Code: errcode.ResourceExhausted, Outcome: errcode.NotApplied,
		Message: fmt.Sprintf("the tenant's idempotency keys of the last minute take the %d bytes that a node remembers of them; send fewer, or raise limits.idempotency_bytes", s.limit),
	}
}

// count adds size bytes to a slot that counts. The lock is held.
func (s *RecordSpace) count(t *recordAges, slot, size int64) {
	if slot < t.first || size == 0 {
		return
	}
	t.bytes += size
	s.bytes += size
	if t.slots[slot] += size; t.slots[slot] == 0 {
		delete(t.slots, slot)
	}
}

// forget lets go of the slots before first. The lock is held.
func (s *RecordSpace) forget(t *recordAges, first int64) {
	if first <= t.first {
		return
	}
	t.first = first
	//seams:ordered each is taken away by itself
	for slot, size := range t.slots {
		if slot < first {
			t.bytes -= size
			s.bytes -= size
			delete(t.slots, slot)
		}
	}
}

// Count begins to count the records that db has at this moment, and returns the
// job that reads them all, for a goroutine of its own; it closes what it reads
// from. stop ends it early. Count must be called before the first write of the
// store that uses s.
func (s *RecordSpace) Count(db *engine.DB, partitions int) (job func(stop func() bool) error, err error) {
	it, err := db.NewIter(nil, nil)
	if err != nil {
		return nil, err
	}
	return func(stop func() bool) (err error) {
		defer func() { err = errors.Join(err, it.Close()) }()
		for p := 0; p < partitions && !stop(); p++ {
			lower := append(binary.BigEndian.AppendUint16(nil, uint16(p)), kindRecord)
			for ok := it.SeekGE(lower); ok && bytes.HasPrefix(it.Key(), lower) && !stop(); ok = it.Next() {
				if r, err := causal.DecodeRecord(it.Value()); err == nil && isRecordKey(it.Key()) {
					s.replace(tenantOf(it.Key()), 0, 0, r.Expires, int64(len(it.Key())+len(it.Value())))
				}
			}
			if err := it.Error(); err != nil {
				return fmt.Errorf("count idempotency records of partition %d: %w", p, err)
			}
		}
		return nil
	}, nil
}
