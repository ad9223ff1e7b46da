package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/pairdb/pairdb/client"
)

// benchReport is the result of a measurement.
type benchReport struct {
	Op          string   `json:"op"`
	Ratio       float64  `json:"ratio,omitempty"`
	Batch       int      `json:"batch"`
	Pipeline    bool     `json:"pipeline"`
	Clients     int      `json:"clients"`
	Connections int      `json:"connections"`
	ValueSize   int      `json:"value_size"`
	Keys        int      `json:"keys"`
	Consistency string   `json:"consistency"`
	Endpoints   []string `json:"endpoints"`
	// Rate has the steps of an open loop; it and the three that follow are of such
	// only. Lag is by how much the beginning of a request was late at most, which
	// its latency counts: more than a few milliseconds says that this machine had
	// no time for the generator.
	Rate        []stepFigures `json:"rate,omitempty"`
	Arrivals    string        `json:"arrivals,omitempty"`
	Outstanding int           `json:"outstanding,omitempty"`
	Lag         int64         `json:"lag_us,omitempty"`
	// Seconds is how long was measured: to the last answer, or, of an open loop,
	// until nothing more was due.
	Seconds float64 `json:"seconds"`
	// Ops succeeded; OpsPerSec counts them alone.
	Ops       int64   `json:"ops"`
	OpsPerSec float64 `json:"ops_per_s"`
	// Errors has the number of failed operations by error code; Refused is how
	// many of them were refused, and Dropped how many more were never begun.
	Errors  map[string]int64 `json:"errors"`
	Refused int64            `json:"refused"`
	Dropped int64            `json:"dropped"`
	// Latency of operations that succeeded, by operation.
	Latency map[string]latencyFigures `json:"latency_us"`
	// Client is what the clients did about slow nodes and refusals.
	Client clientFigures `json:"client"`
	// CPU time per operation that succeeded. Nil without --pid.
	ClientCPU float64  `json:"client_cpu_us_per_op"`
	ServerCPU *float64 `json:"server_cpu_us_per_op"`
	Pids      []int    `json:"pids"`
	// Series is the time series, with a row for every SeriesWidth seconds.
	SeriesWidth float64      `json:"series_width_s,omitempty"`
	Series      []rowFigures `json:"series,omitempty"`
}

// clientFigures are counts of client.Stats.
type clientFigures struct {
	Retries   uint64 `json:"retries"`
	Redirects uint64 `json:"redirects"`
	Hedges    uint64 `json:"hedges"`
	HedgesWon uint64 `json:"hedges_won"`
	Throttled uint64 `json:"throttled"`
	Avoided   uint64 `json:"avoided"`
}

// stats adds up what the clients have done so far.
func (l *load) stats() (sum clientFigures) {
	for _, c := range l.clients {
		s := c.Stats()
		sum.Retries += s.Retries
		sum.Redirects += s.Redirects
		sum.Hedges += s.Hedges
		sum.HedgesWon += s.HedgesWon
		sum.Throttled += s.Throttled
		sum.Avoided += s.Avoided
	}
	return sum
}

func (f clientFigures) since(before clientFigures) clientFigures {
	return clientFigures{
		f.Retries - before.Retries, f.Redirects - before.Redirects, f.Hedges - before.Hedges, f.HedgesWon - before.HedgesWon,
		f.Throttled - before.Throttled, f.Avoided - before.Avoided,
	}
}

// stepFigures are what came of the operations that were due in one step.
type stepFigures struct {
	Rate    float64 `json:"ops_per_s"`
	Seconds float64 `json:"seconds"`
	rowFigures
}

// latencyFigures are in microseconds.
type latencyFigures struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean"`
	P50   int64   `json:"p50"`
	P90   int64   `json:"p90"`
	P99   int64   `json:"p99"`
	P999  int64   `json:"p999"`
	Max   int64   `json:"max"`
}

func (r benchReport) errorLines() []string {
	var lines []string
	for code, n := range r.Errors {
		lines = append(lines, fmt.Sprintf("%d × %s", n, code))
	}
	slices.Sort(lines)
	return lines
}

func (r benchReport) view() view {
	cpu := fmt.Sprintf("client %.1f µs/op", r.ClientCPU)
	if r.ServerCPU != nil {
		cpu += fmt.Sprintf(", servers %.1f µs/op over %d processes", *r.ServerCPU, len(r.Pids))
	}
	failed := "none"
	if lines := r.errorLines(); len(lines) > 0 {
		failed = strings.Join(lines, ", ")
	}
	how := ""
	if r.Batch > 1 {
		how = fmt.Sprintf(" in batches of %d", r.Batch)
	} else if r.Pipeline {
		how = " on pipelines"
	}
	load := fmt.Sprintf("%d clients on %d connections", r.Clients, r.Connections)
	if len(r.Rate) > 0 {
		load = fmt.Sprintf("open loop (%s) on %d connections, at most %d outstanding", r.Arrivals, r.Connections, r.Outstanding)
	}
	if r.Dropped > 0 {
		failed += fmt.Sprintf("; %d dropped", r.Dropped)
	}
	v := view{
		data: r,
		head: []string{
			fmt.Sprintf("load      %s%s, %s, %d keys, values of %d bytes, %s", r.Op, how, load, r.Keys, r.ValueSize, r.Consistency),
			fmt.Sprintf("done      %d operations in %.2f s: %.0f ops/s", r.Ops, r.Seconds, r.OpsPerSec),
			"errors    " + failed,
			"cpu       " + cpu,
		},
		columns: []string{"OP", "COUNT", "MEAN µs", "P50", "P90", "P99", "P99.9", "MAX"},
	}
	if c := r.Client; c != (clientFigures{}) {
		v.head = append(v.head, fmt.Sprintf("client    %d retries, %d redirects, %d hedges of which %d won, %d operations held back, nodes avoided %d times", c.Retries, c.Redirects, c.Hedges, c.HedgesWon, c.Throttled, c.Avoided))
	}
	for _, s := range r.Rate {
		v.head = append(v.head, fmt.Sprintf("step      %.0f ops/s for %.1f s: %d went well, %d refused, %d failed, %d dropped; p50 %d µs, p99 %d µs", s.Rate, s.Seconds, s.OK, s.Refused, s.Errors, s.Dropped, s.P50, s.P99))
	}
	for _, op := range []string{benchPut, benchGet} {
		l, ok := r.Latency[op]
		if !ok {
			continue
		}
		row := []string{op, strconv.FormatInt(l.Count, 10), strconv.FormatFloat(l.Mean, 'f', 0, 64)}
		for _, n := range []int64{l.P50, l.P90, l.P99, l.P999, l.Max} {
			row = append(row, strconv.FormatInt(n, 10))
		}
		v.rows = append(v.rows, row)
	}
	return v
}

// report adds up what the workers recorded.
func (l *load) report(f *clientFlags, took, own, servers time.Duration) benchReport {
	puts, gets := newHistogram(), newHistogram()
	r := benchReport{
		Op: l.opts.op, Batch: l.opts.batch, Pipeline: l.opts.pipeline, Clients: l.opts.clients, Connections: len(l.clients), ValueSize: l.opts.valueSize, Keys: l.opts.keys,
		Consistency: l.level.String(), Endpoints: f.endpoints, Seconds: took.Seconds(),
		Errors: make(map[string]int64), Latency: make(map[string]latencyFigures), Pids: []int{},
	}
	if l.opts.op == benchMix {
		r.Ratio = l.opts.ratio
	}
	if l.level == client.LevelDefault {
		r.Consistency = client.LevelQuorum.String()
	}
	for _, t := range l.tallies() {
		puts.Merge(t.puts)
		gets.Merge(t.gets)
		r.Refused += t.refused
		for code, n := range t.failed {
			r.Errors[code] += n
		}
	}
	l.reportOpen(&r)
	r.Client = l.stats().since(l.before)
	if l.series != nil {
		r.SeriesWidth, r.Series = l.series.width.Seconds(), l.series.figures()
	}
	for op, h := range map[string]*hdrhistogram.Histogram{benchPut: puts, benchGet: gets} {
		if h.TotalCount() > 0 {
			r.Latency[op] = latencyOf(h)
		}
	}
	r.Ops = puts.TotalCount() + gets.TotalCount()
	r.OpsPerSec = float64(r.Ops) / took.Seconds()
	r.ClientCPU = perOp(own, r.Ops)
	if len(l.opts.pids) > 0 {
		cpu := perOp(servers, r.Ops)
		r.ServerCPU, r.Pids = &cpu, l.opts.pids
	}
	return r
}

// reportOpen adds what only an open loop has.
func (l *load) reportOpen(r *benchReport) {
	if l.opts.steps == nil {
		return
	}
	r.Arrivals, r.Outstanding, r.Lag = l.opts.arrivals, l.opts.outstanding, l.lag.Microseconds()
	var at time.Duration
	for i, s := range l.opts.steps {
		f := l.steps[i].figures(at)
		r.Rate = append(r.Rate, stepFigures{Rate: s.perSecond, Seconds: s.lasts.Seconds(), rowFigures: f})
		r.Dropped += f.Dropped
		at += s.lasts
	}
}

// perOp is 0 if there was no operation.
func perOp(cpu time.Duration, ops int64) float64 {
	if ops == 0 {
		return 0
	}
	return float64(cpu) / float64(time.Microsecond) / float64(ops)
}

func latencyOf(h *hdrhistogram.Histogram) latencyFigures {
	return latencyFigures{
		Count: h.TotalCount(), Mean: h.Mean(), Max: h.Max(),
		P50: h.ValueAtQuantile(50), P90: h.ValueAtQuantile(90), P99: h.ValueAtQuantile(99), P999: h.ValueAtQuantile(99.9),
	}
}
