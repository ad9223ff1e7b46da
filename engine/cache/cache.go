// Package cache holds decoded table blocks in memory, bounded by bytes. What
// stays is decided by W-TinyLFU with an adaptive window: a scan passes through
// a small part of the cache and does not push out what is read again and again,
// and that part grows where recent use is the better guide.
package cache

import (
	"math/bits"
	"sync/atomic"

	"github.com/pairdb/pairdb/engine/offheap"
)

// Key names a block. A file number must name one file for as long as the
// cache lives.
type Key struct {
	File   uint64
	Offset uint64
}

func (k Key) hash() uint64 {
	x := k.File*0x9e3779b97f4a7c15 ^ k.Offset
	x = (x ^ x>>32) * 0xd6e8feb86659fd93
	x = (x ^ x>>32) * 0xd6e8feb86659fd93
	return x ^ x>>32
}

const (
	// overheadBytes is what a block costs beside its bytes: the Block itself,
	// its slots in the table and its share of the sketch.
	overheadBytes = 184
	// minShardBytes keeps shards large enough for the biggest common blocks.
	minShardBytes = 8 << 20
	maxShards     = 64
)

// Cache is a byte-bounded block cache. It is safe for concurrent use and
// starts no goroutine. Readers take no lock and never wait. A nil *Cache is
// valid and holds nothing.
type Cache struct {
	heap     *offheap.Heap // of the blocks
	shards   []shard
	shift    uint // of the hash, to the shard's number
	maxBytes int64
	closed   atomic.Bool
}

// New returns a cache of at most maxBytes, the entries' overhead included. A
// block larger than a shard (8 MiB, or maxBytes if that is less) is never kept.
// New returns nil, the cache that holds nothing, when maxBytes <= 0.
func New(maxBytes int64) *Cache {
	if maxBytes <= 0 {
		return nil
	}
	n := min(max(maxBytes/minShardBytes, 1), maxShards)
	log := uint(bits.Len64(uint64(n)) - 1)
	c := &Cache{heap: offheap.NewHeap(), shards: make([]shard, 1<<log), shift: 64 - log, maxBytes: maxBytes}
	for i := range c.shards {
		c.shards[i].init(maxBytes >> log)
	}
	return c
}

func (c *Cache) shard(h uint64) *shard {
	return &c.shards[h>>c.shift] // a shift by 64 gives 0
}

// Get returns the block under k, nil if there is none. The caller must not change
// it and releases it after use; eviction only drops the cache's own hold. While
// others change the cache a block that is there may be missed, very rarely.
func (c *Cache) Get(k Key) *Block {
	if c == nil {
		return nil
	}
	h := k.hash()
	return c.shard(h).get(k, h)
}

// Set puts a block of NewBlock in, which nobody may change from then on and which
// goes in once. The caller's own hold stays. The cache may drop it at once.
func (c *Cache) Set(k Key, block *Block) {
	if c == nil {
		return
	}
	h := k.hash()
	s := c.shard(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.closed.Load() {
		s.set(k, h, block)
	}
}

// Delete drops the block under k, if it is there.
func (c *Cache) Delete(k Key) {
	if c == nil {
		return
	}
	h := k.hash()
	s := c.shard(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.table.Load().find(k, h); e != nil {
		s.remove(e)
	}
}

// Stats are counters since New and the present size.
type Stats struct {
	Hits, Misses uint64
	Evictions    uint64 // blocks dropped to make room, or not admitted
	Bytes        int64  // held now, overhead included
	// InUse is what the blocks take that the cache or a reader holds, in bytes.
	InUse    int64
	MaxBytes int64
	Blocks   int
}

// Stats returns the cache's figures, shard by shard.
func (c *Cache) Stats() Stats {
	if c == nil {
		return Stats{}
	}
	st := Stats{MaxBytes: c.maxBytes, InUse: c.heap.Used()}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		st.Hits += s.hits + s.lockedOut.Load()
		st.Misses += s.misses.Load()
		st.Evictions += s.evictions
		st.Bytes += s.bytes()
		st.Blocks += s.table.Load().used
		s.mu.Unlock()
	}
	return st
}

// Close drops every block; those that readers hold stay until they are released.
// Get misses and Set does nothing afterwards. It is idempotent and returns nil.
func (c *Cache) Close() error {
	if c == nil || c.closed.Swap(true) {
		return nil
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.clear()
		s.mu.Unlock()
	}
	return nil
}
