package cache

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// The table against a map, with few distinct hashes so that runs collide and
// wrap around.
func TestTableModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab := newTable(32)
		model := map[Key]*Block{}
		pick := rapid.Custom(func(t *rapid.T) Key {
			return Key{File: rapid.Uint64Range(0, 7).Draw(t, "file"), Offset: rapid.Uint64Range(0, 3).Draw(t, "off")}
		})
		hash := func(k Key) uint64 { return 28 + k.File } // homes 28..31, 0..3
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if tab.used != len(model) {
					t.Fatalf("used %d, want %d", tab.used, len(model))
				}
				for file := range uint64(8) {
					for off := range uint64(4) {
						k := Key{File: file, Offset: off}
						if got := tab.find(k, hash(k)); got != model[k] {
							t.Fatalf("find %+v: %p, want %p", k, got, model[k])
						}
					}
				}
			},
			"insert": func(t *rapid.T) {
				k := pick.Draw(t, "key")
				if model[k] == nil && 2*(tab.used+1) <= 32 {
					model[k] = &Block{key: k, hash: hash(k)}
					tab.insert(model[k])
				}
			},
			"replace": func(t *rapid.T) {
				if k := pick.Draw(t, "key"); model[k] != nil {
					e := &Block{key: k, hash: hash(k)}
					tab.replace(model[k], e)
					model[k] = e
				}
			},
			"remove": func(t *rapid.T) {
				if k := pick.Draw(t, "key"); model[k] != nil {
					tab.remove(model[k])
					delete(model, k)
				}
			},
		})
	})
}

func TestSketch(t *testing.T) {
	s := newSketch(1024)
	h := func(i int) uint64 { return Key{Offset: uint64(i)}.hash() }
	for i := range 500 {
		for range i % 10 {
			s.add(h(i))
		}
	}
	over := 0
	for i := range 500 {
		switch n := s.count(h(i)); {
		case n < uint64(i%10):
			t.Fatalf("key %d counted %d times, was used %d", i, n, i%10)
		case n > uint64(i%10):
			over++
		}
	}
	if over > 25 {
		t.Fatalf("%d of 500 keys overestimated", over)
	}
	for i := 1000; s.count(h(9)) >= 9; i++ { // fades as others are used
		s.add(h(i))
		if i > 100_000 {
			t.Fatal("old uses never fade")
		}
	}
}

// hitRate runs n uses of keys drawn by next against a cache of about 500
// blocks.
func hitRate(c *Cache, n int, next func(i int) uint64) float64 {
	const size = 4 << 10
	hits := 0
	for i := range n {
		k := Key{File: 1, Offset: next(i)}
		if b := c.Get(k); b != nil {
			b.Release()
			hits++
		} else {
			setSize(c, k, size)
		}
	}
	return float64(hits) / float64(n)
}

// Where recency is everything the window must grow far beyond its first size,
// and where frequency is everything it must not cost hits.
func TestWindowAdapts(t *testing.T) {
	const blocks = 500
	c := New(blocks * (4<<10 + overheadBytes))
	defer c.Close()
	s := &c.shards[0]
	first := s.windowMax
	// Each block is used again a few times soon after its first use, and then
	// never. The sketch cannot tell a block with a future from one without.
	rnd := rand.New(rand.NewPCG(1, 2))
	recent := func(i int) uint64 {
		if i%3 == 0 {
			return uint64(i / 3)
		}
		return uint64(max(i/3-int(60*rnd.ExpFloat64()), 0))
	}
	before := hitRate(c, 20_000, recent)
	hitRate(c, 300_000, recent)
	if got := hitRate(c, 30_000, recent); got < 0.58 || s.windowMax < 10*first {
		t.Fatalf("recency: hit rate %.3f (%.3f at first), window %d, was %d", got, before, s.windowMax, first)
	} else {
		t.Logf("recency: hit rate %.3f (%.3f at first), window %d, was %d", got, before, s.windowMax, first)
	}
	zipf := rand.NewZipf(rnd, 1.1, 1, 20_000)
	often := func(int) uint64 { return 1<<30 + zipf.Uint64() }
	hitRate(c, 300_000, often)
	got := hitRate(c, 100_000, often)
	if got < 0.68 {
		t.Fatalf("frequency: hit rate %.3f, window %d of %d", got, s.windowMax, s.maxBytes)
	}
	t.Logf("frequency: hit rate %.3f, window %d of %d", got, s.windowMax, s.maxBytes)
}

// The lists' bytes, the table and the bound agree after any history.
func TestShardAccounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := New(40_000)
		s := &c.shards[0]
		key := rapid.Custom(func(t *rapid.T) Key { return Key{Offset: rapid.Uint64Range(0, 60).Draw(t, "key")} })
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				n, bytes := 0, int64(0)
				for _, l := range []*list{&s.window, &s.probation, &s.protected} {
					sum := int64(0)
					for e := l.root.next; e != &l.root; e = e.next {
						if e.in != l || s.table.Load().find(e.key, e.hash) != e {
							t.Fatalf("block %+v is in a list and not where it says", e.key)
						}
						n++
						sum += e.weight
					}
					if sum != l.bytes {
						t.Fatalf("a list holds %d bytes and says %d", sum, l.bytes)
					}
					bytes += sum
				}
				if n != s.table.Load().used || bytes > s.maxBytes {
					t.Fatalf("%d entries in lists, %d in the table, %d bytes", n, s.table.Load().used, bytes)
				}
			},
			"get":    func(t *rapid.T) { c.Get(key.Draw(t, "k")).Release() },
			"set":    func(t *rapid.T) { setSize(c, key.Draw(t, "k"), rapid.IntRange(0, 41_000).Draw(t, "n")) },
			"delete": func(t *rapid.T) { c.Delete(key.Draw(t, "k")) },
		})
	})
}

// setSize puts a block of n bytes in and keeps no hold on it.
func setSize(c *Cache, k Key, n int) {
	b := c.NewBlock(n)
	c.Set(k, b)
	b.Release()
}
