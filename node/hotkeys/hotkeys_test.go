package hotkeys

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
)

// TestSketchAgainstCounts holds the sketch against exact counts, under a skewed load
// on far more keys than it has room for, fading now and then: each key's count lies
// within its bounds, what has no entry is below the floor, nothing is lost from the
// table, and the error is at most the 256th part of all.
func TestSketchAgainstCounts(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 1))
		zipf := rand.NewZipf(rng, 1.05+rng.Float64(), 1, 5000)
		s := newSketch()
		exact := map[string]float64{}
		total := 0.0
		for i := range 12_000 {
			n := zipf.Uint64()
			tenant, key := ring.TenantNumber(1+n%3), fmt.Appendf(nil, "key-%d", n/3)
			w := float64(int(1) << rng.IntN(3))
			s.add(tenant, key, w)
			exact[fmt.Sprint(tenant, " ", string(key))] += w
			total += w
			if i%4000 == 3999 {
				s.scale(0.5)
				total *= 0.5
				for k := range exact {
					exact[k] *= 0.5
				}
			}
		}
		near := func(a, b float64) bool { return math.Abs(a-b) < 1e-6*total }
		if !near(s.total, total) || s.floor() > total/entries+1e-6*total {
			t.Errorf("seed %d: total %g, want %g; floor %g", seed, s.total, total, s.floor())
		}
		kept := map[string]bool{}
		for i := range s.used {
			e, at := &s.all[i], int(s.at[i])
			count := s.heap[at].count
			name := fmt.Sprint(e.tenant, " ", string(e.key[:e.size]))
			kept[name] = true
			if n := exact[name]; n > count+1e-6*total || n < count-e.over-1e-6*total {
				t.Errorf("seed %d: %s has %g, said to be in [%g, %g]", seed, name, n, count-e.over, count)
			}
			if s.find(s.hashes[i], e.tenant, e.key[:e.size]) != i || s.heap[at].entry != int16(i) {
				t.Fatalf("seed %d: %s is not found where it is", seed, name)
			}
			if p := (at - 1) / 2; at > 0 && s.heap[p].count > count {
				t.Fatalf("seed %d: the heap is out of order at %d", seed, at)
			}
		}
		for name, n := range exact {
			if !kept[name] && n > s.floor()+1e-6*total {
				t.Errorf("seed %d: %s has %g and no entry; the floor is %g", seed, name, n, s.floor())
			}
		}
		inTable := 0
		for _, v := range s.table {
			if v != 0 {
				inTable++
			}
		}
		if inTable != s.used || len(kept) != s.used {
			t.Errorf("seed %d: %d in the table, %d used, %d keys", seed, inTable, s.used, len(kept))
		}
	}
}

// load touches keys for a while: hot of each hundred operations a second on one key,
// the others spread.
func load(tr *Tracker, from time.Time, seconds, rate, hot int, name string, write bool) time.Time {
	key := make([]byte, 8)
	for range seconds {
		for i := range rate {
			if i%100 < hot {
				tr.Touch(7, []byte(name), write)
				continue
			}
			binary.LittleEndian.PutUint64(key, rand.Uint64())
			tr.Touch(7, key, write)
		}
		from = from.Add(time.Second)
		tr.Tick(from)
	}
	return from
}

// TestWhatIsHotNow: rates come out within their bounds, at loads that are counted
// whole and at such that are sampled; what was hot fades within a minute or so.
func TestWhatIsHotNow(t *testing.T) {
	for _, rate := range []int{400, 8000} {
		now := time.Unix(1000, 0)
		tr := New(now)
		now = load(tr, now, 40, rate, 20, "first", false)
		check := func(top Top, name string, want float64) {
			t.Helper()
			if len(top.Keys) == 0 || string(top.Keys[0].Key) != name || top.Keys[0].Tenant != 7 || top.Keys[0].Write {
				t.Fatalf("at %d/s: the hottest are %+v", rate, top.Keys)
			}
			k := top.Keys[0]
			// Twice the noise is four standard deviations.
			if want < k.Low-2*k.Noise-0.01*want || want > k.High+2*k.Noise+0.01*want {
				t.Errorf("at %d/s: %s is used %g times a second, said to be in [%g, %g] ± %g", rate, name, want, k.Low, k.High, k.Noise)
			}
			if width := k.High - k.Low + 2*k.Noise; width > 0.06*float64(rate) {
				t.Errorf("at %d/s: bounds [%g, %g] ± %g are too far apart", rate, k.Low, k.High, k.Noise)
			}
		}
		top := tr.Top(now, 5)
		check(top, "first", float64(rate)/5)
		if math.Abs(top.Reads-float64(rate)) > 0.05*float64(rate) || top.Writes != 0 || top.ReadFloor == 0 || top.WriteFloor != 0 {
			t.Errorf("at %d/s: %g reads and %g writes a second, floors %g, %g", rate, top.Reads, top.Writes, top.ReadFloor, top.WriteFloor)
		}
		now = load(tr, now, 60, rate, 20, "second", false)
		top = tr.Top(now, 5)
		if string(top.Keys[0].Key) != "second" || len(top.Keys) > 1 && string(top.Keys[1].Key) == "first" && top.Keys[1].High > 0.3*top.Keys[0].High {
			t.Errorf("at %d/s: a minute later: %+v", rate, top.Keys[:2])
		}
		for range 300 {
			now = now.Add(time.Second)
			tr.Tick(now)
		}
		if top = tr.Top(now, 1); top.Reads > 0.001*float64(rate) {
			t.Errorf("at %d/s: five minutes of nothing later %g reads a second", rate, top.Reads)
		}
	}
}

// TestKindsAndTenantsAreApart, and a long key is kept by what fits.
func TestKindsAndTenantsAreApart(t *testing.T) {
	now := time.Unix(1000, 0)
	tr := New(now)
	long := []byte(strings.Repeat("k", 2*MaxKey))
	for range 10 {
		tr.Touch(1, []byte("k"), false)
		tr.Touch(1, []byte("k"), true)
		tr.Touch(2, []byte("k"), true)
		tr.Touch(2, long, true)
	}
	tr.Tick(now.Add(time.Second))
	top := tr.Top(now.Add(time.Second), 10)
	if len(top.Keys) != 4 || top.Keys[0].Write || !top.Keys[1].Write || top.Keys[1].Tenant != 1 || top.Keys[2].Tenant != 2 || len(top.Keys[3].Key) != MaxKey {
		t.Errorf("%+v", top.Keys)
	}
	for i, k := range top.Keys {
		if k.Low != k.High || math.Abs(k.Low-10) > 0.5 {
			t.Errorf("%d: [%g, %g]", i, k.Low, k.High)
		}
	}
}

// TestMask: how many are looked at, by their rate.
func TestMask(t *testing.T) {
	for rate, want := range map[float64]uint32{0: 0, 500: 0, 501: 1, 1000: 1, 1001: 3, 16_000: 31, 1e9: 1023} {
		if got := maskFor(rate); got != want {
			t.Errorf("at %g/s: %d, want %d", rate, got, want)
		}
	}
}

// TestTouchAllocatesNothing, and may be called by many at a time.
func TestTouchAllocatesNothing(t *testing.T) {
	tr := New(time.Unix(0, 0))
	keys := make([][]byte, 1000)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "key-%d", i)
	}
	i := 0
	if n := testing.AllocsPerRun(10_000, func() { tr.Touch(1, keys[i%len(keys)], true); i++ }); n != 0 {
		t.Errorf("%g allocations a call", n)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 10_000 {
				tr.Touch(1, keys[(i*w)%len(keys)], w%2 == 0)
				if i%1000 == 0 {
					tr.Tick(time.Unix(int64(i), 0))
					tr.Top(time.Unix(int64(i), 0), 10)
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkTouch: every call looked at, as below 500 a second, and as under load.
func BenchmarkTouch(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(rng, 1.1, 1, 1_000_000)
	keys := make([][]byte, 1<<16)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "user:%016d", zipf.Uint64())
	}
	for _, rate := range []float64{500, 2000, 16_000, 64_000} {
		b.Run(fmt.Sprintf("rate=%g", rate), func(b *testing.B) {
			tr := New(time.Unix(0, 0))
			tr.reads.mask.Store(maskFor(rate))
			b.ReportAllocs()
			for i := range b.N {
				tr.Touch(1, keys[i%len(keys)], false)
			}
		})
	}
}
