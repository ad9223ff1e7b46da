package main

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client/clienttest"
)

func TestParseRate(t *testing.T) {
	got, err := parseRate("2000", 3*time.Second)
	if err != nil || len(got) != 1 || got[0] != (rateStep{2000, 3 * time.Second}) {
		t.Errorf("%v, %v", got, err)
	}
	got, err = parseRate("0.5:1m, 0:2s,20000:40s", time.Second)
	if err != nil || len(got) != 3 || got[0] != (rateStep{0.5, time.Minute}) || got[1].perSecond != 0 || wholeOf(got) != 102*time.Second {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "x", "-1", "NaN", "1000001", "10:", "10:0s", "10:-1s", "10:5", "10,20", "10:1s,20", strings.Repeat("1:1s,", 1000) + "1:1s"} {
		if got, err := parseRate(bad, time.Second); err == nil {
			t.Errorf("%q is %v", bad, got)
		}
	}
}

// TestArrivals: both kinds keep the rate of each step, in order, and none comes
// outside its step.
func TestArrivals(t *testing.T) {
	steps := []rateStep{{1000, 2 * time.Second}, {0, time.Second}, {10_000, time.Second}, {100, 10 * time.Second}}
	for _, even := range []bool{true, false} {
		a := newArrivals(steps, 2, even, rand.New(rand.NewPCG(1, 1)))
		counts := make([]float64, len(steps))
		var last time.Duration
		var gaps, squares float64 // of the third step
		for {
			at, step, ok := a.next()
			if !ok {
				break
			}
			if began := wholeOf(steps[:step]); at < last || at < began || at >= wholeOf(steps[:step+1]) {
				t.Fatalf("one of step %d comes at %s, behind one at %s", step, at, last)
			}
			if gap := (at - last).Seconds(); step == 2 && counts[2] > 0 {
				gaps, squares = gaps+gap, squares+gap*gap
			}
			last = at
			counts[step] += 2 // operations
		}
		for i, s := range steps {
			want := s.perSecond * s.lasts.Seconds()
			within := 1.0
			if !even {
				within = 5 * math.Sqrt(2*want) // five standard deviations
			}
			if math.Abs(counts[i]-want) > within {
				t.Errorf("even %v, step %d: %v operations, want %v", even, i, counts[i], want)
			}
		}
		// The coefficient of variation of the gaps is 0 or 1.
		n := counts[2]/2 - 1
		mean := gaps / n
		spread := math.Sqrt(squares/n-mean*mean) / mean
		if even && spread > 0.01 || !even && math.Abs(spread-1) > 0.1 {
			t.Errorf("even %v: the gaps vary by %.2f", even, spread)
		}
	}
}

// TestRowBuckets: a bucket's figure is never below what it counts, and at most
// 3.2 % above.
func TestRowBuckets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		us := rapid.Int64Range(0, latencyMax).Draw(t, "latency")
		i := rowBucket(us)
		if got := rowLatency(i); got < us || float64(got) > float64(us)*1.032+1 {
			t.Fatalf("%d µs are shown as %d", us, got)
		}
		if us > 0 && rowBucket(us-1) > i {
			t.Fatalf("the bucket of %d µs is before that of one less", us)
		}
	})
	if i := rowBucket(latencyMax * 100); i >= rowBuckets || rowLatency(i) < latencyMax {
		t.Errorf("what takes too long is counted in bucket %d, as %d µs", i, rowLatency(i))
	}
}

func TestSeries(t *testing.T) {
	s := newSeries(2500 * time.Millisecond)
	s.at(0).add(2, 0, 0, 10*time.Millisecond)
	s.at(1999*time.Millisecond).add(0, 3, 1, time.Second)
	s.at(time.Hour).dropped.Add(4) // what is late belongs to the last
	f := s.figures()
	if len(f) != 3 || f[0].OK != 2 || f[0].P99 < 10_000 || f[0].P99 > 10_320 || f[1] != (rowFigures{At: 1, Due: 4, Refused: 3, Errors: 1}) || f[2] != (rowFigures{At: 2, Due: 4, Dropped: 4}) {
		t.Errorf("%+v", f)
	}
	if s := newSeries(math.MaxInt64); len(s.rows) > seriesRows {
		t.Errorf("the longest measurement has %d rows", len(s.rows))
	}
	if s := newSeries(24 * time.Hour); len(s.rows) > seriesRows || s.width*time.Duration(len(s.rows)) < 24*time.Hour {
		t.Errorf("%d rows of %s", len(s.rows), s.width)
	}
}

// benchJSON runs bench run and returns its report.
func benchJSON(t *testing.T, wantExit int, args ...string) (r benchReport) {
	t.Helper()
	args = append([]string{"bench", "run", "--clients", "3", "--keys", "50", "--value-size", "10", "--warmup", "0s", "-o", "json"}, args...)
	code, stdout, stderr := runCLI(t, t.Context(), "", args...)
	if code != wantExit {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func benchServer(t *testing.T) *clienttest.Server {
	t.Helper()
	s, err := clienttest.Start(clienttest.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestOpenLoop: what is due is begun at the rate, and all of it is accounted for
// in each of the figures.
func TestOpenLoop(t *testing.T) {
	s := benchServer(t)
	s.SetHook(func(_ context.Context, method string, req any) error {
		if r, ok := req.(*pairdbv1.GetRequest); ok && string(r.GetKey()) < benchKey(10) {
			return clienttest.Fail(errcode.ResourceExhausted, "too much", nil)
		}
		return nil
	})
	r := benchJSON(t, 0, "--op", "mix", "--read-percent", "95", "--rate", "1000:200ms,0:100ms,2000:100ms", "--arrivals", "even", "--outstanding", "50", "--endpoint", s.Addr())
	refused := r.Errors["RESOURCE_EXHAUSTED"]
	if r.Ops+refused+r.Dropped != 400 || r.Refused != refused || refused == 0 || r.Arrivals != "even" || r.Outstanding != 50 || math.Abs(r.Seconds-0.4) > 1e-9 {
		t.Errorf("%+v", r)
	}
	if len(r.Rate) != 3 || r.Rate[0].Due != 200 || r.Rate[1].Due != 0 || r.Rate[2].Due != 200 || r.Rate[2].At != 0.3 {
		t.Errorf("%+v", r.Rate)
	}
	if len(r.Series) != 1 || r.SeriesWidth != 1 || r.Series[0].Due != 400 || r.Series[0].OK != r.Ops || r.Series[0].Refused != refused || r.Series[0].P50 == 0 {
		t.Errorf("%+v", r.Series)
	}
	if puts := r.Latency["put"].Count; puts == 0 || puts > 60 {
		t.Errorf("%d puts of 5 %% of 400", puts)
	}
}

// TestOpenLoopDrops: a node that does not answer has what is outstanding, and no
// more waits for it.
func TestOpenLoopDrops(t *testing.T) {
	s := benchServer(t)
	s.SetHook(func(ctx context.Context, method string, _ any) error {
		if strings.HasSuffix(method, "/Put") {
			<-ctx.Done()
		}
		return ctx.Err()
	})
	r := benchJSON(t, 1, "--op", "put", "--rate", "1000", "--duration", "100ms", "--arrivals", "even", "--outstanding", "7", "--timeout", "500ms", "--endpoint", s.Addr())
	// Each time that a timeout passes while the generator gets no time, 7 more begin.
	failed, times := r.Errors["TIMEOUT"], 1+r.Lag/400_000
	if failed < 7 || failed > 7*times || r.Dropped != 100-failed || r.Series[0] != (rowFigures{Due: 100, Errors: failed, Dropped: r.Dropped}) {
		t.Errorf("%+v", r)
	}
}

// TestLatencyCountsFromWhenItWasDue: a request that begins late has been slow.
func TestLatencyCountsFromWhenItWasDue(t *testing.T) {
	s := benchServer(t)
	f := &clientFlags{endpoints: []string{s.Addr()}, tenant: "default", timeout: 10 * time.Second}
	l, err := newLoad(f, benchOptions{op: benchPut, clients: 1, clientsPerConn: 1, keys: 1, batch: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	var r row
	l.workers[0].step(t.Context(), time.Now().Add(-3*time.Second), []*row{&r})
	if got := r.quantile(0.5); got < 3_000_000 || l.workers[0].tally.puts.Max() < 3_000_000*999/1000 {
		t.Errorf("it took %d µs", got)
	}
}

// TestGetsAskForWhatExists: keys that were never stored are no part of a load that
// does not store them.
func TestGetsAskForWhatExists(t *testing.T) {
	s := benchServer(t)
	if code, _, stderr := runCLI(t, t.Context(), "", "bench", "run", "--op", "get", "--no-load", "--keys", "50", "--endpoint", s.Addr()); code != 1 || !strings.Contains(stderr, "0 of the 50 keys exist") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	for _, n := range []string{"000000000007", "000000000031", "000000000049", "000000000050", "7"} {
		if code, _, stderr := runCLI(t, t.Context(), "", "put", benchPrefix+n, "v", "--endpoint", s.Addr()); code != 0 {
			t.Fatal(stderr)
		}
	}
	for _, args := range [][]string{{}, {"--batch", "3"}, {"--pipeline"}, {"--rate", "1000:60ms", "--arrivals", "even"}} {
		args = append([]string{"--op", "get", "--no-load", "--endpoint", s.Addr()}, args...)
		if !strings.Contains(strings.Join(args, " "), "--rate") {
			args = append(args, "--count", "60")
		}
		if r := benchJSON(t, 0, args...); r.Ops != 60 || len(r.Errors) != 0 {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

// TestBenchSaysWhatTheClientHeldBack: what a client does not send counts as
// refused, and a plain client sends all.
func TestBenchSaysWhatTheClientHeldBack(t *testing.T) {
	s := benchServer(t)
	var asked atomic.Int64
	s.SetHook(func(_ context.Context, method string, _ any) error {
		if strings.HasSuffix(method, "/Put") {
			asked.Add(1)
			return clienttest.FailWrite(errcode.RateLimited, errcode.NotApplied, 0, 0, "too much")
		}
		return nil
	})
	args := []string{"--op", "put", "--count", "600", "--endpoint", s.Addr()}
	r := benchJSON(t, 1, args...)
	if r.Client.Throttled == 0 || r.Refused != 600 || r.Errors["RATE_LIMITED"] != 600 || asked.Load()+int64(r.Client.Throttled) < 600 {
		t.Errorf("sent %d: %+v", asked.Load(), r)
	}
	asked.Store(0)
	if r := benchJSON(t, 1, append(args, "--plain-client")...); r.Client.Throttled != 0 || r.Refused != 600 || asked.Load() < 600 {
		t.Errorf("sent %d: %+v", asked.Load(), r)
	}
}
