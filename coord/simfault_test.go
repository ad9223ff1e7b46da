package coord_test

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pairdb/pairdb/gossip/schema"
)

// harm is what a crash does to a disk besides what it always does.
type harm int

const (
	// keepDisk: what was synced stays.
	keepDisk harm = iota
	// setMetaBack: the metadata is what it was before the last start.
	setMetaBack
	// setDiskBack: the data, too. Such an owner has forgotten what it
	// acknowledged, so of what is promised only that stays which does not rest
	// on owners' memory.
	setDiskBack
	// wipeDisk: all is gone. It is worse than setDiskBack.
	wipeDisk
)

func (h harm) String() string {
	return [...]string{"kept", "metadata set back", "set back", "wiped"}[h]
}

// The kinds of fault.
const (
	faultCrash = iota
	faultCut
	faultOpinion
	faultSlow
	faultPause
	faultDisk
	faultJoin
	faultLeave
	faultLoss
	faultWeigh
	faultReorder
	faultAbort
	faultDeaf
	faultFactor
	faultTenant
)

// fault is something that befalls a node, decided before the run begins. Its
// number is its place among all of the seed.
type fault struct {
	kind       int
	at, length time.Duration
	node, peer int
	// Only some kinds use these.
	harm    harm
	oneWay  bool
	opinion schema.Liveness
	delay   time.Duration
}

func (f fault) String() string {
	text := fmt.Sprintf("%v to %v: ", f.at, f.at+f.length)
	a, b := nodeName(f.node), nodeName(f.peer)
	switch f.kind {
	case faultCrash:
		return text + a + " is down, disk " + f.harm.String()
	case faultCut:
		if f.oneWay {
			return text + a + " does not reach " + b
		}
		return text + a + " and " + b + " do not reach each other"
	case faultOpinion:
		return fmt.Sprintf("%s%s believes that %s is %v", text, a, b, f.opinion)
	case faultPause:
		return text + a + " is stopped"
	case faultDisk:
		return fmt.Sprintf("%s a sync of %s takes %v more", text, a, f.delay)
	case faultSlow:
		return fmt.Sprintf("%s%s is %v slow", text, a, f.delay)
	default:
		return text + f.changeString()
	}
}

// drawFaults draws the faults of a seed: crashes, cuts, wrong opinions and slow
// nodes, each kind as often as this seed has it.
func drawFaults(rng *rand.Rand, nodes int, until time.Duration, forgetful bool) []fault {
	often := []float64{faultCrash: some(rng, 1), faultCut: some(rng, 1), faultOpinion: some(rng, 1), faultSlow: 1}
	if forgetful {
		often[faultCrash] = 1
	}
	var all []fault
	for at := time.Duration(0); at < until; {
		at += time.Duration(200+rng.IntN(800)) * time.Millisecond
		f := fault{
			at: at, length: time.Duration(rng.IntN(3000)) * time.Millisecond,
			kind: rng.IntN(4), node: rng.IntN(nodes), peer: rng.IntN(nodes), oneWay: rng.IntN(2) == 0,
			opinion: []schema.Liveness{schema.Dead, schema.Suspect, schema.Left}[rng.IntN(3)],
			delay:   time.Duration(rng.IntN(400)) * time.Millisecond,
			harm:    harm(rng.IntN(4)),
		}
		if !forgetful {
			f.harm %= setDiskBack
		}
		happens := rng.Float64() < often[f.kind]
		alone := f.kind == faultCrash || f.kind == faultSlow
		if happens && (alone || f.node != f.peer) {
			all = append(all, f)
		}
	}
	return all
}

// drawPauses draws when nodes are stopped and go on, and when their disks are slow. They
// have a source of their own and come last, so that the numbers of the others stay.
func drawPauses(rng *rand.Rand, nodes int, until time.Duration) (all []fault) {
	often := some(rng, 1)
	for at := time.Duration(0); at < until; {
		at += time.Duration(500+rng.IntN(3000)) * time.Millisecond
		f := fault{
			at: at, length: time.Duration(rng.IntN(5000)) * time.Millisecond, kind: faultPause + rng.IntN(2), node: rng.IntN(nodes),
			delay: time.Duration(rng.IntN(2000)) * time.Millisecond,
		}
		if rng.Float64() < often {
			all = append(all, f)
		}
	}
	return all
}

// stop is that a node does not run.
type stop struct {
	node     int
	from, to time.Duration
}

// standstill is until when a node may have stood still that was sent something at a time
// or in the patience after it: longer than one pause where they overlap.
func (w *world) standstill(at time.Duration) (until time.Duration) {
	for i := range w.nodes {
		end := at + clientPatience
		for _, p := range w.stops { // they rise
			if p.node == i && p.from <= end && p.to > at {
				end = max(end, p.to)
				until = max(until, p.to)
			}
		}
	}
	return until
}

// some is how often something happens: never in half of the cases.
func some(rng *rand.Rand, most float64) float64 {
	if rng.IntN(2) == 0 {
		return 0
	}
	return most * rng.Float64()
}

// strike makes fault number i happen.
func (s *simulation) strike(i int, f fault) {
	w := s.w
	n, m := w.nodes[f.node], w.nodes[f.peer]
	w.note("fault %d, %v", i, f)
	switch f.kind {
	case faultCrash:
		if !n.up {
			return
		}
		if n.member != nil {
			f.harm = keepDisk // what its metadata has promised must not be forgotten
		}
		s.done["crashes"]++
		s.done["disks "+f.harm.String()]++
		n.crash(rand.New(rand.NewPCG(w.seed, uint64(i))), f.harm)
		w.after(f.length, func() {
			if !n.up && !n.never() {
				n.boot()
			}
		})
	case faultCut:
		s.done["cuts"]++
		w.net.cut[[2]int{n.i, m.i}] = true
		w.net.cut[[2]int{m.i, n.i}] = !f.oneWay
		w.after(f.length, func() {
			delete(w.net.cut, [2]int{n.i, m.i})
			delete(w.net.cut, [2]int{m.i, n.i})
		})
	case faultOpinion:
		if !n.up {
			return
		}
		s.done["wrong opinions"]++
		n.believed[m.i] = f.opinion
		n.look()
		n.later(f.length, func() { delete(n.believed, m.i); n.look() })
	case faultPause:
		s.done["pauses"]++
		w.stops = append(w.stops, stop{n.i, w.now, w.now + f.length})
		n.stopped = max(n.stopped, w.now+f.length)
	case faultDisk:
		s.done["slow disks"]++
		n.syncing = f.delay
		w.after(f.length, func() { n.syncing = 0 })
	case faultSlow:
		s.done["slow nodes"]++
		w.net.slow[n.i] = f.delay
		w.after(f.length, func() { delete(w.net.slow, n.i) })
	default:
		s.strikeRing(f)
	}
}
