package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// second is a row of the time series of `pairdb bench run`.
type second struct {
	At      float64 `json:"at_s"`
	Due     int64   `json:"due"`
	OK      int64   `json:"ok"`
	Refused int64   `json:"refused"`
	Errors  int64   `json:"errors"`
	Dropped int64   `json:"dropped"`
	P50     int64   `json:"p50_us"`
	P99     int64   `json:"p99_us"`
}

// measured is what `pairdb bench run -o json` says.
type measured struct {
	OpsPerSec float64          `json:"ops_per_s"`
	Errors    map[string]int64 `json:"errors"`
	Lag       int64            `json:"lag_us"`
	Series    []second         `json:"series"`
}

// traffic is a `pairdb bench run` under way.
type traffic struct {
	t      *testing.T
	cmd    *exec.Cmd
	out    bytes.Buffer
	said   bytes.Buffer // what it wrote beside its figures, once done is closed
	begins chan struct{}
	began  time.Time // of the measurement; after wait for begins
	done   chan error
}

// startLoad begins a load on a cluster and returns once it is measured.
func (c *cluster) startLoad(args ...string) *traffic {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	c.t.Cleanup(cancel)
	l := &traffic{t: c.t, begins: make(chan struct{}), done: make(chan error, 1)}
	args = append([]string{binary, "bench", "run", "-o", "json", "--endpoint", strings.Join(c.endpoints(), ",")}, args...)
	args = append(slices.Clone(c.loadWrap), args...)
	l.cmd = bounded(ctx, args...)
	l.cmd.Stdout = &l.out
	stderr, err := l.cmd.StderrPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		lines := bufio.NewScanner(io.TeeReader(stderr, &l.said))
		for lines.Scan() {
			if strings.Contains(lines.Text(), "measuring") {
				l.began = time.Now()
				close(l.begins)
			}
		}
		l.done <- l.cmd.Wait()
	}()
	select {
	case <-l.begins:
	case err := <-l.done:
		c.t.Fatalf("the load ended early: %v\n%s", err, l.said.String())
	}
	return l
}

// until waits until so much of the measurement is over.
func (l *traffic) until(at time.Duration) { time.Sleep(time.Until(l.began.Add(at))) }

// end waits for the figures.
func (l *traffic) end() measured {
	l.t.Helper()
	if err := <-l.done; err != nil {
		l.t.Fatalf("bench: %v\n%s%s", err, l.said.String(), l.out.String())
	}
	var m measured
	if err := json.Unmarshal(l.out.Bytes(), &m); err != nil {
		l.t.Fatalf("%v: %s", err, l.out.String())
	}
	return m
}

// window is what came of the operations that were due from one second to another.
type window struct {
	ok, refused, bad, due int64
	// p99 is the median of the seconds' 99th percentiles: what one hiccup of the
	// machine does not change, and a node that is in the way does.
	p99 time.Duration
	// worst is the highest of them.
	worst time.Duration
}

func (m *measured) window(from, to int) (w window) {
	var p99s []int64
	for _, s := range m.Series[from:min(to, len(m.Series))] {
		w.ok += s.OK
		w.refused += s.Refused
		w.bad += s.Errors + s.Dropped
		w.due += s.Due
		if s.OK > 0 {
			p99s = append(p99s, s.P99)
		}
	}
	slices.Sort(p99s)
	if len(p99s) > 0 {
		w.p99 = time.Duration(p99s[len(p99s)/2]) * time.Microsecond
		w.worst = time.Duration(p99s[len(p99s)-1]) * time.Microsecond
	}
	return w
}

func (w window) String() string {
	return fmt.Sprintf("%d of %d well, %d refused, %d wrong, p99 %s (worst second %s)", w.ok, w.due, w.refused, w.bad, w.p99, w.worst)
}

// verdict collects what is wrong with what was measured.
type verdict struct {
	mu    sync.Mutex
	wrong []string
}

func (v *verdict) errorf(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wrong = append(v.wrong, fmt.Sprintf(format, args...))
}

// measure has something measured, and again, twice at most, if it is not what it has
// to be: a machine that others share has bad moments, a fault does not pass.
func measure(t *testing.T, f func(t *testing.T, v *verdict)) {
	const times = 3
	for i := range times {
		var v verdict
		if !t.Run(fmt.Sprintf("measurement %d", i+1), func(t *testing.T) {
			f(t, &v)
			for _, w := range v.wrong {
				if i == times-1 {
					t.Error(w)
				} else {
					t.Logf("measured again because %s", w)
				}
			}
		}) || len(v.wrong) == 0 {
			return
		}
	}
}

// rows is the series as text, for a failed test and the record.
func (m *measured) rows() string {
	var b strings.Builder
	for _, s := range m.Series {
		fmt.Fprintf(&b, "%3.0fs %6d due %6d ok %6d refused %5d errors %5d dropped  p50 %7d p99 %7d us\n", s.At, s.Due, s.OK, s.Refused, s.Errors, s.Dropped, s.P50, s.P99)
	}
	return b.String()
}
