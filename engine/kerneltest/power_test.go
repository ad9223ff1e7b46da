package kerneltest_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/engine/kerneltest"
)

const (
	// cutsPerDisk is how often the power of a disk is cut before there is a new
	// one, with another seed.
	cutsPerDisk = 6
	// leastCuts and mostCuts bound how often a run of the gate cuts the power;
	// between them it stops when cutTime is over.
	leastCuts, mostCuts = 12, 60
	cutTime             = 25 * time.Second
)

// cutCounts is what a run of cuts came to.
type cutCounts struct {
	cuts, opening, checks, acks, kept int
}

// TestPowerCuts cuts the power of the disk below a process that writes, at a
// random moment, or while it recovers from the cut before, and makes sure that
// what it acknowledged is there afterwards. PAIRDB_POWER_CUTS=n does so n times,
// PAIRDB_SEED=n begins with that seed; the moment is as random as the kernel.
func TestPowerCuts(t *testing.T) {
	seed, most, limit := startSeed(t), mostCuts, cutTime
	if s := os.Getenv("PAIRDB_POWER_CUTS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		most, limit = n, 24*time.Hour
	}
	var c cutCounts
	for start := time.Now(); c.cuts < most && (c.cuts < leastCuts || time.Since(start) < limit) && !t.Failed(); seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { c.disk(t, seed, min(cutsPerDisk, most-c.cuts)) })
	}
	if !t.Failed() {
		t.Logf("%d power cuts, %d of them while opening; compared %d times: %d acknowledgements, 0 of them lost; %d batches kept that were not acknowledged",
			c.cuts, c.opening, c.checks, c.acks, c.kept)
	}
}

// disk cuts the power of one disk n times.
func (c *cutCounts) disk(t *testing.T, seed uint64, n int) {
	rng := rand.New(rand.NewPCG(seed, 3))
	l := kerneltest.Mount(t, 256<<20)
	h := newHistory(seed, 1+rng.IntN(6))
	dir := filepath.Join(l.Dir, "db")
	acked, reached := h.positions(), h.positions()
	for i := range n {
		o := c.cut(t, l, rng, job{Dir: dir, Seed: seed, Writers: len(h.writers)}, acked)
		acked = o.acked
		for w := range reached {
			reached[w] = max(reached[w], o.reached[w])
		}
		if i < n-1 && rng.IntN(3) == 0 {
			continue // the next process is the first to open what is left
		}
		if err := h.checkReopened(dir, acked, reached); err != nil {
			t.Fatalf("PAIRDB_SEED=%d, after cut %d: %v", seed, i, err)
		}
		c.checks++
		for w, p := range h.writers {
			c.kept += p.batches - writesAfter - acked[w]
		}
		acked, reached = h.positions(), h.positions()
	}
}

// cut runs a driver, cuts the power under it, waits for its end and gives the
// power back.
func (c *cutCounts) cut(t *testing.T, l *kerneltest.Loop, rng *rand.Rand, j job, acked []int) *outcome {
	// Most cuts hit the load after some acknowledgements, some the start.
	acks, moment := 1+rng.IntN(1+rng.IntN(800)), ""
	delay := time.Duration(rng.IntN(5_000)) * time.Microsecond
	if rng.IntN(3) == 0 {
		acks, delay = 0, 3*delay
	}
	o := runDriver(t, j, acked, nil, func(line string, o *outcome) {
		if moment != "" || o.acks < acks && !strings.HasPrefix(line, "end") {
			return
		}
		<-time.After(delay)
		moment = fmt.Sprintf("%s after %d acknowledgements, at %.20q", delay, o.acks, line)
		o.until = monotonic()
		if err := l.Cut(); err != nil {
			t.Error(err)
		}
	})
	if moment == "" {
		t.Fatalf("PAIRDB_SEED=%d: the driver ended before the power was cut: %+v", j.Seed, o)
	}
	t.Logf("PAIRDB_SEED=%d: cut %s; opened %v, %d acknowledged; %.250q %.250q", j.Seed, moment, o.opened, o.acks, o.ended[0], o.notes)
	c.cuts++
	c.acks += o.acks
	if !o.opened {
		c.opening++
	}
	l.PowerOn(t)
	return o
}
