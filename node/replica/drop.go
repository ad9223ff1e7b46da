package replica

import (
	"bytes"
	"encoding/binary"
	"slices"

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
func (s *Store) Foreign(owns func(repair.Span) bool) (all []repair.Span, err error) {
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
	var asked map[ring.Class]bool // of the partition last: whether it is listed, or owned
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
			last, asked = int(at), make(map[ring.Class]bool)
			if owns(repair.Span{Partition: at, Class: ring.SharedClass(1)}) {
				// The owner of an only copy is an owner of whatever number.
				ok = seek(it, coord.Successor(key[:2]))
				continue
			}
		}
		class, past := s.spanAt(key, it.Value())
		if of := (repair.Span{Partition: at, Class: class}); class != 0 && !asked[class] {
			if asked[class] = true; !owns(of) {
				all = append(all, of)
			}
		}
		ok = seek(it, past)
	}
	slices.SortFunc(all, repair.Span.Compare)
	return all, nil
}

// seek goes on at a storage key, nil for behind the last one.
func seek(it *engine.Iterator, key []byte) bool { return key != nil && it.SeekGE(key) }

// spanAt returns the class of the span that what is stored at a key belongs to, 0 for none
// that is known, and the first key that may belong to another one.
func (s *Store) spanAt(key, value []byte) (c ring.Class, past []byte) {
	if key[2] <= kindIndex && len(key) > keyHead {
		if t, known := s.opts.Tenant(tenantOf(key)); known {
			c = t.Class
		}
		return c, coord.Successor(key[:7])
	}
	if class, ok := classOf(key); ok && s.knows(class, value) {
		c = class
	}
	return c, append(bytes.Clone(key), 0)
}

// knows reports whether what is stored of the span of a class says anything that a drop
// would take away. Of one that a tenant has for itself a drop leaves that nothing is known.
func (s *Store) knows(c ring.Class, value []byte) bool {
	t, own := c.Own()
	if !own {
		return true
	}
	if _, known := s.opts.Tenant(t); !known {
		return false
	}
	_, confirmed, released, err := decodeSpan(value)
	return err != nil || !confirmed.IsZero() || !released.IsZero()
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
	held    *holding
	tenants []ring.TenantNumber
	records map[recordAge]int64
}

// Drop implements repair.Replica. Counters stay, and so do marks of quarantine: what is
// minted here when the span comes back has dots that were never used.
func (s *Store) Drop(of repair.Span, still func() bool) error {
	if _, err := s.find(of); err != nil {
		return err
	}
	if err := s.takesWrites(); err != nil {
		return err
	}
	d := &dropping{s: s, of: of, records: map[recordAge]int64{}}
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
func (d *dropping) locked(still func() bool) (_ base.SeqNum, err error) {
	s := d.s
	if d.held, err = s.hold(d.of); err != nil {
		return 0, err
	}
	defer d.held.free()
	if err := d.held.part(); err != nil {
		return 0, err
	}
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
		class, past := s.spanAt(key, nil)
		if class != d.of.Class {
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
			deleteTenant(b, p, t)
		}
		last := n == len(rest)
		if last {
			d.deleteSpan(b)
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
	sp := d.held.sp
	if _, own := d.of.Class.Own(); own {
		d.held.publish(known{&nothing, &nothing, 0})
	} else {
		sp.confirmed.Store(nil)
		sp.released.Store(nil)
		sp.floor.Store(0)
	}
	sp.told.Store(0)
	return seq, nil
}

// deleteTenant takes all away that is stored of a tenant in a partition.
func deleteTenant(b *engine.Batch, p ring.Partition, t ring.TenantNumber) {
	for _, kind := range []byte{kindObject, kindRecord, kindIndex} {
		lower := tenantKey(p, kind, t)
		b.DeleteRange(lower, coord.Successor(lower))
	}
}

// tenantKey is what all storage keys of a kind begin with that a tenant has in a partition.
func tenantKey(p ring.Partition, kind byte, t ring.TenantNumber) []byte {
	return binary.BigEndian.AppendUint32(append(binary.BigEndian.AppendUint16(nil, uint16(p)), kind), uint32(t))
}

// deleteSpan takes away what is known of the span. If it is that of a class that a tenant
// has for itself, with nothing stored what is known of another one would hold for it.
func (d *dropping) deleteSpan(b *engine.Batch) {
	if _, own := d.of.Class.Own(); own {
		b.Set(spanKey(d.of), appendSpan(nil, 0, &nothing, &nothing))
		return
	}
	b.Delete(spanKey(d.of))
}

func (d *dropping) apply(b *engine.Batch, tenants []ring.TenantNumber) (base.SeqNum, error) {
	s, p := d.s, d.of.Partition
	pass := s.opts.Sums.Enter(int(p))
	defer pass.Leave()
	seq, err := s.apply(b, true)
	for _, t := range tenants {
		s.dropped(p, t, seq, err)
	}
	return seq, err
}
