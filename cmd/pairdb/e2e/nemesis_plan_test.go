package e2e

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// The kinds of fault.
const (
	killOne = "kills"        // SIGKILL, and a start later
	killAll = "kills of all" // SIGKILL of all at once, and a start of all later
	stop    = "stops"        // SIGSTOP, and SIGCONT later
	cutPair = "cuts"         // nothing passes between two nodes, others see both
	cutOne  = "cuts one way" // nothing passes from one node to another
	isolate = "isolations"   // nothing passes between one node and all others
	split   = "splits"       // nothing passes between less than half and the rest

	cutGossip = "gossip cuts"  // gossip does not pass between one node and all others; peer streams do
	cutPeers  = "peer cuts"    // peer streams do not, gossip does
	fillDisk  = "full disks"   // a neighbour takes what one node's file system has left, and gives it back
	failSyncs = "failed syncs" // every sync of one node fails; it is killed and started without that
)

const (
	unhurt  = time.Second     // how long nothing goes wrong at first
	minGap  = time.Second     // between the beginnings of two faults, at least
	maxCut  = 6 * time.Second // how long the network is cut, at most
	maxDead = 3 * time.Second // how long a killed node is away, at most
)

var (
	// faultKinds are what befalls processes and the network as a whole, diskKinds
	// disks and parts of the network, between some of the former.
	faultKinds = []string{killOne, killAll, stop, cutPair, cutOne, isolate, split}
	diskKinds  = []string{killOne, killAll, isolate, cutGossip, cutPeers, fillDisk, failSyncs}
)

// fault is one thing that goes wrong.
type fault struct {
	kind       string
	at, length time.Duration
	// a is the node that is hurt, b the other one of a cut.
	a, b int
}

func (f fault) String() string {
	return fmt.Sprintf("%v: %s of %d (%d) for %v", f.at, f.kind, f.a+1, f.b+1, f.length)
}

// planFaults says what of some kinds goes wrong in a run of some length. They come in
// shuffled rounds and begin a second to maxGap apart, so that they overlap. Stops
// last from a second to maxStop, and each doubling of that is as likely as the
// one before.
func planFaults(seed uint64, nodes int, of []string, length, maxStop, maxGap time.Duration) []fault {
	rng := rand.New(rand.NewPCG(seed, 11))
	between := func(low, high time.Duration) time.Duration {
		return (low + time.Duration(rng.Int64N(int64(high-low)+1))).Round(time.Millisecond)
	}
	var plan []fault
	for at := unhurt; ; {
		kinds := slices.Clone(of)
		rng.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		for _, kind := range kinds {
			if at > length {
				return plan
			}
			f := fault{kind: kind, at: at, a: rng.IntN(nodes)}
			f.b = (f.a + 1 + rng.IntN(nodes-1)) % nodes
			switch kind {
			case killOne, killAll:
				f.length = between(200*time.Millisecond, maxDead)
			case stop:
				f.length = time.Duration(float64(time.Second) * math.Pow(maxStop.Seconds(), rng.Float64())).Round(time.Millisecond)
			default:
				f.length = between(500*time.Millisecond, maxCut)
			}
			plan = append(plan, f)
			at += between(minGap, maxGap)
		}
	}
}

func TestPlanOfFaults(t *testing.T) {
	for seed := range uint64(200) {
		for i, nodes := range []int{3, 5, 3, 5} {
			of := [][]string{faultKinds, diskKinds}[i/2]
			plan := planFaults(seed, nodes, of, 13*time.Second, 4*time.Second, 2*time.Second)
			if again := planFaults(seed, nodes, of, 13*time.Second, 4*time.Second, 2*time.Second); !slices.Equal(plan, again) {
				t.Fatalf("seed %d plans %v, and then %v", seed, plan, again)
			}
			seen, overlaps := map[string]bool{}, false
			for i, f := range plan {
				seen[f.kind] = true
				if f.a == f.b || f.a < 0 || f.b < 0 || f.a >= nodes || f.b >= nodes || f.length <= 0 {
					t.Fatalf("seed %d plans %v", seed, f)
				}
				if f.kind == stop && (f.length < time.Second || f.length > 4*time.Second) {
					t.Errorf("seed %d plans %v", seed, f)
				}
				overlaps = overlaps || i > 0 && plan[i-1].at+plan[i-1].length > f.at
			}
			if len(seen) != len(of) || !overlaps {
				t.Errorf("seed %d has the faults %v, overlaps %t", seed, seen, overlaps)
			}
		}
	}
	longest := time.Duration(0)
	for seed := range uint64(20) {
		for _, f := range planFaults(seed, 3, faultKinds, time.Minute, time.Minute, 5*time.Second) {
			if f.kind == stop {
				longest = max(longest, f.length)
			}
		}
	}
	if longest < 45*time.Second || longest > time.Minute {
		t.Errorf("the longest stop of 20 seeds takes %v", longest)
	}
}
