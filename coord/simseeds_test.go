package coord_test

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	simSeeds = flag.Int("sim.seeds", defaultSeeds, "how many random simulations of each kind to run")
	simFirst = flag.Uint64("sim.first", 1, "the seed of the first of them")
	simPlan  = flag.String("sim.plan", "", "the one plan to run, kind/seed or one that a failure printed, with its trace")
)

// TestSimulation has keys with one writer, a key with several and writes with
// idempotency keys, where the last writer wins.
func TestSimulation(t *testing.T) {
	simulate(t, kindRegisters, func(total map[string]int) {
		wantSome(t, total, "written once", "late retries", "duplicates", "shared", "written", "written to all", "read", "crashes",
			"disks metadata set back", "cuts", "wrong opinions", "slow nodes", "remints", "read repairs", "forwards", "conflicts", "failed indeterminate",
			"pauses", "slow disks", "hedges", "hedges won", "breakers open", "breakers closed")
	})
}

// TestSiblingsSimulation has several writers to a key, some with what they
// read and some blind: what a read returns is concurrent, nothing goes away but
// for a write that was shown it, and in the end all owners hold the same.
func TestSiblingsSimulation(t *testing.T) {
	simulate(t, kindSiblings, func(total map[string]int) {
		wantSome(t, total, "written", "written to all", "read several", "no context", "crashes", "cuts", "read repairs", "forwards",
			"conflicts", "failed indeterminate", "refused at the limit", "many siblings")
		if total["remints"] > 0 {
			t.Errorf("%d writes were minted again", total["remints"])
		}
	})
}

// TestForgetfulSimulation has disks that are set back or wiped: no dot is used
// twice all the same.
func TestForgetfulSimulation(t *testing.T) {
	simulate(t, kindForgetful, func(total map[string]int) {
		wantSome(t, total, "written", "read", "dots", "disks kept", "disks metadata set back", "disks set back", "disks wiped")
	})
}

func wantSome(t *testing.T, total map[string]int, names ...string) {
	t.Helper()
	if *simSeeds < 20 {
		return // too few to be sure of every kind of fault
	}
	for _, name := range names {
		if total[name] == 0 {
			t.Errorf("no simulation had any %s", name)
		}
	}
}

// simulate runs many seeds of a kind, or the one plan of the flag, and hands over
// what all did together.
func simulate(t *testing.T, kind string, then func(total map[string]int)) {
	t.Helper()
	if *simPlan != "" {
		p, err := parsePlan(*simPlan)
		if err != nil {
			t.Fatal(err)
		}
		if p.kind == kind {
			o := bench{log: func(line string) { t.Log(line) }}.run(p)
			report(t, p, o)
		}
		return
	}
	total := map[string]int{}
	worst := runSeeds(kind, total)
	if worst.o != nil {
		worst.explain(t)
		return
	}
	t.Logf("%d seeds: %v", seedsOf(kind), total)
	then(total)
}

// failedRun is a seed that failed.
type failedRun struct {
	plan plan
	o    *outcome
}

// seedsOf is how many seeds of a kind are run: a ring costs as much as two others.
func seedsOf(kind string) int {
	if kind == kindRing {
		return (*simSeeds + 1) / 2
	}
	return *simSeeds
}

// runSeeds runs the seeds of the flags, as many at a time as there are
// processors: each is a world of its own. It adds up what they did, and returns
// the lowest that failed.
func runSeeds(kind string, total map[string]int) failedRun {
	var mu sync.Mutex
	var worst failedRun
	next, end := *simFirst, *simFirst+uint64(seedsOf(kind))
	take := func() (plan, bool) {
		mu.Lock()
		defer mu.Unlock()
		if worst.o != nil || next == end {
			return plan{}, false
		}
		next++
		return plan{kind: kind, seed: next - 1}, true
	}
	// A run makes much garbage and keeps little. But what has a pool in it outlives two
	// collections, and a heap that may be five times as large as what they leave grows
	// without end by that.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(maxSimHeap))
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				p, ok := take()
				if !ok {
					return
				}
				o := bench{}.run(p)
				mu.Lock()
				for name, n := range o.counts {
					total[name] += n
				}
				if len(o.found) > 0 && (worst.o == nil || p.seed < worst.plan.seed) {
					worst = failedRun{p, o}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return worst
}

// report fails the test with what was found.
func report(t *testing.T, p plan, o *outcome) {
	t.Helper()
	for i, f := range o.found {
		if i == maxReported {
			t.Errorf("%v: and %d more", p, len(o.found)-i)
			break
		}
		t.Errorf("%v: %v", p, f)
	}
}

const (
	// maxSimHeap is the memory of all runs at once, in bytes, from which on garbage is
	// collected sooner.
	maxSimHeap = 2 << 30
	// maxReported bounds the failures of a run that are printed, and maxLines
	// the lines of its trace.
	maxReported = 5
	maxLines    = 80
)

// explain reports a failure: how to run it again, the smallest plan found that
// fails alike, and the end of its trace.
func (r failedRun) explain(t *testing.T) {
	t.Helper()
	report(t, r.plan, r.o)
	m := minimiser{run: bench{}.run, runs: maxShrinkRuns, until: time.Now().Add(maxShrinkTime)}
	p, o := m.shrink(r.plan, r.o)
	var lines []string
	bench{log: func(line string) { lines = append(lines, line) }}.run(p)
	var b strings.Builder
	fmt.Fprintf(&b, "run it again, or the smallest that was found to fail alike in %d runs, of %d faults and %d keys until %v:\n", m.tried, len(p.faults), len(p.keys), p.until())
	for _, again := range []plan{r.plan, p} {
		fmt.Fprintf(&b, "\tgo test ./coord -run Simulation -v -sim.plan=%v\n", again)
	}
	b.WriteString("and keep the latter in coord/testdata/simulations.txt\n")
	for _, n := range p.faults {
		fmt.Fprintf(&b, "fault %d: %v\n", n, o.faults[n])
	}
	report(t, p, o)
	t.Logf("%s%s", b.String(), strings.Join(lastLines(lines, o.found[0].at), "\n"))
}

// lastLines are the last lines of a trace up to a time.
func lastLines(lines []string, until time.Duration) []string {
	end := len(lines)
	for i, line := range lines {
		at, _, _ := strings.Cut(line, " ")
		if d, err := time.ParseDuration(at); err == nil && d > until {
			end = i
			break
		}
	}
	return slices.Clone(lines[max(0, end-maxLines):end])
}

// TestSimulationRepeats: a run is the same each time.
func TestSimulationRepeats(t *testing.T) {
	for kind := range kinds {
		for seed := range uint64(min(4, 1+*simSeeds/20)) {
			p := plan{kind: kind, seed: seed + 1}
			a, b := bench{}.run(p), bench{}.run(p)
			if a.trace != b.trace {
				t.Errorf("%v has the traces %x and %x", p, a.trace, b.trace)
			}
		}
	}
}
