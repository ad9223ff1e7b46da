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

// merging is the work of one Merge. Its memory is used again: nothing of it
// outlives the call.
type merging struct {
	s     *Store
	items []mergeItem
	// order has the items that are sound by stripe, those of one stripe as they
	// came: the stripe above 32 bits of the item's number.
	order []uint64
	// keys are the storage keys, values what the engine holds at them, one after
	// the other; value is what is being encoded.
	keys, values, value []byte
	// entry is the storage key of an entry of the index.
	entry []byte
	// objects are those that came and those that are held.
	objects causal.Slab
}

// mergeItem is one object on its way into the store.
type mergeItem struct {
	key      []byte
	stripe   int
	incoming causal.Object
	lww      bool
	// object is what the key holds after this item and seq whose write that
	// is; both belong to the last item of a key once dirty is set. encoded is
	// the object's encoding, nil if it is not known.
	object  causal.Object
	encoded []byte
	seq     base.SeqNum
	// before is what the key held before this batch.
	before held
	// dirty says that object is to be written in this batch.
	dirty bool
	// last is the index of the last item with the same key so far, seen from
	// the first one; first is that first one.
	first, last int
	uncovered   []byte
	err         error
	// stripped says that something of it was left out.
	stripped bool
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

// maxPooledItems bounds the items of a merge whose memory is kept.
const maxPooledItems = 1024

// Merge implements coord.Replica. Items of one key are joined in order and
// written once.
func (s *Store) Merge(items []coord.MergeItem, done func(i int, uncovered []byte, err error)) {
	if err := s.takesWrites(); err != nil {
		for i := range items {
			done(i, nil, err)
		}
		return
	}
	m, ok := s.merges.Get().(*merging)
	if !ok {
		m = new(merging)
	}
	m.s, m.items = s, slices.Grow(m.items, len(items))[:len(items)]
	defer m.release()
	for i := range items {
		m.prepare(i, &items[i])
	}
	m.lock()
	for i := range m.items {
		m.join(i, &items[i])
	}
	seq, err := m.write()
	m.unlock()

	// What was unchanged is acknowledged only when it is on disk, too; one
	// wait serves all.
	type answer struct {
		uncovered []byte
		err       error
	}
	var answers []answer // nil if there is nothing to say
	for i := range m.items {
		it := &m.items[i]
		a := answer{it.uncovered, it.err}
		if it.err == nil {
			seq = max(seq, it.seq)
			switch {
			case err != nil:
				a = answer{nil, err}
			case it.stripped:
				a = answer{nil, coord.ErrStripped}
			}
		}
		if answers == nil && (a.err != nil || a.uncovered != nil) {
			answers = make([]answer, len(items))
		}
		if answers != nil {
			answers[i] = a
		}
	}
	n := len(items)
	s.whenDurable(seq, func(err error) {
		for i := range n {
			var a answer
			if answers != nil {
				a = answers[i]
			}
			if a.err == nil && err != nil {
				a = answer{nil, err}
			}
			done(i, a.uncovered, a.err)
		}
	})
}

// release lets go of everything and keeps the memory, if it is not too much.
func (m *merging) release() {
	s := m.s
	clear(m.items)
	m.objects.Reset()
	m.s, m.items, m.order = nil, m.items[:0], m.order[:0]
	for _, b := range []*[]byte{&m.keys, &m.values, &m.value, &m.entry} {
		*b = (*b)[:0]
		if cap(*b) > maxPooled {
			*b = nil
		}
	}
	if cap(m.items) <= maxPooledItems {
		s.merges.Put(m)
	}
}

// prepare decodes an item.
func (m *merging) prepare(i int, in *coord.MergeItem) {
	it := &m.items[i]
	at := len(m.keys)
	m.keys = appendKey(m.keys, &in.Address)
	it.key = m.keys[at:len(m.keys):len(m.keys)]
	it.stripe, it.lww, it.first, it.last = stripeOf(it.key), in.LastWriteWins, i, i
	o, err := m.objects.Decode(in.Object)
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
		at := len(m.keys)
		m.keys = appendRecordKey(m.keys, &in.Address, in.IdempotencyKey)
		it.recordKey, it.record = m.keys[at:len(m.keys):len(m.keys)], in.Record
	}
	m.order = append(m.order, uint64(it.stripe)<<32|uint64(i))
}

// lock takes the items' stripes in ascending order, each once, and finds the
// items of one key.
func (m *merging) lock() {
	slices.Sort(m.order)
	from := 0 // where the items of the stripe begin
	for n := range m.order {
		it := m.item(n)
		if n == 0 || m.item(n-1).stripe != it.stripe {
			from = n
			m.s.stripes[it.stripe].Lock()
			continue
		}
		for k := from; k < n; k++ {
			// One that is not the first of its key is like the first.
			if p := m.item(k); p.first == m.index(k) && bytes.Equal(p.key, it.key) {
				it.first = p.first
				break
			}
		}
	}
}

func (m *merging) index(n int) int       { return int(uint32(m.order[n])) }
func (m *merging) item(n int) *mergeItem { return &m.items[m.index(n)] }

// unlock gives the stripes back.
func (m *merging) unlock() {
	for n := range m.order {
		if k := m.item(n).stripe; n == 0 || m.item(n-1).stripe != k {
			m.s.stripes[k].Unlock()
		}
	}
}

// load reads the object at a storage key.
func (m *merging) load(key []byte) (held, error) {
	at := len(m.values)
	b, seq, err := m.s.opts.Engine.GetSeq(m.values, key)
	if errors.Is(err, base.ErrNotFound) {
		return held{}, nil
	}
	if err != nil {
		return held{}, m.s.readError(partitionOf(key), err)
	}
	// If it had to move, what was read before stays where it was.
	m.values = b
	b = b[at:len(b):len(b)]
	o, err := m.objects.Decode(b)
	if err != nil {
		return held{}, m.s.undecodable(key, "the stored object", err)
	}
	return held{o, seq, len(b)}, nil
}

// unsound reports whether what was just read for an item is not to be used: the read
// failed, or the partition is under quarantine and the item is not fetched for it.
func (m *merging) unsound(it *mergeItem, fetched bool) bool {
	if err := m.s.sound(partitionOf(it.key)); err != nil && !fetched {
		it.err = err
	}
	return it.err != nil
}

// join computes what item i makes of its key.
func (m *merging) join(i int, in *coord.MergeItem) {
	it := &m.items[i]
	if it.err == nil {
		it.err = m.s.fenced(&in.Address)
	}
	if it.err != nil {
		return
	}
	var before held
	dirty := false
	var recordSeq base.SeqNum
	if it.recordKey != nil {
		var old *causal.Record
		rb := m.s.buffer()
		defer m.s.release(rb)
		if old, recordSeq, it.err = m.s.loadRecord(rb, it.recordKey); m.unsound(it, in.Refetch != nil) {
			return
		}
		if old != nil {
			it.replaced, it.replacedSize = old.Expires, int64(len(it.recordKey)+len(*rb))
		}
		it.keep = old == nil || old.Yields(it.record)
	}
	if it.first == i {
		before, it.err = m.load(it.key)
		if m.unsound(it, in.Refetch != nil) {
			return
		}
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
	c := m.s.confirmed(in.Partition, in.Class)
	whole := in.Gaining != 0 && !m.s.told(in)
	stub, ok := causal.Uncovered(&before.object, &it.incoming)
	if shown := before.object.Remaining(c, it.lww); ok && len(shown.Siblings) < len(before.object.Siblings) {
		// Nobody has to win over what no reader is shown any more.
		stub, ok = causal.Uncovered(&shown, &it.incoming)
	}
	if ok {
		it.uncovered = stub.Append(make([]byte, 0, stub.EncodedLen()))
	}
	it.seq, it.dirty = max(before.seq, recordSeq), dirty
	switch {
	case in.Refetch != nil:
		it.object = causal.JoinFetched(&before.object, &it.incoming, in.Refetch)
		if it.lww {
			it.object.StripLosersUnder(c, &before.object, &it.incoming)
		}
	case c.CoversNone(&it.incoming) && it.incoming.Replaces(&before.object) && (!it.lww || len(it.incoming.Siblings) < 2):
		// Mostly: a write of somebody who has seen what is held. Equal objects
		// have equal bytes, so these need no encoding.
		it.object, it.encoded = it.incoming, in.Object
	case whole:
		// What c covers may be missing only because nobody has told it yet; and what is
		// dead may seem to win over what lives until it goes, so that all keep their values.
		it.object = causal.Join(&before.object, &it.incoming)
		if it.lww {
			it.object.KeepPast(&before.object, &it.incoming)
		}
	default:
		var stripped bool
		it.object, stripped = causal.JoinUnder(&before.object, &it.incoming, c, it.lww)
		// A write that an idempotency key stands for was made, then, and superseded.
		it.stripped = stripped && it.record == nil
		// A read may have got what it found before a round brought what superseded it, and
		// nothing from an owner that shows that no more.
		if in.Found {
			it.stripped = before.object.Superseded(&it.incoming, c)
		}
		if it.lww {
			it.object.StripLosersUnder(c, &before.object, &it.incoming)
		}
		if before.object.IsZero() && len(it.object.Siblings) == 0 && c.Seen.CoversAll(it.object.Context) {
			it.object = before.object // nothing of it is left
		}
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
	free := true
	for i := range m.items {
		it := &m.items[i]
		if it.dirty && it.err == nil {
			encoded := it.encoded
			if encoded == nil {
				m.value = it.object.Append(m.value[:0])
				encoded = m.value
			}
			if len(encoded) > engine.MaxValueSize {
				m.refuse(it.first, len(encoded))
				continue
			}
			before := &m.items[it.first].before.object
			b.Set(it.key, encoded)
			m.entry = putIndex(b, m.entry, it.key, before, &it.object)
			free = free && frees(&it.object, len(encoded), &m.items[it.first].before)
		}
		if it.keep && it.err == nil {
			m.value = it.record.Append(m.value[:0])
			it.recordSize = int64(len(it.recordKey) + len(m.value))
			b.Set(it.recordKey, m.value)
			free = false
		}
	}
	if b.Len() == 0 {
		return 0, nil
	}
	pass := m.s.opts.Sums.Enter(m.item(0).stripe)
	defer pass.Leave()
	seq, err := m.s.apply(b, free)
	for i := range m.items {
		if it := &m.items[i]; it.dirty && it.err == nil {
			// Nobody ever sees a part of a batch, so that its last number is as good
			// as the item's own.
			m.s.count(it.key, &m.items[it.first].before.object, &it.object, seq, err)
		}
		if it := &m.items[i]; err == nil && it.keep && it.err == nil {
			if v := m.s.partitions[partitionOf(it.key)].Load(); v != nil {
				v.votes.remove(it.recordKey)
			}
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
