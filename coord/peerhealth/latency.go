package peerhealth

import (
	"math/bits"
	"time"
)

// latency is a histogram whose weight is on the last seconds. Buckets are a
// quarter of an octave wide, from 16 µs to 8 s and beyond, so a quantile is at
// most 25 % above the truth, in 320 bytes and without allocating; a sample costs
// one addition. An average and a deviation, as TCP has for its retransmission,
// would be cheaper still, but latencies have two humps (in memory, waiting for a
// sync) and a long tail, of which a deviation says little; sketches with a bound on
// the error of every quantile (t-digest, KLL) cost ten times as much for
// precision that a hedge has no use for.
//
// Forgetting: counts are halved when maxWeight is reached, and by age, so old
// samples weigh less by half each halfLife. A quantile of fewer than minWeight
// samples is unknown.
type latency struct {
	n      uint32
	counts [buckets]uint32
}

const (
	buckets   = 80
	shortest  = 14 // 2^14 ns = 16 µs
	maxWeight = 1024
	minWeight = 16
	halfLife  = 2 * time.Second
)

// bucketOf returns the index of d's bucket.
func bucketOf(d time.Duration) int {
	if d < 1<<shortest {
		return 0
	}
	octave := bits.Len64(uint64(d)) - 1
	quarter := int(uint64(d)>>(octave-2)) & 3
	return min((octave-shortest)*4+quarter+1, buckets-1)
}

// upper is the upper end of a bucket.
func upper(i int) time.Duration {
	if i == 0 {
		return 1 << shortest
	}
	octave, quarter := shortest+(i-1)/4, (i-1)%4
	return time.Duration(uint64(5+quarter) << (octave - 2))
}

func (l *latency) add(d time.Duration) {
	if l.n >= maxWeight {
		l.decay()
	}
	l.counts[bucketOf(d)]++
	l.n++
}

// decay halves what is known.
func (l *latency) decay() {
	l.n = 0
	for i := range l.counts {
		l.counts[i] /= 2
		l.n += l.counts[i]
	}
}

// quantile returns the upper end of the bucket in which the p-th percentile lies,
// 0 if too little is known.
func (l *latency) quantile(percent uint32) time.Duration {
	if l.n < minWeight {
		return 0
	}
	rank := (uint64(l.n)*uint64(percent) + 99) / 100
	var below uint64
	for i, n := range l.counts {
		if below += uint64(n); below >= rank {
			return upper(i)
		}
	}
	return upper(buckets - 1)
}
