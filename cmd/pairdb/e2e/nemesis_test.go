package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/engine/kerneltest"
)

var (
	nemesisSeeds   = flag.Int("nemesis.seeds", 2, "how many clusters to hurt, of three nodes where the seed is odd and of five where it is even")
	nemesisFirst   = flag.Uint64("nemesis.first", 1, "the first of their seeds")
	nemesisTime    = flag.Duration("nemesis.time", 14*time.Second, "how long clients and faults of each last")
	nemesisStop    = flag.Duration("nemesis.stop", 4*time.Second, "the longest SIGSTOP")
	nemesisGap     = flag.Duration("nemesis.gap", 2*time.Second, "the longest time between the beginnings of two faults, at least a second")
	nemesisHistory = flag.String("nemesis.history", "", "a history that an earlier run left, to be judged again; nothing is run then")
)

// storm is one cluster of real processes, each in a network namespace of its
// own, with clients whose every operation is recorded, and with faults.
type storm struct {
	t    *testing.T
	seed uint64
	lan  *lan
	// here are the nodes that clients talk to, and that are there in the end.
	here    atomic.Pointer[[]int]
	disks   []*kerneltest.Loop // of the nodes, nil if they have none of their own
	rounds  bool               // in the end rounds make all owners equal, and not reads
	agents  []*agent
	clients []*client.Client // one for each agent
	lives   []*life
	// tracers are those under which syncs fail, by node; ports are the hosts of which
	// a port is cut, by port. The nemesis alone uses both.
	tracers []*tracer
	ports   map[int]int
	// must says within which time an operation has to succeed; 0: it may fail.
	must  func(o *check.Op) time.Duration
	rec   *check.Recorder
	began time.Time
	ended chan struct{}  // closed when clients begin nothing more
	late  sync.WaitGroup // one for each late attempt

	registers [registers]recent
	set       recent

	mu   sync.Mutex
	done map[string]int // counts what happened
}

// present are the nodes that clients talk to, and that are there in the end.
func (s *storm) present() []int { return *s.here.Load() }

// note counts what happened, and returns how often it has by now.
func (s *storm) note(what string, n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done[what] += n
	return s.done[what]
}

// wrong fails the test. Only the first hundred times are described.
func (s *storm) wrong(format string, args ...any) {
	if s.note("violations", 1) > 100 {
		s.t.Fail()
		return
	}
	s.t.Errorf("seed %d: "+format, append([]any{s.seed}, args...)...)
}

// TestNemesis hurts clusters of real processes in every way that a plan has,
// while clients do all that they may, and judges what the clients were told.
func TestNemesis(t *testing.T) {
	t.Parallel()
	if *nemesisHistory != "" {
		judgeFile(t, *nemesisHistory)
		return
	}
	nemesis(t, *nemesisSeeds, *nemesisTime, faultKinds, newStorm)
}

// TestNemesisOfDisks does the same with what befalls disks, and parts of the network.
func TestNemesisOfDisks(t *testing.T) {
	t.Parallel()
	if *nemesisHistory != "" {
		return // TestNemesis judges it
	}
	nemesis(t, (*nemesisSeeds+1)/2, *nemesisTime+*nemesisTime/2, diskKinds, newStormOnDisks)
}

// nemesis runs a number of seeds with faults of some kinds, each for a time.
func nemesis(t *testing.T, seeds int, length time.Duration, kinds []string, found func(t *testing.T, seed uint64, nodes int) *storm) {
	total := map[string]int{}
	for seed := *nemesisFirst; seed < *nemesisFirst+uint64(seeds) && !t.Failed(); seed++ {
		nodes := 5 - 2*int(seed%2)
		t.Run(fmt.Sprintf("%d-nodes-seed-%d", nodes, seed), func(t *testing.T) {
			for what, n := range found(t, seed, nodes).run(length, planFaults(seed, nodes, kinds, length, *nemesisStop, *nemesisGap)) {
				total[what] += n
			}
		})
	}
	t.Logf("%d seeds: %v", seeds, total)
	if t.Failed() {
		return
	}
	for _, must := range append([]string{
		"idempotent writes", "late attempts", "get quorum ok", "get one ok", "get all ok", "put quorum ok", "put one ok", "put all ok",
		"delete quorum ok", "siblings read", "items in carts", "registers", "duplicates", "values that expire", "objects compared",
	}, kinds...) {
		if total[must] == 0 {
			t.Errorf("no run had any %s", must)
		}
	}
}

// newStorm founds a cluster and makes the tenants.
func newStorm(t *testing.T, seed uint64, nodes int) *storm {
	t.Helper()
	return newStormOn(t, seed, nodes, nil)
}

// newStormOnDisks is newStorm with a small file system for the data of each node.
func newStormOnDisks(t *testing.T, seed uint64, nodes int) *storm {
	t.Helper()
	var disks []*kerneltest.Loop
	for range nodes {
		disks = append(disks, kerneltest.Mount(t, stormDisk))
	}
	return newStormOn(t, seed, nodes, disks,
		"--set", "repair.interval=10s", "--set", "timeouts.write=2s", "--set", "repair.settle=3s")
}

// stormDisk is the size of a node's file system, in bytes.
const stormDisk = 128 << 20

// newStormOn founds a cluster with further arguments, with which rounds are so frequent
// that the storm can wait for them.
func newStormOn(t *testing.T, seed uint64, nodes int, disks []*kerneltest.Loop, args ...string) *storm {
	t.Helper()
	var all []int
	for i := range nodes {
		all = append(all, i)
	}
	return newStormOf(t, seed, nodes, all, disks, args...)
}

// newStormOf is newStormOn with a place for more nodes than found it: those join when
// they are started.
func newStormOf(t *testing.T, seed uint64, nodes int, founders []int, disks []*kerneltest.Loop, args ...string) *storm {
	t.Helper()
	s := &storm{
		t: t, seed: seed, lan: newLAN(t, nodes), disks: disks, lives: make([]*life, nodes), tracers: make([]*tracer, nodes),
		rounds: len(args) > 0, ended: make(chan struct{}), ports: map[int]int{}, done: map[string]int{}, must: mustHeal,
	}
	s.here.Store(&founders)
	root := t.TempDir()
	for i := range nodes {
		name := fmt.Sprintf("node-%d", i+1)
		a := &agent{
			t: t, name: name, dir: filepath.Join(root, name), netns: s.lan.hosts[i], ports: []int{50051, 50052, 8080, 7946},
			args: []string{"--bind", hostAddress(i), "--insecure", "--join", hostAddress(0) + "," + hostAddress(1)},
		}
		if slices.Contains(founders, i) {
			a.args = append(a.args, "--bootstrap-expect", fmt.Sprint(len(founders)))
		}
		a.args = append(a.args, args...)
		if disks != nil {
			a.data = filepath.Join(disks[i].Dir, "data")
		}
		s.agents = append(s.agents, a)
		c, err := client.New(client.Options{
			Endpoints: []string{hostAddress(i) + ":50051"}, NoRouting: true, Retries: -1, Timeout: patience,
			DialOptions: []grpc.DialOption{grpc.WithContextDialer(s.lan.dial)},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		s.clients = append(s.clients, c)
		if slices.Contains(founders, i) {
			s.revive(i)
		}
	}
	t.Cleanup(func() {
		for i := range s.agents {
			if s.lives[i] != nil {
				s.kill(i)
			}
		}
	})
	s.waitHealthy()
	for tenant, policy := range map[string]client.ConflictPolicy{
		otherTenant:   pairdbv1.ConflictPolicy_CONFLICT_POLICY_LWW,
		siblingTenant: pairdbv1.ConflictPolicy_CONFLICT_POLICY_SIBLINGS,
	} {
		if _, err := s.clients[0].CreateTenant(t.Context(), client.NewTenant{ID: tenant, ConflictPolicy: policy}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// run carries out a plan under load, heals the cluster and judges it. It returns
// what happened.
func (s *storm) run(length time.Duration, plan []fault) map[string]int {
	return s.drive(func() {
		var nemesis sync.WaitGroup
		nemesis.Go(func() { s.hurt(plan) })
		<-time.After(length)
		close(s.ended)
		nemesis.Wait()
	}, func() {
		s.t.Logf("run again with -nemesis.first=%d -nemesis.seeds=1 -nemesis.time=%s -nemesis.stop=%s -nemesis.gap=%s", s.seed, *nemesisTime, *nemesisStop, *nemesisGap)
		for _, f := range plan {
			s.t.Log(f)
		}
	})
}

// drive does something under load, which ends the clients, heals the cluster and judges
// it. It returns what happened; again tells how to have it happen again.
func (s *storm) drive(do, again func()) map[string]int {
	t := s.t
	file, err := os.CreateTemp("", fmt.Sprintf("pairdb-nemesis-%d-*.jsonl", s.seed))
	if err != nil {
		t.Fatal(err)
	}
	// A run that hangs ends with none of this test's words, but with this.
	fmt.Fprintf(os.Stderr, "nemesis: seed %d, %d nodes: the history is written to %s\n", s.seed, len(s.agents), file.Name())
	t.Cleanup(func() {
		err := file.Close()
		if !t.Failed() && err == nil {
			err = os.Remove(file.Name())
		} else {
			t.Logf("judge the history again with -nemesis.history=%s", file.Name())
			again()
		}
		if err != nil {
			t.Error(err)
		}
	})
	s.rec, s.began = check.NewRecorder(file), time.Now()

	var clients sync.WaitGroup
	for k, kind := range clientKinds {
		for i := range kind.count {
			rng := rand.New(rand.NewPCG(s.seed, uint64(100*k+i)))
			clients.Go(func() { kind.run(s, i, rng) })
		}
	}
	do()
	loaded := time.Since(s.began)
	s.heal()
	healed := time.Since(s.began)
	clients.Wait()
	s.late.Wait()
	places := s.locate()
	var confirmed map[string]causal.Context
	if s.rounds {
		// Nothing is read before, which would mend it.
		confirmed = s.converge(places, s.repaired())
		for _, i := range s.present() {
			s.revive(i)
		}
		s.waitHealthy()
	}
	s.readAll()
	read := time.Since(s.began)
	if !s.rounds {
		confirmed = s.converge(places, time.Time{})
	}
	s.verdict(places, confirmed)
	s.note("seconds", int(time.Since(s.began).Seconds()))
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Logf("%d nodes, %v of load, healthy %v later, all keys read after %v, judged after %v: %v", len(s.present()),
		loaded.Round(time.Millisecond), (healed - loaded).Round(time.Millisecond), read.Round(time.Millisecond), time.Since(s.began).Round(time.Millisecond), s.done)
	return s.done
}
