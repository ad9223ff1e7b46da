package memtable

import (
	"bytes"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/zeebo/xxh3"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/offheap"
)

const (
	// slotBytes is how much arena there is for one slot of the index: an entry
	// of a key of 16 bytes and a value of 64 takes about as much.
	slotBytes = 112
	minSlots  = 64
	slotSize  = 8
	// maxProbes bounds the slots that a key may stand in, and so what a search
	// costs, whatever keys somebody chooses. A key that finds them all taken is
	// not in the index; since no slot is ever given back, each search for it
	// finds them taken, too, and goes to the list.
	maxProbes = 32
	// maxBack bounds the entries that an insert goes back by: one in four has the
	// second level that it looks for.
	maxBack = 12
	// maxVersions bounds the versions that a search passes over one by one.
	maxVersions = 8
)

// index finds the newest version of a user key without a search of the list: an
// open-addressed table of linear probes. A slot is 0 or half of a key's hash
// above the offset of a node of it; once it has a key it keeps it.
//
// An entry is in the index only after it is in the list, and before Add
// returns. So whoever may see an entry, because its Add has returned, finds it
// or a newer version of its key here, and walks from there along the list.
type index struct {
	mem   *offheap.Region
	slots []atomic.Uint64
}

func (x *index) init(arenaBytes int) {
	n := max(arenaBytes/slotBytes, minSlots)
	x.mem = offheap.NewRegion(n * slotSize)
	x.slots = unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(x.mem.Bytes()))), n)
}

func (x *index) close() {
	x.mem.Free()
	x.slots = nil
}

func hashOf(userKey []byte) uint64 { return xxh3.Hash(userKey) }

// first is the number of the first slot that a key with this hash may have.
func (x *index) first(hash uint64) int {
	hi, _ := bits.Mul64(hash<<32, uint64(len(x.slots)))
	return int(hi)
}

func (x *index) next(i int) int {
	if i++; i == len(x.slots) {
		return 0
	}
	return i
}

// newest returns the node of a version of userKey that is at least as new as all
// whose Add has returned; 0 if there is none. known is false if the index cannot
// tell.
func (t *Table) newest(hash uint64, userKey []byte) (off uint32, known bool) {
	x := &t.index
	i := x.first(hash)
	for range maxProbes {
		v := x.slots[i].Load()
		if v == 0 {
			return 0, true
		}
		if v>>32 == hash>>32 && bytes.Equal(t.userKey(uint32(v)), userKey) {
			return uint32(v), true
		}
		i = x.next(i)
	}
	return 0, false
}

// enter puts a node that is in the list into the index, unless a newer one of its
// key is there or all slots are taken.
func (t *Table) enter(hash uint64, key base.InternalKey, off uint32) {
	x := &t.index
	entry := hash>>32<<32 | uint64(off)
	i := x.first(hash)
	for range maxProbes {
		for {
			v := x.slots[i].Load()
			if v != 0 && (v>>32 != hash>>32 || !bytes.Equal(t.userKey(uint32(v)), key.UserKey)) {
				break // another key's
			}
			if v != 0 && t.arena.header(uint32(v)).trailer > uint64(key.Trailer) || x.slots[i].CompareAndSwap(v, entry) {
				return
			}
		}
		i = x.next(i)
	}
}

// userKey returns the user key of the node at off.
func (t *Table) userKey(off uint32) []byte {
	return t.arena.bytes(off+headerSize, t.arena.header(off).keyLen())
}

// beside sets the place of a node of a key with an older version that the index
// knows: it goes right before that, and what comes before it at a higher level is
// a few entries back. It is false if that takes a search: for towers of more than
// two levels, one in sixteen.
func (t *Table) beside(p *Place, key base.InternalKey, height int) bool {
	if height > 2 {
		return false
	}
	succ, _ := t.newest(p.hash, key.UserKey)
	if succ == 0 || t.arena.header(succ).trailer >= uint64(key.Trailer) {
		return false
	}
	pred := t.arena.header(succ).prev.Load()
	if pred != t.head && t.compare(pred, key) >= 0 {
		return false // another one of the key is being added
	}
	p.preds[0], p.succs[0] = pred, succ
	if height == 1 {
		return true
	}
	for range maxBack {
		if h := t.arena.header(pred); h.height() < height {
			pred = h.prev.Load()
			continue
		}
		var equal bool
		p.preds[1], p.succs[1], equal = t.findLevel(key, 1, pred)
		return !equal
	}
	return false
}
