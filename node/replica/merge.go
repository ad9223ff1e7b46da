package replica

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
)

// merging is the work of one Merge.
type merging struct {
	s     *Store
	items []mergeItem
	bufs  []*[]byte
}

// mergeItem is one object on its way into the store.
type mergeItem struct {
	key      []byte
	stripe   int
	incoming causal.Object
	lww      bool
	// object is what the key holds after this item and seq whose write that
	// is; both belong to the last item of a key once dirty is set.
	object causal.Object
	seq    base.SeqNum
	// before is what the key held before this batch.
	before held
	// dirty says that object is to be written in this batch.
	dirty bool
	// last is the index of the last item with the same key so far, seen from
	// the first one; first is that first one.
	first, last int
	uncovered   []byte
	err         error
	// recordKey is the storage key of the record that comes with the object,
	// nil if none does; keep says that it is to be written.
	recordKey []byte
	record    *causal.Record
	keep      bool
	// replaced is when the record that was there expires, and replacedSize what
	// it takes with its key, in bytes; 0 if there was none.
	replaced, replacedSize int64
	recordSize             int64
}

// Merge implements coord.Replica. Items of one key are joined in order and
// written once.
func (s *Store) Merge(items []coord.MergeItem, done func(i int, uncovered []byte, err error)) {
	if err := s.takesWrites(); err != nil {
		for i := range items {
			done(i, nil, err)
		}
		return
	}
	m := &merging{s: s, items: make([]mergeItem, len(items)), bufs: make([]*[]byte, 0, 2*len(items)+1)}
	defer m.release()
	for i := range items {
		m.prepare(i, &items[i])
	}
	stripes := m.lock()
	for i := range m.items {
		m.join(i)
	}
	seq, err := m.write()
	for _, k := range stripes {
		s.stripes[k].Unlock()
	}

	// What was unchanged is acknowledged only when it is on disk, too; one
	// wait serves all.
	type answer struct {
		uncovered []byte
		err       error
	}
	answers := make([]answer, len(items))
	for i := range m.items {
		it := &m.items[i]
		answers[i] = answer{it.uncovered, it.err}
		if err != nil && it.err == nil {
			answers[i] = answer{nil, err}
		}
		if it.err == nil {
			seq = max(seq, it.seq)
		}
	}
	s.whenDurable(seq, func(err error) {
		for i, a := range answers {
			if a.err == nil && err != nil {
				a = answer{nil, err}
			}
			done(i, a.uncovered, a.err)
		}
	})
}

func (m *merging) buffer() *[]byte {
	b := m.s.buffer()
	m.bufs = append(m.bufs, b)
	return b
}

func (m *merging) release() {
	for _, b := range m.bufs {
		m.s.release(b)
	}
}

// prepare decodes an item and finds earlier ones of the same key.
func (m *merging) prepare(i int, in *coord.MergeItem) {
	it := &m.items[i]
	kb := m.buffer()
	*kb = appendKey((*kb)[:0], &in.Address)
	it.key, it.stripe, it.lww, it.first, it.last = *kb, stripeOf(*kb), in.LastWriteWins, i, i
	o, err := causal.Decode(in.Object)
	if err == nil && in.Record != nil && !(in.Record.Applied && o.Context.Covers(in.Record.Dot)) {
		err = errors.New("the record is not that of a write in the object")
	}
	if err != nil {
		it.err = &coord.Error{
			Code: errcode.InvalidArgument, Outcome: errcode.NotApplied,
			Message: "the object does not decode", Err: err,
		}
		return
	}
	it.incoming = o
	if in.Record != nil {
		rb := m.buffer()
		*rb = appendRecordKey((*rb)[:0], &in.Address, in.IdempotencyKey)
		it.recordKey, it.record = *rb, in.Record
	}
	for k := range i {
		if p := &m.items[k]; p.stripe == it.stripe && p.err == nil && bytes.Equal(p.key, it.key) {
			it.first = k
			return
		}
	}
}

// lock takes the items' stripes in ascending order, each once.
func (m *merging) lock() []int {
	stripes := make([]int, 0, len(m.items))
	for i := range m.items {
		if m.items[i].err == nil {
			stripes = append(stripes, m.items[i].stripe)
		}
	}
	slices.Sort(stripes)
	stripes = slices.Compact(stripes)
	for _, k := range stripes {
		m.s.stripes[k].Lock()
	}
	return stripes
}

// join computes what item i makes of its key.
func (m *merging) join(i int) {
	it := &m.items[i]
	if it.err != nil {
		return
	}
	var before held
	dirty := false
	var recordSeq base.SeqNum
	if it.recordKey != nil {
		var old *causal.Record
		rb := m.buffer()
		if old, recordSeq, it.err = m.s.loadRecord(rb, it.recordKey); it.err != nil {
			return
		}
		if old != nil {
			it.replaced, it.replacedSize = old.Expires, int64(len(it.recordKey)+len(*rb))
		}
		it.keep = old == nil || old.Yields(it.record)
	}
	if it.first == i {
		before, it.err = m.s.load(m.buffer(), it.key)
		it.before = before
	} else {
		first := &m.items[it.first]
		prev := &m.items[first.last]
		before, dirty, it.err = held{prev.object, prev.seq, 0}, prev.dirty, first.err
		if it.err == nil {
			prev.dirty = false
			first.last = i
		}
	}
	if it.err != nil {
		return
	}
	if stub, ok := causal.Uncovered(&before.object, &it.incoming); ok {
		it.uncovered = stub.Append(make([]byte, 0, stub.EncodedLen()))
	}
	it.object, it.seq, it.dirty = causal.Join(&before.object, &it.incoming), max(before.seq, recordSeq), dirty
	if it.lww {
		it.object.StripLosers()
	}
	if !it.object.Equal(&before.object) {
		it.dirty = true
	}
}

// write applies what changed as one batch and returns its sequence number, 0 if
// nothing did.
func (m *merging) write() (base.SeqNum, error) {
	b := m.s.batches.Get().(*engine.Batch)
	defer m.s.releaseBatch(b)
	vb := m.buffer()
	free := true
	for i := range m.items {
		if it := &m.items[i]; it.dirty && it.err == nil {
			*vb = it.object.Append((*vb)[:0])
			if len(*vb) > engine.MaxValueSize {
				m.refuse(it.first, len(*vb))
				continue
			}
			b.Set(it.key, *vb)
			free = free && frees(&it.object, len(*vb), &m.items[it.first].before)
		}
		if it := &m.items[i]; it.keep && it.err == nil {
			*vb = it.record.Append((*vb)[:0])
			it.recordSize = int64(len(it.recordKey) + len(*vb))
			b.Set(it.recordKey, *vb)
			free = false
		}
	}
	if b.Len() == 0 {
		return 0, nil
	}
	seq, err := m.s.apply(b, free)
	for i := range m.items {
		if it := &m.items[i]; err == nil && it.keep && it.err == nil {
			m.s.opts.Records.replace(tenantOf(it.recordKey), it.replaced, it.replacedSize, it.record.Expires, it.recordSize)
		}
	}
	return seq, err
}

// refuse fails the items of one key, whose join has size bytes: no engine value
// may be as large. The others of the frame go on.
func (m *merging) refuse(first, size int) {
	for i := range m.items {
		if it := &m.items[i]; it.first == first && it.err == nil {
			it.err = &coord.Error{
				Code: errcode.ResourceExhausted, Outcome: errcode.NotApplied,
				Message: fmt.Sprintf("the key's siblings have %d bytes together, at most %d can be stored", size, engine.MaxValueSize),
			}
		}
	}
}
