package memtable

import (
	"sync/atomic"
	"unsafe"

	"github.com/pairdb/pairdb/engine/offheap"
)

const (
	// nodeAlign keeps the 64-bit trailer and the 32-bit links of every node
	// aligned. An arena starts at an aligned address.
	nodeAlign = 8
	// minArena holds the head node and a little more.
	minArena = 4 << 10
	// maxArena keeps every offset, and every offset plus a header, in 32 bits.
	maxArena = 1<<32 - 1<<20
)

// arena hands out byte ranges of one fixed region and never takes one back. Offset 0 is never handed out: it is the nil of the links.
type arena struct {
	mem  *offheap.Region
	buf  []byte         // all of mem
	base unsafe.Pointer // &buf[0]; saves the bounds check of every link read
	next atomic.Uint64  // first free byte, a multiple of nodeAlign
}

func (a *arena) init(size int) {
	size = min(max(size, minArena), maxArena)
	a.mem = offheap.NewRegion(size)
	a.buf = a.mem.Bytes()
	a.base = unsafe.Pointer(unsafe.SliceData(a.buf))
	a.next.Store(nodeAlign)
}

// alloc reserves n bytes and returns their offset, 0 when they do not fit.
func (a *arena) alloc(n uint64) uint32 {
	n = (n + nodeAlign - 1) &^ (nodeAlign - 1)
	for {
		off := a.next.Load()
		if n > uint64(len(a.buf))-off {
			return 0
		}
		if a.next.CompareAndSwap(off, off+n) {
			return uint32(off)
		}
	}
}

// header returns the header of the node at off.
func (a *arena) header(off uint32) *header {
	return (*header)(unsafe.Add(a.base, off))
}

// link returns the link of level of the node at off. Links lie below the
// header, so that a node's key follows its header at a fixed distance
// whatever its height.
func (a *arena) link(off uint32, level int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Add(a.base, int(off)-linkSize*(level+1)))
}

// bytes returns a range of the arena that nobody can append into.
func (a *arena) bytes(off uint32, n uint32) []byte {
	lo, hi := int(off), int(off)+int(n)
	return a.buf[lo:hi:hi]
}
