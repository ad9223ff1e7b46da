package admission

import (
	"sync"
	"time"
)

// retrySteps are the delays that refusals name, each twice the one before, but for
// the last.
var retrySteps = [...]time.Duration{
	50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond,
	800 * time.Millisecond, 1600 * time.Millisecond, 3200 * time.Millisecond, 5 * time.Second,
}

const (
	// pressureTime is how long the ratio is looked at before the delay changes.
	pressureTime = 200 * time.Millisecond
	// Above raise refusals to each operation let in the delay goes up a step, below
	// lower it goes down. At the first, refusing costs a small part of what the
	// operations do.
	raise, lower = 2.0, 0.5
)

// pressure decides for how long those that are refused stay away. A refusal costs
// less than an operation, not nothing: a thousand clients that come back every
// 50 ms take two cores to be refused. So the delay doubles until at most two are
// refused for each that is let in. The delay never decides who is let
// in. It is safe for concurrent use.
type pressure struct {
	mu       sync.Mutex
	since    time.Time
	refused  int64
	admitted uint32
	step     int
}

// next is the step of the delay, given all refused and let in so far.
func (p *pressure) next(now time.Time, refused int64, admitted uint32) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	age := now.Sub(p.since)
	if age < pressureTime && age >= 0 {
		return p.step
	}
	in := max(float64(admitted-p.admitted), 1)
	ratio := float64(refused-p.refused) / in
	switch {
	case age < 0 || age > 25*pressureTime:
		p.step = 0 // nothing was refused for long: what was learned is old
	case ratio > raise:
		// The last is for the spread of those before.
		p.step = min(p.step+1, len(retrySteps)-2)
	case ratio < lower:
		p.step = max(p.step-1, 0)
	}
	p.since, p.refused, p.admitted = now, refused, admitted
	return p.step
}
