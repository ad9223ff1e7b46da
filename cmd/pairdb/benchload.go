package main

import (
	"bytes"
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
	// pipelines are the clients', if that is asked for.
	pipelines []*client.Pipeline
	workers   []*worker
}

// worker is one closed loop.
type worker struct {
	opts   benchOptions
	level  client.Level
	target *client.Client
	stream *client.Pipeline // nil for calls
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
		if o.pipeline {
			l.pipelines = append(l.pipelines, c.Pipeline())
		}
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
		if o.pipeline {
			l.workers[i].stream = l.pipelines[i%conns]
		}
	}
	return l, nil
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(latencyMin, latencyMax, latencyDigits)
}

func (l *load) close() error {
	var err error
	for _, p := range l.pipelines {
		err = errors.Join(err, p.Close())
	}
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
	n := int64(l.opts.batch)
	var stop atomic.Bool
	if count == 0 {
		t := time.AfterFunc(d, func() { stop.Store(true) })
		defer t.Stop()
	}
	more := func() bool {
		return ctx.Err() == nil && !stop.Load() && (count == 0 || left.Add(-n) > -n)
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

// step does one request and records its operations.
func (w *worker) step(ctx context.Context) {
	at := w.random.Int64N(int64(w.opts.keys))
	put := w.opts.op == benchPut || w.opts.op == benchMix && w.random.Float64() < w.opts.ratio
	into := w.gets
	if put {
		into = w.puts
	}
	ask := w.prepare(put, at)
	began := time.Now()
	done, err := ask(ctx)
	took := time.Since(began)
	if err != nil && ctx.Err() == nil {
		w.failed[string(client.CodeOf(err))] += int64(w.opts.batch) - done
	}
	// Only a value out of range is refused, and it is brought into range.
	_ = into.RecordValues(min(max(took.Microseconds(), latencyMin), latencyMax), done)
}

// prepare returns what sends the request about the key numbered at, or about it
// and its neighbours, and says how many operations went well.
func (w *worker) prepare(put bool, at int64) func(context.Context) (int64, error) {
	level, key := client.WithLevel(w.level), benchKey(at)
	switch {
	case w.opts.batch > 1 && put:
		ops := make([]client.Write, w.opts.batch)
		for i := range ops {
			ops[i] = client.PutOp(w.neighbour(at, i), bytes.Clone(w.values.next()))
		}
		return func(ctx context.Context) (int64, error) {
			results, err := w.target.Batch(ctx, ops, level)
			return countDone(results, err, func(r *client.BatchResult) error { return r.Err })
		}
	case w.opts.batch > 1:
		keys := make([]string, w.opts.batch)
		for i := range keys {
			keys[i] = w.neighbour(at, i)
		}
		return func(ctx context.Context) (int64, error) {
			results, err := w.target.MultiGet(ctx, keys, level)
			return countDone(results, err, func(r *client.KeyResult) error { return r.Err })
		}
	case put:
		value := w.values.next()
		return func(ctx context.Context) (int64, error) {
			if w.stream != nil {
				return one(w.stream.Put(ctx, key, value, level).Wait(ctx))
			}
			return one(w.target.Put(ctx, key, value, level))
		}
	}
	return func(ctx context.Context) (int64, error) {
		if w.stream != nil {
			return one(w.stream.Get(ctx, key, level).Wait(ctx))
		}
		return one(w.target.Get(ctx, key, level))
	}
}

// neighbour is the i-th key from the one numbered at.
func (w *worker) neighbour(at int64, i int) string {
	return benchKey((at + int64(i)) % int64(w.opts.keys))
}

// one counts a single operation.
func one[R any](_ R, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return 1, nil
}

// countDone counts the operations of a batch that went well, and returns one of
// the errors of the others.
func countDone[R any](results []R, err error, errOf func(*R) error) (int64, error) {
	var done int64
	for i := range results {
		if e := errOf(&results[i]); e != nil {
			err = e
		} else {
			done++
		}
	}
	return done, err
}

func benchKey(i int64) string { return fmt.Sprintf("bench/%012d", i) }

// report adds up what the workers recorded.
func (l *load) report(f *clientFlags, took, own, servers time.Duration) benchReport {
	puts, gets := newHistogram(), newHistogram()
	r := benchReport{
		Op: l.opts.op, Batch: l.opts.batch, Pipeline: l.opts.pipeline, Clients: l.opts.clients, Connections: len(l.clients), ValueSize: l.opts.valueSize, Keys: l.opts.keys,
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
