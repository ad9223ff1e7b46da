package sstable

import (
	"bytes"

	"github.com/pairdb/pairdb/engine/base"
)

// blockIter walks one block. It stands on an entry when off >= 0. After a
// method returned false, bad says whether the block is malformed.
type blockIter struct {
	block
	off     int // of the entry stood on, -1 for none
	next    int
	key     []byte // user key, built up from prefixes
	trailer base.Trailer
	value   []byte
	bad     bool
}

// init puts the iterator before a block. The key buffer is kept.
func (it *blockIter) init(b block) {
	it.block = b
	it.off, it.next, it.bad = -1, 0, false
	it.key, it.value = it.key[:0], nil
}

func (it *blockIter) valid() bool { return it.off >= 0 }

func (it *blockIter) internalKey() base.InternalKey {
	return base.InternalKey{UserKey: it.key, Trailer: it.trailer}
}

// compare orders the entry stood on against key.
func (it *blockIter) compare(key base.InternalKey) int {
	if c := bytes.Compare(it.key, key.UserKey); c != 0 {
		return c
	}
	return compareTrailer(it.trailer, key.Trailer)
}

// end leaves the iterator on no entry.
func (it *blockIter) end() bool {
	it.off = -1
	return false
}

func (it *blockIter) malformed() bool {
	it.bad = true
	return it.end()
}

// step reads the entry at it.next; the key buffer holds the key before it.
func (it *blockIter) step() bool {
	if it.next >= len(it.data) {
		return it.end()
	}
	var e entry
	if !it.decode(it.next, &e) || e.shared > len(it.key) {
		return it.malformed()
	}
	it.off, it.next = it.next, e.next
	it.key = append(it.key[:e.shared], e.suffix...)
	it.trailer, it.value = e.trailer, e.value
	return true
}

// from continues at a restart point.
func (it *blockIter) from(off int) bool {
	it.key = it.key[:0]
	it.next = off
	return it.step()
}

func (it *blockIter) first() bool { return it.from(0) }

func (it *blockIter) last() bool {
	if len(it.data) == 0 {
		return it.end()
	}
	for ok := it.from(it.restart(it.numRestarts() - 1)); ok && it.next < len(it.data); {
		ok = it.step()
	}
	if it.off < 0 { // a restart point that lies behind the last entry
		return it.malformed()
	}
	return true
}

// seekGE moves to the first entry at or after key.
func (it *blockIter) seekGE(key base.InternalKey) bool {
	off, ok := it.searchRestarts(key.UserKey, key.Trailer)
	if !ok {
		return it.malformed()
	}
	for ok := it.from(off); ok; ok = it.step() {
		if it.compare(key) >= 0 {
			return true
		}
	}
	return false
}

// seekLT moves to the last entry before key.
func (it *blockIter) seekLT(key base.InternalKey) bool {
	off, ok := it.searchRestarts(key.UserKey, key.Trailer)
	if !ok {
		return it.malformed()
	}
	found := -1
	for ok := it.from(off); ok && it.compare(key) < 0; ok = it.step() {
		found = it.off
	}
	if it.bad || found < 0 {
		return it.end()
	}
	return it.walkTo(off, found)
}

// prev moves to the entry before the one stood on.
func (it *blockIter) prev() bool {
	at := it.off
	if at == 0 {
		return it.end()
	}
	// The last restart point before this entry.
	lo, hi := 0, it.numRestarts()
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if it.restart(mid) < at {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	from := 0
	if lo > 0 {
		from = it.restart(lo - 1)
	}
	return it.walkBefore(from, at)
}

// walkTo moves to the entry at offset at, which lies at or after from.
func (it *blockIter) walkTo(from, at int) bool {
	ok := it.from(from)
	for ok && it.off < at {
		ok = it.step()
	}
	if !ok || it.off != at {
		return it.malformed()
	}
	return true
}

// walkBefore moves to the entry that ends at offset at.
func (it *blockIter) walkBefore(from, at int) bool {
	ok := it.from(from)
	for ok && it.next < at {
		ok = it.step()
	}
	if !ok || it.next != at {
		return it.malformed()
	}
	return true
}
