package node

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/engine/pace"
)

// operations are the series of client operations, as the coordinator reports
// them. They are looked up once, so that the hot path hashes no labels.
type operations struct {
	byKind  [coord.KindScan + 1]opSeries
	total   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	// ended are the operations of one key that have ended, by how long they took. Those
	// at ALL wait for nodes that are away, and do not count.
	ended [pace.LatencyBuckets]atomic.Int64
}

// waited says how long clients have waited for operations.
func (o *operations) waited() *pace.Latencies {
	l := &pace.Latencies{}
	for i := range o.ended {
		l[i] = o.ended[i].Load()
	}
	return l
}

// opSeries are one operation's series by level.
type opSeries struct {
	total   *prometheus.CounterVec // by level and code
	ok      [quorum.All + 1]prometheus.Counter
	seconds [quorum.All + 1]prometheus.Observer
}

func newOperations(reg prometheus.Registerer) *operations {
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pairdb_operations_total",
		Help: "Client operations that ended at this node, by operation, consistency level and error code.",
	}, []string{"op", "level", "code"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:                            "pairdb_operation_duration_seconds",
		Help:                            "Time from a client operation's arrival at this node to its answer, in seconds.",
		Buckets:                         prometheus.ExponentialBuckets(0.00025, 2, 16),
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	}, []string{"op", "level"})
	reg.MustRegister(total, seconds)
	o := &operations{total: total, seconds: seconds}
	for kind := coord.KindPut; kind <= coord.KindScan; kind++ {
		series := &o.byKind[kind]
		series.total = total.MustCurryWith(prometheus.Labels{"op": kind.String()})
		for l := quorum.One; l <= quorum.All; l++ {
			series.ok[l] = series.total.WithLabelValues(l.String(), string(errcode.OK))
			series.seconds[l] = seconds.WithLabelValues(kind.String(), l.String())
		}
	}
	return o
}

// observe is the coordinator's Request hook.
func (o *operations) observe(kind coord.Kind, level quorum.Level, code errcode.Code, took time.Duration) {
	s := &o.byKind[kind]
	if !level.Valid() {
		s.total.WithLabelValues("invalid", string(code)).Inc()
		return
	}
	s.seconds[level].Observe(took.Seconds())
	if kind != coord.KindScan && level != quorum.All {
		o.ended[pace.LatencyBucket(took)].Add(1)
	}
	if code == errcode.OK {
		s.ok[level].Inc()
		return
	}
	s.total.WithLabelValues(level.String(), string(code)).Inc()
}
