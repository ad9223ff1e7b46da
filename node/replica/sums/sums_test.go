package sums

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
)

// TestSumsFollowWrites: whatever is computed, divided, joined, verified, written to
// a file and lost in a crash while writers get on step by step, the sums are those
// of what is stored as soon as nobody writes.
func TestSumsFollowWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		partitions := 1 << rapid.IntRange(0, 3).Draw(t, "partition bits")
		w := newWorld(t, partitions, rapid.IntRange(1, 90).Draw(t, "keys"))
		partition := func() ring.Partition {
			return ring.Partition(rapid.IntRange(0, partitions-1).Draw(t, "partition"))
		}
		t.Repeat(map[string]func(*rapid.T){
			"":      func(*rapid.T) {},
			"write": func(*rapid.T) { w.ticks() },
			"many writes": func(*rapid.T) {
				for range 60 {
					w.tick()
				}
			},
			"step": func(*rapid.T) {
				if _, err := w.s.Step(w); err != nil {
					t.Fatal(err)
				}
			},
			"steps": func(*rapid.T) {
				for range 20 {
					if _, err := w.s.Step(w); err != nil {
						t.Fatal(err)
					}
				}
			},
			"range": func(*rapid.T) {
				p := partition()
				first, last := w.s.tokens(&grid{}, p, 0)
				if _, _, err := w.s.Range(repair.Range{Partition: p, Tenant: 1, First: first, Last: last}, rapid.IntRange(0, 5).Draw(t, "bits"), w); err != nil {
					t.Fatal(err)
				}
			},
			"verify": func(*rapid.T) {
				if n, err := w.s.Verify(partition(), w); n != 0 || err != nil {
					t.Fatalf("%d leaves differed, %v", n, err)
				}
			},
			"unreadable": func(*rapid.T) {
				w.broken = errBroken
				_, serr := w.s.Step(w)
				_, verr := w.s.Verify(partition(), w)
				w.broken = nil
				for _, err := range []error{serr, verr} {
					if err != nil && !errors.Is(err, errBroken) {
						t.Fatal(err)
					}
				}
			},
			"forget": func(*rapid.T) { w.s.Forget(partition()) },
			"doubt": func(*rapid.T) {
				w.s.Doubt(rapid.SampledFrom(w.places).Draw(t, "key").Position)
			},
			"save": func(*rapid.T) {
				if err := w.save(0); err != nil {
					t.Fatal(err)
				}
			},
			"crash": func(*rapid.T) {
				err := w.save(rapid.IntRange(0, 24).Draw(t, "call"))
				if err != nil && !errors.Is(err, errBroken) {
					t.Fatal(err)
				}
				w.crash(partitions, rapid.SampledFrom(vfs.CrashModes()).Draw(t, "mode"))
			},
			"check": func(*rapid.T) { w.check() },
		})
		w.check()
	})
}

// TestVerifyFindsAndMends: a leaf that is wrong is found, and right afterwards.
func TestVerifyFindsAndMends(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, 2, 60)
		for range rapid.IntRange(0, 200).Draw(t, "writes") {
			w.tick()
		}
		w.check()
		w.doubts = false
		p := &w.s.all()[1]
		wrong := 0
		for _, n := range p.tenants {
			for i := range n.leaves {
				if w.chance(3) && n.leaves[i].state == clean {
					n.leaves[i].sum.Lo ^= 1 << rapid.IntRange(0, 63).Draw(t, "bit")
					wrong++
				}
			}
		}
		// One that is doubted meanwhile is read again, and not found.
		if n, err := w.s.Verify(1, w); err != nil || n > wrong || n < wrong && !w.doubts {
			t.Fatalf("%d of %d wrong leaves were found, %v", n, wrong, err)
		}
		w.quiet()
		w.still = true
		if w.doubts {
			if _, err := w.s.Verify(1, w); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := w.s.Verify(1, w); n != 0 || err != nil {
			t.Fatalf("%d wrong leaves afterwards, %v", n, err)
		}
		w.still = false
		w.check()
	})
}

// TestLeavesAdaptToKeys: leaves are divided as keys come and joined as they go, and
// a tenant without any is let go of.
func TestLeavesAdaptToKeys(t *testing.T) {
	s := New(func() int { return 4 })
	r := &listReader{}
	settle := func() {
		for i := 0; ; i++ {
			more, err := s.Step(r)
			if err != nil || i > 1000 {
				t.Fatal(i, err)
			}
			if !more {
				return
			}
		}
	}
	settle()
	place := func(i int) (Position, []byte) {
		return Position{Partition: 3, Tenant: 5, Token: ring.Token(3<<62 | uint64(i)<<40)}, fmt.Append(nil, i)
	}
	r.place, r.has = place, 0
	object := causal.Object{Context: causal.Context{{Actor: 1, Counter: 1}}, Siblings: []causal.Sibling{{Dot: causal.Dot{Actor: 1, Counter: 1}}}}
	const n = 20_000
	for i := range n {
		at, key := place(i)
		r.seq++
		r.has = i + 1
		s.Add(at, key, &causal.Object{}, &object, r.seq)
	}
	settle()
	if d := s.Depth(3, 5); d != 6 {
		t.Errorf("%d keys have 2^%d leaves", n, d)
	}
	for i := n - 1; i >= 0; i-- {
		at, key := place(i)
		r.seq++
		r.has = i
		s.Add(at, key, &object, &causal.Object{}, r.seq)
		if i == 300 {
			settle()
			if d := s.Depth(3, 5); d != 1 && d != 0 {
				t.Errorf("%d keys have 2^%d leaves", i, d)
			}
		}
	}
	settle()
	if tenants, known := s.Tenants(3); len(tenants) != 0 || !known {
		t.Errorf("tenants %v, %v without data", tenants, known)
	}
	if p := s.part(3); len(p.tenants) != 0 {
		t.Errorf("%d tenants are kept without data", len(p.tenants))
	}
}

// TestTenantGoneWhileListed: the last key of a tenant goes, its write is counted
// only after the tenants of the partition were listed without it.
func TestTenantGoneWhileListed(t *testing.T) {
	s := New(func() int { return 1 })
	r := &listReader{seq: 9}
	if err := s.Know(0, r); err != nil {
		t.Fatal(err)
	}
	object := causal.Object{Context: causal.Context{{Actor: 1, Counter: 1}}, Siblings: []causal.Sibling{{Dot: causal.Dot{Actor: 1, Counter: 1}}}}
	s.Add(Position{Tenant: 1}, []byte("k"), &object, &causal.Object{}, 9)
	got, _, err := s.Range(repair.Range{Tenant: 1, Last: 1<<64 - 1}, 0, r)
	if err != nil || got[0] != (repair.Sum{}) {
		t.Errorf("%v of nothing, %v", got, err)
	}
}

// TestRangesThatCannotBeCut are refused, and the largest can.
func TestRangesThatCannotBeCut(t *testing.T) {
	for _, partitions := range []int{1, 4, 1024} {
		s := New(func() int { return partitions })
		r := &listReader{}
		last := s.Partitions() - 1
		p := ring.Partition(last)
		first, end := s.tokens(&grid{}, p, 0)
		if end != 1<<64-1 {
			t.Errorf("the last partition of %d ends at %s", partitions, end)
		}
		for bits := range MaxBits + 1 {
			if got, _, err := s.Range(repair.Range{Partition: p, Tenant: 1, First: first, Last: end}, bits, r); err != nil || len(got) != 1<<bits {
				t.Errorf("%d partitions, 2^%d parts: %d, %v", partitions, bits, len(got), err)
			}
		}
		for _, c := range []struct {
			r    repair.Range
			bits int
		}{
			{repair.Range{Partition: p, First: first, Last: end}, MaxBits + 1},
			{repair.Range{Partition: p, First: first, Last: end}, -1},
			{repair.Range{Partition: p, First: first + 1, Last: end}, 1},
			{repair.Range{Partition: p, First: end, Last: first}, 0},
			{repair.Range{Partition: p, First: first, Last: first + 2}, 1},
		} {
			if _, _, err := s.Range(c.r, c.bits, r); !errors.Is(err, ErrRange) {
				t.Errorf("%d partitions, %v into 2^%d: %v", partitions, c.r, c.bits, err)
			}
		}
		if partitions > 1 {
			if _, _, err := s.Range(repair.Range{Partition: p, First: first - 1, Last: end}, 0, r); !errors.Is(err, ErrRange) {
				t.Errorf("a range that begins in the partition before: %v", err)
			}
		}
		if _, _, err := s.Range(repair.Range{Partition: p + 1}, 0, r); err == nil {
			t.Error("a partition that the ring does not have")
		}
	}
	if _, _, err := New(func() int { return 0 }).Range(repair.Range{}, 0, &listReader{}); err == nil {
		t.Error("a range of an unknown ring")
	}
}

// TestUnknownRingCountsNothing: what is written before the number of partitions is
// known is read once it is.
func TestUnknownRingCountsNothing(t *testing.T) {
	partitions := 0
	s := New(func() int { return partitions })
	r := &listReader{place: func(int) (Position, []byte) { return Position{Tenant: 1, Token: 5}, []byte("k") }}
	object := causal.Object{Context: causal.Context{{Actor: 1, Counter: 1}}, Siblings: []causal.Sibling{{Dot: causal.Dot{Actor: 1, Counter: 1}}}}
	r.seq, r.has = 1, 1
	s.Add(Position{Tenant: 1, Token: 5}, []byte("k"), &causal.Object{}, &object, 1)
	partitions = 2
	var want repair.Sum
	Object(&want, []byte("k"), &object)
	got, _, err := s.Range(repair.Range{Tenant: 1, Last: 1<<63 - 1}, 0, r)
	if err != nil || got[0] != want {
		t.Errorf("%v, %v; what was written before the ring was known is %v", got, err, want)
	}
}
