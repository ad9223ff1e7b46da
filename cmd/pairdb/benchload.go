package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

const (
	// Latencies are recorded in microseconds, up to a minute, within 0.1 %.
	latencyMin    = 1
	latencyMax    = int64(time.Minute / time.Microsecond)
	latencyDigits = 3

	// sharedTallies is how many tallies the workers of an open loop share: they are
	// too many to have one each.
	sharedTallies = 4
)

// load is a load and what came of it. Its methods are called from one goroutine;
// the workers end before run and runOpen return.
type load struct {
	opts    benchOptions
	level   client.Level
	clients []*client.Client // one connection each; worker i uses clients[i % len]
	// pipelines are the clients', if that is asked for.
	pipelines []*client.Pipeline
	pool      []byte // of values
	workers   []*worker
	// open are the workers of an open loop as far as they were needed, and shared
	// their tallies.
	open   []*worker
	shared []*tally
	// there are the numbers of the keys that gets ask for; nil: all.
	there []uint32
	// series is nil if it is not known how long the measurement takes.
	series *series
	steps  []row // of an open loop
	lag    time.Duration
	before clientFigures // what the clients had done before the measurement
}

// worker makes one request after another.
type worker struct {
	load   *load
	opts   *benchOptions
	level  client.Level
	target *client.Client
	stream *client.Pipeline // nil for calls
	random *rand.Rand
	values *valueMaker
	tally  *tally
}

// tally is what came of the requests of one or several workers.
type tally struct {
	mu         sync.Mutex
	puts, gets *hdrhistogram.Histogram
	failed     map[string]int64
	refused    int64
}

func newTally() *tally {
	return &tally{puts: newHistogram(), gets: newHistogram(), failed: make(map[string]int64)}
}

func (t *tally) reset() {
	t.puts.Reset()
	t.gets.Reset()
	clear(t.failed)
	t.refused = 0
}

// refuse counts operations that failed because they were refused.
func (t *tally) refuse(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused += n
}

// add counts the operations of a request.
func (t *tally) add(put bool, done, failed int64, code string, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	into := t.gets
	if put {
		into = t.puts
	}
	// Only a value out of range is refused, and it is brought into range.
	_ = into.RecordValues(min(max(took.Microseconds(), latencyMin), latencyMax), done)
	if failed > 0 {
		t.failed[code] += failed
	}
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
	l.pool = randomBytes(o.seed, o.valueSize/2+valuePool)
	for i := range o.clients {
		l.workers = append(l.workers, l.newWorker(i, newTally()))
	}
	for range sharedTallies {
		l.shared = append(l.shared, newTally())
	}
	return l, nil
}

func (l *load) newWorker(i int, t *tally) *worker {
	n := i % len(l.clients)
	w := &worker{
		load: l, opts: &l.opts, level: l.level, target: l.clients[n], tally: t,
		random: rand.New(rand.NewPCG(l.opts.seed, uint64(i))),
		values: newValueMaker(l.pool, l.opts.seed, uint64(i), l.opts.valueSize),
	}
	if l.opts.pipeline {
		w.stream = l.pipelines[n]
	}
	return w
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

// findKeys finds out which keys gets can ask for, with a scan that leaves the
// values out.
func (l *load) findKeys(ctx context.Context) error {
	s := l.clients[0].Scan(ctx, client.ScanOptions{Prefix: benchPrefix, KeysOnly: true}, client.WithLevel(l.level))
	defer s.Close()
	for s.Next() {
		n, err := strconv.ParseUint(strings.TrimPrefix(s.Item().Key, benchPrefix), 10, 32)
		if err == nil && n < uint64(l.opts.keys) && benchKey(int64(n)) == s.Item().Key {
			l.there = append(l.there, uint32(n))
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("look for the keys: %w", err)
	}
	switch n := len(l.there); {
	case n < l.opts.batch:
		return &failure{exit: errcode.ExitFailed, what: fmt.Sprintf("bench: %d of the %d keys exist", n, l.opts.keys), next: "Leave --no-load out, so that they are stored first."}
	case n == l.opts.keys:
		l.there = nil
	}
	return nil
}

// run makes a closed-loop load for a time, or, if count is more than 0, for that
// many operations, and keeps only the figures of this run. It returns when the last
// request was answered, with the time from the first request to then.
func (l *load) run(ctx context.Context, d time.Duration, count int64) time.Duration {
	l.reset(d, 0)
	if count > 0 {
		l.series = nil
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
			var room [1]*row
			for more() {
				now, into := time.Now(), room[:0]
				if l.series != nil {
					into = append(into, l.series.at(now.Sub(began)))
				}
				w.step(ctx, now, into)
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// reset forgets earlier figures.
func (l *load) reset(whole time.Duration, steps int) {
	l.series, l.steps, l.lag = newSeries(whole), make([]row, steps), 0
	for _, t := range l.tallies() {
		t.reset()
	}
}

// tallies are all there are.
func (l *load) tallies() []*tally {
	all := append([]*tally{}, l.shared...)
	for _, w := range l.workers {
		all = append(all, w.tally)
	}
	return all
}

// step does one request, that was due at a time, and records its operations.
func (w *worker) step(ctx context.Context, due time.Time, into []*row) {
	put := w.opts.op == benchPut || w.opts.op == benchMix && w.random.Float64() < w.opts.ratio
	ask := w.prepare(put)
	done, err := ask(ctx)
	took := time.Since(due)
	var failed int64
	if err != nil && ctx.Err() == nil {
		failed = int64(w.opts.batch) - done
	}
	code := client.CodeOf(err)
	w.tally.add(put, done, failed, string(code), took)
	refused := int64(0)
	if isRefusal(code) || errors.Is(err, client.ErrThrottled) {
		refused, failed = failed, 0
	}
	if refused > 0 {
		w.tally.refuse(refused)
	}
	for _, r := range into {
		r.add(done, refused, failed, took)
	}
}

// isRefusal says of a code that nothing was done because there was too much to do.
func isRefusal(code errcode.Code) bool {
	switch code {
	case errcode.RateLimited, errcode.ResourceExhausted, errcode.DiskThrottled:
		return true
	}
	return false
}

// prepare returns what sends a request about a key, or about it and its
// neighbours, and says how many operations went well.
func (w *worker) prepare(put bool) func(context.Context) (int64, error) {
	keys := w.opts.keys
	if !put && w.load.there != nil {
		keys = len(w.load.there)
	}
	at := w.random.Int64N(int64(keys))
	level, key := client.WithLevel(w.level), w.key(put, at)
	switch {
	case w.opts.batch > 1 && put:
		ops := make([]client.Write, w.opts.batch)
		for i := range ops {
			ops[i] = client.PutOp(w.key(put, (at+int64(i))%int64(keys)), bytes.Clone(w.values.next()))
		}
		return func(ctx context.Context) (int64, error) {
			results, err := w.target.Batch(ctx, ops, level)
			return countDone(results, err, func(r *client.BatchResult) error { return r.Err })
		}
	case w.opts.batch > 1:
		wanted := make([]string, w.opts.batch)
		for i := range wanted {
			wanted[i] = w.key(put, (at+int64(i))%int64(keys))
		}
		return func(ctx context.Context) (int64, error) {
			results, err := w.target.MultiGet(ctx, wanted, level)
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

// key is the n-th of all keys, or, for a get, of those that are there.
func (w *worker) key(put bool, n int64) string {
	if !put && w.load.there != nil {
		n = int64(w.load.there[n])
	}
	return benchKey(n)
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

const benchPrefix = "bench/"

// benchKey is the key with a number: bench/ and its 12 digits.
func benchKey(i int64) string {
	const digits = 12
	var b [len(benchPrefix) + digits]byte
	copy(b[:], benchPrefix)
	for at := len(b) - 1; at >= len(benchPrefix); at-- {
		b[at] = byte('0' + i%10)
		i /= 10
	}
	return string(b[:])
}
