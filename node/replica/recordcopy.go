package replica

import (
	"bytes"
	"encoding/binary"
	"fmt"

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

// Records implements repair.Replica.
func (s *Store) Records(of repair.Span, after *repair.RecordRow, limit int) (rows []repair.RecordRow, more bool, err error) {
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
		if !known || t.RF != of.RF || len(key) < keyHead+16 {
			continue
		}
		r, err := causal.DecodeRecord(it.Value())
		if err != nil {
			return nil, false, s.undecodable(key, "a stored idempotency record", err)
		}
		if !r.Applied || !s.opts.Records.holds(tenantOf(key), &r, now) {
			continue
		}
		if more = len(rows) >= limit || size >= maxRecordBytes; more {
			break
		}
		newest = max(newest, it.Seq())
		row := repair.RecordRow{
			Tenant: tenantOf(key), Token: ring.Token(binary.BigEndian.Uint64(key[7:])),
			IdempotencyKey: bytes.Clone(key[keyHead+16:]), Record: bytes.Clone(it.Value()),
		}
		copy(row.KeyHash[:], key[keyHead:])
		rows = append(rows, row)
		size += len(key) + len(it.Value())
	}
	return rows, more, s.awaitDurable(newest)
}

// Restore implements repair.Replica. The partition is under quarantine, so nobody else
// reads or writes its records, whose keys' locks are not known from here.
func (s *Store) Restore(of repair.Span, rows []repair.RecordRow) error {
	now := s.opts.Records.now()
	b := s.batches.Get().(*engine.Batch)
	defer s.releaseBatch(b)
	buf := s.buffer()
	defer s.release(buf)
	var placed []func()
	for i := range rows {
		row := &rows[i]
		r, err := causal.DecodeRecord(row.Record)
		if err != nil || !r.Applied {
			return &coord.Error{
				Code: errcode.InvalidArgument, Outcome: errcode.NotApplied,
				Message: fmt.Sprintf("a record of partition %d that another owner sent does not decode, or was not applied", of.Partition), Err: err,
			}
		}
		key := recordKey(of.Partition, row)
		old, _, err := s.loadRecord(buf, key)
		if err != nil {
			return err
		}
		if old != nil && old.Applied || !s.opts.Records.holds(row.Tenant, &r, now) {
			continue
		}
		var before, was int64
		if old != nil {
			before, was = old.Expires, int64(len(key)+len(*buf))
		}
		size := int64(len(key) + len(row.Record))
		if err := s.opts.Records.room(row.Tenant, size-was); err != nil {
			return err
		}
		b.Set(key, row.Record)
		if int(of.Partition) < len(s.partitions) {
			s.partition(of.Partition).votes.remove(key)
		}
		placed = append(placed, func() { s.opts.Records.replace(row.Tenant, before, was, r.Expires, size) })
	}
	if len(placed) == 0 {
		return nil
	}
	seq, err := s.apply(b, false)
	if err != nil {
		return err
	}
	for _, f := range placed {
		f()
	}
	return s.awaitDurable(seq)
}
