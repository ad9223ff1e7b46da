package offheap

import (
	"math/bits"
	"runtime"
	"sync"
)

const (
	// slabSize is what a Heap takes from the operating system at once. All
	// slabs are alike, so that an empty one serves blocks of any size.
	slabSize = 1 << 20
	// maxSlabBlock is the largest block that shares a slab with others.
	maxSlabBlock = 64 << 10
	// keepEmpty is how many empty slabs a Heap keeps for what comes next.
	keepEmpty = 2
	// Up to minStep * 2^stepBits bytes sizes are rounded up to multiples of
	// minStep, from there on to 2^stepBits sizes between powers of two: at
	// most one part in 16 of a block is lost.
	minStep  = 64
	stepBits = 4
)

// class returns the number of the smallest size that holds n bytes.
func class(n int) int {
	if n <= minStep<<stepBits {
		return max(0, (n-1)/minStep)
	}
	shift := bits.Len(uint(n-1)) - 1 - stepBits // of the step between powers of two
	return (shift-6)<<stepBits + (n-1)>>shift
}

// classSize returns the size of a class in bytes.
func classSize(c int) int {
	if c < 2<<stepBits {
		return (c + 1) * minStep
	}
	shift := c>>stepBits - 1
	return (c - shift<<stepBits + 1) << (shift + 6)
}

// Heap hands out blocks of memory of any size. It is safe for concurrent use.
type Heap struct{ *slabs }

// slabs is the part of a Heap that outlives it until its slabs are given back.
type slabs struct {
	mu sync.Mutex
	// partial holds, by class, the slabs with a free place.
	partial [][]*slab
	empty   []*slab
	all     map[*slab]struct{}
	used    int64 // bytes handed out, rounded up to their class
}

type slab struct {
	mem   []byte
	class int
	free  []uint16 // places nobody has
	next  int      // the places from here on were never used
	count int      // of places in use
	at    int      // index in partial, -1 if it is full
}

// Block is a range of bytes from a Heap. The zero Block holds nothing.
type Block struct {
	data  []byte
	heap  *Heap
	slab  *slab
	place uint16
}

// NewHeap returns an empty heap. It needs no closing: its memory goes back as
// blocks are freed, and at the latest when heap and blocks are unreachable.
func NewHeap() *Heap {
	s := &slabs{partial: make([][]*slab, class(maxSlabBlock)+1), all: make(map[*slab]struct{})}
	h := &Heap{s}
	runtime.AddCleanup(h, (*slabs).drop, s)
	return h
}

// drop gives back what is left.
func (s *slabs) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sl := range s.all { //seams:ordered nobody sees in which order memory goes
		release(sl.mem)
	}
	s.all = nil
}

// Alloc returns a block of n bytes whose contents are anything.
func (h *Heap) Alloc(n int) Block {
	if n == 0 {
		return Block{}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if n > maxSlabBlock {
		sl := &slab{mem: mustMap(n), class: -1}
		h.all[sl] = struct{}{}
		h.used += int64(n)
		return Block{data: sl.mem, heap: h, slab: sl}
	}
	c := class(n)
	sl := h.take(c)
	size := classSize(c)
	var place uint16
	if k := len(sl.free); k > 0 {
		place, sl.free = sl.free[k-1], sl.free[:k-1]
	} else {
		place = uint16(sl.next)
		sl.next++
	}
	sl.count++
	if len(sl.free) == 0 && (sl.next+1)*size > slabSize {
		h.unlist(sl)
	}
	h.used += int64(size)
	at := int(place) * size
	return Block{data: sl.mem[at : at+n : at+n], heap: h, slab: sl, place: place}
}

// take returns a slab of a class with a free place.
func (s *slabs) take(c int) *slab {
	if list := s.partial[c]; len(list) > 0 {
		return list[len(list)-1]
	}
	var sl *slab
	if k := len(s.empty); k > 0 {
		sl, s.empty = s.empty[k-1], s.empty[:k-1]
	} else {
		sl = &slab{mem: mustMap(slabSize)}
		s.all[sl] = struct{}{}
	}
	sl.class, sl.free, sl.next = c, sl.free[:0], 0
	s.list(sl)
	return sl
}

func (s *slabs) list(sl *slab) {
	sl.at = len(s.partial[sl.class])
	s.partial[sl.class] = append(s.partial[sl.class], sl)
}

func (s *slabs) unlist(sl *slab) {
	list := s.partial[sl.class]
	last := len(list) - 1
	list[sl.at] = list[last]
	list[sl.at].at = sl.at
	list[last] = nil
	s.partial[sl.class] = list[:last]
	sl.at = -1
}

// Bytes returns the block's bytes, which are valid until Free.
func (b *Block) Bytes() []byte { return b.data }

// Size returns what the block takes in memory: its bytes rounded up to a class.
func (b *Block) Size() int {
	if b.slab == nil || b.slab.class < 0 {
		return len(b.data)
	}
	return classSize(b.slab.class)
}

// Free gives the block back. Nobody may look at its bytes any more, and it must
// not be freed again.
func (b *Block) Free() {
	if b.slab == nil {
		return
	}
	sl, s := b.slab, b.heap.slabs
	s.mu.Lock()
	defer s.mu.Unlock()
	if sl.class < 0 {
		s.used -= int64(len(sl.mem))
		delete(s.all, sl)
		release(sl.mem)
		return
	}
	poison(b.data)
	s.used -= int64(classSize(sl.class))
	sl.count--
	if sl.at < 0 {
		s.list(sl)
	}
	if sl.count > 0 {
		sl.free = append(sl.free, b.place)
		return
	}
	s.unlist(sl)
	if len(s.empty) < keepEmpty {
		s.empty = append(s.empty, sl)
		return
	}
	delete(s.all, sl)
	release(sl.mem)
}

// Used returns the bytes handed out and not given back, each block rounded up
// to what it takes.
func (h *Heap) Used() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.used
}
