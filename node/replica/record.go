package replica

import (
	"errors"
	"slices"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
)

// A record is guarded by the lock of the key it belongs to, not by one of its
// own: what is decided about it depends on the object's merges too.

// loadRecord reads the record at a storage key, nil if there is none, and the
// sequence number of the write that set it. buf may be used again afterwards.
func (s *Store) loadRecord(buf *[]byte, key []byte) (*causal.Record, base.SeqNum, error) {
	b, seq, err := s.opts.Engine.GetSeq((*buf)[:0], key)
	if errors.Is(err, base.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, s.readError(partitionOf(key), err)
	}
	*buf = b
	r, err := causal.DecodeRecord(b)
	if err != nil {
		return nil, 0, s.undecodable(key, "the stored idempotency record", err)
	}
	return &r, seq, nil
}

// Lookup implements coord.Replica.
func (s *Store) Lookup(at coord.Address, idempotencyKey []byte, now time.Time, done func(h coord.Held, err error)) {
	if err := s.takesReads(); err != nil {
		done(coord.Held{}, err)
		return
	}
	w := s.scratch()
	var h coord.Held
	// The record first: what is written between the two reads is then in the
	// object at least.
	w.key = appendRecordKey(w.key, &at, idempotencyKey)
	r, seq, err := s.loadRecord(&w.value, w.key)
	if err == nil && r != nil && s.opts.Records.holds(at.Tenant, r, now) {
		h.Record = r
	}
	if err == nil {
		w.key = appendKey(w.key[:0], &at)
		var o held
		o, err = s.load(w)
		seq = max(seq, o.seq)
		h.Context = slices.Clone(o.object.Context)
		for i := range o.object.Siblings {
			h.HLC = max(h.HLC, o.object.Siblings[i].HLC)
		}
		h.HLC = max(h.HLC, s.floor(at.Partition, at.Class))
	}
	s.putBack(w)
	if unsound := s.sound(at.Partition); unsound != nil {
		err = unsound
	}
	if err != nil {
		done(coord.Held{}, err)
		return
	}
	s.whenDurable(seq, func(err error) {
		if err != nil {
			h = coord.Held{}
		}
		done(h, err)
	})
}

// Claim implements coord.Replica.
func (s *Store) Claim(at coord.Address, idempotencyKey []byte, r *causal.Record, now time.Time, done func(held causal.Record, err error)) {
	if err := s.takesWrites(); err != nil {
		done(causal.Record{}, err)
		return
	}
	kb, vb := s.buffer(), s.buffer()
	*kb = appendKey((*kb)[:0], &at)
	lock := &s.stripes[stripeOf(*kb)]
	object := len(*kb)
	*kb = appendRecordKey(*kb, &at, idempotencyKey)
	lock.Lock()
	kept, seq, err := s.claim(&at, (*kb)[:object:object], (*kb)[object:], vb, r, now)
	lock.Unlock()
	s.release(kb)
	s.release(vb)
	if err != nil {
		done(causal.Record{}, err)
		return
	}
	s.whenDurable(seq, func(err error) {
		if err != nil {
			kept = &causal.Record{}
		}
		done(*kept, err)
	})
}

// claim does the part of Claim that needs the key's lock. object and key are the
// storage keys of object and record.
func (s *Store) claim(at *coord.Address, object, key []byte, buf *[]byte, r *causal.Record, now time.Time) (*causal.Record, base.SeqNum, error) {
	if err := s.fenced(at); err != nil {
		return nil, 0, err
	}
	tenant := at.Tenant
	old, seq, err := s.loadRecord(buf, key)
	if unsound := s.sound(partitionOf(key)); unsound != nil {
		return nil, 0, unsound
	}
	if err != nil || old != nil && s.opts.Records.holds(tenant, old, now) && !old.GivesWay(r) {
		return old, seq, err
	}
	var before, was int64
	if old != nil {
		before, was = old.Expires, int64(len(key)+len(*buf))
	}
	if !r.Live(now) {
		// It would count as absent at once, and two writes could be voted for.
		return nil, 0, &coord.Error{
			Code: errcode.Unavailable, Outcome: errcode.NotApplied,
			Message: "by this node's clock the idempotency key expired before it was used",
		}
	}
	if err := s.late(at, object, r.Dot); err != nil {
		return nil, 0, err
	}
	*buf = r.Append((*buf)[:0])
	size := int64(len(key) + len(*buf))
	if err := s.opts.Records.room(tenant, size-was); err != nil {
		return nil, 0, err
	}
	b := s.batches.Get().(*engine.Batch)
	defer s.releaseBatch(b)
	b.Set(key, *buf)
	if int(at.Partition) < len(s.partitions) {
		s.partition(at.Partition).votes.add(key, object)
	}
	if seq, err = s.apply(b, false); err != nil {
		return nil, 0, err
	}
	s.opts.Records.replace(tenant, before, was, r.Expires, size)
	return r, seq, nil
}

// late refuses a vote for a write that could never be made any more: all owners are said
// to have had it, if it was to be made at all, and what is stored at object has not
// superseded it either. Once it has, the vote is as good as ever: nobody is shown the
// write, and it counts as made just before what covers it. The key's lock is held.
func (s *Store) late(at *coord.Address, object []byte, d causal.Dot) error {
	if !s.confirmed(at.Partition, at.Class).Seen.Covers(d) {
		return nil
	}
	w := s.scratch()
	defer s.putBack(w)
	w.key = append(w.key[:0], object...)
	h, err := s.load(w)
	if err != nil || h.object.Context.Covers(d) {
		return err
	}
	return &coord.Error{
		Code: errcode.Unavailable, Outcome: errcode.NotApplied,
		Message: "the vote for the write came too late; send the request again",
	}
}
