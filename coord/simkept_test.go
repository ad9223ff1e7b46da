package coord_test

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
)

// TestKeptSimulations runs the plans that found something once. Each is a line
// after one that says what. A change to the simulation makes another run of a
// plan, which may then be a common one.
func TestKeptSimulations(t *testing.T) {
	text, err := os.ReadFile("testdata/simulations.txt")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	why := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" {
			why = ""
			continue
		}
		if comment, ok := strings.CutPrefix(line, "#"); ok {
			why += comment
			continue
		}
		if why == "" {
			t.Errorf("%s: nothing says why it is kept", line)
		}
		p, err := parsePlan(line)
		if err != nil {
			t.Error(err)
			continue
		}
		if again := p.String(); again != line {
			t.Errorf("%s is written as %s", line, again)
		}
		report(t, p, bench{}.run(p))
		ran++
	}
	if ran == 0 {
		t.Error("no plan is kept")
	}
}

func TestPlanText(t *testing.T) {
	for _, text := range []string{
		"registers/7", "siblings/18446744073709551615", "forgetful/1/end=3.2s/faults=2,7/off=drop,jitter/keys=k1,once0",
		"registers/7/faults=none/keys=none", "ring/7/off=drop/keys=k0,s/000,s/001,m0",
	} {
		p, err := parsePlan(text)
		if err != nil || p.String() != text {
			t.Errorf("%s is read as %v, %v", text, p, err)
		}
	}
	for _, bad := range []string{
		"", "registers", "nothing/7", "registers/x", "registers/7/end=x", "registers/7/end=0s", "registers/7/faults=x",
		"registers/7/faults=-1", "registers/7/off=all", "registers/7/more=1", "registers/7/",
	} {
		if p, err := parsePlan(bad); err == nil {
			t.Errorf("%q is read as %v", bad, p)
		}
	}
}

// TestPlanOfAnotherSeed: a plan that names what its seed does not have fails.
func TestPlanOfAnotherSeed(t *testing.T) {
	for _, text := range []string{"registers/1/end=100ms/faults=1000", "siblings/1/end=100ms/keys=k0"} {
		p, err := parsePlan(text)
		if err != nil {
			t.Fatal(err)
		}
		if o := (bench{}).run(p); !o.has(ownChecks) {
			t.Errorf("%v passes", p)
		}
	}
}

// hastyDisk is a sound disk whose replica acknowledges writes before they are
// synced.
type hastyDisk struct{ disk }

func (d hastyDisk) open(n *simNode) (coord.Replica, uint64) {
	rep, actor := d.disk.open(n)
	return hastyReplica{rep}, actor
}

type hastyReplica struct{ coord.Replica }

func (r hastyReplica) Update(at coord.Address, edit func(*causal.Object, func() causal.Dot) (causal.Object, error), durable func(error)) ([]byte, error) {
	b, err := r.Replica.Update(at, edit, func(error) {}) // nobody waits for it
	if err == nil {
		durable(nil)
	}
	return b, err
}

func (r hastyReplica) Merge(items []coord.MergeItem, done func(int, []byte, error)) {
	r.Replica.Merge(items, func(int, []byte, error) {}) // nobody waits for it
	for i := range items {
		done(i, nil, nil)
	}
}

// hastySeed is a seed of which hasty disks break a promise.
const hastySeed = 17

// TestSmallestPlan: of a run that fails only because disks acknowledge too early
// the search leaves little, the same each time, and what is left fails alike.
func TestSmallestPlan(t *testing.T) {
	b := bench{newDisk: func(n *simNode) disk { return hastyDisk{newStoreDisk(n)} }}
	whole := plan{kind: kindRegisters, seed: hastySeed}
	first := b.run(whole)
	if len(first.found) == 0 {
		t.Fatalf("%v does not fail", whole)
	}
	shrink := func() (*minimiser, plan, *outcome) {
		m := &minimiser{run: b.run, runs: maxShrinkRuns, until: time.Now().Add(time.Hour)}
		p, o := m.shrink(whole, first)
		return m, p, o
	}
	m, p, o := shrink()
	t.Logf("%d faults and %d keys until %v; after %d runs %v: %v", len(first.faults), len(first.names), whole.until(), m.tried, p, o.found[0])
	if len(p.faults) >= len(first.faults) || len(p.keys) >= len(first.names) || p.until() >= whole.until() || len(p.faults) == 0 {
		t.Errorf("%v is hardly smaller than %v", p, whole)
	}
	read, err := parsePlan(p.String())
	if err != nil {
		t.Fatal(err)
	}
	if again := b.run(read); !again.has(first.found[0].checker) || again.trace != o.trace {
		t.Errorf("%v fails, and not when it is run from its text", p)
	}
	if sound := (bench{}).run(p); len(sound.found) > 0 {
		t.Errorf("%v fails with sound disks, too: %v", p, sound.found[0])
	}
	if m2, p2, _ := shrink(); p2.String() != p.String() || m2.tried != m.tried {
		t.Errorf("the search ends with %v after %d runs, and then with %v after %d", p, m.tried, p2, m2.tried)
	}
}

// TestFewer: what is needed together is found among many, with few questions.
func TestFewer(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		all := rng.Perm(1 + rng.IntN(40))
		need := slices.Clone(all[:rng.IntN(min(len(all), 4)+1)])
		asked := 0
		left := all
		fewer(all, func(some []int) bool {
			asked++
			for _, n := range need {
				if !slices.Contains(some, n) {
					return false
				}
			}
			left = some
			return true
		})
		slices.Sort(left)
		slices.Sort(need)
		if !slices.Equal(left, need) && len(need) > 0 || asked > 200 {
			t.Errorf("of %v it leaves %v after %d questions; needed is %v", all, left, asked, need)
		}
	}
}
