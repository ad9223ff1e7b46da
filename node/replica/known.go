package replica

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/gossip/ring"
)

// partition is what is known of one partition beside its data.
type partition struct {
	// shared are the spans of the classes that tenants share, by class, own those of
	// tenants that have one for themselves: a map that is replaced when one is added.
	shared [ring.MaxRF + 1]span
	own    atomic.Pointer[map[ring.Class]*span]
	votes  votes
	// lost says that damage may have taken what was stored of spans: of a class of which
	// nothing is stored nothing is known, then, also if its tenant was born in another one.
	lost atomic.Bool
}

// known is what is known of a span at one moment.
type known struct {
	confirmed, released *causal.Confirmed
	floor               uint64
}

// nothing is what is confirmed as long as nobody has said anything.
var nothing causal.Confirmed

func loaded(p *atomic.Pointer[causal.Confirmed]) *causal.Confirmed {
	if c := p.Load(); c != nil {
		return c
	}
	return &nothing
}

// span returns what is known of a valid class by itself, nil if that is nothing.
func (at *partition) span(c ring.Class) *span {
	if _, own := c.Own(); !own {
		return &at.shared[c]
	}
	if m := at.own.Load(); m != nil {
		return (*m)[c]
	}
	return nil
}

// add returns what is known of a valid class by itself, which may be nothing yet.
func (at *partition) add(c ring.Class) *span {
	for {
		if sp := at.span(c); sp != nil {
			return sp
		}
		at.addAll([]ring.Class{c})
	}
}

// addAll makes room for classes that tenants have for themselves.
func (at *partition) addAll(classes []ring.Class) {
	for {
		old := at.own.Load()
		more := make(map[ring.Class]*span, len(classes))
		if old != nil {
			maps.Copy(more, *old)
		}
		for _, c := range classes {
			if more[c] == nil {
				more[c] = new(span)
			}
		}
		if at.own.CompareAndSwap(old, &more) {
			return
		}
	}
}

// remove lets go of a class that a tenant had for itself.
func (at *partition) remove(c ring.Class) {
	for {
		old := at.own.Load()
		if old == nil || (*old)[c] == nil {
			return
		}
		less := maps.Clone(*old)
		delete(less, c)
		if at.own.CompareAndSwap(old, &less) {
			return
		}
	}
}

// spans goes through all classes of which anything may be known by itself, in order.
func (at *partition) spans(do func(ring.Class, *span)) {
	for c := ring.Class(1); c <= ring.MaxRF; c++ {
		do(c, &at.shared[c])
	}
	if m := at.own.Load(); m != nil {
		for _, c := range slices.Sorted(maps.Keys(*m)) {
			do(c, (*m)[c])
		}
	}
}

// split reports whether a class that a tenant has for itself has parted from the one that
// it was born in: what is known of it is known by itself. It stays so.
func (sp *span) split() bool { return sp != nil && sp.confirmed.Load() != nil }

// load returns what is known of a span by itself. What is released is loaded first, since
// that is adopted before.
func (sp *span) load() (k known) {
	k.released, k.confirmed, k.floor = loaded(&sp.released), loaded(&sp.confirmed), sp.floor.Load()
	return k
}

// known returns what is known of a valid class. What is known of one that a tenant has for
// itself is what is known of the class that it was born in, until they part.
func (at *partition) known(c ring.Class) known {
	if _, own := c.Own(); !own {
		return at.shared[c].load()
	}
	for {
		if sp := at.span(c); sp.split() {
			return sp.load()
		}
		k := known{&nothing, &nothing, 0}
		if !at.lost.Load() {
			k = at.shared[c.Born()].load()
		}
		// They part before more is known of the other one: what was loaded holds for this
		// one, too, if they have not parted by now.
		sp := at.span(c)
		if sp.split() {
			continue
		}
		if sp != nil {
			k.floor = max(k.floor, sp.floor.Load())
		}
		return k
	}
}

// told returns what other nodes are told is known of a class. Of one that a tenant has for
// itself they are told nothing less than holds for it by a change of the other one that is
// under way: that may have begun before this node knew that the tenant has left. One that
// begins later has them part.
func (at *partition) told(c ring.Class) known {
	if _, own := c.Own(); own && !at.span(c).split() {
		born := &at.shared[c.Born()]
		born.mu.Lock()
		defer born.mu.Unlock()
	}
	return at.known(c)
}

// partition returns what is known of a partition of a layout.
func (s *Store) partition(p ring.Partition) *partition {
	at := &s.partitions[p]
	if known := at.Load(); known != nil {
		return known
	}
	at.CompareAndSwap(nil, new(partition))
	return at.Load()
}

// spanOf returns what is known by itself of the span of a key, nil if that is nothing.
func (s *Store) spanOf(p ring.Partition, c ring.Class) *span {
	if int(p) >= len(s.partitions) || !c.Valid() {
		return nil
	}
	if at := s.partitions[p].Load(); at != nil {
		return at.span(c)
	}
	return nil
}

// confirmed returns what is confirmed of the keys of a span, never nil.
func (s *Store) confirmed(p ring.Partition, c ring.Class) *causal.Confirmed {
	if int(p) >= len(s.partitions) || !c.Valid() {
		return &nothing
	}
	at := s.partitions[p].Load()
	if at == nil {
		return &nothing
	}
	if _, own := c.Own(); !own {
		return loaded(&at.shared[c].confirmed)
	}
	return at.known(c).confirmed
}

// floor returns the clock above which a new write of a span has to be.
func (s *Store) floor(p ring.Partition, c ring.Class) uint64 {
	if int(p) >= len(s.partitions) || !c.Valid() {
		return 0
	}
	at := s.partitions[p].Load()
	if at == nil {
		return 0
	}
	if _, own := c.Own(); !own {
		return at.shared[c].floor.Load()
	}
	return at.known(c).floor
}

// find checks that a span can be one and returns its partition.
func (s *Store) find(of repair.Span) (*partition, error) {
	if int(of.Partition) >= len(s.partitions) || !of.Class.Valid() {
		return nil, &coord.Error{
			Code: errcode.InvalidArgument, Outcome: errcode.NotApplied,
			Message: fmt.Sprintf("there is no partition %d of %s", of.Partition, of.Class.Tenants()),
		}
	}
	if t, own := of.Class.Own(); own && s.gone(t) {
		return nil, errDeleted
	}
	return s.partition(of.Partition), nil
}

// holding is a span of which what is known is about to change.
type holding struct {
	s  *Store
	of repair.Span
	at *partition
	sp *span
	// born is held, too, as long as the class has not parted from it, nil then.
	born  *span
	known known
}

// hold takes what guards what is known of a span, which free gives back. Whoever needs
// that of a class that a tenant has for itself beside that of the one that it was born in
// takes it second.
func (s *Store) hold(of repair.Span) (*holding, error) {
	at, err := s.find(of)
	if err != nil {
		return nil, err
	}
	h := &holding{s: s, of: of, at: at, sp: at.add(of.Class)}
	t, own := of.Class.Own()
	if own && !h.sp.split() {
		h.born = &at.shared[of.Class.Born()]
		h.born.mu.Lock()
	}
	h.sp.mu.Lock()
	// What is stored of a tenant that was deleted goes under the same lock.
	if own && s.gone(t) {
		h.free()
		return nil, errDeleted
	}
	h.known = at.known(of.Class)
	return h, nil
}

func (h *holding) free() {
	h.sp.mu.Unlock()
	if h.born != nil {
		h.born.mu.Unlock()
	}
}

// store makes it known that a span has come to be what it is to be, on disk and to all
// merges and reads when it returns nil.
func (h *holding) store(to known, sweep bool) error {
	s := h.s
	if err := h.part(); err != nil {
		return err
	}
	b := s.batches.Get().(*engine.Batch)
	defer s.releaseBatch(b)
	b.Set(spanKey(h.of), appendSpan(nil, to.floor, to.confirmed, to.released))
	// Before it is stored: nobody mints below what is known here to be gone.
	h.sp.floor.Store(to.floor)
	seq, err := s.apply(b, false)
	if err == nil {
		if err = s.opts.Engine.WaitDurable(seq); err != nil {
			err = writeError(err, true)
		}
	}
	if err != nil {
		return err
	}
	h.publish(to)
	s.passLocks()
	if sweep {
		s.sweep(h.of)
	}
	return nil
}

// publish has others see what is known from now on.
func (h *holding) publish(to known) {
	h.sp.floor.Store(to.floor)
	if h.born != nil && !h.sp.split() {
		h.sp.released.Store(to.released) // what is confirmed says that they have parted
		if !to.released.IsZero() {
			// The sweeps of the other class leave out what is of this one.
			defer h.s.sweep(h.of)
		}
	}
	h.sp.confirmed.Store(to.confirmed)
	h.sp.released.Store(to.released)
}

// parted bounds the classes of which what is known is stored in one batch.
const parted = 32

// part stores what is known of each class that a tenant has for itself and that was born
// in the one held, by itself, where it is not yet: so it stays what it was when the tenant
// left, whatever comes to be known of the other. It comes in the log before that does. A
// class that this node does not know of yet has the same owners.
func (h *holding) part() error {
	if _, own := h.of.Class.Own(); own || h.s.opts.Own == nil {
		return nil
	}
	var due []ring.Class
	for _, c := range h.s.opts.Own() {
		if c.Born() == h.of.Class && !h.at.span(c).split() {
			due = append(due, c)
		}
	}
	if len(due) == 0 {
		return nil
	}
	h.at.addAll(due)
	for len(due) > 0 {
		some := due[:min(len(due), parted)]
		due = due[len(some):]
		if err := h.partSome(some); err != nil {
			return err
		}
	}
	return nil
}

func (h *holding) partSome(classes []ring.Class) error {
	s := h.s
	b := s.batches.Get().(*engine.Batch)
	defer s.releaseBatch(b)
	var own []*holding
	defer func() {
		for _, o := range own {
			o.sp.mu.Unlock()
		}
	}()
	for _, c := range classes {
		t, _ := c.Own()
		o := &holding{s: s, of: repair.Span{Partition: h.of.Partition, Class: c}, at: h.at, sp: h.at.add(c), born: h.sp}
		o.sp.mu.Lock()
		own = append(own, o)
		if o.sp.split() || s.gone(t) {
			continue
		}
		o.known = h.at.known(c)
		b.Set(spanKey(o.of), appendSpan(nil, o.known.floor, o.known.confirmed, o.known.released))
	}
	if b.Len() == 0 {
		return nil
	}
	if _, err := s.apply(b, false); err != nil {
		return err
	}
	for _, o := range own {
		if o.known.confirmed != nil {
			o.publish(o.known)
		}
	}
	return nil
}
