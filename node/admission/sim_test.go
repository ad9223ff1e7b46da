package admission

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// station is a server in virtual time: it answers rate operations a second one
// after the other, each base after its turn came.
type station struct {
	mu         sync.Mutex
	free       time.Time // when the last begun is through
	base, each time.Duration
}

// serve returns once an operation that is begun now is answered.
func (s *station) serve() {
	s.mu.Lock()
	now := time.Now()
	if s.free.Before(now) {
		s.free = now
	}
	s.free = s.free.Add(s.each)
	until := s.free.Add(s.base)
	s.mu.Unlock()
	time.Sleep(time.Until(until))
}

func (s *station) set(base, each time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.base, s.each = base, each
}

// load is what came of operations that arrived for a while.
type load struct {
	mu                        sync.Mutex
	good, late, refused, most int
	took                      []time.Duration
}

func (r *load) String() string {
	return fmt.Sprintf("%d in time, %d late, %d refused, p99 %v", r.good, r.late, r.refused, r.p99())
}

func (r *load) p99() time.Duration {
	if len(r.took) == 0 {
		return 0
	}
	slices.Sort(r.took)
	return r.took[len(r.took)*99/100]
}

// arrive lets rate operations a second arrive for a time, whatever becomes of
// those before, each of which has deadline to be answered. With l nil there is no
// limiter.
func arrive(l *Limiter, s *station, rate int, d, deadline time.Duration) *load {
	r := new(load)
	var wg sync.WaitGroup
	var waiting atomic.Int64
	for range int(d.Seconds() * float64(rate)) {
		wg.Go(func() {
			began := time.Now()
			if l != nil {
				tok, _, ok := l.Acquire(context.Background(), 1, deadline)
				if !ok {
					r.mu.Lock()
					r.refused++
					r.mu.Unlock()
					return
				}
				defer tok.Release()
			}
			n := int(waiting.Add(1))
			s.serve()
			waiting.Add(-1)
			took := time.Since(began)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.most = max(r.most, n)
			r.took = append(r.took, took)
			if took <= deadline {
				r.good++
			} else {
				r.late++
			}
		})
		time.Sleep(time.Second / time.Duration(rate))
	}
	wg.Wait()
	return r
}

// TestOverloadInVirtualTime: at twice and at four times what a server can do, it
// goes on doing what it can, and is as before right after. Without the limiter it
// does nothing in time any more, which is what the test is worth.
func TestOverloadInVirtualTime(t *testing.T) {
	const capacity, deadline = 5000, 300 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		s := &station{base: time.Millisecond, each: time.Second / capacity}
		if r := arrive(nil, s, 2*capacity, 3*time.Second, deadline); r.good > 3*capacity/2 {
			t.Errorf("without a limiter: %v; the simulation shows nothing", r)
		}
	})
	for _, times := range []int{2, 4} {
		synctest.Test(t, func(t *testing.T) {
			l := NewLimiter(Bounds{Floor: 128, Ceiling: 4096, Queue: 128, Wait: 500 * time.Millisecond})
			s := &station{base: time.Millisecond, each: time.Second / capacity}
			before := arrive(l, s, capacity/2, 3*time.Second, deadline)
			over := arrive(l, s, times*capacity, 4*time.Second, deadline)
			t.Logf("load x%d: %v; limit %d", times, over, l.Stats().Limit)
			if over.good < 4*capacity*9/10 || over.late > over.good/50 {
				t.Errorf("load x%d: %v, want 90 %% of the %d that the server can do", times, over, 4*capacity)
			}
			if over.most > 4096+1 {
				t.Errorf("load x%d: %d were under way", times, over.most)
			}
			after := arrive(l, s, capacity/2, 2*time.Second, deadline)
			if after.refused > 0 || after.p99() > 2*before.p99() {
				t.Errorf("after load x%d: %v, before: %v", times, after, before)
			}
		})
	}
}

// TestLatencyStepInVirtualTime: when a node is gone and every operation takes
// twenty times as long, a server that has the throughput goes on without a
// refusal, and so it does when the node is back.
func TestLatencyStepInVirtualTime(t *testing.T) {
	const capacity, deadline = 5000, time.Second
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Bounds{Floor: 128, Ceiling: 4096, Queue: 128, Wait: 500 * time.Millisecond})
		s := &station{}
		for _, base := range []time.Duration{time.Millisecond, 20 * time.Millisecond, time.Millisecond} {
			s.set(base, time.Second/capacity)
			r := arrive(l, s, capacity*3/4, 3*time.Second, deadline)
			t.Logf("at %v: %v; limit %d", base, r, l.Stats().Limit)
			if r.refused > 0 || r.late > 0 {
				t.Errorf("at %v: %v", base, r)
			}
		}
		// The capacity halves at 2 x the load, and comes back.
		s.set(time.Millisecond, 2*time.Second/capacity)
		if r := arrive(l, s, capacity, 3*time.Second, deadline); r.good < 3*capacity/2*9/10 {
			t.Errorf("with half the capacity: %v", r)
		}
		s.set(time.Millisecond, time.Second/capacity)
		if r := arrive(l, s, capacity/2, 2*time.Second, deadline); r.refused > 0 || r.p99() > 10*time.Millisecond {
			t.Errorf("with all of it again: %v", r)
		}
	})
}

// TestStallInVirtualTime: a server that stands still for 2 s, as a disk may, makes
// callers refused, not pile up, and does its work again within a second.
func TestStallInVirtualTime(t *testing.T) {
	const capacity, deadline = 5000, 300 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Bounds{Floor: 128, Ceiling: 4096, Queue: 128, Wait: 500 * time.Millisecond})
		s := &station{base: time.Millisecond, each: time.Second / capacity}
		arrive(l, s, capacity/2, time.Second, deadline)
		s.mu.Lock()
		s.free = time.Now().Add(2 * time.Second)
		s.mu.Unlock()
		stalled := arrive(l, s, capacity/2, 2*time.Second, deadline)
		if stalled.most > 128+1 {
			t.Errorf("during the stall %d were under way", stalled.most)
		}
		arrive(l, s, capacity/2, time.Second, deadline)
		if r := arrive(l, s, capacity/2, time.Second, deadline); r.refused > 0 || r.late > 0 || r.p99() > 10*time.Millisecond {
			t.Errorf("a second after the stall: %v", r)
		}
	})
}

// TestLimitFollowsDistance: operations that take long because what they wait for
// is far away, and not because there are too many, raise the limit to what the
// clients send.
func TestLimitFollowsDistance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Bounds{Floor: 16, Ceiling: 1024, Queue: 16, Wait: 500 * time.Millisecond})
		s := &station{base: 50 * time.Millisecond}
		first := arrive(l, s, 4000, 2*time.Second, time.Second)
		for range 8 {
			arrive(l, s, 4000, time.Second, time.Second)
		}
		last := arrive(l, s, 4000, 2*time.Second, time.Second)
		t.Logf("first %v; last %v; limit %d", first, last, l.Stats().Limit)
		if last.refused > 0 || first.refused == 0 {
			t.Errorf("at first %v, later %v, limit %d", first, last, l.Stats().Limit)
		}
	})
}

// TestStarvedServerInVirtualTime: a server that has a fiftieth of its capacity
// left, with a floor that would take it seconds, has so few under way that callers
// are answered before they lose patience, and is as before when it has all again.
func TestStarvedServerInVirtualTime(t *testing.T) {
	const capacity, deadline = 5000, 10 * time.Second
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Bounds{Floor: 512, Ceiling: 4096, Queue: 512, Wait: 500 * time.Millisecond})
		s := &station{base: time.Millisecond, each: time.Second / capacity}
		arrive(l, s, capacity/2, 2*time.Second, deadline)
		s.set(time.Millisecond, 50*time.Second/capacity)
		arrive(l, s, capacity/10, 40*time.Second, deadline)
		r := arrive(l, s, capacity/10, 10*time.Second, deadline)
		t.Logf("starved: %v; limit %d", r, l.Stats().Limit)
		if r.good < 900 || r.p99() > 3*time.Second {
			t.Errorf("starved: %v, want the 1000 that it can do, each within 3 s", r)
		}
		s.set(time.Millisecond, time.Second/capacity)
		arrive(l, s, capacity/2, 3*time.Second, deadline)
		if n := l.Stats().Limit; n < 500 {
			t.Errorf("the limit is %d 3 s after", n)
		}
	})
}

// TestLawKeepsItsBounds whatever it is told.
func TestLawKeepsItsBounds(t *testing.T) {
	l := newLaw(8, 64)
	last := 8
	for i := range 10_000 {
		w := window{mean: time.Duration(i*i*7919%1_000_003) * time.Microsecond, bound: i%3 > 0}
		if i%10 == 0 {
			w.mean = 0
		}
		if n := l.step(w); n < 2 || n > 64 || n < min(last, 8) && l.now <= float64(slow) {
			t.Fatalf("step %d: the limit is %d", i, n)
		} else {
			last = n
		}
	}
}
