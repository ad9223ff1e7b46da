package cache_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/pairdb/pairdb/engine/cache"
)

func block(n int, k cache.Key) []byte {
	b := make([]byte, n)
	binary.LittleEndian.PutUint64(b, k.File^k.Offset)
	return b
}

// set puts a copy of b in.
func set(c *cache.Cache, k cache.Key, b []byte) {
	blk := c.NewBlock(len(b))
	copy(blk.Bytes(), b)
	c.Set(k, blk)
	blk.Release()
}

// get returns a copy of what is under k.
func get(c *cache.Cache, k cache.Key) ([]byte, bool) {
	b := c.Get(k)
	if b == nil {
		return nil, false
	}
	defer b.Release()
	return bytes.Clone(b.Bytes()), true
}

func TestHitMissAndReplace(t *testing.T) {
	c := cache.New(1 << 20)
	defer c.Close()
	k := cache.Key{File: 1, Offset: 4096}
	if _, ok := get(c, k); ok {
		t.Fatal("hit in an empty cache")
	}
	set(c, k, []byte("one"))
	set(c, cache.Key{File: 2, Offset: 4096}, []byte("other"))
	set(c, k, []byte("two"))
	if b, ok := get(c, k); !ok || !bytes.Equal(b, []byte("two")) {
		t.Fatalf("got %q, %v", b, ok)
	}
	c.Delete(k)
	if _, ok := get(c, k); ok {
		t.Fatal("hit after Delete")
	}
	if s := c.Stats(); s.Hits != 1 || s.Misses != 2 || s.Blocks != 1 {
		t.Fatalf("stats %+v", s)
	}
}

func TestNilHoldsNothing(t *testing.T) {
	c := cache.New(0)
	if c != nil {
		t.Fatal("New(0) is not nil")
	}
	set(c, cache.Key{}, []byte("x"))
	c.Delete(cache.Key{})
	if _, ok := get(c, cache.Key{}); ok || c.Stats() != (cache.Stats{}) || c.Close() != nil {
		t.Fatal("nil cache holds something")
	}
}

func TestCloseDropsAndRefuses(t *testing.T) {
	c := cache.New(1 << 20)
	k := cache.Key{File: 1}
	set(c, k, []byte("x"))
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	set(c, k, []byte("x"))
	if _, ok := get(c, k); ok {
		t.Fatal("hit after Close")
	}
	if s := c.Stats(); s.Bytes != 0 || s.Blocks != 0 {
		t.Fatalf("held after Close: %+v", s)
	}
}

func TestStaysWithinBytes(t *testing.T) {
	const limit = 1 << 20
	c := cache.New(limit)
	defer c.Close()
	for i := range uint64(2000) {
		k := cache.Key{File: i % 7, Offset: i}
		set(c, k, block(8+int(i*37%9000), k))
		if s := c.Stats(); s.Bytes > limit {
			t.Fatalf("after %d sets: %d bytes held, %d allowed", i+1, s.Bytes, limit)
		}
	}
	set(c, cache.Key{File: 9}, make([]byte, 2*limit))
	if s := c.Stats(); s.Bytes > limit {
		t.Fatalf("a block larger than the cache stayed: %+v", s)
	}
	if s := c.Stats(); s.Bytes < limit/2 {
		t.Fatalf("only %d of %d bytes used", s.Bytes, limit)
	}
}

// A scan over four times the cache's size must not push out blocks that are
// read often.
func TestScanResistance(t *testing.T) {
	c := cache.New(1 << 20)
	defer c.Close()
	const hot, size = 200, 4 << 10
	for range 20 {
		for i := range uint64(hot) {
			k := cache.Key{File: 1, Offset: i}
			if _, ok := get(c, k); !ok {
				set(c, k, block(size, k))
			}
		}
	}
	for i := range uint64(1024) {
		k := cache.Key{File: 2, Offset: i}
		if _, ok := get(c, k); !ok {
			set(c, k, block(size, k))
		}
	}
	kept := 0
	for i := range uint64(hot) {
		if _, ok := get(c, cache.Key{File: 1, Offset: i}); ok {
			kept++
		}
	}
	if kept < hot*9/10 {
		t.Fatalf("%d of %d hot blocks survived a scan", kept, hot)
	}
}

func TestHitDoesNotAllocate(t *testing.T) {
	c := cache.New(1 << 20)
	defer c.Close()
	for i := range uint64(50) {
		set(c, cache.Key{File: 1, Offset: i}, make([]byte, 4096))
	}
	var i uint64
	if n := testing.AllocsPerRun(10000, func() {
		b := c.Get(cache.Key{File: 1, Offset: i % 50})
		if b == nil {
			t.Fatal("miss")
		}
		b.Release()
		i++
	}); n != 0 {
		t.Fatalf("%v allocations a hit", n)
	}
}

// A block that somebody holds outlives its eviction, and the cache.
func TestHeldBlockStays(t *testing.T) {
	c := cache.New(64 << 10)
	k := cache.Key{File: 1}
	set(c, k, bytes.Repeat([]byte("held"), 1000))
	held := c.Get(k)
	for i := range uint64(1000) {
		other := cache.Key{File: 2, Offset: i}
		set(c, other, block(4000, other))
		set(c, other, block(4000, other)) // replaced
	}
	c.Delete(k)
	c.Close()
	if !bytes.Equal(held.Bytes(), bytes.Repeat([]byte("held"), 1000)) {
		t.Fatal("a block in use was overwritten")
	}
	if n := c.Stats().InUse; n < 4000 || n > 4400 {
		t.Fatalf("%d bytes in use", n)
	}
	held.Release()
	if n := c.Stats().InUse; n != 0 {
		t.Fatalf("%d bytes in use that nobody holds", n)
	}
}

func TestConcurrentUse(t *testing.T) {
	c := cache.New(256 << 10)
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(g, 1))
			gone := cache.Key{File: 100 + g}
			for range 20000 {
				k := cache.Key{File: rnd.Uint64N(3), Offset: rnd.Uint64N(200)}
				if b, ok := get(c, k); !ok {
					set(c, k, block(1024+rnd.IntN(2048), k))
					set(c, gone, block(100, gone))
					c.Delete(gone)
				} else if binary.LittleEndian.Uint64(b) != k.File^k.Offset {
					t.Errorf("wrong block under %+v", k)
					return
				}
			}
		})
	}
	wg.Wait()
	s := c.Stats()
	if s.Hits+s.Misses != 80000 || s.Hits == 0 {
		t.Fatalf("stats %+v", s)
	}
	if s.Bytes > s.MaxBytes || s.InUse > s.MaxBytes {
		t.Fatalf("over its bytes: %+v", s)
	}
	c.Close()
	if n := c.Stats().InUse; n != 0 {
		t.Fatalf("%d bytes in use that nobody holds", n)
	}
}

func BenchmarkHit(b *testing.B) {
	c := cache.New(64 << 20)
	defer c.Close()
	const n = 10000
	for i := range uint64(n) {
		set(c, cache.Key{File: 1, Offset: i * 4096}, make([]byte, 4096))
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		i := rand.Uint64()
		for pb.Next() {
			i = i*6364136223846793005 + 1442695040888963407
			c.Get(cache.Key{File: 1, Offset: (i >> 33) % n * 4096}).Release()
		}
	})
}

func BenchmarkMissAndSet(b *testing.B) {
	c := cache.New(16 << 20)
	defer c.Close()
	blk := make([]byte, 4096)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		k := cache.Key{File: 1, Offset: uint64(i)}
		if c.Get(k) == nil {
			set(c, k, blk)
		}
	}
}
