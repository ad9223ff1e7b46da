package node

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

const (
	// trafficEach is how often the counters are noted, and trafficKept how many
	// notes there are: rates are over the last minute.
	trafficEach = 5 * time.Second
	trafficKept = 13
)

// traffic turns the counters of operations into rates, by what they were up to a
// minute ago. It is safe for concurrent use.
type traffic struct {
	ops *operations
	mu  sync.Mutex
	// notes are the last ones, the oldest first.
	notes []trafficNote
}

// trafficNote is what the counters said at one time.
type trafficNote struct {
	at  time.Time
	ops map[string]opCount
}

// opCount counts one kind of operation since the start.
type opCount struct {
	total, failed float64
	// count of those with a time, and of those that took up to each bound.
	timed   uint64
	buckets []*dto.Bucket
}

func newTraffic(ops *operations, now time.Time) *traffic {
	return &traffic{ops: ops, notes: []trafficNote{ops.note(now)}}
}

// tick notes the counters.
func (t *traffic) tick(now time.Time) {
	n := t.ops.note(now)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.notes) == trafficKept {
		t.notes = slices.Delete(t.notes, 0, 1)
	}
	t.notes = append(t.notes, n)
}

// rates are those since the oldest note.
func (t *traffic) rates(now time.Time) (window time.Duration, ops []*pairdbv1.OperationTraffic) {
	n := t.ops.note(now)
	t.mu.Lock()
	then := t.notes[0]
	t.mu.Unlock()
	window = n.at.Sub(then.at)
	if window <= 0 {
		return 0, nil
	}
	for _, op := range slices.Sorted(maps.Keys(n.ops)) {
		a, b := then.ops[op], n.ops[op]
		if b.total == a.total {
			continue
		}
		ops = append(ops, &pairdbv1.OperationTraffic{
			Operation: op, PerSecond: (b.total - a.total) / window.Seconds(), FailedPerSecond: (b.failed - a.failed) / window.Seconds(),
			P50: durationpb.New(quantile(0.5, &a, &b)), P95: durationpb.New(quantile(0.95, &a, &b)), P99: durationpb.New(quantile(0.99, &a, &b)),
		})
	}
	return window, ops
}

// note reads the counters.
func (o *operations) note(now time.Time) trafficNote {
	n := trafficNote{at: now, ops: make(map[string]opCount)}
	each(o.total, func(m *dto.Metric) {
		op, code := label(m, "op"), errcode.Code(label(m, "code"))
		c := n.ops[op]
		c.total += m.GetCounter().GetValue()
		switch code {
		case errcode.OK, errcode.KeyNotFound, errcode.PreconditionFailed:
		default:
			c.failed += m.GetCounter().GetValue()
		}
		n.ops[op] = c
	})
	each(o.seconds, func(m *dto.Metric) {
		op, h := label(m, "op"), m.GetHistogram()
		c := n.ops[op]
		c.timed += h.GetSampleCount()
		if c.buckets == nil {
			c.buckets = h.GetBucket()
		} else {
			for i, b := range h.GetBucket() { // the levels have the same bounds
				*c.buckets[i].CumulativeCount += b.GetCumulativeCount()
			}
		}
		n.ops[op] = c
	})
	return n
}

// each calls f with what a collector has.
func each(c prometheus.Collector, f func(*dto.Metric)) {
	ch := make(chan prometheus.Metric)
	go func() {
		defer close(ch)
		c.Collect(ch)
	}()
	for m := range ch {
		var d dto.Metric
		if m.Write(&d) == nil { // it cannot fail for a counter or histogram
			f(&d)
		}
	}
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// quantile estimates how long the operations between a and b took, taking those of
// one bucket to be spread evenly over it.
func quantile(q float64, a, b *opCount) time.Duration {
	all := float64(b.timed - a.timed)
	if all <= 0 {
		return 0
	}
	want, lower, below := q*all, 0.0, 0.0
	for i, bucket := range b.buckets {
		n := float64(bucket.GetCumulativeCount())
		if i < len(a.buckets) {
			n -= float64(a.buckets[i].GetCumulativeCount())
		}
		if n >= want && n > below {
			upper := bucket.GetUpperBound()
			return time.Duration((lower + (upper-lower)*(want-below)/(n-below)) * float64(time.Second))
		}
		lower, below = bucket.GetUpperBound(), n
	}
	return time.Duration(lower * float64(time.Second)) // beyond the last bound
}
