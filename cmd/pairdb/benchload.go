package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/pairdb/pairdb/client"
)

const (
	// Latencies are recorded in microseconds, up to a minute, within 0.1 %.
	latencyMin    = 1
	latencyMax    = int64(time.Minute / time.Microsecond)
	latencyDigits = 3

	// valuePool is in how many places a value's random half can begin.
	valuePool = 1 << 20
)

// load is a closed-loop load and what came of it. Its methods are called from
// one goroutine; the workers end before run returns.
type load struct {
	opts    benchOptions
	level   client.Level
	clients []*client.Client // one connection each; worker i uses clients[i % len]
	workers []*worker
}

// worker is one closed loop.
type worker struct {
	opts   benchOptions
	level  client.Level
	target *client.Client
	random *rand.Rand
	values *valueMaker

	puts, gets *hdrhistogram.Histogram
	failed     map[string]int64
}

func newLoad(f *clientFlags, o benchOptions) (*load, error) {
	l := &load{opts: o, level: f.level}
	conns := max(1, (o.clients+o.clientsPerConn-1)/o.clientsPerConn)
	// Every endpoint is used, even by few clients.
	conns = min(max(conns, len(f.endpoints)), o.clients)
	for i := range conns {
		// Each client begins at an endpoint of its own and may fail over to the
		// others, as a program would.
		n := i % len(f.endpoints)
		endpoints := append(append([]string{}, f.endpoints[n:]...), f.endpoints[:n]...)
		c, err := f.connectTo(endpoints)
		if err != nil {
			return nil, errors.Join(err, l.close())
		}
		l.clients = append(l.clients, c)
	}
	pool := randomBytes(o.seed, o.valueSize/2+valuePool)
	for i := range o.clients {
		l.workers = append(l.workers, &worker{
			opts: o, level: f.level, target: l.clients[i%conns],
			random: rand.New(rand.NewPCG(o.seed, uint64(i))),
			values: newValueMaker(pool, o.seed, uint64(i), o.valueSize),
			puts:   newHistogram(), gets: newHistogram(),
			failed: make(map[string]int64),
		})
	}
	return l, nil
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(latencyMin, latencyMax, latencyDigits)
}

func (l *load) close() error {
	var err error
	for _, c := range l.clients {
		err = errors.Join(err, c.Close())
	}
	return err
}

// preload stores every key once, and stops at the first error.
func (l *load) preload(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for _, w := range l.workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= int64(l.opts.keys) {
					return
				}
				if _, err := w.target.Put(ctx, benchKey(i), w.values.next(), client.WithLevel(l.level)); err != nil {
					cancel(fmt.Errorf("store the keys: %w", err))
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// run makes load for a time, or, if count is more than 0, for that many
// operations, and keeps only the figures of this run. It returns when the last
// request was answered, with the time from the first request to then.
func (l *load) run(ctx context.Context, d time.Duration, count int64) time.Duration {
	for _, w := range l.workers {
		w.reset()
	}
	var left atomic.Int64
	left.Store(count)
	var stop atomic.Bool
	if count == 0 {
		t := time.AfterFunc(d, func() { stop.Store(true) })
		defer t.Stop()
	}
	more := func() bool {
		return ctx.Err() == nil && !stop.Load() && (count == 0 || left.Add(-1) >= 0)
	}
	began := time.Now()
	var wg sync.WaitGroup
	for _, w := range l.workers {
		wg.Go(func() {
			for more() {
				w.step(ctx)
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

func (w *worker) reset() {
	w.puts.Reset()
	w.gets.Reset()
	clear(w.failed)
}

// step does one operation and records it.
func (w *worker) step(ctx context.Context) {
	key := benchKey(w.random.Int64N(int64(w.opts.keys)))
	put := w.opts.op == benchPut || w.opts.op == benchMix && w.random.Float64() < w.opts.ratio
	into := w.gets
	var err error
	var began time.Time
	if put {
		into = w.puts
		value := w.values.next()
		began = time.Now()
		_, err = w.target.Put(ctx, key, value, client.WithLevel(w.level))
	} else {
		began = time.Now()
		_, err = w.target.Get(ctx, key, client.WithLevel(w.level))
	}
	took := time.Since(began)
	if err != nil {
		if ctx.Err() == nil {
			w.failed[string(client.CodeOf(err))]++
		}
		return
	}
	// Only a value out of range is refused, and it is brought into range.
	_ = into.RecordValue(min(max(took.Microseconds(), latencyMin), latencyMax))
}

func benchKey(i int64) string { return fmt.Sprintf("bench/%012d", i) }

// report adds up what the workers recorded.
func (l *load) report(f *clientFlags, took, own, servers time.Duration) benchReport {
	puts, gets := newHistogram(), newHistogram()
	r := benchReport{
		Op: l.opts.op, Clients: l.opts.clients, Connections: len(l.clients), ValueSize: l.opts.valueSize, Keys: l.opts.keys,
		Consistency: l.level.String(), Endpoints: f.endpoints, Seconds: took.Seconds(),
		Errors: make(map[string]int64), Latency: make(map[string]latencyFigures), Pids: []int{},
	}
	if l.opts.op == benchMix {
		r.Ratio = l.opts.ratio
	}
	if l.level == client.LevelDefault {
		r.Consistency = client.LevelQuorum.String()
	}
	for _, w := range l.workers {
		puts.Merge(w.puts)
		gets.Merge(w.gets)
		for code, n := range w.failed {
			r.Errors[code] += n
		}
	}
	for op, h := range map[string]*hdrhistogram.Histogram{benchPut: puts, benchGet: gets} {
		if h.TotalCount() > 0 {
			r.Latency[op] = latencyOf(h)
		}
	}
	r.Ops = puts.TotalCount() + gets.TotalCount()
	r.OpsPerSec = float64(r.Ops) / took.Seconds()
	r.ClientCPU = perOp(own, r.Ops)
	if len(l.opts.pids) > 0 {
		cpu := perOp(servers, r.Ops)
		r.ServerCPU, r.Pids = &cpu, l.opts.pids
	}
	return r
}

// perOp is 0 if there was no operation.
func perOp(cpu time.Duration, ops int64) float64 {
	if ops == 0 {
		return 0
	}
	return float64(cpu) / float64(time.Microsecond) / float64(ops)
}

func latencyOf(h *hdrhistogram.Histogram) latencyFigures {
	return latencyFigures{
		Count: h.TotalCount(), Mean: h.Mean(), Max: h.Max(),
		P50: h.ValueAtQuantile(50), P90: h.ValueAtQuantile(90), P99: h.ValueAtQuantile(99), P999: h.ValueAtQuantile(99.9),
	}
}

// valueMaker makes values of one size, the first half random and the second a
// repeated byte, so that they compress to about half. Making one costs a copy,
// not the drawing of its bytes.
type valueMaker struct {
	random *rand.Rand
	pool   []byte
	value  []byte
}

// newValueMaker cuts from pool, which is shared and has to be larger than half a
// value.
func newValueMaker(pool []byte, seed, stream uint64, size int) *valueMaker {
	// Another sequence than the one that chooses keys.
	m := &valueMaker{random: rand.New(rand.NewPCG(^seed, stream)), pool: pool, value: make([]byte, size)}
	for i := size / 2; i < size; i++ {
		m.value[i] = 'x'
	}
	return m
}

// randomBytes are always the same for a seed.
func randomBytes(seed uint64, n int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	b := make([]byte, n)
	// A ChaCha8 source never fails.
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// next returns a value that is good until the following call.
func (m *valueMaker) next() []byte {
	half := len(m.value) / 2
	at := m.random.IntN(len(m.pool) - half)
	copy(m.value[:half], m.pool[at:])
	return m.value
}
