package node

import (
	"maps"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/node/events"
	"github.com/pairdb/pairdb/node/hotkeys"
)

// counters are the series of what happens beside the answers: repairs,
// conflicts, bounces, calls at the edges.
type counters struct {
	quorumFailures, conflicts, readRepairs prometheus.Counter
	remints, forwards, staleBounces        prometheus.Counter
	duplicates                             prometheus.Counter
	manySiblings                           prometheus.Counter
	hedges, hedgesWon, hedgesRefused       prometheus.Counter
	forwardRetries, forwardsRefused        prometheus.Counter
	peerStates                             *prometheus.CounterVec
	rpcSeconds, httpSeconds                *prometheus.HistogramVec
	happened                               map[events.Kind]prometheus.Counter
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
	states := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pairdb_peer_state_changes_total", Help: "Times that this node changed how it treats a peer, or its own disk or reads, by the new state.",
	}, []string{"to"})
	reg.MustRegister(states)
	for _, to := range []peerhealth.State{peerhealth.Closed, peerhealth.Slow, peerhealth.Open} {
		states.WithLabelValues(to.String())
	}
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pairdb_events_total",
		Help: "Events of this node by what they are about, those included that repeat one or were too many to keep.",
	}, []string{"kind"})
	reg.MustRegister(total)
	happened := make(map[events.Kind]prometheus.Counter)
	for _, k := range events.Kinds() {
		happened[k] = total.WithLabelValues(string(k))
	}
	return &counters{
		happened:        happened,
		peerStates:      states,
		hedges:          counter("pairdb_hedges_total", "Owners asked, or given an operation, because others kept it waiting."),
		hedgesWon:       counter("pairdb_hedges_won_total", "Operations answered with what such an owner said while one of the others had not."),
		hedgesRefused:   counter("pairdb_hedges_refused_total", "Times that no further owner was asked because the budget for it was spent: many owners are slow."),
		forwardRetries:  counter("pairdb_forward_retries_total", "Operations handed to a further owner because one had not taken them."),
		forwardsRefused: counter("pairdb_forward_retries_refused_total", "Operations not handed to a further owner because the budget for it was spent: many owners refuse."),
		quorumFailures:  counter("pairdb_quorum_failures_total", "Operations that missed their consistency level or their deadline."),
		conflicts:       counter("pairdb_conflicts_total", "Reads and merges that left concurrent siblings."),
		readRepairs:     counter("pairdb_read_repairs_total", "Objects that reads wrote back to replicas that lacked something."),
		remints:         counter("pairdb_remints_total", "Writes minted a second time because the minter was behind another owner."),
		duplicates:      counter("pairdb_idempotent_duplicates_total", "Writes answered as begun by an earlier attempt with the same idempotency key."),
		forwards:        counter("pairdb_forwards_total", "Operations handed to an owner because this node is none, or its own copy takes no writes."),
		staleBounces:    counter("pairdb_stale_ring_bounces_total", "Answers of peers that said that this node's ring or tenant is behind."),
		manySiblings:    counter("pairdb_many_siblings_total", "Clients' writes that left a key with 16 siblings or more: somebody does not resolve them."),
		rpcSeconds:      seconds("pairdb_rpc_duration_seconds", "Time to serve a client's gRPC call, or one request of KV.Pipeline, in seconds, by method and code.", "method", "code"),
		httpSeconds:     seconds("pairdb_http_duration_seconds", "Time to serve an HTTP request, in seconds, by route and status.", "route", "status"),
	}
}

// hooks are what the coordinator calls.
func (c *counters) hooks(ops *operations, hot *hotkeys.Tracker) coord.Metrics {
	return coord.Metrics{
		Request:       ops.observe,
		Key:           hot.Touch,
		QuorumFailure: c.quorumFailures.Inc,
		Conflict:      c.conflicts.Inc,
		ReadRepair:    c.readRepairs.Inc,
		Remint:        c.remints.Inc,
		Duplicate:     c.duplicates.Inc,
		Forward:       c.forwards.Inc,
		StaleBounce:   c.staleBounces.Inc,
		ManySiblings:  c.manySiblings.Inc,

		Hedge:          c.hedges.Inc,
		HedgeWon:       c.hedgesWon.Inc,
		HedgeRefused:   c.hedgesRefused.Inc,
		ForwardRetry:   c.forwardRetries.Inc,
		ForwardRefused: c.forwardsRefused.Inc,
		PeerState:      func(to peerhealth.State) { c.peerStates.WithLabelValues(to.String()).Inc() },
	}
}

// event counts an event of one of the kinds there are.
func (c *counters) event(k events.Kind) {
	if total, ok := c.happened[k]; ok {
		total.Inc()
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
