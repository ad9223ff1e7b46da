package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func benchDB(b *testing.B) *DB {
	b.Helper()
	db, err := Open(b.TempDir()+"/db", Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	return db
}

func benchKey(dst []byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst[:0], "user0000"...), n*0x9e3779b97f4a7c15)
}

// BenchmarkFill applies random single sets of 100 bytes without a sync.
func BenchmarkFill(b *testing.B) {
	db := benchDB(b)
	batch, key, val := NewBatch(), make([]byte, 16), make([]byte, 100)
	for i := range val {
		val[i] = byte(rand.Uint32() & 15)
	}
	b.ReportAllocs()
	b.SetBytes(116)
	for i := range b.N {
		batch.Reset()
		key = benchKey(key, uint64(i))
		batch.Set(key, val)
		if _, err := db.Apply(batch, WriteOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSyncParallel applies synced sets from 16 writers for each core.
func BenchmarkSyncParallel(b *testing.B) {
	db := benchDB(b)
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		batch, key, val := NewBatch(), make([]byte, 16), make([]byte, 100)
		for pb.Next() {
			batch.Reset()
			key = benchKey(key, rand.Uint64())
			batch.Set(key, val)
			if _, err := db.Apply(batch, WriteOptions{Sync: true}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	m := db.Metrics()
	b.ReportMetric(float64(m.Batches)/float64(max(1, m.WALSyncs)), "batches/sync")
}

// filledDB returns a compacted DB of n keys of 100 bytes, whose blocks fit into
// the cache.
func filledDB(b *testing.B, n int) *DB {
	b.Helper()
	db := benchDB(b)
	batch, key, val := NewBatch(), make([]byte, 16), make([]byte, 100)
	for i := range n {
		key = benchKey(key, uint64(i))
		batch.Set(key, val)
		if batch.Len() == 1000 {
			if _, err := db.Apply(batch, WriteOptions{}); err != nil {
				b.Fatal(err)
			}
			batch.Reset()
		}
	}
	if _, err := db.Apply(batch, WriteOptions{}); err != nil {
		b.Fatal(err)
	}
	if err := db.Compact(nil, nil); err != nil {
		b.Fatal(err)
	}
	return db
}

// BenchmarkGet reads random keys of a compacted DB of 500,000 keys from the
// cache.
func BenchmarkGet(b *testing.B) {
	const n = 500_000
	db := filledDB(b, n)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
		key, dst := make([]byte, 16), make([]byte, 0, 128)
		for pb.Next() {
			key = benchKey(key, rng.Uint64N(n))
			if _, err := db.Get(dst, key); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkMultiGet reads groups of keys, all over the DB or from a thousandth
// of it, by one MultiGet and by a Get for each. An operation is one key.
func BenchmarkMultiGet(b *testing.B) {
	const n = 500_000
	db := filledDB(b, n)
	sorted := make([][]byte, n)
	for i := range sorted {
		sorted[i] = benchKey(nil, uint64(i))
	}
	slices.SortFunc(sorted, bytes.Compare)
	for _, group := range []int{16, 256} {
		for _, near := range []bool{false, true} {
			where := "anywhere"
			if near {
				where = "near"
			}
			next := func(rng *rand.Rand, keys [][]byte) {
				at, width := 0, n
				if near {
					width = n / 1000
					at = rng.IntN(n - width)
				}
				for i := range keys {
					keys[i] = sorted[at+rng.IntN(width)]
				}
			}
			keys := make([][]byte, group)
			b.Run(fmt.Sprintf("%d/%s/multi", group, where), func(b *testing.B) {
				rng := rand.New(rand.NewPCG(1, 1))
				var v Values
				b.ReportAllocs()
				for i := 0; i < b.N; i += group {
					next(rng, keys)
					if err := db.MultiGet(&v, keys); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run(fmt.Sprintf("%d/%s/gets", group, where), func(b *testing.B) {
				rng := rand.New(rand.NewPCG(1, 1))
				dst := make([]byte, 0, 128)
				b.ReportAllocs()
				for i := 0; i < b.N; i += group {
					next(rng, keys)
					for _, k := range keys {
						if _, err := db.Get(dst, k); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}
