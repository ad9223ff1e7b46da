package coord_test

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/pairdb/pairdb/check"
)

// simulation drives clients over a world with faults and records what they see.
type simulation struct {
	plan plan
	w    *world
	rec  *check.Recorder
	last time.Duration
	// slower is how many times longer than else clients think, 0 for no longer.
	slower time.Duration
	// faults are all of the seed, also those that the plan leaves out, and names
	// all keys.
	faults []fault
	names  []string
	keys   []*register
	ended  bool
	done   map[string]int
	once   []*onceWriter
	shared *sharedKey // nil if the plan leaves it out
	kept   []*keptKey
	// shown is how many values the last read of each key returned.
	shown map[string]int
	// found is what is wrong so far.
	found []failure
}

// failure is a broken promise.
type failure struct {
	// checker is who found it.
	checker string
	// at is when it had happened.
	at   time.Duration
	text string
}

func (f failure) String() string { return fmt.Sprintf("%v, %s: %s", f.at, f.checker, f.text) }

// ownChecks is the checker of what the simulation checks itself, and panicked
// what is told of a panic.
const (
	ownChecks = "simulation"
	panicked  = "panic"
)

func (s *simulation) fail(format string, args ...any) {
	s.found = append(s.found, failure{ownChecks, s.w.now, fmt.Sprintf(format, args...)})
}

// simKind is a kind of simulation: other clients, other faults, other promises.
type simKind struct {
	// begin is when the faults begin, counted from the start; end counts from
	// then.
	begin time.Duration
	// end is when clients and faults stop if the plan does not say.
	end time.Duration
	// run starts clients, lets them run until the plan's end and judges.
	run func(s *simulation)
}

// The kinds.
const (
	kindRegisters = "registers"
	kindSiblings  = "siblings"
	kindForgetful = "forgetful"
	kindTTL       = "ttl"
	kindScans     = "scans"
	kindRepair    = "repair"
	kindRing      = "ring"
)

var kinds map[string]simKind

func init() { // they refer to themselves
	kinds = map[string]simKind{
		kindRegisters: {0, 15 * time.Second, (*simulation).runRegisters},
		kindSiblings:  {0, 10 * time.Second, (*simulation).runSiblings},
		kindForgetful: {0, 10 * time.Second, (*simulation).runForgetful},
		kindTTL:       {0, 15 * time.Second, (*simulation).runTTL},
		kindScans:     {scanBegin, 10 * time.Second, (*simulation).runScans},
		kindRepair:    {0, 12 * time.Second, (*simulation).runRepair},
		kindRing:      {ringBegin, 20 * time.Second, (*simulation).runRing},
	}
}

// bench is where a run takes place.
type bench struct {
	// newDisk makes the nodes' disks; nil makes them sound.
	newDisk func(*simNode) disk
	// log takes each line of the trace; it may be nil.
	log func(line string)
	// planted are mistakes that the simulation has to find.
	planted planted
}

// outcome is what became of a run.
type outcome struct {
	trace  uint64
	counts map[string]int
	faults []fault
	names  []string
	found  []failure
}

// has reports whether a checker found something.
func (o *outcome) has(checker string) bool {
	for _, f := range o.found {
		if f.checker == checker {
			return true
		}
	}
	return false
}

// run runs a plan. It is deterministic.
func (b bench) run(p plan) (o *outcome) {
	o = &outcome{counts: map[string]int{}}
	s := &simulation{plan: p, rec: check.NewRecorder(nil), done: map[string]int{}, shown: map[string]int{}}
	defer func() {
		if r := recover(); r != nil {
			at := time.Duration(0)
			if s.w != nil {
				at = s.w.now
			}
			s.found = append(s.found, failure{panicked, at, fmt.Sprintf("%v\n%s", r, debug.Stack())})
		}
		o.faults, o.names, o.found = s.faults, s.names, s.found
	}()
	s.build(b)
	kinds[p.kind].run(s)
	s.knowsPlan()
	o.trace = s.w.trace.Sum64()
	for _, m := range []map[string]int{s.done, s.w.counts} {
		for name, n := range m {
			o.counts[name] += n
		}
	}
	return o
}

// knowsPlan fails a run whose plan names what the seed does not have: it is not the
// run that was meant.
func (s *simulation) knowsPlan() {
	for _, n := range s.plan.faults {
		if n >= len(s.faults) {
			s.fail("the plan names fault %d, and the seed has %d", n, len(s.faults))
		}
	}
	for _, key := range s.plan.keys {
		if !slices.Contains(s.names, key) {
			s.fail("the plan names the key %q, which there is not", key)
		}
	}
}

// build makes the cluster of the seed, with its network, clocks and faults.
func (s *simulation) build(b bench) {
	p := s.plan
	if b.newDisk == nil {
		b.newDisk = newStoreDisk
	}
	rng := rand.New(rand.NewPCG(p.seed, 3))
	nodes := 3 + 2*rng.IntN(2)
	if p.kind == kindRing {
		s.w = newRingWorld(p.seed, drawStart(p.seed), b)
		nodes = len(s.w.nodes)
	} else {
		s.w = newWorld(p.seed, nodes, 3, b.newDisk)
	}
	w := s.w
	w.log = b.log
	jitter, drop, dup := time.Duration(rng.IntN(20))*time.Millisecond, some(rng, 0.1), some(rng, 0.2)
	if p.isOn("jitter") {
		w.net.jitter = jitter
	}
	if p.isOn("drop") {
		w.net.drop = drop
	}
	if p.isOn("dup") {
		w.net.dup = dup
	}
	for _, n := range w.nodes {
		skew := time.Duration(rng.IntN(20)-10) * time.Minute
		switch rng.IntN(3) {
		case 0:
			skew = 0
		case 1:
			skew = -10 * time.Minute
		}
		if p.isOn("skew") {
			n.skew = skew
		}
	}
	// The faults are the seed's, however early the plan ends.
	s.faults = drawFaults(rng, nodes, kinds[p.kind].end, p.kind == kindForgetful)
	s.faults = append(s.faults, drawPauses(rand.New(rand.NewPCG(p.seed, 4)), nodes, kinds[p.kind].end)...)
	if p.kind == kindRing {
		s.faults = append(s.faults, drawChanges(rand.New(rand.NewPCG(p.seed, 6)), drawStart(p.seed), kinds[p.kind].end)...)
		s.faults = append(s.faults, drawTenants(rand.New(rand.NewPCG(p.seed, 9)), drawStart(p.seed), kinds[p.kind].end)...)
	}
	for i, f := range s.faults {
		if p.hasFault(i) {
			w.after(kinds[p.kind].begin+f.at, func() {
				if !s.ended {
					s.strike(i, f)
				}
			})
		}
	}
}

// starts says that a key has clients in this run.
func (s *simulation) starts(key string) bool {
	s.names = append(s.names, key)
	return s.plan.hasKey(key)
}

// startRegisters starts the clients of the first tenant.
func (s *simulation) startRegisters() {
	for i := range 8 {
		k := &register{key: "k" + strconv.Itoa(i), writeAt: atQuorum, readAt: atMost}
		switch i {
		case 5:
			k.writeAt, k.readAt = atOne, atOne
		case 6:
			k.writeAt, k.readAt = atAll, atEvery
		case 7:
			k.writeAt, k.readAt, k.goes = atEvery, atEvery, true
		}
		if !s.starts(k.key) {
			continue
		}
		s.keys = append(s.keys, k)
		s.write(k)
		for r := range 2 {
			s.read(k, "reader "+strconv.Itoa(r))
		}
	}
	for i := range 2 {
		if key := oncePrefix + strconv.Itoa(i); s.starts(key) {
			s.startOnce(key)
		}
	}
	if s.starts(sharedName) {
		s.startShared()
	}
}

func (s *simulation) runRegisters() {
	s.startRegisters()
	s.w.advance(s.plan.until())
	s.heal()
	s.verdict(s.readAll(simTenant))
}

// runForgetful has disks that are wiped or set back while their nodes are down.
// An owner that has forgotten what it acknowledged must not vote, and a real node
// refuses to start on such a disk where it can tell; here it votes, so nothing
// that rests on quorums holds. What holds is that no dot is used twice, and that
// nothing panics.
func (s *simulation) runForgetful() {
	s.startRegisters()
	s.w.advance(s.plan.until())
	s.heal()
	s.readAll(simTenant)
	s.dotsNameOne()
}
