package cache

import (
	"sync/atomic"

	"github.com/pairdb/pairdb/engine/offheap"
)

// Block is a decoded block of a table in memory that is counted: it stays as it
// is until everybody who has it has released it, the cache among them. Nobody
// may change it once it was given to Set.
type Block struct {
	// Key, hash and weight never change once the block is in a table, and are
	// all that is read without the shard's lock.
	key    Key
	hash   uint64
	weight int64
	data   []byte

	// refs counts the holders. At 0 the memory goes back, and nobody can get
	// hold of the block any more.
	refs atomic.Int32
	mem  offheap.Block

	prev, next *Block
	in         *list // nil while no list holds it
}

// NewBlock returns a block of n bytes, whose contents are anything, for the
// caller to fill. It need not be given to Set; release it in any case.
func (c *Cache) NewBlock(n int) *Block {
	b := &Block{}
	b.refs.Store(1)
	if c == nil {
		b.data = make([]byte, n)
		return b
	}
	b.mem = c.heap.Alloc(n)
	b.data = b.mem.Bytes()
	return b
}

// Bytes returns the block's bytes, valid until Release.
func (b *Block) Bytes() []byte { return b.data }

// Release gives back what NewBlock or Get returned. nil is no block.
func (b *Block) Release() {
	if b != nil && b.refs.Add(-1) == 0 {
		b.mem.Free()
	}
}

// acquire reports whether the block could be kept from going away.
func (b *Block) acquire() bool {
	for {
		n := b.refs.Load()
		if n == 0 {
			return false
		}
		if b.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}
