package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// benchOptions says what load to make.
type benchOptions struct {
	op             string  // put, get or mix
	ratio          float64 // of puts
	readPercent    float64
	rate           string // as it was given; empty for a closed loop
	steps          []rateStep
	arrivals       string
	even           bool
	outstanding    int
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

// How the requests of an open loop are spread.
const (
	arrivePoisson = "poisson"
	arriveEven    = "even"
)

func benchOps() []string      { return []string{benchPut, benchGet, benchMix} }
func benchArrivals() []string { return []string{arrivePoisson, arriveEven} }

func (a *app) benchCommand() *cobra.Command {
	return group("bench", "Measure a cluster", groupMeta, a.benchRunCommand())
}

func (a *app) benchRunCommand() *cobra.Command {
	var f clientFlags
	o := benchOptions{
		op: benchMix, ratio: 0.5, clients: 64, clientsPerConn: 16, duration: 10 * time.Second,
		warmup: 2 * time.Second, valueSize: 1024, keys: 100_000, seed: 1, batch: 1, outstanding: 1000, readPercent: 50, arrivals: arrivePoisson,
	}
	cmd := a.clientCommand(&cobra.Command{
		Use:   "run",
		Short: "Make a load and show throughput, latency and CPU",
		Long: `Make a load. Without --rate it is a closed loop: each client sends its next
request when the last was answered. With --rate it is an open loop: requests
begin when they are due, whether others were answered or not, as those of many
users do. Then latency counts from when a request was due, so that a stall shows
in all that fell due meanwhile; more than --outstanding requests without an
answer are not begun, and counted as dropped; and --clients only says over how
many connections they are spread, round robin. Arrivals are a Poisson process, or
evenly spaced with --arrivals even. A rate with steps is how load rises and falls:
2000:10s,20000:20s,2000:40s. --warmup is at the rate of the first step.

Latency is recorded with an HDR histogram. Keys are bench/000000000000 and on,
chosen uniformly; gets choose among those that exist: all are stored first, or,
with --no-load, looked for. Values are half compressible and follow from --seed.
The clients are spread over the endpoints. With --batch each request is a Batch or
MultiGet of that many neighbouring keys, and each of these counts as an operation
with the latency of the whole. With --pipeline the clients of a connection share
one stream. With --pid the CPU time of those processes (the nodes, on this
machine) is divided by the operations that went well.

The json, jsonl and yaml outputs have a time series, but not with --count: a row
for each second (more seconds if it would be over 3600 rows) says what became of
the operations that were due in it. Refused are RATE_LIMITED, RESOURCE_EXHAUSTED
and DISK_THROTTLED, and what the client held back because of such; dropped were
never begun; latencies are of those that went well, up to 3.2 % too high. Under
"client" is what the Go client did about slow nodes and refusals; --plain-client
has it do nothing.`,
		Example: "  pairdb bench run --op put --duration 30s --pid $(pgrep -d, pairdb)\n  pairdb bench run --op mix --read-percent 95 --rate 2000:10s,20000:20s,2000:40s --timeout 1s -o json",
		Args:    args(),
	}, &f)
	tenantFlag(cmd, &f)
	levelFlag(cmd, &f)
	fs := cmd.Flags()
	fs.StringVar(&o.op, "op", o.op, "put, get or mix")
	fs.Float64Var(&o.ratio, "ratio", o.ratio, "share of puts in a mix, 0 to 1")
	fs.Float64Var(&o.readPercent, "read-percent", o.readPercent, "share of gets in a mix, 0 to 100; another way to say --ratio")
	fs.StringVar(&o.rate, "rate", "", "operations per second of an open loop, or steps such as 2000:10s,20000:20s (default: a closed loop)")
	fs.StringVar(&o.arrivals, "arrivals", o.arrivals, "how the requests of an open loop are spread: poisson or even")
	suggest(cmd, "arrivals", benchArrivals()...)
	fs.IntVar(&o.outstanding, "outstanding", o.outstanding, "requests of an open loop without an answer, 1 to 100000; what is due beyond is dropped")
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
	fs.BoolVar(&f.plain, "plain-client", false, "do not avoid slow nodes, hedge gets or hold back what was refused, so that the nodes alone are measured")
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
		// What the values of an open loop may take.
		maxOutstanding, maxOutstandingBytes = 100_000, 1 << 30
	)
	given := cmd.Flags().Changed
	switch {
	case !slices.Contains(benchOps(), o.op):
		return wordError(cmd, "--op", o.op, benchOps())
	case !(o.ratio >= 0 && o.ratio <= 1):
		return usagef("pairdb bench run: --ratio is %v; it has to be 0 to 1", o.ratio)
	case !(o.readPercent >= 0 && o.readPercent <= 100):
		return usagef("pairdb bench run: --read-percent is %v; it has to be 0 to 100", o.readPercent)
	case given("read-percent") && given("ratio"):
		return usagef("pairdb bench run: --read-percent and --ratio contradict each other")
	case !slices.Contains(benchArrivals(), o.arrivals):
		return wordError(cmd, "--arrivals", o.arrivals, benchArrivals())
	case o.rate == "" && (given("rate") || given("arrivals") || given("outstanding")):
		return usagef("pairdb bench run: --arrivals and --outstanding belong to a load with --rate")
	case o.rate != "" && given("count"):
		return usagef("pairdb bench run: --count and --rate contradict each other")
	case strings.Contains(o.rate, ":") && given("duration"):
		return usagef("pairdb bench run: --duration and the steps of --rate contradict each other")
	case o.outstanding < 1 || o.outstanding > maxOutstanding:
		return usagef("pairdb bench run: --outstanding is %d; it has to be 1 to %d", o.outstanding, maxOutstanding)
	case o.rate != "" && o.op != benchGet && o.outstanding > maxOutstandingBytes/max(o.valueSize, 1)/max(o.batch, 1):
		return usagef("pairdb bench run: --outstanding %d of --value-size %d is more than the %d bytes that fit", o.outstanding, o.valueSize, maxOutstandingBytes)
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
	if given("read-percent") {
		o.ratio = 1 - o.readPercent/100
	}
	if o.even = o.arrivals == arriveEven; o.rate != "" {
		var err error
		if o.steps, err = parseRate(o.rate, o.duration); err != nil {
			return usagef("pairdb bench run: %v", err)
		}
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
	if o.op != benchPut && o.noLoad {
		a.note("looking for the keys that exist")
		if err := l.findKeys(ctx); err != nil {
			return benchReport{}, err
		}
	}
	if o.warmup > 0 {
		a.note("warming up for %s", o.warmup)
		if o.steps != nil {
			l.runOpen(ctx, []rateStep{{o.steps[0].perSecond, o.warmup}}, ^o.seed)
		} else {
			l.run(ctx, o.warmup, 0)
		}
	}
	if ctx.Err() != nil {
		return benchReport{}, context.Cause(ctx)
	}
	a.note("measuring")
	servers, err := readCPU(o.pids)
	if err != nil {
		return benchReport{}, err
	}
	l.before = l.stats()
	own := ownCPU()
	var took time.Duration
	if o.steps != nil {
		took = l.runOpen(ctx, o.steps, o.seed)
	} else {
		took = l.run(ctx, o.duration, o.count)
	}
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
