package admission

import (
	"math"
	"time"
)

// The law's constants. They were chosen in the simulation of sim_test.go; none of
// them is critical by a factor of two.
const (
	// tolerance is how much slower than at rest an operation may get before the
	// limit shrinks. Batching makes everybody a little slower and the node much
	// faster, so that it is above 1.
	tolerance = 3.0
	// follow is the weight of a new window in the latency of now.
	follow = 0.3
	// restDown, restUp and restBound are the weights of a new window in the latency
	// at rest: when it is lower, when it is higher though the limit does not bind,
	// and when it is higher and the limit binds. The last is a time of minutes: what
	// a queue adds must not become the norm, what a node that is gone adds must.
	restDown, restUp, restBound = 0.2, 0.05, 0.0005
	// shrink is the part of the way to the aim that one window goes down.
	shrink = 0.2
	// slow is a latency that is too long whatever it is at rest: timeouts are a few
	// times as long. Only beyond it the limit goes below the floor, to the lowest
	// part of it.
	slow   = time.Second
	lowest = 0.25
	// leastGradient bounds how far the aim of one window is below the limit.
	leastGradient = 0.5
)

// window is what was seen of a limiter for a while.
type window struct {
	// mean is how long the operations took that were looked at; 0 if none was.
	mean time.Duration
	// bound says that the limit was reached, or nearly.
	bound bool
}

// law decides how many operations may be under way. It is the gradient of
// Netflix's concurrency-limits (Gradient2Limit, github.com/Netflix/concurrency-limits),
// in which the limit follows the ratio of the latency at rest and that of now,
// and grows by its square root while it binds. Unlike there the latency at rest
// all but stands still while the limit binds, so that an overload that goes on
// does not make itself the norm. It is pure: no clock, no lock.
type law struct {
	floor, ceiling float64
	limit          float64
	// now and rest are latencies in nanoseconds, 0 until the first window.
	now, rest float64
}

func newLaw(floor, ceiling int) law {
	return law{floor: float64(floor), ceiling: float64(max(floor, ceiling)), limit: float64(floor)}
}

// step takes a window in and returns the limit from now on.
func (l *law) step(w window) int {
	if w.mean <= 0 {
		return int(l.limit)
	}
	mean := float64(w.mean)
	if l.now == 0 {
		l.now, l.rest = mean, mean
	}
	l.now += follow * (mean - l.now)
	switch {
	case mean < l.rest:
		l.rest += restDown * (mean - l.rest)
	case w.bound:
		l.rest += restBound * (mean - l.rest)
	default:
		l.rest += restUp * (mean - l.rest)
	}
	gradient := min(max(tolerance*l.rest/l.now, leastGradient), 1)
	floor := l.floor
	switch {
	case l.now > float64(slow):
		gradient = min(gradient, max(float64(slow)/l.now, leastGradient))
		floor = max(lowest*l.floor, 1)
		l.limit += shrink * (l.limit*gradient - l.limit)
	case l.limit < l.floor:
		// Back to the floor, as fast as it was left.
		l.limit += shrink*(l.floor-l.limit) + 1
		floor = l.limit
	case gradient < 1:
		l.limit += shrink * (l.limit*gradient - l.limit)
	case w.bound:
		l.limit += math.Sqrt(l.limit)
	}
	l.limit = min(max(l.limit, floor), l.ceiling)
	return int(l.limit)
}

// service is how long an operation takes now, 0 if nothing is known.
func (l *law) service() time.Duration { return time.Duration(l.now) }
