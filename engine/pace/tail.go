package pace

import (
	"math/bits"
	"slices"
	"time"
)

const (
	// bucketUnit is the width of the first latencies that are told apart, and
	// LatencyBuckets how many there are: four to a doubling, to about ten seconds.
	bucketUnit     = 16 * time.Microsecond
	LatencyBuckets = 80
)

// Latencies are how many operations took how long, by LatencyBucket.
type Latencies [LatencyBuckets]int64

// LatencyBucket is where an operation counts that took so long.
func LatencyBucket(d time.Duration) int {
	units := uint64(max(d/bucketUnit, 1))
	doubling := bits.Len64(units) - 1
	quarter := int(units<<2>>doubling) & 3
	return min(4*doubling+quarter, LatencyBuckets-1)
}

// least is the shortest latency that counts in a bucket.
func least(bucket int) time.Duration {
	return bucketUnit << (bucket / 4) * time.Duration(4+bucket%4) / 4
}

const (
	// lateFactor is how many times as long as the hundredth of a calm time an operation
	// has to take to be late, and lateLeast is what is never late.
	lateFactor = 1.5
	lateLeast  = 2 * time.Millisecond
	// lateShare is which share of the operations may be late.
	lateShare = 0.01
	// mostDebt and mostCredit bound for how many late operations is paid later, and how
	// many are free after a good time. forget is which share of a debt is left after each
	// interval: where there are few operations one that is late is not paid for ever.
	mostDebt, mostCredit = 4, 1
	forget               = 0.98
	// enough is how little debt is none.
	enough = 0.1
	// firstRate is what is taken when calm ends, in bytes a second.
	firstRate = 8 << 20
	// calmFor is how long nothing must have been taken for it to be calm.
	calmFor = 2 * time.Second
	// calmWindow is how long operations of calm times are counted together, longer if they
	// are fewer than calmLeast, and calmWindows of how many of those the latency is known.
	calmWindow             = 5 * time.Second
	calmLeast, calmWindows = 100, 8
	// lateUnknown is from when on an operation is late as long as no calm time is known.
	lateUnknown = 10 * time.Millisecond
)

// Tail is a token bucket for work that clients share a machine with: it learns how long
// the slowest hundredth of operations take while none of the work is done, and goes only
// so fast that hardly more of them take half as long again. It is not safe for concurrent
// use.
type Tail struct {
	// Least is what may always be taken, in bytes a second.
	Least int64

	bucket  Pacer
	last    Latencies
	thought time.Time
	taken   time.Time // when something was taken last
	debt    float64   // late operations, above those that may be
	// window are the operations of a calm time since began, and calm how long the slowest
	// hundredth took in those before, the last of them last.
	window Latencies
	began  time.Time
	calm   []time.Duration
}

// Look thinks the rate over, if it is time. all are the operations of all times, which
// count since the first look.
func (t *Tail) Look(now time.Time, all *Latencies) {
	elapsed := now.Sub(t.thought)
	if !t.thought.IsZero() && elapsed < Interval {
		return
	}
	var ended Latencies
	count := int64(0)
	for i := range all {
		ended[i] = all[i] - t.last[i]
		count += ended[i]
	}
	first := t.thought.IsZero()
	t.last, t.thought = *all, now
	b := &t.bucket
	speed := int64(float64(b.written) / max(elapsed, Interval).Seconds())
	b.written = 0
	switch {
	case first || now.Sub(t.taken) >= calmFor:
		if !first {
			t.learn(now, &ended)
		}
		b.rate, t.debt = firstRate, 0
	case count == 0:
		b.rate = 0 // nobody waits
	default:
		t.adjust(&ended, count, speed)
	}
}

// adjust halves the rate while too many operations are late, and raises it by a quarter
// while few are.
func (t *Tail) adjust(ended *Latencies, count, speed int64) {
	late, limit := int64(0), t.limit()
	for i, n := range ended {
		if least(i) >= limit {
			late += n
		}
	}
	t.debt = forget*t.debt + float64(late) - lateShare*float64(count)
	t.debt = min(max(t.debt, -mostCredit), mostDebt)
	b := &t.bucket
	switch {
	case late > 0 && t.debt > enough:
		if b.rate == 0 || b.rate > speed {
			b.rate = max(speed, t.Least)
		}
		b.rate = max(b.rate/2, t.Least)
	case b.rate > 0 && t.debt <= enough:
		if b.rate += b.rate / 4; b.rate >= mostRate {
			b.rate = 0
		}
	}
}

// learn adds operations of a calm time.
func (t *Tail) learn(now time.Time, ended *Latencies) {
	count := int64(0)
	for i := range ended {
		t.window[i] += ended[i]
		count += t.window[i]
	}
	if t.began.IsZero() {
		t.began = now
	}
	if now.Sub(t.began) < calmWindow || count < calmLeast {
		return
	}
	if len(t.calm) == calmWindows {
		t.calm = slices.Delete(t.calm, 0, 1)
	}
	t.calm = append(t.calm, t.window.hundredth(count))
	t.window, t.began = Latencies{}, now
}

// hundredth is how long the slowest hundredth of so many operations took at least.
func (l *Latencies) hundredth(count int64) time.Duration {
	over := 0.0
	for i := LatencyBuckets - 1; i > 0; i-- {
		if over += float64(l[i]); over > lateShare*float64(count) {
			return least(i)
		}
	}
	return 0
}

// limit is from when on an operation is late. Whether the last calm times were busy, or
// one of them, must not matter much, so it goes by a middle one.
func (t *Tail) limit() time.Duration {
	if len(t.calm) == 0 {
		return lateUnknown
	}
	usual := slices.Sorted(slices.Values(t.calm))[(len(t.calm)-1)/2]
	return max(lateLeast, time.Duration(lateFactor*float64(usual)))
}

// Take says that so many bytes are moved at now, Wait for how long no more should be.
func (t *Tail) Take(now time.Time, n int64) {
	t.taken = now
	t.bucket.Take(now, n)
}

// Wait returns for how long nothing more should be taken.
func (t *Tail) Wait(now time.Time) time.Duration { return t.bucket.Wait(now) }
