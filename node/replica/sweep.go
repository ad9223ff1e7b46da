package replica

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/gossip/ring"
)

const (
	// sweepKeys bounds what one job of a sweep collects, in keys.
	sweepKeys = 256
	// sweepBudget bounds the entries of the index that it looks at.
	sweepBudget = 4096
	// sweepBytes is how many bytes of objects it reads into one batch, but for the
	// last of them, and sweepLocks how many keys it holds the locks of meanwhile.
	sweepBytes = 4 << 20
	sweepLocks = 32
)

// Tenant says whose span a tenant's data is in.
type Tenant struct {
	Class ring.Class
	LWW   bool
}

// sweeps are the spans that are to be swept, in the order in which they were released.
// One job at a time does a piece of the first and has itself run again, so that other
// work comes between.
type sweeps struct {
	mu struct {
		sync.Mutex
		due []repair.Span
		// from is where the sweep of due[0] goes on, nil at its beginning; begun says
		// that it has begun, and running that there is a job.
		from           []byte
		begun, running bool
	}
	tombstones, expired, lost, done atomic.Int64
}

// Collected counts what was collected since the start.
type Collected struct {
	// Tombstones, Expired and Lost are siblings: deletes, values that had expired, and
	// those that lost where the last write wins.
	Tombstones, Expired, Lost int64
	// Sweeps is how often a span was gone through.
	Sweeps int64
}

// Collected returns the counts.
func (s *Store) Collected() Collected {
	w := &s.sweeps
	return Collected{w.tombstones.Load(), w.expired.Load(), w.lost.Load(), w.done.Load()}
}

// Uncollected counts the spans of which something is confirmed that has not been released
// or collected yet. It waits for nothing: one that is being changed counts.
func (s *Store) Uncollected() (n int) {
	for p := range s.partitions {
		known := s.partitions[p].Load()
		if known == nil {
			continue
		}
		known.spans(func(_ ring.Class, sp *span) {
			// Its lock is held from before something is released until its sweep is due.
			if !sp.mu.TryLock() {
				n++
				return
			}
			defer sp.mu.Unlock()
			if sp.sweeping.Load() || !loaded(&sp.released).Equal(loaded(&sp.confirmed)) {
				n++
			}
		})
	}
	return n
}

// sweep begins to collect what a span has released. A sweep under way goes to its end
// with what is known by then, and then there is another.
func (s *Store) sweep(of repair.Span) {
	if s.opts.Tenant == nil {
		return
	}
	sp := s.partition(of.Partition).add(of.Class)
	w := &s.sweeps
	w.mu.Lock()
	defer w.mu.Unlock()
	most := 1
	if w.mu.begun && w.mu.due[0] == of {
		most = 2
	}
	if sp.queued >= most {
		return
	}
	sp.queued++
	sp.sweeping.Store(true)
	w.mu.due = append(w.mu.due, of)
	if !w.mu.running {
		w.mu.running = true
		s.opts.Scheduler.Go("replica sweep", s.sweepOnce)
	}
}

// sweepOnce is the job. A sweep that fails is given up: the next release of the span
// begins it anew, and the next start does.
func (s *Store) sweepOnce() {
	w := &s.sweeps
	w.mu.Lock()
	of, from := w.mu.due[0], w.mu.from
	w.mu.begun = true
	w.mu.Unlock()
	next, err := s.sweepPiece(of, from)
	w.mu.Lock()
	w.mu.from = next
	if err != nil || next == nil {
		w.mu.from, w.mu.begun, w.mu.due = nil, false, w.mu.due[1:]
		sp := s.partition(of.Partition).add(of.Class)
		sp.queued--
		sp.sweeping.Store(sp.queued > 0)
		w.done.Add(1)
	}
	if isClosed(err) {
		w.mu.due, w.mu.from, w.mu.begun = nil, nil, false
	}
	again := len(w.mu.due) > 0
	w.mu.running = again
	w.mu.Unlock()
	if again {
		s.opts.Scheduler.Go("replica sweep", s.sweepOnce)
	}
}

// sweepPiece collects what a piece of the index of a span names, and returns where the
// next one begins, nil if there is none.
func (s *Store) sweepPiece(of repair.Span, from []byte) (next []byte, err error) {
	if err := s.takesWrites(); err != nil {
		return nil, err
	}
	sp := s.partition(of.Partition).add(of.Class)
	released := loaded(&sp.released)
	if released.IsZero() {
		return nil, nil
	}
	keys, next, err := s.candidates(of, from, released)
	if err == nil && len(keys) > 0 {
		err = s.collectKeys(sp, of, keys)
	}
	return next, err
}

// candidate is an object that the index names.
type candidate struct {
	key    []byte // of the object
	stripe int
	lww    bool
}

// candidates reads a piece of the index.
func (s *Store) candidates(of repair.Span, from []byte, released *causal.Confirmed) (keys []candidate, next []byte, err error) {
	lower := append(binary.BigEndian.AppendUint16(nil, uint16(of.Partition)), kindIndex)
	upper := coord.Successor(lower)
	if from != nil {
		lower = from
	}
	it, err := s.opts.Engine.NewIter(lower, upper)
	if err != nil {
		return nil, nil, s.readError(of.Partition, err)
	}
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			err = s.readError(of.Partition, cerr)
		}
	}()
	n := 0
	for ok := it.First(); ok; {
		if n++; n > sweepBudget || len(keys) == sweepKeys {
			return keys, bytes.Clone(it.Key()), nil
		}
		if len(it.Key()) <= keyHead {
			ok = it.Next()
			continue
		}
		t, known := s.opts.Tenant(tenantOf(it.Key()))
		if !known || t.Class != of.Class {
			// Another span's, or nobody's yet: on to the next tenant.
			tenant := coord.Successor(it.Key()[:7])
			ok = tenant != nil && bytes.Compare(tenant, upper) < 0 && it.SeekGE(tenant)
			continue
		}
		if v := it.Value(); len(v) != 8 || int64(binary.BigEndian.Uint64(v)) <= released.Expired {
			key := bytes.Clone(it.Key())
			key[2] = kindObject
			keys = append(keys, candidate{key, stripeOf(key), t.LWW})
		}
		ok = it.Next()
	}
	return keys, nil, nil
}

// collectKeys removes what may go of some objects. Objects may be large, and writers
// wait for the locks of their keys, so it takes a few of them at a time.
func (s *Store) collectKeys(sp *span, of repair.Span, keys []candidate) error {
	slices.SortFunc(keys, func(a, b candidate) int { return a.stripe - b.stripe })
	for len(keys) > 0 {
		n, err := s.collectSome(sp, of, keys[:min(len(keys), sweepLocks)])
		if err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

// collectSome removes what may go of the first of some objects, in the order of their
// stripes, as one batch, and returns how many these were: one at least.
func (s *Store) collectSome(sp *span, of repair.Span, keys []candidate) (n int, err error) {
	sp.mu.Lock() // what is stored of the span may change with them
	defer sp.mu.Unlock()
	for i := range keys {
		if i == 0 || keys[i-1].stripe != keys[i].stripe {
			s.stripes[keys[i].stripe].Lock()
		}
	}
	defer func() {
		for i := range keys {
			if i == 0 || keys[i-1].stripe != keys[i].stripe {
				s.stripes[keys[i].stripe].Unlock()
			}
		}
	}()
	c := &collecting{s: s, of: of, sp: sp, released: loaded(&sp.released), floor: sp.floor.Load()}
	c.batch = s.batches.Get().(*engine.Batch)
	defer s.releaseBatch(c.batch)
	for n < len(keys) && c.read < sweepBytes {
		if err := c.collect(&keys[n]); err != nil {
			return n, err
		}
		n++
	}
	return n, c.write()
}

// collecting is a batch of a sweep. The locks of its keys are held.
type collecting struct {
	s        *Store
	of       repair.Span
	sp       *span
	released *causal.Confirmed
	floor    uint64
	batch    *engine.Batch
	index    []byte
	changed  []change
	read     int // bytes of objects

	tombstones, expired, lost int64
}

// change is what a batch makes of an object.
type change struct {
	key           []byte
	before, after causal.Object
}

// collect adds to the batch what is left of an object.
func (c *collecting) collect(k *candidate) error {
	if t, ok := c.s.opts.Tenant(tenantOf(k.key)); !ok || t.Class != c.of.Class {
		// It has left the class since it was found, or is gone: what was released of the
		// others by now need not be released of it.
		return nil
	}
	b, _, err := c.s.opts.Engine.GetSeq(nil, k.key)
	if isMissing(err) {
		c.index = indexKey(c.index[:0], k.key)
		c.batch.Delete(c.index)
		return nil
	}
	if err != nil {
		return c.s.readError(c.of.Partition, err)
	}
	c.read += len(b)
	o, err := causal.Decode(b)
	if err != nil {
		return nil // damage stays to be found
	}
	left := o.Settled(c.released, k.lww)
	if len(left.Siblings) == len(o.Siblings) && !left.IsZero() {
		return nil
	}
	c.floor = max(c.floor, left.Floor)
	if left.IsZero() {
		c.batch.Delete(k.key)
	} else {
		c.batch.Set(k.key, left.Append(nil))
	}
	c.index = putIndex(c.batch, c.index, k.key, &o, &left)
	c.changed = append(c.changed, change{k.key, o, left})
	for i := range o.Siblings {
		switch t := &o.Siblings[i]; {
		case left.Has(t.Dot):
		case t.Tombstone():
			c.tombstones++
		case t.Flags&causal.FlagExpiry != 0 && t.ExpiresAt <= c.released.Expired:
			c.expired++
		default:
			c.lost++
		}
	}
	return nil
}

// write applies the batch. It frees space, so that a full disk takes it.
func (c *collecting) write() error {
	if c.batch.Len() == 0 {
		return nil
	}
	if c.floor > c.sp.floor.Load() {
		// Nobody mints without the clocks of what is gone, now or after a crash.
		c.batch.Set(spanKey(c.of), appendSpan(nil, c.floor, loaded(&c.sp.confirmed), c.released))
		c.sp.floor.Store(c.floor)
	}
	pass := c.s.opts.Sums.Enter(int(c.of.Partition))
	defer pass.Leave()
	seq, err := c.s.apply(c.batch, true)
	for i := range c.changed {
		ch := &c.changed[i]
		c.s.count(ch.key, &ch.before, &ch.after, seq, err)
	}
	if err != nil {
		return err
	}
	w := &c.s.sweeps
	w.tombstones.Add(c.tombstones)
	w.expired.Add(c.expired)
	w.lost.Add(c.lost)
	return nil
}

// resumeSweeps begins to collect what earlier starts had released.
func (s *Store) resumeSweeps() {
	for p := range s.partitions {
		if known := s.partitions[p].Load(); known != nil {
			known.spans(func(c ring.Class, sp *span) {
				if !loaded(&sp.released).IsZero() {
					s.sweep(repair.Span{Partition: ring.Partition(p), Class: c})
				}
			})
		}
	}
}
