package sstable

import (
	"bytes"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/cache"
)

// Finder looks up keys of a table that come in ascending order: what lies in the
// block of the key before is found without asking the index and the cache again.
// One goroutine uses it. The zero Finder is ready for Begin.
type Finder struct {
	r     *Reader
	index blockIter // lowest level; stands on the entry of data if have
	data  block
	at    handle // of data
	have  bool

	indexMem, dataMem *cache.Block
}

// Begin makes f look into r, from any key on. End it with End before r is closed.
func (f *Finder) Begin(r *Reader) {
	f.r = r
	if r.foot.levels == 1 {
		f.index.init(r.index)
	}
}

// End gives back the blocks that f holds.
func (f *Finder) End() {
	f.indexMem.Release()
	f.dataMem.Release()
	f.r, f.data, f.have = nil, block{}, false
	f.indexMem, f.dataMem = nil, nil
	f.index.init(block{})
}

// Lookup is Reader.Lookup. Since Begin seq is the same, and userKey not below that
// of the call before.
func (f *Finder) Lookup(dst, userKey []byte, seq base.SeqNum) (value []byte, kind base.Kind, at base.SeqNum, ok bool, err error) {
	r := f.r
	if r.closed.Load() {
		return dst, 0, 0, false, base.ErrClosed
	}
	tr := base.MakeTrailer(seq, base.KindMax)
	// The index key of a block is at or above all in it and below all behind.
	if !f.have || bytes.Compare(userKey, f.index.key) >= 0 {
		if err := f.load(userKey, tr); err != nil || !f.have {
			return dst, 0, 0, false, err
		}
	}
	v, t, _, same, err := f.data.find(userKey, tr)
	if err != nil || same && !pointKind(t.Kind()) {
		return dst, 0, 0, false, r.corrupt(f.at.offset, errBlock)
	}
	if !same {
		return dst, 0, 0, false, nil
	}
	return append(dst, v...), t.Kind(), t.SeqNum(), true, nil
}

// load goes to the block of a key; have is false if the table ends before it.
func (f *Finder) load(userKey []byte, tr base.Trailer) error {
	r := f.r
	f.have = false
	indexAt := r.foot.index
	if r.foot.levels == 2 {
		h, ok, err := r.lookup(&r.index, r.foot.index, userKey, tr)
		if err != nil || !ok {
			return err
		}
		part, mem, err := r.load(h)
		if err != nil {
			return err
		}
		f.index.init(part)
		f.indexMem.Release()
		f.indexMem, indexAt = mem, h
	}
	ok := f.index.seekGE(base.InternalKey{UserKey: userKey, Trailer: tr})
	if f.index.bad {
		f.index.bad = false
		return r.corrupt(indexAt.offset, errBlock)
	}
	if !ok {
		return nil
	}
	h, err := r.childHandle(indexAt, f.index.value)
	if err != nil {
		return err
	}
	data, mem, err := r.load(h)
	if err != nil {
		return err
	}
	f.dataMem.Release()
	f.data, f.dataMem, f.at, f.have = data, mem, h, true
	return nil
}
