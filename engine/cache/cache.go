// Package cache holds decoded table blocks in memory, bounded by bytes. What
// stays is decided by W-TinyLFU with an adaptive window: a scan passes through
// a small part of the cache and does not push out what is read again and again.
package cache

import (
	"fmt"
	"sync/atomic"

	"github.com/maypok86/otter/v2"
)

// Key names a block. A file number must name one file for as long as the
// cache lives.
type Key struct {
	File   uint64
	Offset uint64
}

// overheadBytes is what an entry costs beside the block: the policy's node and
// its slots in the hash table and in the buffers.
const overheadBytes = 160

// Cache is a byte-bounded block cache. It is safe for concurrent use. It
// starts no goroutine: the policy's upkeep runs on the goroutines that call it,
// one at a time, the others never wait for it. A nil *Cache is valid and holds
// nothing.
type Cache struct {
	blocks   *otter.Cache[Key, []byte]
	maxBytes int64
	closed   atomic.Bool
	stats    counters
}

// New returns a cache of at most maxBytes, the entries' overhead included (it
// may be exceeded for a moment while entries are put in). New returns nil, the
// cache that holds nothing, when maxBytes <= 0.
func New(maxBytes int64) *Cache {
	if maxBytes <= 0 {
		return nil
	}
	c := &Cache{maxBytes: maxBytes}
	blocks, err := otter.New(&otter.Options[Key, []byte]{
		MaximumWeight: uint64(maxBytes),
		Weigher: func(_ Key, b []byte) uint32 {
			return uint32(min(len(b), 1<<31) + overheadBytes)
		},
		Executor: func(fn func()) { fn() },
	})
	if err != nil {
		// The options are constants but for a positive bound.
		panic(fmt.Sprintf("cache: options refused: %v", err))
	}
	c.blocks = blocks
	return c
}

// Get returns the block under k. The caller must not change it, and may keep
// it for as long as it likes: eviction only drops the cache's reference.
func (c *Cache) Get(k Key) ([]byte, bool) {
	if c == nil {
		return nil, false
	}
	b, ok := c.blocks.GetIfPresent(k)
	c.stats.count(k, ok)
	return b, ok
}

// Set puts a block in, which nobody may change from then on. The cache may
// drop it at once.
func (c *Cache) Set(k Key, block []byte) {
	if c == nil || c.closed.Load() {
		return
	}
	c.blocks.Set(k, block)
}

// Delete drops the block under k, if it is there.
func (c *Cache) Delete(k Key) {
	if c != nil {
		c.blocks.Invalidate(k)
	}
}

// Stats are counters since New and the present size.
type Stats struct {
	Hits, Misses uint64
	Bytes        int64 // held now, overhead included
	MaxBytes     int64
	Blocks       int
}

// Stats returns the cache's figures; Bytes and Blocks are estimates while
// others use the cache.
func (c *Cache) Stats() Stats {
	if c == nil {
		return Stats{}
	}
	hits, misses := c.stats.sum()
	return Stats{
		Hits: hits, Misses: misses,
		Bytes:    int64(c.blocks.WeightedSize()),
		MaxBytes: c.maxBytes,
		Blocks:   c.blocks.EstimatedSize(),
	}
}

// Close drops every block. Get misses and Set does nothing afterwards. It is
// idempotent and returns nil.
func (c *Cache) Close() error {
	if c == nil || c.closed.Swap(true) {
		return nil
	}
	c.blocks.InvalidateAll()
	c.blocks.CleanUp()
	return nil
}
