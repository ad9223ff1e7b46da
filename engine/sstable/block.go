package sstable

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/pairdb/pairdb/engine/base"
)

var errBlock = errors.New("malformed block")

// block is a decoded block whose restart array is known to lie inside it.
// Its entries are not checked until they are read.
type block struct {
	data     []byte // entries only
	restarts []byte // 4 bytes each
}

// parseBlock splits b. The result aliases b.
func parseBlock(b []byte) (block, bool) {
	if len(b) < 8 {
		return block{}, false
	}
	n := uint64(binary.LittleEndian.Uint32(b[len(b)-4:]))
	if n == 0 || n > uint64(len(b)-4)/4 {
		return block{}, false
	}
	at := len(b) - 4 - 4*int(n)
	return block{data: b[:at:at], restarts: b[at : len(b)-4]}, true
}

func (b *block) numRestarts() int { return len(b.restarts) / 4 }

// restart returns the offset of a restart point; it may be out of range in a
// damaged block.
func (b *block) restart(i int) int {
	return int(binary.LittleEndian.Uint32(b.restarts[4*i:]))
}

// entry is an entry as it lies in a block. The slices alias the block.
type entry struct {
	shared  int
	suffix  []byte // of the user key
	trailer base.Trailer
	value   []byte
	next    int // offset of the following entry
}

// decode reads the entry at off. It checks every length against the block;
// shared is left for the caller to check against the key before.
func (b *block) decode(off int, e *entry) bool {
	d := b.data
	var suffix, value int
	if off >= 0 && off+3 < len(d) && d[off]|d[off+1]|d[off+2] < 0x80 {
		e.shared, suffix, value = int(d[off]), int(d[off+1]), int(d[off+2])
		off += 3
	} else {
		if off < 0 || off >= len(d) {
			return false
		}
		var ok bool
		if e.shared, off, ok = uvarint(d, off); !ok {
			return false
		}
		if suffix, off, ok = uvarint(d, off); !ok {
			return false
		}
		if value, off, ok = uvarint(d, off); !ok {
			return false
		}
	}
	// Neither length exceeds 32 bits, so the sum does not overflow.
	if suffix+base.TrailerLen+value > len(d)-off {
		return false
	}
	end := off + suffix
	e.suffix = d[off:end:end]
	e.trailer = base.Trailer(binary.LittleEndian.Uint64(d[end:]))
	off = end + base.TrailerLen
	e.next = off + value
	e.value = d[off:e.next:e.next]
	return true
}

// uvarint reads a length of at most 32 bits.
func uvarint(d []byte, off int) (v, next int, ok bool) {
	x, n := binary.Uvarint(d[off:])
	if n <= 0 || x > 1<<32-1 {
		return 0, 0, false
	}
	return int(x), off + n, true
}

// compareTrailer orders trailers under one user key: newest first.
func compareTrailer(a, b base.Trailer) int {
	switch {
	case a > b:
		return -1
	case a < b:
		return 1
	default:
		return 0
	}
}

// searchRestarts returns the offset from which a linear search finds the first
// entry at or after (userKey, tr): the last restart point before it.
func (b *block) searchRestarts(userKey []byte, tr base.Trailer) (off int, ok bool) {
	var e entry
	lo, hi := 0, b.numRestarts() // keys of [0, lo) are before, of [hi, n) not
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if !b.decode(b.restart(mid), &e) || e.shared != 0 {
			// An empty block has one restart point and no entry.
			return 0, len(b.data) == 0
		}
		c := bytes.Compare(e.suffix, userKey)
		if c == 0 {
			c = compareTrailer(e.trailer, tr)
		}
		if c < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return b.restart(max(lo-1, 0)), true
}

// find looks for the first entry at or after (userKey, tr) without building any
// key: it keeps only how many bytes the key before shares with userKey. found is
// false when every entry is before; same says that the entry has this very user
// key. value and at are the entry's.
func (b *block) find(userKey []byte, tr base.Trailer) (value []byte, at base.Trailer, found, same bool, err error) {
	off, ok := b.searchRestarts(userKey, tr)
	if !ok {
		return nil, 0, false, false, errBlock
	}
	var e entry
	match, prevLen := 0, 0 // of the entry before, which is before the target
	for off < len(b.data) {
		if !b.decode(off, &e) || e.shared > prevLen {
			return nil, 0, false, false, errBlock
		}
		off = e.next
		prevLen = e.shared + len(e.suffix)
		if e.shared > match {
			// It shares with the key before the byte in which that one is
			// smaller than the target, so it is smaller too.
			continue
		}
		rest := userKey[e.shared:]
		n := commonPrefix(e.suffix, rest)
		switch {
		case n == len(rest) && n == len(e.suffix):
			if e.trailer <= tr {
				return e.value, e.trailer, true, true, nil
			}
		case n == len(rest) || (n < len(e.suffix) && e.suffix[n] > rest[n]):
			return e.value, e.trailer, true, false, nil
		}
		match = e.shared + n
	}
	return nil, 0, false, false, nil
}
