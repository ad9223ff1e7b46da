package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// benchOptions says what load to make.
type benchOptions struct {
	op             string // put, get or mix
	ratio          float64
	clients        int
	clientsPerConn int
	duration       time.Duration
	count          int64
	warmup         time.Duration
	valueSize      int
	keys           int
	seed           uint64
	noLoad         bool
	batch          int // requests in one call
	pipeline       bool
	pids           []int
}

// The operations of a load.
const (
	benchPut = "put"
	benchGet = "get"
	benchMix = "mix"
)

func benchOps() []string { return []string{benchPut, benchGet, benchMix} }

func (a *app) benchCommand() *cobra.Command {
	return group("bench", "Measure a cluster", groupMeta, a.benchRunCommand())
}

func (a *app) benchRunCommand() *cobra.Command {
	var f clientFlags
	o := benchOptions{
		op: benchMix, ratio: 0.5, clients: 64, clientsPerConn: 16, duration: 10 * time.Second,
		warmup: 2 * time.Second, valueSize: 1024, keys: 100_000, seed: 1, batch: 1,
	}
	cmd := a.clientCommand(&cobra.Command{
		Use:   "run",
		Short: "Make a closed-loop load and show throughput, latency and CPU",
		Long: `Make a closed-loop load: each client sends its next request when the last was
answered. Latency is measured with an HDR histogram from just before a request
to just after its answer. Keys are bench/000000000000 and on, chosen uniformly;
values are half compressible and follow from --seed. The clients are spread
over the endpoints. With --batch each request is a Batch or MultiGet of that many
neighbouring keys, and each of these counts as an operation with the latency of
the whole. With --pipeline the clients of a connection share one stream. With --pid the CPU time of those processes (the nodes, on
this machine) is divided by the operations that went well.`,
		Example: "  pairdb bench run --op put --duration 30s --pid $(pgrep -d, pairdb)",
		Args:    args(),
	}, &f)
	tenantFlag(cmd, &f)
	levelFlag(cmd, &f)
	fs := cmd.Flags()
	fs.StringVar(&o.op, "op", o.op, "put, get or mix")
	fs.Float64Var(&o.ratio, "ratio", o.ratio, "share of puts in a mix, 0 to 1")
	fs.IntVar(&o.clients, "clients", o.clients, "requests in flight, 1 to 10000")
	fs.IntVar(&o.clientsPerConn, "clients-per-conn", o.clientsPerConn, "clients that share a connection; fewer costs both sides more CPU per operation")
	fs.DurationVar(&o.duration, "duration", o.duration, "how long to measure")
	fs.Int64Var(&o.count, "count", 0, "measure this many operations instead of a time")
	fs.DurationVar(&o.warmup, "warmup", o.warmup, "load before measuring begins")
	fs.IntVar(&o.valueSize, "value-size", o.valueSize, "bytes of a value, 0 to 10485760")
	fs.IntVar(&o.keys, "keys", o.keys, "number of keys, 1 to 100000000")
	fs.Uint64Var(&o.seed, "seed", o.seed, "the same seed gives the same values and choices")
	fs.BoolVar(&o.noLoad, "no-load", false, "do not store the keys before a get or mix; they are there already")
	fs.IntVar(&o.batch, "batch", o.batch, "keys in one request, 1 to 1000")
	fs.BoolVar(&o.pipeline, "pipeline", false, "send requests on one stream per connection")
	fs.IntSliceVar(&o.pids, "pid", nil, "process whose CPU time is counted as the servers'; may be repeated")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.check(cmd); err != nil {
			return err
		}
		report, err := a.bench(cmd.Context(), &f, o)
		if err != nil {
			return err
		}
		if err := a.show(f.output, report.view()); err != nil {
			return err
		}
		if report.Ops == 0 {
			return &failure{exit: errcode.ExitFailed, what: "bench: no operation succeeded", why: report.errorLines()}
		}
		return nil
	}
	return cmd
}

func (o *benchOptions) check(cmd *cobra.Command) error {
	const (
		maxClients = 10_000
		maxKeys    = 100_000_000
		maxValue   = 10 << 20
	)
	switch {
	case !slices.Contains(benchOps(), o.op):
		return wordError(cmd, "--op", o.op, benchOps())
	case !(o.ratio >= 0 && o.ratio <= 1):
		return usagef("pairdb bench run: --ratio is %v; it has to be 0 to 1", o.ratio)
	case o.clients < 1 || o.clients > maxClients:
		return usagef("pairdb bench run: --clients is %d; it has to be 1 to %d", o.clients, maxClients)
	case o.clientsPerConn < 1:
		return usagef("pairdb bench run: --clients-per-conn is %d; it has to be at least 1", o.clientsPerConn)
	case o.count < 0 || cmd.Flags().Changed("count") && o.count == 0:
		return usagef("pairdb bench run: --count is %d; it has to be at least 1", o.count)
	case o.count > 0 && cmd.Flags().Changed("duration"):
		return usagef("pairdb bench run: --count and --duration contradict each other")
	case o.duration <= 0:
		return usagef("pairdb bench run: --duration is %s; it has to be more than 0", o.duration)
	case o.warmup < 0:
		return usagef("pairdb bench run: --warmup is %s; it cannot be negative", o.warmup)
	case o.valueSize < 0 || o.valueSize > maxValue:
		return usagef("pairdb bench run: --value-size is %d; it has to be 0 to %d", o.valueSize, maxValue)
	case o.batch < 1 || o.batch > client.MaxBatchItems:
		return usagef("pairdb bench run: --batch is %d; it has to be 1 to %d", o.batch, client.MaxBatchItems)
	case o.batch > 1 && o.pipeline:
		return usagef("pairdb bench run: --batch and --pipeline contradict each other")
	case o.batch*o.valueSize > client.MaxBatchBytes/2 && o.batch > 1:
		return usagef("pairdb bench run: --batch %d of --value-size %d is more than the %d bytes that fit well", o.batch, o.valueSize, client.MaxBatchBytes/2)
	case o.batch > o.keys:
		return usagef("pairdb bench run: --batch is %d; there are only %d keys", o.batch, o.keys)
	case o.keys < 1 || o.keys > maxKeys:
		return usagef("pairdb bench run: --keys is %d; it has to be 1 to %d", o.keys, maxKeys)
	}
	return nil
}

// bench loads the keys if that is wanted, warms up, and measures.
func (a *app) bench(ctx context.Context, f *clientFlags, o benchOptions) (benchReport, error) {
	l, err := newLoad(f, o)
	if err != nil {
		return benchReport{}, err
	}
	defer l.close()
	// Asked first: a wrong endpoint or tenant is one error, not a flood.
	if _, err := l.clients[0].GetTenant(ctx, f.tenant); err != nil {
		return benchReport{}, err
	}
	if o.op != benchPut && !o.noLoad {
		a.note("storing %d keys of %d bytes", o.keys, o.valueSize)
		if err := l.preload(ctx); err != nil {
			return benchReport{}, err
		}
	}
	if o.warmup > 0 {
		a.note("warming up for %s", o.warmup)
		l.run(ctx, o.warmup, 0)
	}
	if ctx.Err() != nil {
		return benchReport{}, context.Cause(ctx)
	}
	servers, err := readCPU(o.pids)
	if err != nil {
		return benchReport{}, err
	}
	own := ownCPU()
	took := l.run(ctx, o.duration, o.count)
	own = ownCPU() - own
	if ctx.Err() != nil {
		return benchReport{}, context.Cause(ctx)
	}
	after, err := readCPU(o.pids)
	if err != nil {
		return benchReport{}, err
	}
	return l.report(f, took, own, after-servers), nil
}

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
	Seconds     float64  `json:"seconds"`
	// Ops succeeded; OpsPerSec counts them alone.
	Ops       int64   `json:"ops"`
	OpsPerSec float64 `json:"ops_per_s"`
	// Errors has the number of failed operations by error code.
	Errors map[string]int64 `json:"errors"`
	// Latency of operations that succeeded, by operation.
	Latency map[string]latencyFigures `json:"latency_us"`
	// CPU time per operation that succeeded. Nil without --pid.
	ClientCPU float64  `json:"client_cpu_us_per_op"`
	ServerCPU *float64 `json:"server_cpu_us_per_op"`
	Pids      []int    `json:"pids"`
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
	v := view{
		data: r,
		head: []string{
			fmt.Sprintf("load      %s%s, %d clients on %d connections, %d keys, values of %d bytes, %s", r.Op, how, r.Clients, r.Connections, r.Keys, r.ValueSize, r.Consistency),
			fmt.Sprintf("done      %d operations in %.2f s: %.0f ops/s", r.Ops, r.Seconds, r.OpsPerSec),
			"errors    " + failed,
			"cpu       " + cpu,
		},
		columns: []string{"OP", "COUNT", "MEAN µs", "P50", "P90", "P99", "P99.9", "MAX"},
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
