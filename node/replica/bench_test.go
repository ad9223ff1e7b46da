package replica

import (
	"testing"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
)

// BenchmarkMerge joins a new write of somebody who has seen what is held, and
// BenchmarkUpdate mints one, each over a copy that is in memory.
func BenchmarkMerge(b *testing.B) {
	s := newBench(b)
	item := make([]coord.MergeItem, 1)
	item[0].Address, item[0].LastWriteWins = at("k"), true
	done := func(int, []byte, error) {}
	o := causal.Object{Context: make(causal.Context, 1), Siblings: []causal.Sibling{{Value: make([]byte, 100)}}}
	var buf []byte
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		n++
		d := causal.Dot{Actor: 9, Counter: n}
		o.Context[0], o.Siblings[0].Dot, o.Siblings[0].HLC = d, d, n
		buf = o.Append(buf[:0])
		item[0].Object = buf
		s.Merge(item, done)
		s.jobs.run()
	}
}

func BenchmarkUpdate(b *testing.B) {
	s := newBench(b)
	value := make([]byte, 100)
	edit := func(held *causal.Object, mint func() causal.Dot) (causal.Object, error) {
		return causal.Mint(held, held.Context, causal.Sibling{Dot: mint(), HLC: 1, Value: value}), nil
	}
	done := func(error) {}
	where := at("k")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Update(where, edit, done); err != nil {
			b.Fatal(err)
		}
		s.jobs.run()
	}
}

func BenchmarkRead(b *testing.B) {
	s := newBench(b)
	if _, err := s.Update(at("k"), blind("value"), func(error) {}); err != nil {
		b.Fatal(err)
	}
	s.jobs.run()
	done := func([]byte, error) {}
	where := at("k")
	b.ReportAllocs()
	for b.Loop() {
		s.Read(where, done)
	}
}
