package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/gossip/ring"
)

// ErrTenantInUse says that what a tenant has is not dropped: as far as this node knows it
// was not deleted.
var ErrTenantInUse = errors.New("the tenant was not deleted")

// ErrStopped says that something was given up because it was asked to.
var ErrStopped = errors.New("it was told to stop")

// tenantPartitions bounds the partitions that one batch of DropTenant takes a tenant out
// of: the locks of all keys are held meanwhile.
const tenantPartitions = 64

// gone reports whether a tenant was deleted, once Forget was called. The key's lock is
// held, or what guards a span that the tenant has for itself.
func (s *Store) gone(t ring.TenantNumber) bool { return s.forgets.Load() && s.opts.Deleted(t) }

// Forget returns when nothing is being written any more of tenants that are deleted, and
// from then on nothing is. It is called each time that Options.Deleted says so of others,
// before DropTenant. Until the first time writes do not ask.
func (s *Store) Forget() {
	s.forgets.Store(true)
	s.passLocks()
}

// TenantsHere returns the tenants of which anything is stored, ascending, with a seek for
// each of them in each partition and kind. stop ends it early, with ErrStopped.
func (s *Store) TenantsHere(stop func() bool) (all []ring.TenantNumber, err error) {
	if err := s.takesReads(); err != nil {
		return nil, err
	}
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
	found := map[ring.TenantNumber]bool{}
	for ok := it.First(); ok; {
		if stop() {
			return nil, ErrStopped
		}
		key := it.Key()
		if len(key) < 3 {
			ok = it.Next()
			continue
		}
		at = partitionOf(key)
		switch {
		case int(at) >= len(s.partitions):
			ok = false
		case key[2] <= kindIndex && len(key) > keyHead:
			found[tenantOf(key)] = true
			ok = seek(it, coord.Successor(key[:7]))
		default:
			if class, of := classOf(key); of {
				if t, own := class.Own(); own {
					found[t] = true
				}
			}
			ok = it.Next()
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// DropTenant takes away all that is stored of a tenant that was deleted, on disk when it
// returns nil, and returns of how many partitions something was. What a crash or an error
// leaves TenantsHere finds. stop ends it early, with ErrStopped.
func (s *Store) DropTenant(t ring.TenantNumber, stop func() bool) (partitions int, err error) {
	if err := s.takesWrites(); err != nil {
		return 0, err
	}
	if s.opts.Deleted == nil || !s.opts.Deleted(t) {
		return 0, fmt.Errorf("drop the data of tenant %d: %w", t, ErrTenantInUse)
	}
	n := s.opts.Sums.Partitions()
	if n == 0 {
		return 0, &coord.Error{
			Code: errcode.Unavailable, Outcome: errcode.NotApplied,
			Message: "how many partitions there are is not known yet: the node is in no cluster",
		}
	}
	s.Forget()
	var newest base.SeqNum
	for first := 0; first < n; first += tenantPartitions {
		if stop() {
			return partitions, ErrStopped
		}
		some, seq, err := s.dropTenant(t, first, min(first+tenantPartitions, n))
		if err != nil {
			return partitions, err
		}
		partitions, newest = partitions+some, max(newest, seq)
	}
	s.opts.Records.drop(t)
	return partitions, s.awaitDurable(newest)
}

// dropTenant does so for the partitions from first to before end, and returns its last
// write.
func (s *Store) dropTenant(t ring.TenantNumber, first, end int) (partitions int, newest base.SeqNum, err error) {
	var data []ring.Partition
	some := map[ring.Partition]bool{}
	for p := ring.Partition(first); int(p) < end; p++ {
		if s.has(p, t) {
			data, some[p] = append(data, p), true
		}
	}
	if newest, err = s.dropTenantData(t, data); err != nil {
		return 0, 0, err
	}
	for p := ring.Partition(first); int(p) < end; p++ {
		seq, err := s.dropTenantSpans(t, p)
		if err != nil {
			return 0, 0, err
		}
		if seq > 0 {
			some[p], newest = true, max(newest, seq)
		}
	}
	return len(some), newest, nil
}

// has reports whether a partition may have anything of a tenant: also if that cannot be
// read.
func (s *Store) has(p ring.Partition, t ring.TenantNumber) bool {
	head := binary.BigEndian.AppendUint16(nil, uint16(p))
	it, err := s.opts.Engine.NewIter(head, append(head[:2:2], kindSpan))
	if err != nil {
		return true
	}
	found := false
	for _, kind := range []byte{kindObject, kindRecord, kindIndex} {
		found = found || it.SeekGE(tenantKey(p, kind, t)) && len(it.Key()) > keyHead && it.Key()[2] == kind && tenantOf(it.Key()) == t
	}
	if err := it.Close(); err != nil {
		_ = s.readError(p, err) // which tells of damage
		return true
	}
	return found
}

// dropTenantData takes away what a tenant has in some partitions. The locks of all keys
// are held meanwhile: somebody may be about to write an entry of the index again.
func (s *Store) dropTenantData(t ring.TenantNumber, data []ring.Partition) (base.SeqNum, error) {
	if len(data) == 0 {
		return 0, nil
	}
	b := new(engine.Batch)
	for _, p := range data {
		deleteTenant(b, p, t)
	}
	s.lockAll()
	defer s.unlockAll()
	pass := s.opts.Sums.Enter(int(data[0]))
	defer pass.Leave()
	seq, err := s.apply(b, true)
	for _, p := range data {
		s.dropped(p, t, seq, err)
	}
	return seq, err
}

// dropped tells the sums that the batch with number seq took away what a tenant had in a
// partition, or failed with err. All locks of keys are held, and the caller has entered the
// sums before the batch was applied.
func (s *Store) dropped(p ring.Partition, t ring.TenantNumber, seq base.SeqNum, err error) {
	if err == nil {
		s.opts.Sums.Dropped(p, t, seq)
	} else if e, ok := errors.AsType[*coord.Error](err); ok && e.Outcome == errcode.Indeterminate {
		s.opts.Sums.Forget(p)
	}
}

// dropTenantSpans takes away what is known of the class that a tenant had for itself, after
// its data: as long as that is there, it has to be known what of it may be shown.
func (s *Store) dropTenantSpans(t ring.TenantNumber, p ring.Partition) (newest base.SeqNum, err error) {
	at := s.partitions[p].Load()
	if at == nil {
		return 0, nil
	}
	at.spans(func(c ring.Class, sp *span) {
		if of, own := c.Own(); !own || of != t || err != nil {
			return
		}
		sp.mu.Lock() // whoever takes it from now on sees that the tenant is gone
		defer sp.mu.Unlock()
		b := new(engine.Batch)
		b.Delete(spanKey(repair.Span{Partition: p, Class: c}))
		var seq base.SeqNum
		if seq, err = s.apply(b, true); err == nil {
			newest = max(newest, seq)
			at.remove(c)
		}
	})
	return newest, err
}
