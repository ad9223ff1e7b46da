package peerhealth

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestQuantileBounds: a quantile is at most a quarter above the truth, and never
// below.
func TestQuantileBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Int64Range(1, int64(8*time.Second)), minWeight, maxWeight).Draw(t, "latencies")
		var l latency
		for _, d := range all {
			l.add(time.Duration(d))
		}
		slices.Sort(all)
		for _, percent := range []uint32{50, 95, 99} {
			rank := (len(all)*int(percent) + 99) / 100
			truth := time.Duration(all[rank-1])
			got := l.quantile(percent)
			if got < truth || got > max(truth+truth/4+1, 1<<shortest) {
				t.Fatalf("the %d-th percentile is %v, and said to be %v", percent, truth, got)
			}
		}
	})
}

// TestLatencyForgets: what was learned long ago does not outweigh what is new, and
// too little says nothing.
func TestLatencyForgets(t *testing.T) {
	var l latency
	for range 10 * maxWeight {
		l.add(time.Millisecond)
	}
	if l.n > maxWeight {
		t.Errorf("it weighs %d", l.n)
	}
	for range 2 * maxWeight {
		l.add(100 * time.Millisecond)
	}
	if q := l.quantile(50); q < 100*time.Millisecond {
		t.Errorf("after %d answers in 100 ms the median is %v", 2*maxWeight, q)
	}
	var few latency
	for range minWeight - 1 {
		few.add(time.Second)
	}
	if q := few.quantile(95); q != 0 {
		t.Errorf("%d samples have the quantile %v", minWeight-1, q)
	}
}

// TestBucketBounds: a latency is within its bucket, whatever it is.
func TestBucketBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "d"))
		i := bucketOf(d)
		if i > 0 && d < upper(i-1) || i < buckets-1 && d >= upper(i) {
			t.Fatalf("%v is in bucket %d, which ends at %v", d, i, upper(i))
		}
	})
}

// TestBudget: what is taken is at most the burst and the share of what is earned.
func TestBudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		share, burst := rapid.IntRange(1, 1000).Draw(t, "share"), rapid.IntRange(1, 50).Draw(t, "burst")
		b := NewBudget(share, burst)
		earned, taken := 0, 0
		for _, earn := range rapid.SliceOfN(rapid.Bool(), 1, 2000).Draw(t, "steps") {
			if earn {
				b.Earn()
				earned++
			} else if b.Take() {
				taken++
			}
		}
		if most := burst + earned*share/1000 + 1; taken > most {
			t.Fatalf("%d were taken of %d", taken, most)
		}
		for range 2000 {
			b.Take()
		}
		for range (1000 + share - 1) / share {
			b.Earn()
		}
		if !b.Take() {
			t.Fatal("what is earned cannot be taken")
		}
	})
}
