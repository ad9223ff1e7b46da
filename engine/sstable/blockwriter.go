package sstable

import (
	"encoding/binary"
	"math/bits"

	"github.com/pairdb/pairdb/engine/base"
)

// blockWriter builds one block: prefix-compressed entries, then the offsets of
// the restart points, then their number.
type blockWriter struct {
	interval int
	buf      []byte
	restarts []uint32
	entries  int
	last     []byte // user key of the last entry
	lastTr   base.Trailer
}

// add appends an entry whose user key has its first shared bytes in common
// with the last one's. The caller keeps the order.
func (w *blockWriter) add(userKey []byte, tr base.Trailer, value []byte, shared int) {
	if w.entries%w.interval == 0 {
		w.restarts = append(w.restarts, uint32(len(w.buf)))
		shared = 0
	}
	b := binary.AppendUvarint(w.buf, uint64(shared))
	b = binary.AppendUvarint(b, uint64(len(userKey)-shared))
	b = binary.AppendUvarint(b, uint64(len(value)))
	b = append(b, userKey[shared:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(tr))
	w.buf = append(b, value...)
	w.last = append(w.last[:shared], userKey[shared:]...)
	w.lastTr = tr
	w.entries++
}

// size is the decoded size of the block if it were finished now.
func (w *blockWriter) size() int { return len(w.buf) + 4*len(w.restarts) + 4 }

// entrySize bounds the size of one more entry.
func entrySize(userKey, value []byte) int {
	return len(userKey) + len(value) + base.TrailerLen + 3*binary.MaxVarintLen32 + 4
}

// finish returns the block, valid until reset.
func (w *blockWriter) finish() []byte {
	if len(w.restarts) == 0 {
		w.restarts = append(w.restarts, 0)
	}
	for _, r := range w.restarts {
		w.buf = binary.LittleEndian.AppendUint32(w.buf, r)
	}
	w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(len(w.restarts)))
	return w.buf
}

// reset starts the next block. The last key stays, as the order is across
// blocks; the first entry is a restart point and shares nothing with it.
func (w *blockWriter) reset() {
	w.buf, w.restarts, w.entries = w.buf[:0], w.restarts[:0], 0
	if cap(w.buf) > maxPooled {
		w.buf = nil
	}
}

// commonPrefix returns the number of leading bytes a and b share.
func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// separator returns a key s, a <= s < b, that is as short as it can be made
// cheaply, for user keys a < b of which the first shared bytes are equal. It
// appends s to dst.
func separator(dst, a, b []byte, shared int) []byte {
	if shared < len(a) && shared < len(b) && int(a[shared])+1 < int(b[shared]) {
		dst = append(dst, a[:shared]...)
		return append(dst, a[shared]+1)
	}
	return append(dst, a...)
}
