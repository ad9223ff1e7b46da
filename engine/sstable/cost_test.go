package sstable

import (
	"fmt"
	"testing"

	"github.com/pairdb/pairdb/engine/cache"
)

func TestFilterRate(t *testing.T) {
	for bitsPerKey, most := range map[int]float64{5: 0.13, 8: 0.035, 10: 0.016, 12: 0.009, 16: 0.005} {
		const n, probes = 20000, 100000
		hashes := make([]uint64, n)
		for i := range hashes {
			hashes[i] = filterHash(fmt.Appendf(nil, "key-%016d", i))
		}
		f, err := decodeFilter(buildFilter(nil, hashes, bitsPerKey))
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hashes {
			if !f.mayContain(h) {
				t.Fatal("an added key is denied")
			}
		}
		wrong := 0
		for i := range probes {
			if f.mayContain(filterHash(fmt.Appendf(nil, "key-%016d", n+i))) {
				wrong++
			}
		}
		rate := float64(wrong) / probes
		t.Logf("%d bits per key: %.2f %% false positives", bitsPerKey, 100*rate)
		if rate > most {
			t.Errorf("%d bits per key: %.4f false positives, at most %.4f expected", bitsPerKey, rate, most)
		}
	}
}

// A miss that the filter stops reads nothing; cached reads neither read nor
// allocate; a scan reads far fewer times than there are blocks.
func TestReadCosts(t *testing.T) {
	for _, opts := range []WriterOptions{{}, {Codec: CodecS2, IndexBlockSize: 1024}} {
		entries := numbered(20000, 100)
		f, m := build(t, opts, entries)
		r := open(t, f, cache.New(64<<20))
		before := f.reads.Load()
		for i := range 1000 {
			if _, _, _, ok, err := r.Get(nil, fmt.Appendf(nil, "k%06dx", i), 1<<40); ok || err != nil {
				t.Fatal(ok, err)
			}
		}
		if n := f.reads.Load() - before; n > 60 {
			t.Errorf("%d reads for 1000 misses", n)
		}
		before = f.reads.Load()
		if err := equal(dump(t, r), entries); err != nil {
			t.Fatal(err)
		}
		if n := uint64(f.reads.Load() - before); n > m.DataBlocks/5 {
			t.Errorf("%d reads for a scan of %d blocks", n, m.DataBlocks)
		}
		dump(t, r) // all in the cache now
		before = f.reads.Load()
		dst := make([]byte, 0, 1024)
		i := 0
		if n := testing.AllocsPerRun(5000, func() {
			_, _, _, ok, err := r.Get(dst, entries[i%len(entries)].key.UserKey, 1<<40)
			if !ok || err != nil {
				t.Fatal(ok, err)
			}
			i += 37
		}); n != 0 {
			t.Errorf("%v allocations a cached Get", n)
		}
		if n := f.reads.Load() - before; n != 0 {
			t.Errorf("%d reads with everything cached", n)
		}
	}
}

// A compaction's iterator leaves the cache alone.
func TestCompactionIterDoesNotFill(t *testing.T) {
	entries := numbered(5000, 100)
	f, _ := build(t, WriterOptions{Codec: CodecS2}, entries)
	c := cache.New(1 << 20)
	r := open(t, f, c)
	it, err := r.NewCompactionIter()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	if err := it.Close(); err != nil || n != len(entries) {
		t.Fatal(n, err)
	}
	if s := c.Stats(); s.Blocks != 0 {
		t.Fatalf("%d blocks cached", s.Blocks)
	}
}

func BenchmarkGetCached(b *testing.B) {
	const n = 200_000
	entries := numbered(n, 100)
	for _, codec := range []Codec{CodecNone, CodecS2} {
		f, _ := build(b, WriterOptions{Codec: codec}, entries)
		for name, size := range map[string]int64{"hit": 256 << 20, "miss": 0} {
			b.Run(codec.String()+"/"+name, func(b *testing.B) {
				r := open(b, f, cache.New(size))
				dump(b, r)
				dst := make([]byte, 0, 256)
				b.ReportAllocs()
				for i := uint64(0); b.Loop(); i++ {
					k := entries[i*0x9e3779b97f4a7c15%n].key.UserKey
					if _, _, _, ok, err := r.Get(dst, k, 1<<40); !ok || err != nil {
						b.Fatal(ok, err)
					}
				}
			})
		}
	}
}

func BenchmarkGetAbsent(b *testing.B) {
	f, _ := build(b, WriterOptions{}, numbered(200_000, 100))
	r := open(b, f, cache.New(256<<20))
	key := []byte("k000000x")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		key[5] = byte(i)
		if _, _, _, ok, err := r.Get(nil, key, 1<<40); ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

// One operation is one entry.
func BenchmarkIterNext(b *testing.B) {
	f, _ := build(b, WriterOptions{Codec: CodecS2}, numbered(200_000, 100))
	for name, size := range map[string]int64{"hit": 256 << 20, "miss": 0} {
		b.Run(name, func(b *testing.B) {
			it, err := open(b, f, cache.New(size)).NewIter()
			if err != nil {
				b.Fatal(err)
			}
			defer it.Close()
			b.ReportAllocs()
			ok := false
			for b.Loop() {
				if ok {
					ok = it.Next()
				} else {
					ok = it.First()
				}
			}
		})
	}
}

func BenchmarkSeekGE(b *testing.B) {
	const n = 200_000
	entries := numbered(n, 100)
	f, _ := build(b, WriterOptions{Codec: CodecS2}, entries)
	r := open(b, f, cache.New(256<<20))
	it, err := r.NewIter()
	if err != nil {
		b.Fatal(err)
	}
	defer it.Close()
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		if !it.SeekGE(entries[i*0x9e3779b97f4a7c15%n].key) {
			b.Fatal(it.Error())
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	const n = 50_000
	entries := numbered(n, 100)
	for _, codec := range []Codec{CodecNone, CodecS2, CodecZstd} {
		b.Run(codec.String(), func(b *testing.B) {
			for b.Loop() {
				f, _ := build(b, WriterOptions{Codec: codec}, entries)
				b.SetBytes(int64(len(f.b)))
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/entry")
		})
	}
}
