package ringmodel

import (
	"flag"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

var (
	modelSeeds   = flag.Int("ringmodel.seeds", defaultSeeds, "how many random schedules to play")
	modelFirst   = flag.Uint64("ringmodel.first", 1, "the seed of the first of them")
	modelSeed    = flag.Uint64("ringmodel.seed", 0, "the one seed to play, with its trace")
	modelWithout = flag.String("ringmodel.without", "", "rules to switch off, by their names in rules_test.go, with commas between them")
)

// TestSchedules plays random schedules with all rules in force.
func TestSchedules(t *testing.T) {
	off := parseRules(t, *modelWithout)
	if *modelSeed > 0 {
		w := schedule(*modelSeed, off)
		w.log = func(line string) { t.Log(line) }
		w.play()
		for _, class := range w.found {
			t.Errorf("seed %d: %s", *modelSeed, class)
		}
		return
	}
	r := playAll(*modelFirst, *modelSeeds, off)
	for _, class := range slices.Sorted(maps.Keys(r.classes)) {
		t.Errorf("%d schedules: %s; play the first of them again:\n\tgo test ./gossip/ring/ringmodel -run TestSchedules -v -ringmodel.seed=%d", r.classes[class], class, r.example[class])
	}
	t.Logf("%d seeds: %v", *modelSeeds, r.count)
	for _, name := range []string{"propose", "commit", "abort", "finalize", "retire", "tenant-create", "acknowledged", "reads", "bounces", "crashes", "lost disks", "cuts", "pauses", "drops", "rounds", "sweeps", "hints", "factors changed", "partings", "tenants dropped"} {
		if r.count[name] == 0 && *modelSeeds >= 100 {
			t.Errorf("no schedule had any %s", name)
		}
	}
}

// results are what many schedules did, and the violations among them.
type results struct {
	count, classes map[string]int
	example        map[string]uint64
}

// playAll plays the schedules of some seeds, as many at a time as there are
// processors: each is a world of its own.
func playAll(first uint64, seeds int, off ruleSet) results {
	r := results{count: map[string]int{}, classes: map[string]int{}, example: map[string]uint64{}}
	var mu sync.Mutex
	next := first
	take := func() (seed uint64, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		if next == first+uint64(seeds) {
			return 0, false
		}
		next++
		return next - 1, true
	}
	add := func(seed uint64, w *world) {
		mu.Lock()
		defer mu.Unlock()
		for name, n := range w.count {
			r.count[name] += n
		}
		for _, class := range w.found {
			if r.classes[class]++; r.example[class] == 0 || seed < r.example[class] {
				r.example[class] = seed
			}
		}
	}
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed, ok := take(); ok; seed, ok = take() {
				w := schedule(seed, off)
				w.play()
				add(seed, w)
			}
		})
	}
	wg.Wait()
	return r
}

func parseRules(t *testing.T, list string) (off ruleSet) {
	t.Helper()
	if list == "" {
		return 0
	}
	for name := range strings.SplitSeq(list, ",") {
		known := false
		for r := range ruleCount {
			if r.String() == name {
				off, known = off|1<<r, true
			}
		}
		if !known {
			t.Fatalf("there is no rule %q", name)
		}
	}
	return off
}

// TestSchedulesRepeat: a schedule is the same each time.
func TestSchedulesRepeat(t *testing.T) {
	for seed := range uint64(len(profiles())) {
		var traces [2][]string
		for i := range traces {
			w := schedule(seed+1, 0)
			w.log = func(line string) { traces[i] = append(traces[i], line) }
			w.play()
		}
		if !slices.Equal(traces[0], traces[1]) {
			t.Errorf("seed %d differs from itself", seed+1)
		}
	}
}
