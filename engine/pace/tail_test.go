package pace_test

import (
	"testing"
	"time"

	"github.com/pairdb/pairdb/engine/pace"
)

func TestLatencyBuckets(t *testing.T) {
	first := 64 * time.Microsecond // below it there are fewer
	last := pace.LatencyBucket(first)
	for d := first; d < 20*time.Second; d += d / 50 {
		b := pace.LatencyBucket(d)
		if b != last && b != last+1 {
			t.Fatalf("%s is in bucket %d, what is a little less in %d", d, b, last)
		}
		last = b
	}
	if last != pace.LatencyBuckets-1 || pace.LatencyBucket(0) != 0 || pace.LatencyBucket(-1) != 0 || pace.LatencyBucket(1<<62) != last {
		t.Errorf("the buckets end at %d", last)
	}
	if a, b := pace.LatencyBucket(time.Millisecond), pace.LatencyBucket(1300*time.Microsecond); a == b {
		t.Error("what takes a third longer is in the same bucket")
	}
}

// front is clients at a node from which a Tail's work takes its time.
type front struct {
	tail pace.Tail
	now  time.Time
	all  pace.Latencies
	// slow is how long the slowest of hundred operations takes, by the rate of the work.
	slow func(rate float64) time.Duration
	// each is how many operations end in an interval.
	each int
	n    int
}

// run lets time pass in which as much is moved as may be, up to most bytes a second, and
// returns how much was in a second, and which share of the operations took longer than
// twice as long as the slowest do when nothing moves.
func (f *front) run(d time.Duration, most int64) (rate, late float64) {
	moved, over, ops := int64(0), 0, 0
	begin, wait := f.now, f.now
	for f.now.Sub(begin) < d {
		step := int64(0)
		for end := f.now.Add(pace.Interval); f.now.Before(end); f.now = f.now.Add(pace.Interval / 10) {
			for step < most/4 && !wait.After(f.now) {
				const frame = 256 << 10
				f.tail.Take(f.now, frame)
				step += frame
				wait = f.now.Add(f.tail.Wait(f.now))
			}
		}
		moved += step
		slow, calm := f.slow(float64(step)*4), f.slow(0)
		for range f.each {
			f.n++
			took := time.Millisecond
			if f.n%50 == 0 {
				took = calm
			} else if f.n%100 < 8 && step > 0 { // all of the slow ones are as slow as the work makes them
				took = slow
			}
			if took > 2*calm {
				over++
			}
			ops++
			f.all[pace.LatencyBucket(took)]++
		}
		f.tail.Look(f.now, &f.all)
	}
	return float64(moved) / d.Seconds(), float64(over) / float64(max(1, ops))
}

// TestTailYields: work goes at full speed while clients do not feel it, and only so fast
// that hardly more than one in a hundred takes twice as long while they do; also where
// there are few clients. It comes back when they do not feel it any more, and never
// stops.
func TestTailYields(t *testing.T) {
	const mib = 1 << 20
	for _, each := range []int{25, 500} {
		f := &front{tail: pace.Tail{Least: mib}, now: time.Unix(1000, 0), each: each}
		unmoved := func(float64) time.Duration { return 4 * time.Millisecond }
		// Above 20 MiB/s they feel it.
		felt := func(rate float64) time.Duration {
			return 4*time.Millisecond + time.Duration(max(0, rate-20*mib)/mib*float64(time.Millisecond))
		}
		f.slow = unmoved
		f.run(30*time.Second, 0)
		if rate, _ := f.run(30*time.Second, 100*mib); rate < 60*mib {
			t.Errorf("%d clients: %.1f MiB/s though none of them feels it", each, rate/mib)
		}
		f.slow = felt
		f.run(5*time.Second, 100*mib)
		if rate, late := f.run(2*time.Minute, 100*mib); rate < 8*mib || rate > 30*mib || late > 0.012 {
			t.Errorf("%d clients: %.1f MiB/s, and %.2f %% of the operations took twice as long", each, rate/mib, 100*late)
		}
		f.slow = func(float64) time.Duration { return time.Second }
		f.run(10*time.Second, 100*mib)
		if rate, _ := f.run(time.Minute, 100*mib); rate < mib/2 || rate > 2*mib {
			t.Errorf("%d clients: %.2f MiB/s though it is of no use to go slower", each, rate/mib)
		}
		f.slow = unmoved
		f.run(time.Minute, 100*mib)
		if rate, _ := f.run(30*time.Second, 100*mib); rate < 60*mib {
			t.Errorf("%d clients: %.1f MiB/s after a bad time", each, rate/mib)
		}
	}
}

// TestTailWithoutClients: where nobody waits there is no bound.
func TestTailWithoutClients(t *testing.T) {
	f := &front{tail: pace.Tail{Least: 1 << 20}, now: time.Unix(1000, 0), slow: func(float64) time.Duration { return 0 }}
	f.run(5*time.Second, 0)
	f.run(time.Second, 100<<20)
	if f.tail.Take(f.now, 1<<30); f.tail.Wait(f.now) > 0 {
		t.Error("there is a bound though there are no clients")
	}
}
