// Package pace decides how fast what runs in the background may go. With a Pacer,
// compactions yield to writers that wait for syncs of the log, which share the disk with
// them, and go at full speed as soon as writers are in danger of waiting for them. With a
// Tail, what moves between nodes yields to clients, whatever keeps them waiting. Both are
// pure: clock and sleep are the caller's.
package pace

import "time"

const (
	// slowSync is the latency of a sync below which nothing is slowed down.
	slowSync = 5 * time.Millisecond
	// slowFactor is how many times slower than on a quiet disk a sync has to
	// be before compactions yield.
	slowFactor = 3
	// leastRate is what compactions may always write, in bytes a second.
	leastRate = 8 << 20
	// mostRate is the rate from which on there is none.
	mostRate = 1 << 30
	// Interval is how often the rate is thought over.
	Interval = 250 * time.Millisecond
	// maxWait bounds how far ahead of their rate takers may get, and so a wait.
	maxWait = time.Minute
)

// Load is what happened since the rate was last thought over.
type Load struct {
	// Syncs that writers waited for, and the time they took together.
	Syncs    int64
	SyncTime time.Duration
	// Elapsed is the time since then.
	Elapsed time.Duration
	// Urgency says how near writers are to waiting for compactions: 0 when
	// there is next to nothing to do, 1 and above when they are slowed down.
	Urgency float64
}

// Pacer is a token bucket whose rate follows the load. It is not safe for
// concurrent use.
type Pacer struct {
	// Most is a hard bound in bytes a second, 0 for none.
	Most int64

	rate    int64         // of the moment, by load; 0: no bound
	quiet   time.Duration // latency of syncs while nothing was compacted
	written int64         // taken since the rate was thought over
	next    time.Time     // when the bucket is empty of debt
}

// Rate returns the bytes a second that may be written, 0 for no bound.
func (p *Pacer) Rate() int64 {
	if p.Most > 0 && (p.rate == 0 || p.rate > p.Most) {
		return p.Most
	}
	return p.rate
}

// Adjust thinks the rate over: it is halved while syncs are slow, and rises by a
// quarter while they are not.
func (p *Pacer) Adjust(l Load) {
	speed := int64(0)
	if l.Elapsed > 0 {
		speed = int64(float64(p.written) / l.Elapsed.Seconds())
	}
	idle := p.written == 0
	p.written = 0
	if l.Syncs == 0 || l.Urgency >= 1 {
		p.rate = 0 // nobody to yield to, or no time to
		return
	}
	latency := l.SyncTime / time.Duration(l.Syncs)
	switch {
	case idle:
		p.learn(latency)
	case latency > max(slowSync, slowFactor*p.quiet):
		if p.rate == 0 || p.rate > speed {
			p.rate = speed
		}
		least := leastRate + int64(max(0, l.Urgency)*float64(max(0, speed-leastRate)))
		p.rate = max(p.rate/2, least)
	case p.rate > 0:
		if p.rate += p.rate / 4; p.rate >= mostRate {
			p.rate = 0
		}
	}
}

// learn notes the latency of syncs on a quiet disk.
func (p *Pacer) learn(latency time.Duration) {
	if p.quiet == 0 {
		p.quiet = latency
		return
	}
	p.quiet += (latency - p.quiet) / 8
}

// Take says that n bytes were written at now.
func (p *Pacer) Take(now time.Time, n int64) {
	p.written += n
	rate := p.Rate()
	if rate == 0 {
		p.next = now
		return
	}
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	if limit := now.Add(maxWait); p.next.After(limit) {
		p.next = limit
	}
}

// Wait returns for how long nobody should write more.
func (p *Pacer) Wait(now time.Time) time.Duration {
	if p.Rate() == 0 {
		return 0
	}
	return max(0, p.next.Sub(now))
}
