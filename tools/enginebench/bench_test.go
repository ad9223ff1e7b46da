package main

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestPermutationIsOne(t *testing.T) {
	for _, n := range []uint64{1, 2, 7, 1000, 65_537} {
		p, seen := newPerm(n), make([]bool, n)
		for i := range n {
			x := p.at(i)
			if x >= n || seen[x] {
				t.Fatalf("of %d: %d goes to %d", n, i, x)
			}
			seen[x] = true
		}
	}
}

func TestQuantiles(t *testing.T) {
	var h, other hist
	for i := range 1000 {
		h.add(int64(i) * 1000)
	}
	other.add(1e9)
	h.merge(&other)
	for _, tc := range []struct{ q, want float64 }{{0.5, 500}, {0.99, 990}, {1, 1e6}} {
		if got := h.quantile(tc.q); got < tc.want*0.98 || got > tc.want*1.01 {
			t.Errorf("quantile %g is %g, want about %g", tc.q, got, tc.want)
		}
	}
}

func TestZipfPrefersSmallNumbers(t *testing.T) {
	z, rnd := newZipf(1000, 0.99), rand.New(rand.NewPCG(1, 1))
	first, upper := 0, 0
	for range 100_000 {
		switch x := z.next(rnd); {
		case x >= 1000:
			t.Fatalf("drew %d", x)
		case x == 0:
			first++
		case x >= 500:
			upper++
		}
	}
	if first < 12_000 || first > 16_000 || upper > 12_000 || upper == 0 {
		t.Errorf("0 was drawn %d times, the upper half %d", first, upper)
	}
}

func TestPhases(t *testing.T) {
	ps, err := parsePhases("fill,rr16,over1", time.Second, time.Minute)
	if err != nil || len(ps) != 3 || ps[1].threads != 16 || ps[1].dur != time.Second || ps[2].dur != time.Minute || ps[0].dur != 0 {
		t.Errorf("%+v, %v", ps, err)
	}
	for _, bad := range []string{"", "nonsense", "rr0", "fill,"} {
		if _, err := parsePhases(bad, 1, 1); err == nil {
			t.Errorf("%q is a list of phases", bad)
		}
	}
}

// Every engine that is built in does every phase, and what it reads is there.
func TestEnginesDoAllPhases(t *testing.T) {
	for name, open := range engines {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			e, err := open(Config{Dir: dir, CacheMiB: 8, MemMiB: 16, BloomBits: 10, Jobs: 2})
			if err != nil {
				t.Fatal(err)
			}
			b := &bench{e: e, name: name, dir: dir, keys: 5000, value: 100, order: newPerm(5000)}
			ps, err := parsePhases("fill,rr2,miss1,zipf1,scan1,mix4,over1,put2", 20*time.Millisecond, 20*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range ps {
				r, err := b.run(p)
				if err != nil {
					t.Fatal(err)
				}
				if r.Ops == 0 || r.OpsPerSec <= 0 || r.CPU <= 0 || r.RSSMB <= 0 || p.kind == "fill" && r.Ops != 5000 {
					t.Errorf("%+v", r)
				}
				if p.kind == "miss" && r.Absent != r.Ops {
					t.Errorf("%d of %d absent keys were found", r.Ops-r.Absent, r.Ops)
				}
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A worker that a busy machine gets to only after the time of its phase does something, and
// what it waited for that is not how long an operation took.
func TestLateWorkerDoesSomething(t *testing.T) {
	dir := t.TempDir()
	e, err := engines["pairdb"](Config{Dir: dir, CacheMiB: 8, MemMiB: 16, BloomBits: 10, Jobs: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	b := &bench{e: e, name: "pairdb", dir: dir, keys: 10, value: 100, order: newPerm(10)}
	w := &worker{b: b, p: phase{kind: "put", dur: time.Millisecond}, rnd: rand.New(rand.NewPCG(1, 1)), key: make([]byte, 16)}
	if err := w.timed(time.Now().Add(-time.Hour), new(atomic.Uint64)); err != nil || w.ops != 1 {
		t.Errorf("%d operations, %v", w.ops, err)
	}
	if took := time.Duration(w.hist.quantile(1) * 1e3); took > 30*time.Minute {
		t.Errorf("it took %s", took)
	}
}

func TestTableHasMedians(t *testing.T) {
	c := &comparison{results: map[string]map[string]map[string][]Result{}}
	for i, ops := range []float64{10, 30, 20} {
		c.add("sync", Result{Engine: "pairdb", Phase: "put1", OpsPerSec: 2 * ops, P50: float64(i)})
		c.add("sync", Result{Engine: "pebble", Phase: "put1", OpsPerSec: ops})
	}
	var out bytes.Buffer
	c.print(&out)
	if !strings.Contains(out.String(), "| put1 | pairdb | 3 | 40 | 2.00 | 1.0 |") {
		t.Errorf("the table is\n%s", &out)
	}
	line, err := json.Marshal(rawLine{"sync", c.results["sync"]["put1"]["pairdb"][0]})
	if err != nil || !slices.Contains(strings.Split(string(line), ","), `"Phase":"put1"`) {
		t.Errorf("%s, %v", line, err)
	}
}
