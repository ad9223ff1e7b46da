package coord_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
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
	rep, err := replica.New(replica.Options{Engine: db, Actor: actor, Scheduler: n})
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

// register is what the one writer of a key did, and what readers may see. Write
// 0 is the absence before the first.
type register struct {
	key    string
	level  quorum.Level
	writes []written
	// least is the oldest write that a QUORUM read starting now may return.
	least   int
	seen    causal.Context
	token   []byte
	retired bool // the fate of the last write is open, so no more are made
}

type written struct {
	deleted bool
	never   bool // the answer was not_applied
}

// simulation drives clients over a world with faults.
type simulation struct {
	w     *world
	keys  []*register
	dots  map[string]string
	fails []string
	ended bool
	done  map[string]int
}

func (s *simulation) fail(format string, args ...any) {
	s.fails = append(s.fails, fmt.Sprintf("%v ", s.w.now)+fmt.Sprintf(format, args...))
}

// newFaultyWorld is a simulation without clients. Each seed has its own mix of
// faults, which begin with start.
func newFaultyWorld(seed uint64) (s *simulation, start func()) {
	rng := rand.New(rand.NewPCG(seed, 3))
	nodes := 3 + 2*rng.IntN(2)
	s = &simulation{w: newWorld(seed, nodes, 3, newStoreDisk), dots: map[string]string{}, done: map[string]int{}}
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
		k := &register{key: "k" + strconv.Itoa(i), level: quorum.Quorum, writes: make([]written, 1)}
		k.writes[0].deleted = true
		if i == 5 {
			k.level = quorum.One
		}
		s.keys = append(s.keys, k)
		s.write(k)
		for range 2 {
			s.read(k)
		}
	}
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
		i := len(k.writes)
		del := s.w.rng.IntN(4) == 0
		k.writes = append(k.writes, written{deleted: del})
		var token []byte
		if s.w.rng.IntN(2) == 0 {
			token = k.token
		}
		answered := false
		finish := func(r coord.WriteResponse, err error) {
			if answered {
				return
			}
			answered = true
			s.wrote(k, i, r, err)
			s.write(k)
		}
		// The writer gives up when its coordinator dies.
		s.w.after(7*time.Second, func() {
			finish(coord.WriteResponse{}, &coord.Error{Code: errcode.Timeout, Outcome: errcode.Indeterminate})
		})
		if del {
			n.coord.StartDelete(coord.DeleteRequest{Tenant: simTenant, Key: []byte(k.key), Level: k.level, Token: token}, finish)
		} else {
			v := []byte(fmt.Sprintf("%s/%d", k.key, i))
			n.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: []byte(k.key), Value: v, Level: k.level, Token: token}, finish)
		}
	})
}

func (s *simulation) wrote(k *register, i int, r coord.WriteResponse, err error) {
	if err != nil {
		e := err.(*coord.Error)
		s.done["failed "+string(e.Outcome)]++
		switch e.Outcome {
		case errcode.NotApplied:
			k.writes[i].never = true
		case errcode.Indeterminate:
			k.retired = true
		default:
			s.fail("%s: a failed write has no outcome: %v", k.key, err)
		}
		s.w.note("%s write %d: %v", k.key, i, err)
		return
	}
	s.done["written"]++
	s.w.note("%s write %d: %s", k.key, i, dotString(r.Dot))
	if k.level == quorum.One {
		return
	}
	k.token = r.Token
	k.least = max(k.least, i)
	k.seen = causal.JoinContext(k.seen, r.Context)
}

// read is the next operation of one of a key's readers.
func (s *simulation) read(k *register) {
	s.w.after(s.think(), func() {
		n := s.pick()
		if s.ended {
			return
		}
		if n == nil {
			s.read(k)
			return
		}
		least, seen := k.least, k.seen
		answered := false
		finish := func(r coord.GetResponse, err error) {
			if answered {
				return
			}
			answered = true
			s.saw(k, least, seen, r, err)
			s.read(k)
		}
		s.w.after(7*time.Second, func() { finish(coord.GetResponse{}, &coord.Error{Code: errcode.Timeout}) })
		n.coord.StartGet(coord.GetRequest{Tenant: simTenant, Key: []byte(k.key), Level: k.level}, finish)
	})
}

// saw checks what a read returned against what it had to.
func (s *simulation) saw(k *register, least int, seen causal.Context, r coord.GetResponse, err error) {
	got := -1
	switch {
	case err == nil:
		v := string(r.Siblings[0].Value)
		s.dot(r.Siblings[0].Dot, v)
		key, num, _ := strings.Cut(v, "/")
		if got, _ = strconv.Atoi(num); key != k.key || got >= len(k.writes) {
			s.fail("%s: read %q, which nobody wrote", k.key, v)
			return
		}
		if k.writes[got].never {
			s.fail("%s: read write %d, which was not applied", k.key, got)
		}
		if k.level == quorum.Quorum && !r.Context.CoversAll(seen) {
			s.fail("%s: a context went back from %v to %v", k.key, seen, r.Context)
		}
	case err.(*coord.Error).Code == errcode.KeyNotFound:
		// The oldest deletion that is not too old.
		for i := least; i < len(k.writes); i++ {
			if k.writes[i].deleted && !k.writes[i].never {
				got = i
				break
			}
		}
		if k.level == quorum.Quorum && got < 0 {
			s.fail("%s: absent, but write %d was acknowledged or seen", k.key, least)
			return
		}
	default:
		s.done["reads failed"]++
		return
	}
	s.done["read"]++
	s.w.note("%s read %d (at least %d) %v", k.key, got, least, err)
	if k.level != quorum.Quorum {
		return
	}
	if got < least {
		s.fail("%s: read write %d after write %d was acknowledged or seen", k.key, got, least)
	}
	k.least = max(k.least, got)
	if err == nil {
		k.seen = causal.JoinContext(k.seen, r.Context)
	}
}

// dot checks that a dot never names two values. Counters are per partition, and
// so are the values' keys here.
func (s *simulation) dot(d causal.Dot, value string) {
	key, _, _ := strings.Cut(value, "/")
	name := fmt.Sprint(s.w.address(key).Partition, d)
	if old, ok := s.dots[name]; ok && old != value {
		s.fail("dot %s is %q and %q", dotString(d), old, value)
	}
	s.dots[name] = value
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

// heal ends all faults, lets everything in flight end, reads every key from all
// owners and compares their copies.
func (s *simulation) heal() {
	w := s.w
	s.ended = true
	w.net = network{delay: time.Millisecond, cut: map[[2]int]bool{}, slow: map[int]time.Duration{}}
	for _, n := range w.nodes {
		if !n.up {
			n.boot()
		}
		n.believed = map[int]schema.Liveness{}
		n.look()
	}
	w.advance(20 * time.Second)
	for _, k := range s.keys {
		answered := 0
		least, seen := k.least, k.seen
		n := w.nodes[w.rng.IntN(len(w.nodes))]
		n.coord.StartGet(coord.GetRequest{Tenant: simTenant, Key: []byte(k.key), Level: quorum.All}, func(r coord.GetResponse, err error) {
			answered++
			if err != nil && err.(*coord.Error).Code != errcode.KeyNotFound {
				s.fail("%s: a healthy cluster refuses to read: %v", k.key, err)
			}
			s.saw(k, least, seen, r, err)
		})
		w.advance(4 * time.Second)
		if answered != 1 {
			s.fail("%s: %d answers", k.key, answered)
		}
		at := w.address(k.key)
		var first causal.Object
		for i, id := range w.layout.Owners(nil, at.Partition, 3) {
			o := w.nodes[id[0]-1].disk.object(at)
			for j := range o.Siblings {
				if t := &o.Siblings[j]; t.Flags&(causal.FlagTombstone|causal.FlagStripped) == 0 {
					s.dot(t.Dot, string(t.Value))
				}
			}
			if i == 0 {
				first = o
			} else if !o.Equal(&first) {
				s.fail("%s: owners differ: %s and %s", k.key, objectString(first), objectString(o))
			}
		}
	}
}

// runSeed runs one simulation and returns its trace hash.
func runSeed(t *testing.T, seed uint64, log bool) (uint64, *simulation) {
	t.Helper()
	s := newSimulation(seed)
	if log {
		s.w.log = t.Logf
	}
	s.w.advance(15 * time.Second)
	s.heal()
	for _, f := range s.fails {
		t.Errorf("seed %d: %s", seed, f)
	}
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
	for _, must := range []string{"written", "read", "crashes", "cuts", "remints", "read repairs", "forwards", "conflicts", "failed indeterminate"} {
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
