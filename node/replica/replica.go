// Package replica keeps this node's copy of the data: causal objects in the
// engine. It mints dots, joins what peers send, and shows a read only what is
// on disk. It never reads clocks, sockets or files itself, and starts jobs only
// through a scheduler, so that whole clusters can run in one goroutine.
package replica

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/zeebo/xxh3"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/node/replica/sums"
)

// Engine is what a Store needs of an *engine.DB.
type Engine interface {
	// Apply makes the batch visible at once.
	Apply(b *engine.Batch, o engine.WriteOptions) (engine.Commit, error)
	// GetSeq appends the value of key to dst and returns the sequence number
	// of the write that set it, or base.ErrNotFound.
	GetSeq(dst, key []byte) ([]byte, base.SeqNum, error)
	// NewIter returns an iterator over the keys in [lower, upper).
	NewIter(lower, upper []byte) (*engine.Iterator, error)
	// DurableSeq is the newest sequence number known to be on disk, and
	// WaitDurable returns once seq is.
	DurableSeq() base.SeqNum
	WaitDurable(seq base.SeqNum) error
	// Snapshot returns a view of all that is visible, and VisibleSeq how far that
	// goes; neither waits for the disk.
	Snapshot() *engine.Snapshot
	VisibleSeq() base.SeqNum
	// KeysSince tells of the keys in tables that were written after seq, given that
	// KeepDeletesAfter was as low ever since.
	KeysSince(seq base.SeqNum, keys func(key []byte), ranges func(start, end []byte), stop func() bool) error
	KeepDeletesAfter(seq base.SeqNum)
	// Hangs says whether the disk does not answer, so that Apply refuses and
	// WaitDurable may take long, and whether reads of tables hang, too. It is
	// cheap.
	Hangs() (writes, reads bool)
}

// Options configure a Store. Fields are required unless they say otherwise.
type Options struct {
	Engine Engine
	// Actor is who mints here: 64 random bits drawn at this start of the
	// node, announced and on disk before the first write.
	Actor uint64
	// Scheduler runs the jobs that wait for syncs.
	Scheduler coord.Scheduler
	// Records bounds the idempotency records.
	Records *RecordSpace
	// Tenant says how a tenant's data is kept, ok if the tenant is known by now. It
	// is cheap. Without it nothing is collected, and Rows shows all that is stored.
	Tenant func(ring.TenantNumber) (t Tenant, ok bool)
	// Sums are kept up with every write. The file of an earlier start is loaded into
	// them, and the keys that the engine recovered from its log are doubted
	// (DoubtKey).
	Sums *sums.Sums
	// Marks are the partitions under quarantine. Optional: without them there are
	// none, and Quarantine must not be called.
	Marks *Marks
	// Damaged, if set, is called each time that a read meets damage, with locks held:
	// it must not wait.
	Damaged func(Damage)
	// PV says which ring version a partition has now. A write that was asked for under
	// another one is refused with coord.ErrMoved. It is cheap. Optional: without it
	// nothing is refused.
	PV func(ring.Partition) ring.Version
	// Own returns the classes that tenants have for themselves, those of all tenants that
	// are known by now. Optional: without it there are none.
	Own func() []ring.Class
	// Deleted says whether a tenant is known to have been deleted. It is cheap. Optional:
	// without it none was, and Forget and DropTenant must not be called.
	Deleted func(ring.TenantNumber) bool
	// Alone says that no other node has a copy of anything: New goes on without what it
	// cannot read of what is confirmed, and Damaged is told. Nobody can send again what
	// that was about.
	Alone bool
}

// Validate reports everything that is missing.
func (o *Options) Validate() error {
	var errs []error
	if o.Engine == nil {
		errs = append(errs, errors.New("replica: Engine is missing"))
	}
	if o.Actor == 0 {
		errs = append(errs, errors.New("replica: Actor is missing"))
	}
	if o.Scheduler == nil {
		errs = append(errs, errors.New("replica: Scheduler is missing"))
	}
	if o.Records == nil {
		errs = append(errs, errors.New("replica: Records is missing"))
	}
	if o.Sums == nil {
		errs = append(errs, errors.New("replica: Sums is missing"))
	}
	return errors.Join(errs...)
}

const (
	stripeCount = 1024
	// maxPooled is the largest buffer kept for later use, in bytes.
	maxPooled = 256 << 10
)

// Store is a coord.Replica over an engine. It is safe for concurrent use and
// owns nothing to close: its jobs end once the engine has synced or failed.
type Store struct {
	opts  Options
	marks *Marks

	// stripes serialise load, join and apply of a key. A lock is held until
	// the write is visible in memory, not until it is on disk. Whoever takes
	// several takes them in ascending order.
	stripes [stripeCount]sync.Mutex
	// counters are the sequences of this start's actor, one per partition.
	// They are kept apart from the data, so that a partition that is dropped
	// and regained never sees a dot again.
	counters [ring.MaxPartitions]atomic.Uint64

	// partitions have what is known of each beside its data, nil for nothing.
	partitions [ring.MaxPartitions]atomic.Pointer[partition]

	// forgets says that writes ask Options.Deleted.
	forgets atomic.Bool

	sweeps    sweeps
	catchUp   catchUp
	sync      syncQueue
	scans     scanQueue
	buffers   sync.Pool // *[]byte
	batches   sync.Pool // *engine.Batch
	merges    sync.Pool // *merging
	scratches sync.Pool // *scratch
}

// New returns a store over an open engine. It reads what is confirmed, and goes on to
// collect what had been released.
func New(opts Options) (*Store, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	s := &Store{opts: opts, marks: opts.Marks}
	s.beginSums()
	s.buffers.New = func() any { b := make([]byte, 0, 4096); return &b }
	s.scratches.New = func() any { return new(scratch) }
	s.batches.New = func() any { return new(engine.Batch) }
	if err := s.loadSpans(); opts.Alone && errors.Is(err, base.ErrCorrupt) {
		s.met(Damage{Err: err})
	} else if err != nil {
		return nil, err
	}
	s.resumeSweeps()
	return s, nil
}

func (s *Store) buffer() *[]byte { return s.buffers.Get().(*[]byte) }

func (s *Store) release(b *[]byte) {
	if cap(*b) <= maxPooled {
		*b = (*b)[:0]
		s.buffers.Put(b)
	}
}

func (s *Store) releaseBatch(b *engine.Batch) {
	if b.Size() <= maxPooled {
		b.Reset()
		s.batches.Put(b)
	}
}

// stripeOf returns the index of the lock that guards a storage key.
func stripeOf(key []byte) int { return int(xxh3.Hash(key) % stripeCount) }

// held is an object as the engine has it.
type held struct {
	object causal.Object
	seq    base.SeqNum // of the write that set it; 0 if there is none
	size   int         // bytes of the object as stored; 0 if there is none
}

// scratch is the memory of one call, which uses it for itself until it returns.
type scratch struct {
	key, value, encoded, index []byte
	objects                    causal.Slab
}

func (s *Store) scratch() *scratch { return s.scratches.Get().(*scratch) }

// putBack lets go of what is in w, and keeps the memory if it is not too much.
func (s *Store) putBack(w *scratch) {
	w.objects.Reset()
	for _, b := range []*[]byte{&w.key, &w.value, &w.encoded, &w.index} {
		*b = (*b)[:0]
		if cap(*b) > maxPooled {
			*b = nil
		}
	}
	s.scratches.Put(w)
}

// load reads the object at w.key. It is valid as long as w is not put back.
func (s *Store) load(w *scratch) (held, error) {
	b, seq, err := s.opts.Engine.GetSeq(w.value[:0], w.key)
	p := partitionOf(w.key)
	if unsound := s.sound(p); unsound != nil {
		return held{}, unsound
	}
	if errors.Is(err, base.ErrNotFound) {
		return held{}, nil
	}
	if err != nil {
		return held{}, s.readError(p, err)
	}
	w.value = b
	o, err := w.objects.Decode(b)
	if err != nil {
		return held{}, s.undecodable(w.key, "the stored object", err)
	}
	return held{o, seq, len(b)}, nil
}

// Update implements coord.Replica.
func (s *Store) Update(at coord.Address, edit func(*causal.Object, func() causal.Dot) (causal.Object, error), durable func(error)) ([]byte, error) {
	if int(at.Partition) >= len(s.counters) {
		return nil, fmt.Errorf("update: partition %d is out of range", at.Partition)
	}
	if err := s.takesWrites(); err != nil {
		return nil, err
	}
	w := s.scratch()
	defer s.putBack(w)
	w.key = appendKey(w.key, &at)
	lock := &s.stripes[stripeOf(w.key)]
	lock.Lock()
	object, seq, err := s.update(&at, w, edit)
	lock.Unlock()
	if err != nil {
		return nil, err
	}
	s.whenDurable(seq, durable)
	return object, nil
}

// moved reports whether the partition has another ring version than the one under
// which a write is asked for. The key's lock is held: see Barrier.
func (s *Store) moved(at *coord.Address) bool {
	return at.PV != 0 && s.opts.PV != nil && s.opts.PV(at.Partition) != at.PV
}

// fenced returns why a write is refused that was asked for before it got its key's lock,
// which is held: see Barrier and Forget.
func (s *Store) fenced(at *coord.Address) error {
	if s.moved(at) {
		return coord.ErrMoved
	}
	if s.gone(at.Tenant) {
		return errDeleted
	}
	return nil
}

// update does the part of Update that needs the key's lock.
func (s *Store) update(at *coord.Address, w *scratch, edit func(*causal.Object, func() causal.Dot) (causal.Object, error)) ([]byte, base.SeqNum, error) {
	if err := s.fenced(at); err != nil {
		return nil, 0, err
	}
	h, err := s.load(w)
	if err != nil {
		return nil, 0, err
	}
	before := h.object
	h.object = before.Remaining(s.confirmed(at.Partition, at.Class), at.LWW)
	h.object.Floor = max(h.object.Floor, s.floor(at.Partition, at.Class))
	next, err := edit(&h.object, func() causal.Dot {
		return causal.Dot{Actor: s.opts.Actor, Counter: s.counters[at.Partition].Add(1)}
	})
	if err != nil {
		return nil, 0, err
	}
	h.object = before
	w.encoded = next.Append(w.encoded)
	object := bytes.Clone(w.encoded) // what it takes, not the bound that is known before
	b := s.batches.Get().(*engine.Batch)
	defer s.releaseBatch(b)
	b.Set(w.key, object)
	w.index = putIndex(b, w.index, w.key, &before, &next)
	pass := s.opts.Sums.Enter(int(at.Partition))
	defer pass.Leave()
	seq, err := s.apply(b, frees(&next, len(object), &h))
	s.count(w.key, &h.object, &next, seq, err)
	return object, seq, err
}

// frees reports whether an object of size bytes takes the place of more than it
// brings: it is smaller than what was held, or a delete of it.
func frees(next *causal.Object, size int, before *held) bool {
	return size < before.size || gone(next) && !gone(&before.object)
}

// gone reports whether nothing is left of an object but tombstones.
func gone(o *causal.Object) bool {
	return !slices.ContainsFunc(o.Siblings, func(s causal.Sibling) bool { return !s.Tombstone() })
}

// apply hands a batch to the engine; frees says that all of it frees space, so
// that a full disk takes it.
func (s *Store) apply(b *engine.Batch, frees bool) (base.SeqNum, error) {
	c, err := s.opts.Engine.Apply(b, engine.WriteOptions{Frees: frees})
	if err != nil {
		return 0, writeError(err, c.Seq() != 0)
	}
	return c.Seq(), nil
}

// Read implements coord.Replica.
func (s *Store) Read(at coord.Address, done func(object []byte, err error)) {
	if err := s.takesReads(); err != nil {
		done(nil, err)
		return
	}
	kb := s.buffer()
	*kb = appendKey((*kb)[:0], &at)
	b, seq, err := s.opts.Engine.GetSeq(nil, *kb)
	var damage error
	if err == nil {
		b, damage = s.settle(*kb, b, s.confirmed(at.Partition, at.Class), at.LWW)
	}
	s.release(kb)
	unsound := s.sound(at.Partition)
	switch {
	case unsound != nil:
		done(nil, unsound)
	case damage != nil:
		done(nil, damage)
	case errors.Is(err, base.ErrNotFound):
		done(nil, nil)
	case err != nil:
		done(nil, s.readError(at.Partition, err))
	case s.opts.Engine.DurableSeq() >= seq:
		done(b, nil)
	default:
		s.whenDurable(seq, func(err error) {
			if err != nil {
				b = nil
			}
			done(b, err)
		})
	}
}

// settle makes of the object stored at a key what readers are shown of it once c is
// confirmed, nil if that is nothing. It writes over b.
func (s *Store) settle(key, b []byte, c *causal.Confirmed, lww bool) ([]byte, error) {
	if len(c.Seen) == 0 {
		return b, nil
	}
	w := s.scratch()
	defer s.putBack(w)
	o, err := w.objects.Decode(b)
	if err != nil {
		return nil, s.undecodable(key, "the stored object", err)
	}
	shown := o.Settled(c, lww)
	switch {
	case shown.IsZero():
		return nil, nil
	case len(shown.Siblings) == len(o.Siblings):
		return b, nil
	}
	w.encoded = shown.Append(w.encoded[:0])
	return append(b[:0], w.encoded...), nil
}

// ReadDigest implements coord.Replica.
func (s *Store) ReadDigest(at coord.Address, done func(digest [16]byte, err error)) {
	if err := s.takesReads(); err != nil {
		done([16]byte{}, err)
		return
	}
	w := s.scratch()
	w.key = appendKey(w.key, &at)
	h, err := s.load(w)
	shown := h.object.Settled(s.confirmed(at.Partition, at.Class), at.LWW)
	digest := shown.Digest()
	s.putBack(w)
	switch {
	case err != nil:
		done([16]byte{}, err)
	case s.opts.Engine.DurableSeq() >= h.seq:
		done(digest, nil)
	default:
		later := digest // only a closure's variable has to be on the heap
		s.whenDurable(h.seq, func(err error) {
			if err != nil {
				later = [16]byte{}
			}
			done(later, err)
		})
	}
}
