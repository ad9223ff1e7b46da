package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/gossip/ring"
)

// dropRanges bounds the ranges that one batch of a drop takes away.
const dropRanges = engine.MaxBatchRangeDeletes

// Foreign implements repair.Replica. It costs a few seeks for each partition that is
// not owned, none for those that are.
func (s *Store) Foreign(owns func(p ring.Partition, rf uint8) bool) (all []repair.Span, err error) {
	if err := s.takesReads(); err != nil {
		return nil, err
	}
	if s.opts.Tenant == nil {
		return nil, nil
	}
	// Whatever was written as of an older version of the ring is visible then.
	s.passLocks()
	it, err := s.opts.Engine.NewIter(nil, nil)
	if err != nil {
		return nil, readError(err)
	}
	var at ring.Partition
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			all, err = nil, s.readError(at, cerr)
		}
	}()
	last := -1
	var foreign [ring.MaxRF + 1]bool // of the partition last
	for ok := it.First(); ok; {
		key := it.Key()
		if len(key) < 3 {
			ok = it.Next()
			continue
		}
		at = partitionOf(key)
		if int(at) >= len(s.partitions) {
			break
		}
		if int(at) != last {
			last = int(at)
			some := false
			for rf := uint8(1); rf <= ring.MaxRF; rf++ {
				foreign[rf] = !owns(at, rf)
				some = some || foreign[rf]
			}
			if !some {
				ok = seek(it, coord.Successor(key[:2]))
				continue
			}
		}
		rf, past := s.spanAt(key)
		if rf > 0 && foreign[rf] {
			foreign[rf] = false // it is listed
			all = append(all, repair.Span{Partition: at, RF: rf})
		}
		ok = seek(it, past)
	}
	slices.SortFunc(all, func(a, b repair.Span) int {
		if a.Partition != b.Partition {
			return int(a.Partition) - int(b.Partition)
		}
		return int(a.RF) - int(b.RF)
	})
	return all, nil
}

// seek goes on at a storage key, nil for behind the last one.
func seek(it *engine.Iterator, key []byte) bool { return key != nil && it.SeekGE(key) }

// spanAt returns the replication factor of the span that a storage key belongs to, 0 for
// none that is known, and the first key that may belong to another one.
func (s *Store) spanAt(key []byte) (rf uint8, past []byte) {
	switch {
	case key[2] == kindSpan && len(key) == 4 && key[3] <= ring.MaxRF:
		return key[3], coord.Successor(key)
	case key[2] <= kindIndex && len(key) > keyHead:
		if t, known := s.opts.Tenant(tenantOf(key)); known && t.RF <= ring.MaxRF {
			rf = t.RF
		}
		return rf, coord.Successor(key[:7])
	}
	return 0, append(bytes.Clone(key), 0)
}

// recordAge is what records that expire in one slot take.
type recordAge struct {
	tenant ring.TenantNumber
	slot   int64
}

// dropping is one Drop.
type dropping struct {
	s       *Store
	of      repair.Span
	sp      *span
	tenants []ring.TenantNumber
	records map[recordAge]int64
}

// Drop implements repair.Replica. Counters stay, and so do marks of quarantine: what is
// minted here when the span comes back has dots that were never used.
func (s *Store) Drop(of repair.Span, still func() bool) error {
	sp, err := s.find(of)
	if err != nil {
		return err
	}
	if err := s.takesWrites(); err != nil {
		return err
	}
	d := &dropping{s: s, of: of, sp: sp, records: map[recordAge]int64{}}
	// Nobody writes what this node does not own, so that it can be looked at before the
	// locks are taken; if it owns it by now, still says so.
	if err := d.look(); err != nil {
		return err
	}
	seq, err := d.locked(still)
	if err != nil {
		return err
	}
	return s.awaitDurable(seq)
}

// locked does the part of Drop that needs all locks of keys, and returns the last write.
func (d *dropping) locked(still func() bool) (base.SeqNum, error) {
	s := d.s
	d.sp.mu.Lock()
	defer d.sp.mu.Unlock()
	s.lockAll()
	defer s.unlockAll()
	if !still() {
		return 0, repair.ErrNotForeign
	}
	return d.run()
}

// lockAll takes the locks of all keys, which unlockAll gives back.
func (s *Store) lockAll() {
	for i := range s.stripes {
		s.stripes[i].Lock()
	}
}

func (s *Store) unlockAll() {
	for i := range s.stripes {
		s.stripes[i].Unlock()
	}
}

// look finds the tenants that have anything in the span, and what their records take.
func (d *dropping) look() (err error) {
	s := d.s
	if s.opts.Tenant == nil {
		return nil
	}
	head := binary.BigEndian.AppendUint16(nil, uint16(d.of.Partition))
	it, err := s.opts.Engine.NewIter(head, append(bytes.Clone(head), kindSpan))
	if err != nil {
		return s.readError(d.of.Partition, err)
	}
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			err = s.readError(d.of.Partition, cerr)
		}
	}()
	for ok := it.First(); ok; {
		key := it.Key()
		rf, past := s.spanAt(key)
		if rf != d.of.RF {
			ok = seek(it, past)
			continue
		}
		t := tenantOf(key)
		if !slices.Contains(d.tenants, t) {
			d.tenants = append(d.tenants, t)
		}
		if key[2] != kindRecord {
			ok = seek(it, past)
			continue
		}
		if r, err := causal.DecodeRecord(it.Value()); err == nil {
			d.records[recordAge{t, slotOf(r.Expires)}] += int64(len(key) + len(it.Value()))
		}
		ok = it.Next()
	}
	slices.Sort(d.tenants)
	return nil
}

// run takes all of it away; all locks of keys are held. What is known of the span goes
// with the last of its data, so that what a crash leaves is foreign, still.
func (d *dropping) run() (seq base.SeqNum, err error) {
	s, p := d.s, d.of.Partition
	rest := d.tenants
	for {
		n := min(len(rest), dropRanges/3)
		b := new(engine.Batch)
		for _, t := range rest[:n] {
			for _, kind := range []byte{kindObject, kindRecord, kindIndex} {
				lower := binary.BigEndian.AppendUint32(append(binary.BigEndian.AppendUint16(nil, uint16(p)), kind), uint32(t))
				b.DeleteRange(lower, coord.Successor(lower))
			}
		}
		last := n == len(rest)
		if last {
			b.Delete(spanKey(d.of))
		}
		if seq, err = d.apply(b, rest[:n]); err != nil {
			return 0, err
		}
		if rest = rest[n:]; last {
			break
		}
	}
	//seams:ordered each is taken away by itself
	for age, size := range d.records {
		s.opts.Records.remove(age.tenant, age.slot, size)
	}
	s.partition(p).votes.forget()
	d.sp.confirmed.Store(nil)
	d.sp.released.Store(nil)
	d.sp.floor.Store(0)
	d.sp.told.Store(0)
	return seq, nil
}

func (d *dropping) apply(b *engine.Batch, tenants []ring.TenantNumber) (base.SeqNum, error) {
	s, p := d.s, d.of.Partition
	pass := s.opts.Sums.Enter(int(p))
	defer pass.Leave()
	seq, err := s.apply(b, true)
	if err == nil {
		for _, t := range tenants {
			s.opts.Sums.Dropped(p, t, seq)
		}
	}
	if e, ok := errors.AsType[*coord.Error](err); ok && e.Outcome == errcode.Indeterminate {
		s.opts.Sums.Forget(p)
	}
	return seq, err
}
