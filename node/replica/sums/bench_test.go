package sums

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/gossip/ring"
)

// fixture overwrites keys again and again, as clients mostly do.
type fixture struct {
	s       *Sums
	keys    [][]byte
	objects [2]causal.Object
	seq     base.SeqNum
}

func newFixture() *fixture {
	f := &fixture{s: New(func() int { return 1024 })}
	for i := range 1024 {
		f.keys = append(f.keys, fmt.Appendf(nil, "src/runtime/file%06d.go", i))
		f.s.all()[i].known = true
	}
	for i := range f.objects {
		seen := causal.Context{{Actor: 1, Counter: 8}, {Actor: 2, Counter: 40}, {Actor: 3, Counter: uint64(100 + i)}}
		f.objects[i] = causal.Object{Context: seen, Siblings: []causal.Sibling{{Dot: seen[2]}}}
	}
	for range 1024 {
		f.write()
	}
	return f
}

func (f *fixture) write() {
	f.seq++
	f.writeAs(f.seq)
}

func (f *fixture) writeAs(seq base.SeqNum) {
	key := f.keys[seq%1024]
	token := uint64(seq) * 0x9e3779b97f4a7c15
	pass := f.s.Enter(int(seq))
	f.s.Add(Position{ring.Partition(token >> 54), 1, ring.Token(token)}, key, &f.objects[seq/1024&1], &f.objects[(seq/1024+1)&1], seq)
	pass.Leave()
}

// BenchmarkAdd is what a write pays, beside what it does anyway.
func BenchmarkAdd(b *testing.B) {
	f := newFixture()
	b.ReportAllocs()
	for b.Loop() {
		f.write()
	}
}

func BenchmarkAddParallel(b *testing.B) {
	f := newFixture()
	var seq atomic.Uint64
	b.RunParallel(func(pb *testing.PB) {
		at := base.SeqNum(seq.Add(1)) << 32
		for pb.Next() {
			at++
			f.writeAs(at)
		}
	})
}

// BenchmarkMemory tells what the sums of so many keys take.
func BenchmarkMemory(b *testing.B) {
	for _, keys := range []int{1_000_000, 10_000_000} {
		b.Run(fmt.Sprint(keys), func(b *testing.B) {
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				s := New(func() int { return 1024 })
				r := &countReader{keys: keys / 1024}
				for more := true; more; {
					var err error
					if more, err = s.Step(r); err != nil {
						b.Fatal(err)
					}
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1024, "KiB")
				b.ReportMetric(float64(s.Stats().Leaves), "leaves")
				runtime.KeepAlive(s)
			}
		})
	}
}

// countReader has so many keys in each partition, evenly.
type countReader struct{ keys int }

func (r *countReader) Snapshot() View          { return r }
func (r *countReader) VisibleSeq() base.SeqNum { return 1 }
func (r *countReader) Seq() base.SeqNum        { return 1 }
func (r *countReader) Close()                  {}

func (r *countReader) Tenants(p ring.Partition, fn func(ring.TenantNumber, int, uint64)) error {
	fn(1, r.keys, 0)
	return nil
}

func (r *countReader) Scan(p ring.Partition, _ ring.TenantNumber, first, last ring.Token, fn func(ring.Token, []byte, *causal.Object)) error {
	o := causal.Object{Context: causal.Context{{Actor: 1, Counter: 1}}, Siblings: []causal.Sibling{{Dot: causal.Dot{Actor: 1, Counter: 1}}}}
	step := uint64(1<<54) / uint64(r.keys)
	for t := uint64(first); t <= uint64(last); t += step {
		fn(ring.Token(t), []byte{1}, &o)
		if t+step < t {
			break
		}
	}
	return nil
}
