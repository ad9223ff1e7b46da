package memtable

import "github.com/pairdb/pairdb/engine/base"

// Iter walks a Table in the order of base.Compare. It sees what was added
// before it was positioned and may see what is added later; the caller filters
// by sequence number. Keys and values alias the table and are valid until it is
// closed. One goroutine uses it. The zero Iter is to be given to Init.
type Iter struct {
	t   *Table
	off uint32 // 0: not on an entry
}

var _ base.InternalIterator = (*Iter)(nil)

// NewIter returns an iterator that is not positioned yet.
func (t *Table) NewIter() *Iter { return &Iter{t: t} }

// Init makes it an unpositioned iterator over t, for callers that keep their
// iterators in a pool or an array.
func (it *Iter) Init(t *Table) { *it = Iter{t: t} }

// First moves to the first entry.
func (it *Iter) First() bool {
	it.off = it.t.arena.link(it.t.head, 0).Load()
	return it.off != 0
}

// Last moves to the last entry.
func (it *Iter) Last() bool {
	t := it.t
	off := t.head
	for level := int(t.height.Load()) - 1; level >= 0; level-- {
		for next := t.arena.link(off, level).Load(); next != 0; next = t.arena.link(off, level).Load() {
			off = next
		}
	}
	return it.set(off)
}

// SeekGE moves to the first entry at or after key.
func (it *Iter) SeekGE(key base.InternalKey) bool {
	_, it.off = it.t.seek(key)
	return it.off != 0
}

// SeekLT moves to the last entry before key.
func (it *Iter) SeekLT(key base.InternalKey) bool {
	pred, _ := it.t.seek(key)
	return it.set(pred)
}

// Next moves to the next entry.
func (it *Iter) Next() bool {
	it.off = it.t.arena.link(it.off, 0).Load()
	return it.off != 0
}

// Prev moves to the entry before.
func (it *Iter) Prev() bool {
	// The hint may be behind by inserts that have not ended; it is never
	// ahead, so walking on from it arrives.
	a := &it.t.arena
	pred := a.header(it.off).prev.Load()
	for next := a.link(pred, 0).Load(); next != it.off; next = a.link(pred, 0).Load() {
		pred = next
	}
	return it.set(pred)
}

// set moves to off; the head stands for no entry.
func (it *Iter) set(off uint32) bool {
	if off == it.t.head {
		off = 0
	}
	it.off = off
	return off != 0
}

// Valid reports whether the iterator stands on an entry.
func (it *Iter) Valid() bool { return it.off != 0 }

// Key returns the entry's key.
func (it *Iter) Key() base.InternalKey {
	h := it.t.arena.header(it.off)
	return base.InternalKey{
		UserKey: it.t.arena.bytes(it.off+headerSize, h.keyLen()),
		Trailer: base.Trailer(h.trailer),
	}
}

// Value returns the entry's value.
func (it *Iter) Value() []byte {
	h := it.t.arena.header(it.off)
	return it.t.arena.bytes(it.off+headerSize+h.keyLen(), h.valLen)
}

// Error returns nil: memory does not fail.
func (it *Iter) Error() error { return nil }

// Close ends the use of the iterator. It returns nil.
func (it *Iter) Close() error {
	it.off = 0
	return nil
}
