package replica

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/gossip/ring"
)

var _ repair.Replica = (*Store)(nil)

// maxRecordBytes bounds the records of one answer.
const maxRecordBytes = 512 << 10

// recordKey is the storage key of what a row is about.
func recordKey(p ring.Partition, row *repair.RecordRow) []byte {
	at := coord.Address{Partition: p, Tenant: row.Tenant, Token: row.Token}
	return append(append(appendHead(nil, kindRecord, &at), row.KeyHash[:]...), row.IdempotencyKey...)
}

// recordRow is the row about a record at its storage key.
func recordRow(key, value []byte) repair.RecordRow {
	row := repair.RecordRow{
		Tenant: tenantOf(key), Token: ring.Token(binary.BigEndian.Uint64(key[7:])),
		IdempotencyKey: bytes.Clone(key[keyHead+16:]), Record: bytes.Clone(value),
	}
	copy(row.KeyHash[:], key[keyHead:])
	return row
}

// Records implements repair.Replica.
func (s *Store) Records(of repair.Span, after *repair.RecordRow, limit int, votes bool) (rows []repair.RecordRow, more bool, err error) {
	if err := s.takesReads(); err != nil {
		return nil, false, err
	}
	head := append(binary.BigEndian.AppendUint16(nil, uint16(of.Partition)), kindRecord)
	lower := head
	if after != nil {
		lower = append(recordKey(of.Partition, after), 0)
	}
	it, err := s.opts.Engine.NewIter(lower, coord.Successor(head))
	if err != nil {
		return nil, false, s.readError(of.Partition, err)
	}
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			err = s.readError(of.Partition, cerr)
		}
	}()
	now := s.opts.Records.now()
	size := 0
	var newest base.SeqNum
	for ok := it.First(); ok; ok = it.Next() {
		key := it.Key()
		t, known := Tenant{}, false
		if s.opts.Tenant != nil {
			t, known = s.opts.Tenant(tenantOf(key))
		}
		if !known || t.Class != of.Class || len(key) < keyHead+16 {
			continue
		}
		r, err := causal.DecodeRecord(it.Value())
		if err != nil {
			return nil, false, s.undecodable(key, "a stored idempotency record", err)
		}
		if !r.Applied && !votes || !s.opts.Records.holds(tenantOf(key), &r, now) {
			continue
		}
		if more = len(rows) >= limit || size >= maxRecordBytes; more {
			break
		}
		newest = max(newest, it.Seq())
		rows = append(rows, recordRow(key, it.Value()))
		size += len(key) + len(it.Value())
	}
	return rows, more, s.awaitDurable(newest)
}

// restored bounds the rows that are written at once with the locks of all keys held: the
// lock of a record is that of its key, which a row does not tell.
const restored = 64

// Restore implements repair.Replica. A vote counts as one that this node was asked for
// now: it does not take the place of what was agreed or of a later round, and comes too
// late for what is confirmed.
func (s *Store) Restore(of repair.Span, pv ring.Version, rows []repair.RecordRow) error {
	if err := s.takesWrites(); err != nil {
		return err
	}
	return s.restoreAll(of, pv, rows, func(_ []byte, tenant ring.TenantNumber, old, r *causal.Record, now time.Time) (bool, error) {
		return s.restores(of, tenant, old, r, now), nil
	})
}

// decides says whether a record that another owner has is written at a storage key, over
// old, nil for nothing. The locks of all keys are held.
type decides func(key []byte, tenant ring.TenantNumber, old, r *causal.Record, now time.Time) (bool, error)

// restoreAll writes those of the rows that are to be, on disk when it returns nil.
func (s *Store) restoreAll(of repair.Span, pv ring.Version, rows []repair.RecordRow, wants decides) error {
	var seq base.SeqNum
	for len(rows) > 0 {
		some := rows[:min(len(rows), restored)]
		rows = rows[len(some):]
		at, err := s.restore(of, pv, some, wants)
		if err != nil {
			return err
		}
		seq = max(seq, at)
	}
	return s.awaitDurable(seq)
}

// restore writes some rows as one batch, and returns its number, 0 if nothing was to be
// written.
func (s *Store) restore(of repair.Span, pv ring.Version, rows []repair.RecordRow, wants decides) (seq base.SeqNum, err error) {
	now := s.opts.Records.now()
	b := s.batches.Get().(*engine.Batch)
	defer s.releaseBatch(b)
	buf := s.buffer()
	defer s.release(buf)
	s.lockAll()
	defer s.unlockAll()
	if s.moved(&coord.Address{Partition: of.Partition, PV: pv}) {
		return 0, coord.ErrMoved
	}
	var placed []func()
	for i := range rows {
		row := &rows[i]
		r, err := causal.DecodeRecord(row.Record)
		if err != nil {
			return 0, &coord.Error{
				Code: errcode.InvalidArgument, Outcome: errcode.NotApplied,
				Message: fmt.Sprintf("a record of partition %d that another owner sent does not decode", of.Partition), Err: err,
			}
		}
		key := recordKey(of.Partition, row)
		old, _, err := s.loadRecord(buf, key)
		if err != nil {
			return 0, err
		}
		if s.gone(row.Tenant) {
			continue
		}
		if ok, err := wants(key, row.Tenant, old, &r, now); err != nil {
			return 0, err
		} else if !ok {
			continue
		}
		var before, was int64
		if old != nil {
			before, was = old.Expires, int64(len(key)+len(*buf))
		}
		size := int64(len(key) + len(row.Record))
		if err := s.opts.Records.room(row.Tenant, size-was); err != nil {
			return 0, err
		}
		b.Set(key, row.Record)
		if int(of.Partition) < len(s.partitions) {
			if v := &s.partition(of.Partition).votes; r.Applied {
				v.remove(key)
			} else {
				v.add(key, objectHead(key))
			}
		}
		placed = append(placed, func() { s.opts.Records.replace(row.Tenant, before, was, r.Expires, size) })
	}
	if len(placed) == 0 {
		return 0, nil
	}
	if seq, err = s.apply(b, false); err != nil {
		return 0, err
	}
	for _, f := range placed {
		f()
	}
	return seq, nil
}

// restores decides whether a record that another owner has is written here, over old,
// nil for nothing.
func (s *Store) restores(of repair.Span, tenant ring.TenantNumber, old, r *causal.Record, now time.Time) bool {
	counts := old != nil && s.opts.Records.holds(tenant, old, now)
	switch {
	case !s.opts.Records.holds(tenant, r, now):
		return false
	case r.Applied:
		return !counts || old.Yields(r)
	}
	return (!counts || old.GivesWay(r)) && !s.confirmed(of.Partition, of.Class).Seen.Covers(r.Dot)
}

// objectHead stands for the storage key of the object that a record belongs to, as long
// as that is not known.
func objectHead(record []byte) []byte {
	head := bytes.Clone(record[:keyHead])
	head[2] = kindObject
	return head
}
