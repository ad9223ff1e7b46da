package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Bounds of --rate, in operations per second and in steps.
	maxRate, maxSteps = 1_000_000, 1000
	// shortestSleep is how long the goroutine that begins operations sleeps at
	// least, so that at high rates it does not cost more than they do. What falls
	// due meanwhile begins late by as much at the most; its latency counts that.
	shortestSleep = 200 * time.Microsecond
)

// rateStep is a part of an open loop.
type rateStep struct {
	perSecond float64 // operations; 0 is a rest
	lasts     time.Duration
}

// parseRate reads a rate that holds for whole, or steps such as
// "2000:10s,20000:20s".
func parseRate(text string, whole time.Duration) ([]rateStep, error) {
	parts := strings.Split(text, ",")
	if len(parts) > maxSteps {
		return nil, fmt.Errorf("--rate has %d steps, at most %d are possible", len(parts), maxSteps)
	}
	var steps []rateStep
	for _, part := range parts {
		number, length, stepped := strings.Cut(strings.TrimSpace(part), ":")
		s := rateStep{lasts: whole}
		var err error
		if s.perSecond, err = strconv.ParseFloat(number, 64); err != nil || !(s.perSecond >= 0 && s.perSecond <= maxRate) {
			return nil, fmt.Errorf("--rate has %q; it has to be operations per second, 0 to %d", number, maxRate)
		}
		switch {
		case stepped:
			if s.lasts, err = time.ParseDuration(length); err != nil || s.lasts <= 0 {
				return nil, fmt.Errorf("--rate has a step that lasts %q; it has to be a time such as 10s", length)
			}
		case len(parts) > 1:
			return nil, fmt.Errorf("--rate has several steps, of which %q does not say how long it lasts, as in 2000:10s", part)
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// wholeOf is how long all steps last.
func wholeOf(steps []rateStep) (d time.Duration) {
	for _, s := range steps {
		d += s.lasts
	}
	return d
}

// arrivals says when requests are due. It is used by one goroutine.
type arrivals struct {
	steps  []rateStep
	batch  float64 // operations in one request
	even   bool
	random *rand.Rand

	step  int
	ends  time.Duration // of the step
	at    float64       // of the last request, in seconds
	begun bool          // the step has had a request
}

func newArrivals(steps []rateStep, batch int, even bool, random *rand.Rand) *arrivals {
	return &arrivals{steps: steps, batch: float64(batch), even: even, random: random, ends: steps[0].lasts}
}

// next returns when the next request is due, from the beginning, and in which
// step; false at the end. Even ones are as far apart as the rate says, the first
// of a step at its beginning; others are a Poisson process, whose gaps are
// distributed exponentially and know nothing of the time before a step.
func (a *arrivals) next() (due time.Duration, step int, ok bool) {
	for a.step < len(a.steps) {
		gap := a.batch / a.steps[a.step].perSecond // endless at a rate of 0
		switch {
		case a.even && !a.begun && a.steps[a.step].perSecond > 0:
			gap = 0
		case !a.even:
			gap *= a.random.ExpFloat64()
		}
		// Less a nanosecond, for what adding up gaps is off by.
		if at := a.at + gap; at < a.ends.Seconds()-1e-9 {
			a.at, a.begun = at, true
			return time.Duration(at * float64(time.Second)), a.step, true
		}
		a.at, a.begun = a.ends.Seconds(), false
		if a.step++; a.step < len(a.steps) {
			a.ends += a.steps[a.step].lasts
		}
	}
	return 0, 0, false
}

// arrival is a request that is due.
type arrival struct {
	due  time.Time
	into []*row // where it is counted
}

// openLoop begins requests when they are due, whether others were answered or not.
type openLoop struct {
	l           *load
	work        chan arrival
	outstanding atomic.Int64
	running     int // workers
	wg          sync.WaitGroup
	// lag is by how much the beginning of a request was late at most: the
	// generator's own part of the latency.
	lag time.Duration
}

// runOpen makes the load of steps, and returns when the last request was answered,
// with the time that the steps took.
func (l *load) runOpen(ctx context.Context, steps []rateStep, seed uint64) time.Duration {
	l.reset(wholeOf(steps), len(steps))
	o := &openLoop{l: l, work: make(chan arrival, l.opts.outstanding)}
	due := newArrivals(steps, l.opts.batch, l.opts.even, rand.New(rand.NewPCG(seed, ^uint64(0))))
	began := time.Now()
	for ctx.Err() == nil {
		at, step, ok := due.next()
		if !ok {
			break
		}
		when := began.Add(at)
		if wait := time.Until(when); wait > 0 && !pauseFor(ctx, max(wait, shortestSleep)) {
			break
		}
		o.lag = max(o.lag, time.Since(when))
		o.offer(ctx, arrival{due: when, into: []*row{l.series.at(at), &l.steps[step]}})
	}
	took := wholeOf(steps)
	close(o.work)
	o.wg.Wait()
	l.lag = o.lag
	return took
}

// offer begins a request, or drops it if too many are without an answer.
func (o *openLoop) offer(ctx context.Context, a arrival) {
	n := o.outstanding.Add(1)
	if n > int64(o.l.opts.outstanding) {
		o.outstanding.Add(-1)
		for _, r := range a.into {
			r.dropped.Add(int64(o.l.opts.batch))
		}
		return
	}
	if int(n) > o.running {
		o.start(ctx)
	}
	o.work <- a // has room for all that are outstanding
}

// start starts one more worker.
func (o *openLoop) start(ctx context.Context) {
	l := o.l
	if o.running == len(l.open) {
		l.open = append(l.open, l.newWorker(o.running, l.shared[o.running%len(l.shared)]))
	}
	w := l.open[o.running]
	o.running++
	o.wg.Go(func() {
		for a := range o.work {
			w.step(ctx, a.due, a.into)
			o.outstanding.Add(-1)
		}
	})
}

// pauseFor waits; false says that ctx ended first.
func pauseFor(ctx context.Context, d time.Duration) bool {
	if d < 100*time.Millisecond {
		time.Sleep(d) // costs less than a select
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
