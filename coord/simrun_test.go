package coord_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/node/replica"
)

// storeDisk is the real store over the real engine on a memory file system.
type storeDisk struct {
	n   *simNode
	fs  *vfs.MemFS
	db  *engine.DB
	rep *replica.Store
	bad bool
}

func newStoreDisk(n *simNode) disk { return &storeDisk{n: n, fs: vfs.NewMem()} }

func (d *storeDisk) open(n *simNode, actor uint64) coord.Replica {
	fsys := vfs.Inject(d.fs, func(op vfs.Op) error {
		if d.bad && op.Kind == vfs.OpSync {
			return fmt.Errorf("sync of a broken disk")
		}
		return nil
	})
	rng := rand.New(rand.NewPCG(actor, 1))
	db, err := engine.Open("data", engine.Options{
		FS: fsys, Scheduler: n, Now: n.Now, Sleep: func(time.Duration) {}, Rand: rng.Uint64,
		MemTableSize: 128 << 10, WALSegmentSize: 128 << 10, CacheSize: 1 << 20,
	})
	if err != nil {
		panic(fmt.Sprintf("open %s: %v", n.name, err))
	}
	rep, err := replica.New(replica.Options{Engine: db, Actor: actor, Scheduler: n, Records: replica.NewRecordSpace(1<<30, n.Now)})
	if err != nil {
		panic(err)
	}
	d.db, d.rep = db, rep
	return rep
}

func (d *storeDisk) crash(rng *rand.Rand) {
	modes := vfs.CrashModes()
	d.fs = d.fs.Crash(modes[rng.IntN(len(modes))], rng)
	d.db, d.rep = nil, nil
}

func (d *storeDisk) failSyncs() { d.bad = true }

func (d *storeDisk) object(at coord.Address) (o causal.Object) {
	d.rep.Read(at, func(b []byte, err error) {
		var derr error
		if o, derr = causal.Decode(b); err != nil || derr != nil {
			panic(fmt.Sprint(err, derr))
		}
	})
	return o
}

func (d *storeDisk) record(at coord.Address, id []byte) (r *causal.Record) {
	// What is over counts here, too.
	d.rep.Lookup(at, id, time.Time{}, func(h coord.Held, err error) {
		if err != nil {
			panic(err)
		}
		r = h.Record
	})
	return r
}

// register is a key with one writer, which is checked as an atomic register if
// its level is QUORUM.
type register struct {
	key   string
	level quorum.Level
	// writes is how many were made.
	writes int
	// token covers seen.
	token   []byte
	seen    causal.Context
	retired bool // the fate of the last write is open, so no more are made
}

// simulation drives clients over a world with faults and records what they see.
type simulation struct {
	w     *world
	rec   *check.Recorder
	last  time.Duration
	keys  []*register
	ended bool
	done  map[string]int
	once  []*onceWriter
	// shared has many writers, and is no part of the history.
	shared *sharedKey
	// fails are what is wrong beside the history.
	fails []string
}

func (s *simulation) fail(format string, args ...any) {
	s.fails = append(s.fails, fmt.Sprintf("%v ", s.w.now)+fmt.Sprintf(format, args...))
}

// clientPatience is when a client gives up: its coordinator may be dead.
const clientPatience = 7 * time.Second

// newFaultyWorld is a simulation without clients. Each seed has its own mix of
// faults, which begin with start.
func newFaultyWorld(seed uint64) (s *simulation, start func()) {
	rng := rand.New(rand.NewPCG(seed, 3))
	nodes := 3 + 2*rng.IntN(2)
	s = &simulation{w: newWorld(seed, nodes, 3, newStoreDisk), rec: check.NewRecorder(nil), done: map[string]int{}}
	w := s.w
	some := func(p float64) float64 {
		if rng.IntN(2) == 0 {
			return 0
		}
		return p * rng.Float64()
	}
	w.net.jitter = time.Duration(rng.IntN(20)) * time.Millisecond
	w.net.drop, w.net.dup = some(0.1), some(0.2)
	for _, n := range w.nodes {
		switch rng.IntN(3) {
		case 0:
			n.skew = time.Duration(rng.IntN(20)-10) * time.Minute
		case 1:
			n.skew = -10 * time.Minute
		}
	}
	return s, func() { s.faults(some(1), some(1), some(1)) }
}

func newSimulation(seed uint64) *simulation {
	s, start := newFaultyWorld(seed)
	for i := range 6 {
		k := &register{key: "k" + strconv.Itoa(i), level: quorum.Quorum}
		if i == 5 {
			k.level = quorum.One
		}
		s.keys = append(s.keys, k)
		s.write(k)
		for r := range 2 {
			s.read(k, "reader "+strconv.Itoa(r))
		}
	}
	for i := range 2 {
		s.startOnce(oncePrefix + strconv.Itoa(i))
	}
	s.startShared()
	start()
	return s
}

// think is the pause between two operations of a client.
func (s *simulation) think() time.Duration { return time.Duration(s.w.rng.IntN(60)) * time.Millisecond }

func (s *simulation) pick() *simNode {
	for range 20 {
		if n := s.w.nodes[s.w.rng.IntN(len(s.w.nodes))]; n.up {
			return n
		}
	}
	return nil
}

// write is the next operation of a key's writer.
func (s *simulation) write(k *register) {
	s.w.after(s.think(), func() {
		n := s.pick()
		if s.ended || k.retired {
			return
		}
		if n == nil {
			s.write(k)
			return
		}
		k.writes++
		c := check.Call{Client: "writer", Kind: check.Put, Level: k.level, Value: fmt.Sprintf("%s/%d", k.key, k.writes)}
		if s.w.rng.IntN(4) == 0 {
			c.Kind, c.Value = check.Delete, ""
		}
		var token []byte
		if s.w.rng.IntN(2) == 0 && len(k.token) > 0 {
			token, c.Seen = k.token, k.seen
		}
		answer := s.call(n, k, c)
		answered := false
		finish := func(r coord.WriteResponse, err error) {
			if answered {
				return
			}
			answered = true
			answer(s.wrote(k, r, err))
			s.write(k)
		}
		s.w.after(clientPatience, func() {
			finish(coord.WriteResponse{}, &coord.Error{Code: errcode.Timeout, Outcome: errcode.Indeterminate})
		})
		if c.Kind == check.Delete {
			n.coord.StartDelete(coord.DeleteRequest{Tenant: simTenant, Key: []byte(k.key), Level: k.level, Token: token}, finish)
		} else {
			n.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: []byte(k.key), Value: []byte(c.Value), Level: k.level, Token: token}, finish)
		}
	})
}

func (s *simulation) wrote(k *register, r coord.WriteResponse, err error) check.Answer {
	if err != nil {
		a := failed(err)
		s.done["failed "+string(a.Outcome)]++
		k.retired = a.Outcome != check.NotApplied
		return a
	}
	s.done["written"]++
	if k.level != quorum.One {
		k.token, k.seen = r.Token, r.Context
	}
	return check.Answer{Outcome: check.OK, Dot: r.Dot, Context: r.Context}
}

// read is the next operation of one of a key's readers.
func (s *simulation) read(k *register, client string) {
	s.w.after(s.think(), func() {
		n := s.pick()
		if s.ended {
			return
		}
		if n == nil {
			s.read(k, client)
			return
		}
		answer := s.call(n, k, check.Call{Client: client, Kind: check.Get, Level: k.level})
		answered := false
		finish := func(r coord.GetResponse, err error) {
			if answered {
				return
			}
			answered = true
			answer(s.saw(r, err))
			s.read(k, client)
		}
		s.w.after(clientPatience, func() { finish(coord.GetResponse{}, &coord.Error{Code: errcode.Timeout}) })
		n.coord.StartGet(coord.GetRequest{Tenant: simTenant, Key: []byte(k.key), Level: k.level}, finish)
	})
}

func (s *simulation) saw(r coord.GetResponse, err error) check.Answer {
	switch {
	case err == nil:
		s.done["read"]++
		return check.Answer{Outcome: check.OK, Context: r.Context, Siblings: versions(r.Siblings)}
	case err.(*coord.Error).Code == errcode.KeyNotFound:
		s.done["read"]++
		return check.Answer{Outcome: check.OK}
	}
	s.done["reads failed"]++
	a := failed(err)
	a.Outcome = check.Indeterminate
	return a
}

// faults plans crashes, cuts and wrong opinions until the end.
func (s *simulation) faults(crashes, cuts, opinions float64) {
	w := s.w
	w.after(time.Duration(200+w.rng.IntN(800))*time.Millisecond, func() {
		if s.ended {
			return
		}
		n, m := w.nodes[w.rng.IntN(len(w.nodes))], w.nodes[w.rng.IntN(len(w.nodes))]
		soon := time.Duration(w.rng.IntN(3000)) * time.Millisecond
		switch w.rng.IntN(4) {
		case 0:
			if w.rng.Float64() < crashes && n.up {
				s.done["crashes"]++
				n.crash()
				w.after(soon, func() {
					if !n.up {
						n.boot()
					}
				})
			}
		case 1:
			if w.rng.Float64() < cuts && n != m {
				s.done["cuts"]++
				w.net.cut[[2]int{n.i, m.i}] = true
				oneWay := w.rng.IntN(2) == 0
				w.net.cut[[2]int{m.i, n.i}] = !oneWay
				w.after(soon, func() {
					delete(w.net.cut, [2]int{n.i, m.i})
					delete(w.net.cut, [2]int{m.i, n.i})
				})
			}
		case 2:
			if w.rng.Float64() < opinions && n != m && n.up {
				s.done["wrong opinions"]++
				n.believed[m.i] = []schema.Liveness{schema.Dead, schema.Suspect, schema.Left}[w.rng.IntN(3)]
				n.look()
				n.later(soon, func() { delete(n.believed, m.i); n.look() })
			}
		case 3:
			w.net.slow[n.i] = time.Duration(w.rng.IntN(400)) * time.Millisecond
			w.after(soon, func() { delete(w.net.slow, n.i) })
		}
		s.faults(crashes, cuts, opinions)
	})
}

// runSeed runs one simulation and returns its trace hash.
func runSeed(t *testing.T, seed uint64, log bool) (uint64, *simulation) {
	t.Helper()
	s := newSimulation(seed)
	if log {
		s.w.log = t.Logf
	}
	s.w.advance(15 * time.Second)
	s.verdict(t, seed, s.heal())
	return s.w.trace.Sum64(), s
}

var (
	simSeeds = flag.Int("sim.seeds", defaultSeeds, "how many random simulations to run")
	simFirst = flag.Uint64("sim.first", 1, "the first of them")
	simSeed  = flag.Uint64("sim.seed", 0, "the one seed to run, with its log; 0 for many")
)

func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		runSeed(t, *simSeed, true)
		return
	}
	total := map[string]int{}
	for seed := *simFirst; seed < *simFirst+uint64(*simSeeds); seed++ {
		_, s := runSeed(t, seed, false)
		for _, m := range []map[string]int{s.done, s.w.counts} {
			for k, v := range m {
				total[k] += v
			}
		}
		if t.Failed() {
			t.Fatalf("run again with -sim.seed=%d -v", seed)
		}
	}
	t.Logf("%d seeds: %v", *simSeeds, total)
	if *simSeeds < 20 {
		return // too few to be sure of every kind of fault
	}
	for _, must := range []string{"written once", "late retries", "duplicates", "shared", "written", "read", "crashes", "cuts", "remints", "read repairs", "forwards", "conflicts", "failed indeterminate"} {
		if total[must] == 0 {
			t.Errorf("no simulation had any %s", must)
		}
	}
}

func TestSimulationRepeats(t *testing.T) {
	for seed := range uint64(min(4, *simSeeds)) {
		a, _ := runSeed(t, seed+1, false)
		b, _ := runSeed(t, seed+1, false)
		if a != b {
			t.Errorf("seed %d has the traces %x and %x", seed+1, a, b)
		}
	}
}
