package sstable

import (
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/cache"
)

// Iter walks the point entries of a table in the order of base.Compare. One
// goroutine uses it. Keys and values are valid until the next positioning.
type Iter struct {
	r     *Reader
	top   blockIter // in use with two index levels
	index blockIter // lowest level
	data  blockIter

	indexAt, dataAt handle // the blocks in index and data
	haveIndex       bool   // indexAt is loaded; always with one level
	haveData        bool

	// indexMem and dataMem hold the blocks in index and data, if they are of
	// the cache.
	indexMem, dataMem *cache.Block

	mode  iterMode
	ahead readahead
	own   []byte // decoded block that is not in the cache
	err   error
}

// iterMode says how an Iter uses the cache.
type iterMode uint8

const (
	modeFill   iterMode = iota // reads and fills the cache
	modeNoFill                 // reads it, does not fill it
	modeDirect                 // does without it
)

var _ base.InternalIterator = (*Iter)(nil)

// NewIter returns an unpositioned iterator that reads through the cache.
func (r *Reader) NewIter() (*Iter, error) { return r.newIter(modeFill) }

// NewCompactionIter returns an iterator for reading much of the table once: it
// takes what the cache has but puts nothing in, and reads ahead from the start.
func (r *Reader) NewCompactionIter() (*Iter, error) { return r.newIter(modeNoFill) }

func (r *Reader) newIter(mode iterMode) (*Iter, error) {
	if r.closed.Load() {
		return nil, base.ErrClosed
	}
	it := &Iter{r: r, mode: mode}
	it.data.off = -1
	if mode != modeFill {
		it.ahead.size = maxAhead
	}
	if r.foot.levels == 1 {
		it.index.init(r.index)
		it.indexAt, it.haveIndex = r.foot.index, true
	} else {
		it.top.init(r.index)
	}
	return it, nil
}

func (it *Iter) fail(at handle, err error) bool {
	if it.err == nil {
		it.err = it.r.corrupt(at.offset, err)
	}
	return it.failWith(it.err)
}

func (it *Iter) failWith(err error) bool {
	it.err = err
	it.data.end()
	return false
}

// loadIndex loads the index block that top stands on.
func (it *Iter) loadIndex() bool {
	h, err := it.r.childHandle(it.r.foot.index, it.top.value)
	if err != nil {
		return it.failWith(err)
	}
	if it.haveIndex && h == it.indexAt {
		return true
	}
	it.haveIndex = false
	var b block
	var mem *cache.Block
	if it.mode == modeDirect {
		b, err = it.r.fetchBlock(h)
	} else {
		b, mem, err = it.r.load(h)
	}
	if err != nil {
		return it.failWith(err)
	}
	it.index.init(b)
	it.indexMem.Release()
	it.indexAt, it.indexMem, it.haveIndex = h, mem, true
	return true
}

// loadData loads the data block that index stands on.
func (it *Iter) loadData() bool {
	h, err := it.r.childHandle(it.indexAt, it.index.value)
	if err != nil {
		return it.failWith(err)
	}
	if it.haveData && h == it.dataAt {
		return true
	}
	it.haveData = false
	b, mem, err := it.readData(h)
	if err != nil {
		return it.failWith(err)
	}
	it.data.init(b)
	it.dataMem.Release()
	it.dataAt, it.dataMem, it.haveData = h, mem, true
	return true
}

// readData returns a data block and, if it is the cache's, the hold on it.
func (it *Iter) readData(h handle) (block, *cache.Block, error) {
	r := it.r
	if it.mode != modeDirect {
		if b := r.opts.Cache.Get(r.key(h)); b != nil {
			return r.parse(h, b)
		}
	}
	raw, err := it.ahead.read(r, h)
	if err != nil {
		return block{}, nil, err
	}
	if it.mode == modeFill && r.opts.Cache != nil {
		return r.admit(h, raw)
	}
	payload, codec, err := r.verify(h, raw)
	if err != nil {
		return block{}, nil, err
	}
	// The block lives in it.own or in the read-ahead buffer, both of which stay
	// as they are until the next block is read.
	b, err := r.decodeInto(it.own, h, payload, codec)
	if err != nil {
		return block{}, nil, err
	}
	if codec != CodecNone {
		it.own = b
	}
	blk, ok := parseBlock(b)
	if !ok {
		return block{}, nil, r.corrupt(h.offset, errBlock)
	}
	return blk, nil, nil
}

// done ends a positioning: ok says whether data stands on an entry.
func (it *Iter) done(ok bool) bool {
	if it.data.bad {
		return it.fail(it.dataAt, errBlock)
	}
	if ok && !pointKind(it.data.trailer.Kind()) {
		return it.fail(it.dataAt, errBlock)
	}
	return ok
}

// reset prepares an absolute positioning: an earlier failure is over, for
// the file may be read again.
func (it *Iter) reset() {
	it.err = nil
	it.data.bad, it.index.bad, it.top.bad = false, false, false
	it.data.end()
}

// First moves to the first entry.
func (it *Iter) First() bool {
	it.reset()
	if it.r.foot.levels == 2 && !(it.topMoved(it.top.first()) && it.loadIndex()) {
		return false
	}
	if !it.indexMoved(it.index.first()) {
		return false
	}
	return it.forward(it.loadData() && it.data.first())
}

// Last moves to the last entry.
func (it *Iter) Last() bool {
	it.reset()
	if it.r.foot.levels == 2 && !(it.topMoved(it.top.last()) && it.loadIndex()) {
		return false
	}
	if !it.indexMoved(it.index.last()) {
		return false
	}
	return it.backward(it.loadData() && it.data.last())
}

// SeekGE moves to the first entry at or after key.
func (it *Iter) SeekGE(key base.InternalKey) bool {
	it.reset()
	if it.r.foot.levels == 2 && !(it.topMoved(it.top.seekGE(key)) && it.loadIndex()) {
		return false
	}
	if !it.indexMoved(it.index.seekGE(key)) {
		return false
	}
	return it.forward(it.loadData() && it.data.seekGE(key))
}

// SeekLT moves to the last entry before key.
func (it *Iter) SeekLT(key base.InternalKey) bool {
	it.reset()
	if it.r.foot.levels == 2 {
		if !it.topMoved(it.top.seekGE(key)) {
			return it.err == nil && it.Last()
		}
		if !it.loadIndex() {
			return false
		}
	}
	if !it.indexMoved(it.index.seekGE(key)) {
		return it.err == nil && it.Last()
	}
	return it.backward(it.loadData() && it.data.seekLT(key))
}

// Next moves to the next entry.
func (it *Iter) Next() bool { return it.forward(it.data.step()) }

// Prev moves to the entry before.
func (it *Iter) Prev() bool { return it.backward(it.data.prev()) }

// forward goes on to the following blocks while the data iterator, which ok
// says has an entry or not, is at the end of its block.
func (it *Iter) forward(ok bool) bool {
	for !ok && it.err == nil && !it.data.bad {
		if !it.indexMoved(it.index.step()) {
			if it.err != nil || it.r.foot.levels == 1 {
				return false
			}
			if !it.topMoved(it.top.step()) || !it.loadIndex() {
				return false
			}
			if !it.indexMoved(it.index.first()) {
				return it.emptyIndex()
			}
		}
		ok = it.loadData() && it.data.first()
	}
	return it.done(ok && it.err == nil)
}

// backward is forward the other way.
func (it *Iter) backward(ok bool) bool {
	for !ok && it.err == nil && !it.data.bad {
		if !it.indexMoved(it.index.prev()) {
			if it.err != nil || it.r.foot.levels == 1 {
				return false
			}
			if !it.topMoved(it.top.prev()) || !it.loadIndex() {
				return false
			}
			if !it.indexMoved(it.index.last()) {
				return it.emptyIndex()
			}
		}
		ok = it.loadData() && it.data.last()
	}
	return it.done(ok && it.err == nil)
}

// emptyIndex fails on an index block without entries below the top level,
// which no writer makes.
func (it *Iter) emptyIndex() bool {
	if it.err != nil {
		return false
	}
	return it.fail(it.indexAt, errBlock)
}

// indexMoved passes ok on, after a look at whether the index is malformed.
func (it *Iter) indexMoved(ok bool) bool {
	if it.index.bad {
		return it.fail(it.indexAt, errBlock)
	}
	if !ok {
		it.data.end()
	}
	return ok
}

func (it *Iter) topMoved(ok bool) bool {
	if it.top.bad {
		return it.fail(it.r.foot.index, errBlock)
	}
	if !ok {
		it.data.end()
	}
	return ok
}

// Valid reports whether the iterator stands on an entry.
func (it *Iter) Valid() bool { return it.data.valid() }

// Key returns the entry's key, valid until the next positioning.
func (it *Iter) Key() base.InternalKey { return it.data.internalKey() }

// Value returns the entry's value, valid until the next positioning.
func (it *Iter) Value() []byte { return it.data.value }

// Error returns the failure that ended the last positioning, nil at a plain end.
func (it *Iter) Error() error { return it.err }

// Close gives back the iterator's buffers and returns Error. It is idempotent;
// nothing else may be called afterwards.
func (it *Iter) Close() error {
	it.ahead.close(it.r)
	it.own, it.haveData, it.haveIndex = nil, false, false
	it.data.end()
	it.indexMem.Release()
	it.dataMem.Release()
	it.indexMem, it.dataMem = nil, nil
	return it.err
}
