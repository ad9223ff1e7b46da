package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of phases that end by count, in case an engine is very slow.
const maxFill = 120 * time.Second

// phase is one kind of load.
type phase struct {
	text    string
	kind    string
	threads int
	dur     time.Duration // 0: each key once
	ops     uint64        // so many operations instead, if not 0
}

// kinds says for how long a kind of phase runs: 0 each key once, 1 the time of
// reads, 2 that of overwrites.
var kinds = map[string]int{"fill": 0, "put": 1, "warm": 1, "rr": 1, "miss": 1, "zipf": 1, "scan": 1, "mix": 1, "over": 2}

// parsePhases reads a list as fill,rr4,over1; the numbers are goroutines. One with
// a number behind a colon, as put16:1000, ends after so many operations: after
// them engines hold the same, so that their memory can be compared.
func parsePhases(list string, dur, overDur time.Duration) ([]phase, error) {
	var all []phase
	for text := range strings.SplitSeq(list, ",") {
		text, count, counted := strings.Cut(text, ":")
		kind := strings.TrimRight(text, "0123456789")
		length, ok := kinds[kind]
		if !ok {
			return nil, fmt.Errorf("there is no phase %q", text)
		}
		p := phase{text: text, kind: kind, threads: 1, dur: []time.Duration{0, dur, overDur}[length]}
		if n := text[len(kind):]; n != "" {
			var err error
			if p.threads, err = strconv.Atoi(n); err != nil || p.threads < 1 {
				return nil, fmt.Errorf("phase %q has no goroutines", text)
			}
		}
		if counted {
			var err error
			if p.ops, err = strconv.ParseUint(count, 10, 64); err != nil || p.ops == 0 {
				return nil, fmt.Errorf("phase %q has no number of operations", text)
			}
			p.dur = maxFill
		}
		all = append(all, p)
	}
	return all, nil
}

// bench runs phases on one engine.
type bench struct {
	e     Engine
	name  string
	dir   string
	keys  uint64
	value int
	seed  uint64
	order perm
	zipf  *zipf
	put   atomic.Uint64 // keys put by put phases so far
}

// worker is one goroutine of a phase.
type worker struct {
	b      *bench
	p      phase
	rnd    *rand.Rand
	key    []byte
	dst    []byte
	hist   hist
	ops    uint64
	wrote  uint64 // bytes of keys and values
	absent uint64
}

func (b *bench) run(p phase) (Result, error) {
	if p.kind == "zipf" && b.zipf == nil {
		b.zipf = newZipf(b.keys, 0.99)
	}
	runtime.GC()
	before, err := readUsage()
	if err != nil {
		return Result{}, err
	}
	workers := make([]*worker, p.threads)
	errs := make([]error, p.threads)
	var next atomic.Uint64
	var wg sync.WaitGroup
	start := time.Now()
	for i := range workers {
		w := &worker{b: b, p: p, rnd: rand.New(rand.NewPCG(b.seed, uint64(i)<<8|uint64(p.threads))), key: make([]byte, 16), dst: make([]byte, 0, 8<<10)}
		workers[i] = w
		wg.Go(func() {
			if p.kind == "fill" {
				errs[i] = w.fill(start, &next)
			} else {
				errs[i] = w.timed(start, &next)
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	r := Result{Engine: b.name, Phase: p.text, Threads: p.threads, Keys: b.keys, Value: b.value}
	var h hist
	var wrote uint64
	for i, w := range workers {
		if errs[i] != nil {
			return Result{}, fmt.Errorf("%s: %w", p.text, errs[i])
		}
		h.merge(&w.hist)
		r.Ops += w.ops
		r.Absent += w.absent
		wrote += w.wrote
	}
	if p.kind != "miss" && r.Absent > 0 {
		return Result{}, fmt.Errorf("%s: %d of %d keys are missing", p.text, r.Absent, r.Ops)
	}
	r.OpsPerSec = float64(r.Ops) / took.Seconds()
	r.P50, r.P99, r.P999, r.Max = h.quantile(.5), h.quantile(.99), h.quantile(.999), h.quantile(1)
	if p.kind == "fill" || p.kind == "over" {
		start := time.Now()
		if err := b.e.Settle(); err != nil {
			return Result{}, fmt.Errorf("settle: %w", err)
		}
		r.Settle = time.Since(start).Seconds()
	}
	return r, b.measure(&r, before, wrote)
}

// measure completes r with what the process used.
func (b *bench) measure(r *Result, before usage, wrote uint64) error {
	after, err := readUsage()
	if err != nil {
		return err
	}
	r.CPU = (after.cpu - before.cpu) / float64(r.Ops)
	if wrote > 0 {
		r.WriteAmp = (after.written - before.written) / float64(wrote)
	}
	disk, err := diskUse(b.dir)
	if err != nil {
		return err
	}
	r.DiskMB = float64(disk) / 1e6
	r.SpaceAmp = float64(disk) / float64(b.keys*uint64(16+b.value))
	rss, err := procField("/proc/self/status", "VmRSS:")
	r.RSSMB = rss / 1024
	return err
}

// fill puts keys nobody has put yet until there is none left.
func (w *worker) fill(start time.Time, next *atomic.Uint64) error {
	prev := time.Since(start)
	for {
		i := next.Add(1) - 1
		if i >= w.b.keys {
			return nil
		}
		if err := w.set(w.b.order.at(i) * 2); err != nil {
			return err
		}
		prev = w.note(start, prev)
		if prev > maxFill {
			return fmt.Errorf("%d of %d keys in %s", i, w.b.keys, prev)
		}
	}
}

// timed does operations until the phase is over, one at the least: its time may be over
// before a busy machine gets to it.
func (w *worker) timed(start time.Time, done *atomic.Uint64) error {
	prev := time.Since(start)
	for (prev < w.p.dur || w.ops == 0) && (w.p.ops == 0 || done.Add(1) <= w.p.ops) {
		if err := w.one(); err != nil {
			return err
		}
		prev = w.note(start, prev)
	}
	return nil
}

// note counts an operation that began at prev. One clock read an operation.
func (w *worker) note(start time.Time, prev time.Duration) time.Duration {
	now := time.Since(start)
	w.hist.add(int64(now - prev))
	w.ops++
	return now
}

func (w *worker) one() error {
	b := w.b
	switch w.p.kind {
	case "put":
		return w.set(b.order.at(b.put.Add(1)%b.keys) * 2)
	case "over":
		return w.set(w.rnd.Uint64N(b.keys) * 2)
	case "mix":
		if w.rnd.Uint32()&1 == 0 {
			return w.set(w.rnd.Uint64N(b.keys) * 2)
		}
		return w.get(w.rnd.Uint64N(b.keys) * 2)
	case "miss":
		return w.get(w.rnd.Uint64N(b.keys)*2 + 1)
	case "zipf":
		return w.get(b.order.at(b.zipf.next(w.rnd)) * 2)
	case "scan":
		putKey(w.key, w.rnd.Uint64N(b.keys)*2)
		_, _, err := b.e.Scan(w.key, 100)
		return err
	default:
		return w.get(w.rnd.Uint64N(b.keys) * 2)
	}
}

func (w *worker) set(x uint64) error {
	putKey(w.key, x)
	w.wrote += uint64(len(w.key) + w.b.value)
	return w.b.e.Put(w.key, value(w.rnd, w.b.value))
}

func (w *worker) get(x uint64) error {
	putKey(w.key, x)
	var ok bool
	var err error
	w.dst, ok, err = w.b.e.Get(w.key, w.dst)
	if !ok {
		w.absent++
	}
	return err
}
