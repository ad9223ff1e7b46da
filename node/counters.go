package node

import (
	"maps"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
)

// counters are the series of what happens beside the answers: repairs,
// conflicts, bounces, calls at the edges.
type counters struct {
	quorumFailures, conflicts, readRepairs prometheus.Counter
	remints, forwards, staleBounces        prometheus.Counter
	duplicates                             prometheus.Counter
	manySiblings                           prometheus.Counter
	rpcSeconds, httpSeconds                *prometheus.HistogramVec
	// rpcOK has the series of calls that went well by method: to find one in
	// rpcSeconds costs as much as what it is found for. There is one per method
	// that is served.
	// The map is replaced, never changed; nil before the first.
	rpcOK atomic.Pointer[map[string]prometheus.Observer]
}

func newCounters(reg prometheus.Registerer) *counters {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	seconds := func(name, help string, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, labels)
		reg.MustRegister(h)
		return h
	}
	return &counters{
		quorumFailures: counter("pairdb_quorum_failures_total", "Operations that missed their consistency level or their deadline."),
		conflicts:      counter("pairdb_conflicts_total", "Reads and merges that left concurrent siblings."),
		readRepairs:    counter("pairdb_read_repairs_total", "Objects that reads wrote back to replicas that lacked something."),
		remints:        counter("pairdb_remints_total", "Writes minted a second time because the minter was behind another owner."),
		duplicates:     counter("pairdb_idempotent_duplicates_total", "Writes answered as begun by an earlier attempt with the same idempotency key."),
		forwards:       counter("pairdb_forwards_total", "Operations handed to an owner because this node is none."),
		staleBounces:   counter("pairdb_stale_ring_bounces_total", "Answers of peers that said that this node's ring or tenant is behind."),
		manySiblings:   counter("pairdb_many_siblings_total", "Clients' writes that left a key with 16 siblings or more: somebody does not resolve them."),
		rpcSeconds:     seconds("pairdb_rpc_duration_seconds", "Time to serve a client's gRPC call, or one request of KV.Pipeline, in seconds, by method and code.", "method", "code"),
		httpSeconds:    seconds("pairdb_http_duration_seconds", "Time to serve an HTTP request, in seconds, by route and status.", "route", "status"),
	}
}

// hooks are what the coordinator calls.
func (c *counters) hooks(ops *operations) coord.Metrics {
	return coord.Metrics{
		Request:       ops.observe,
		QuorumFailure: c.quorumFailures.Inc,
		Conflict:      c.conflicts.Inc,
		ReadRepair:    c.readRepairs.Inc,
		Remint:        c.remints.Inc,
		Duplicate:     c.duplicates.Inc,
		Forward:       c.forwards.Inc,
		StaleBounce:   c.staleBounces.Inc,
		ManySiblings:  c.manySiblings.Inc,
	}
}

func (c *counters) rpc(method, code string, took time.Duration) {
	if code != string(errcode.OK) {
		c.rpcSeconds.WithLabelValues(method, code).Observe(took.Seconds())
		return
	}
	for {
		known := c.rpcOK.Load()
		if known != nil {
			if o, ok := (*known)[method]; ok {
				o.Observe(took.Seconds())
				return
			}
		}
		more := map[string]prometheus.Observer{method: c.rpcSeconds.WithLabelValues(method, code)}
		if known != nil {
			maps.Copy(more, *known)
		}
		c.rpcOK.CompareAndSwap(known, &more) // if another was faster, look again
	}
}

func (c *counters) http(route string, status int, took time.Duration) {
	c.httpSeconds.WithLabelValues(route, strconv.Itoa(status)).Observe(took.Seconds())
}
