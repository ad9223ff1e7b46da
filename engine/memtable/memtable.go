// Package memtable holds the newest mutations of the engine in memory, sorted
// by internal key, until they are flushed to a table: an arena skiplist.
//
// Any number of goroutines may add and read at once, without locks. Nothing
// is ever changed or removed once added, so what a reader gets stays valid
// until Close.
package memtable

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/pairdb/pairdb/engine/base"
)

var (
	// ErrFull says that the entry does not fit in what is left of the arena.
	// The table is unchanged; a smaller entry may still fit.
	ErrFull = errors.New("memtable: full")
	// ErrDuplicate says that the very internal key (user key, sequence
	// number and kind) is already there. The table is unchanged.
	ErrDuplicate = errors.New("memtable: duplicate internal key")
)

const (
	// maxHeight levels at one in four serve 4^12 = 16 M entries at full speed.
	maxHeight = 12
	linkSize  = 4
	// headerSize is the distance from a node to its key.
	headerSize = 20
	// lenBits of a header's first length are the key's, the others the node's
	// height.
	lenBits   = 28
	maxKeyLen = 1<<lenBits - 1
)

// header is the fixed part of a node. Its memory is, from low to high:
// links of the levels height-1..0, header, key, value.
type header struct {
	trailer uint64
	// keyLenHeight is the length of the key and, above it, the height.
	keyLenHeight uint32
	valLen       uint32
	// prev is a hint for Prev: some node before this one, and once the
	// insert of the predecessor has ended, the predecessor.
	prev atomic.Uint32
}

func (h *header) keyLen() uint32 { return h.keyLenHeight & maxKeyLen }
func (h *header) height() int    { return int(h.keyLenHeight >> lenBits) }

// Table is a memtable. It is safe for concurrent use, but for Close.
type Table struct {
	arena  arena
	index  index
	head   uint32
	height atomic.Int32 // levels in use, >= 1
	count  atomic.Int64

	rangeMu   sync.Mutex // serialises AddRangeDel
	rangeDels atomic.Pointer[[]base.RangeDel]
}

// New returns an empty table that holds sizeBytes of entries with their
// overhead (see Need); the size is fixed, raised to 4 KiB at least and cut to
// just under 4 GiB. Its index takes a fourteenth of that besides.
func New(sizeBytes int) *Table {
	t := &Table{}
	t.arena.init(sizeBytes)
	t.index.init(len(t.arena.buf))
	t.makeHead()
	return t
}

// Close gives the table's memory back. The caller sees to it that nobody uses the
// table any more, an iterator on it or a slice got from it. It is idempotent.
func (t *Table) Close() {
	t.arena.mem.Free()
	t.arena.buf, t.arena.base = nil, nil
	t.index.close()
}

func (t *Table) makeHead() {
	t.head = t.newNode(base.InternalKey{}, nil, maxHeight)
	for level := range maxHeight {
		t.arena.link(t.head, level).Store(0)
	}
	t.height.Store(1)
}

// Need returns the most bytes of a table that one Add of a key and a value of
// these lengths takes. The sum over a batch, compared with Free, tells whether
// the batch fits; New(sum + Need(0, 0)) makes a table that takes it for sure.
func Need(userKeyLen, valueLen int) int {
	return maxHeight*linkSize + headerSize + userKeyLen + valueLen + 2*nodeAlign
}

// Place is where in a table the next version of a user key goes. It is found
// without a lock and stays right whatever is added meanwhile: the entries before
// it stay before it, and an insert looks for those that came in between.
type Place struct {
	hash uint64
	// searched says that preds and succs are set. A key that the index knows
	// mostly needs no search.
	searched     bool
	preds, succs [maxHeight]uint32
}

// Find sets p to the place of a version of userKey newer than all that there are.
func (t *Table) Find(userKey []byte, p *Place) {
	p.hash, p.searched = hashOf(userKey), false
	if off, _ := t.newest(p.hash, userKey); off == 0 {
		t.findSplice(base.SearchKey(userKey, base.MaxSeqNum), &p.preds, &p.succs)
		p.searched = true
	}
}

// Add copies key and value into the table. It returns ErrFull or ErrDuplicate,
// or an error for a kind that is neither a set nor a delete, or a key of 256 MiB
// or more.
func (t *Table) Add(key base.InternalKey, value []byte) error {
	p := Place{hash: hashOf(key.UserKey)}
	return t.AddAt(&p, key, value)
}

// AddAt is Add for a caller who has found the place of the key's user key in this
// very table before, and whose version is newer than all that are there. p may
// not be used again.
func (t *Table) AddAt(p *Place, key base.InternalKey, value []byte) error {
	if k := key.Kind(); k != base.KindSet && k != base.KindDelete {
		return fmt.Errorf("add to memtable: kind %s is not a point key", k)
	}
	if len(key.UserKey) > maxKeyLen {
		return fmt.Errorf("add to memtable: key of %d bytes, at most %d are allowed", len(key.UserKey), maxKeyLen)
	}
	height := t.randomHeight()
	if !p.searched && !t.beside(p, key, height) && t.findSplice(key, &p.preds, &p.succs) {
		return ErrDuplicate
	}
	off := t.newNode(key, value, height)
	if off == 0 {
		return ErrFull
	}
	for {
		h := t.height.Load()
		if int32(height) <= h || t.height.CompareAndSwap(h, int32(height)) {
			break
		}
	}
	if !t.linkLevel(key, off, 0, p.preds[0], p.succs[0]) {
		return ErrDuplicate // lost the race to an equal key; the node is never seen
	}
	for level := 1; level < height; level++ {
		t.linkLevel(key, off, level, p.preds[level], p.succs[level])
	}
	t.enter(p.hash, key, off)
	t.count.Add(1)
	return nil
}

// linkLevel publishes the node at off between pred and succ at level, looking
// for its place again for as long as other inserts get in between. It returns
// false if an equal key is there already, which only level 0 can meet.
func (t *Table) linkLevel(key base.InternalKey, off uint32, level int, pred, succ uint32) bool {
	for {
		t.arena.link(off, level).Store(succ)
		if level == 0 {
			t.arena.header(off).prev.Store(pred)
		}
		if t.arena.link(pred, level).CompareAndSwap(succ, off) {
			break
		}
		var equal bool
		if pred, succ, equal = t.findLevel(key, level, pred); equal {
			return false
		}
	}
	if level == 0 && succ != 0 {
		t.arena.header(succ).prev.Store(off)
	}
	return true
}

// newNode writes a node that nobody can reach yet, links aside. It returns 0
// when there is no room.
func (t *Table) newNode(key base.InternalKey, value []byte, height int) uint32 {
	tower := (uint64(height)*linkSize + nodeAlign - 1) &^ (nodeAlign - 1)
	start := t.arena.alloc(tower + headerSize + uint64(len(key.UserKey)) + uint64(len(value)))
	if start == 0 {
		return 0
	}
	off := start + uint32(tower)
	h := t.arena.header(off)
	h.trailer = uint64(key.Trailer)
	h.keyLenHeight = uint32(height)<<lenBits | uint32(len(key.UserKey))
	h.valLen = uint32(len(value))
	h.prev.Store(0)
	n := copy(t.arena.buf[off+headerSize:], key.UserKey)
	copy(t.arena.buf[int(off)+headerSize+n:], value)
	return off
}

// randomHeight returns a height in [1, maxHeight], each level a quarter as
// likely as the one below. It depends on the number of entries only, so that a
// replay of the same inserts takes the same memory; no choice of keys can aim
// at it.
func (t *Table) randomHeight() int {
	x := uint64(t.count.Load()+1) * 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return min(1+bits.TrailingZeros64(x)/2, maxHeight)
}

// compare orders the node at off against key.
func (t *Table) compare(off uint32, key base.InternalKey) int {
	h := t.arena.header(off)
	if c := bytes.Compare(t.arena.bytes(off+headerSize, h.keyLen()), key.UserKey); c != 0 {
		return c
	}
	switch {
	case h.trailer > uint64(key.Trailer):
		return -1
	case h.trailer < uint64(key.Trailer):
		return 1
	default:
		return 0
	}
}

// findSplice fills in the neighbours of key at every level and reports whether
// key itself is there.
func (t *Table) findSplice(key base.InternalKey, preds, succs *[maxHeight]uint32) bool {
	pred, known := t.head, uint32(0)
	top := int(t.height.Load()) - 1
	for level := maxHeight - 1; level > top; level-- {
		preds[level], succs[level] = t.head, 0
	}
	for level := top; level >= 0; level-- {
		next := t.arena.link(pred, level).Load()
		for next != 0 && next != known { // known is at or after key
			c := t.compare(next, key)
			if c == 0 {
				return true
			}
			if c > 0 {
				break
			}
			pred = next
			next = t.arena.link(pred, level).Load()
		}
		preds[level], succs[level], known = pred, next, next
	}
	return false
}

// findLevel finds the neighbours of key at one level, from pred on.
func (t *Table) findLevel(key base.InternalKey, level int, pred uint32) (p, next uint32, equal bool) {
	for {
		next = t.arena.link(pred, level).Load()
		if next == 0 {
			return pred, 0, false
		}
		c := t.compare(next, key)
		if c == 0 {
			return pred, next, true
		}
		if c > 0 {
			return pred, next, false
		}
		pred = next
	}
}

// seek returns the first node at or after key, 0 if there is none, and the
// node before it, the head if there is none.
func (t *Table) seek(key base.InternalKey) (pred, next uint32) {
	pred = t.head
	known := uint32(0)
	for level := int(t.height.Load()) - 1; level >= 0; level-- {
		next = t.arena.link(pred, level).Load()
		for next != 0 && next != known && t.compare(next, key) < 0 {
			pred = next
			next = t.arena.link(pred, level).Load()
		}
		known = next
	}
	return pred, next
}

// Get returns the newest version of userKey whose sequence number is at most
// seq. ok is false when there is none; a delete is a version (its kind says
// so). value aliases the table and must not be changed. Range deletes are not
// looked at. It sees what was added before it was called.
func (t *Table) Get(userKey []byte, seq base.SeqNum) (value []byte, kind base.Kind, at base.SeqNum, ok bool) {
	off := t.find(userKey, seq)
	if off == 0 {
		return nil, 0, 0, false
	}
	h := t.arena.header(off)
	tr := base.Trailer(h.trailer)
	return t.arena.bytes(off+headerSize+h.keyLen(), h.valLen), tr.Kind(), tr.SeqNum(), true
}

// find returns the node of the newest version of userKey at seq, 0 if there is
// none.
func (t *Table) find(userKey []byte, seq base.SeqNum) uint32 {
	off, known := t.newest(hashOf(userKey), userKey)
	if known && off == 0 {
		return 0
	}
	for passed := 0; off != 0 && passed < maxVersions; passed++ {
		if base.Trailer(t.arena.header(off).trailer).SeqNum() <= seq {
			return off
		}
		if off = t.arena.link(off, 0).Load(); off == 0 || !bytes.Equal(t.userKey(off), userKey) {
			return 0
		}
	}
	// The index does not know, or it is an old version of a key with many.
	if _, off = t.seek(base.SearchKey(userKey, seq)); off == 0 || !bytes.Equal(t.userKey(off), userKey) {
		return 0
	}
	return off
}

// AddRangeDel copies a range delete into the table. An empty range is dropped.
// It returns ErrFull as Add does.
func (t *Table) AddRangeDel(start, end []byte, seq base.SeqNum) error {
	rd := base.RangeDel{Start: start, End: end, Seq: seq}
	if rd.Empty() {
		return nil
	}
	off := t.arena.alloc(uint64(len(start)) + uint64(len(end)))
	if off == 0 {
		return ErrFull
	}
	rd.Start = t.arena.bytes(off, uint32(len(start)))
	rd.End = t.arena.bytes(off+uint32(len(start)), uint32(len(end)))
	copy(rd.Start, start)
	copy(rd.End, end)

	t.rangeMu.Lock()
	defer t.rangeMu.Unlock()
	// A reader's slice ends before the element appended here, so both may
	// share the backing array.
	list := append(t.RangeDels(), rd)
	t.rangeDels.Store(&list)
	return nil
}

// RangeDels returns the range deletes added so far, in the order they were
// added. The slice must not be changed.
func (t *Table) RangeDels() []base.RangeDel {
	if p := t.rangeDels.Load(); p != nil {
		return *p
	}
	return nil
}

// Bytes returns the bytes of the arena in use, overhead included.
func (t *Table) Bytes() int64 { return int64(t.arena.next.Load()) }

// Free returns the bytes left; see Need.
func (t *Table) Free() int { return len(t.arena.buf) - int(t.arena.next.Load()) }

// Cap returns the size of the arena in bytes.
func (t *Table) Cap() int { return len(t.arena.buf) }

// Len returns the number of point entries.
func (t *Table) Len() int { return int(t.count.Load()) }

// Empty reports whether nothing was added, neither an entry nor a range delete.
func (t *Table) Empty() bool { return t.Len() == 0 && len(t.RangeDels()) == 0 }
