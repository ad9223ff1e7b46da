package meta_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/meta/storetest"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

func TestMemStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) (meta.Store, func() meta.Store) {
		m := &storetest.Mem{}
		return m, func() meta.Store { m.Restart(); return m }
	})
}

// up founds a cluster of n and waits until it is calm.
func up(t testing.TB, seed uint64, n int) *world {
	w := newWorld(t, seed, n, n)
	for i := range w.nodes {
		w.boot(i)
	}
	w.calm(30)
	w.check(n)
	return w
}

func TestFoundTogether(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 7} {
		w := up(t, uint64(n), n)
		s := w.nodes[0].core.Snapshot()
		if len(s.Layout.Nodes()) != n || s.Version != 1 || len(s.TokenKeys) != 1 {
			t.Errorf("%d nodes: layout of %d at version %d", n, len(s.Layout.Nodes()), s.Version)
		}
		if d, ok := s.Tenant("default"); !ok || d.Number != 1 || d.RF != 3 || d.Policy != schema.PolicyLWW {
			t.Errorf("default tenant: %+v", d)
		}
	}
}

func TestTenantsInTwoPlacesAtOnce(t *testing.T) {
	w := up(t, 1, 3)
	for i := range 5 {
		name := fmt.Sprintf("shop-%d", i)
		w.create(0, name)
		w.create(1, name)
		w.create(2, fmt.Sprintf("other-%d", i))
		w.calm(400)
		if len(w.won[name]) != 1 || len(w.lost[name]) != 1 {
			t.Fatalf("%s: created at %v, refused at %v, failed %v", name, w.won[name], w.lost[name], w.failed)
		}
	}
	w.check(3)
	s := w.nodes[2].core.Snapshot()
	if len(s.Tenants()) != 11 {
		t.Errorf("%d tenants, want 11", len(s.Tenants()))
	}
	numbers := map[ring.TenantNumber]bool{}
	for _, tenant := range s.Tenants() {
		numbers[tenant.Number] = true
	}
	if len(numbers) != 11 {
		t.Errorf("numbers repeat: %v", numbers)
	}
}

// A proposer dies after its entry was chosen and before anyone was told.
func TestChosenEntryOutlivesItsProposer(t *testing.T) {
	w := up(t, 3, 3)
	w.create(0, "orphan")
	for range 100 {
		at := slices.IndexFunc(w.net, func(p parcel) bool {
			return p.send.Method == meta.MethodPrepare || p.send.Method == meta.MethodAccept && !p.reply
		})
		if at < 0 {
			break
		}
		p := w.net[at]
		w.net = slices.Delete(w.net, at, at+1)
		w.carry(p)
	}
	w.crash(0)
	w.net = nil
	if _, ok := w.nodes[1].core.Snapshot().Tenant("orphan"); ok {
		t.Fatal("node 2 knows too early for this test")
	}
	w.nodes[1].core.Exchange(w.nodes[2].id) // the digests differ or not; an exchange tells
	w.settle(1)
	for len(w.net) > 0 {
		p := w.net[0]
		w.net = w.net[1:]
		w.carry(p)
	}
	if _, ok := w.nodes[1].core.Snapshot().Tenant("orphan"); !ok {
		t.Error("a chosen entry was not learned from the votes")
	}
	w.calm(30)
	w.check(3)
}

// TestDecideRevivesNothing: a node alone voted for a tenant, and the others have decided
// otherwise, which it does not know. When it brings the slot to its end it learns that, and
// proposes the tenant nowhere else: who wanted it may have been told that there is none.
func TestDecideRevivesNothing(t *testing.T) {
	w := up(t, 8, 3)
	alone := w.nodes[0]
	w.create(0, "lonely")
	for slices.ContainsFunc(w.net, func(p parcel) bool { return p.send.Method == meta.MethodPrepare }) {
		p := w.net[0]
		w.net = w.net[1:]
		if p.send.Method == meta.MethodPrepare {
			w.carry(p)
		}
	}
	if !alone.core.EndProposal() || !alone.core.Undecided() {
		t.Fatal("nobody has voted for it")
	}
	alone.want, w.net = "", nil
	w.cut = map[[2]int]bool{{0, 1}: true, {0, 2}: true, {1, 0}: true, {2, 0}: true}
	w.create(1, "other")
	w.calmOnly(400, 1, 2)
	if _, ok := w.nodes[1].core.Snapshot().Tenant("other"); !ok || !alone.core.Undecided() {
		t.Fatal("the others have decided nothing, or it is known")
	}
	clear(w.cut)
	if err := alone.core.Decide(); err != nil {
		t.Fatal(err)
	}
	w.settle(0)
	for i := 0; i < 400 && alone.core.Proposal() == nil; i++ {
		w.tick(0)
		for len(w.net) > 0 {
			p := w.net[0]
			w.net = w.net[1:]
			w.carry(p)
		}
	}
	if r := alone.core.Proposal(); r == nil || !errors.Is(r.Err, meta.ErrVoid) {
		t.Errorf("%+v", r)
	}
	if alone.core.EndProposal() || alone.core.Undecided() {
		t.Error("it is undecided still")
	}
	w.calm(400)
	for _, m := range w.nodes {
		if _, ok := m.core.Snapshot().Tenant("lonely"); ok {
			t.Errorf("%s has the tenant that was given up", m.name)
		}
	}
	if err := alone.core.Decide(); !errors.Is(err, meta.ErrVoid) {
		t.Errorf("with nothing undecided: %v", err)
	}
}

func TestCreateWithoutMajority(t *testing.T) {
	w := up(t, 4, 3)
	w.crash(1)
	w.crash(2)
	w.create(0, "lonely")
	for range 200 {
		w.tick(0)
		for len(w.net) > 0 {
			p := w.net[0]
			w.net = w.net[1:]
			w.carry(p)
		}
		if w.nodes[0].want == "" {
			break
		}
	}
	if w.nodes[0].want != "" || len(w.won["lonely"]) != 0 || len(w.lost["lonely"]) != 0 {
		t.Fatalf("want %q won %v lost %v", w.nodes[0].want, w.won, w.lost)
	}
	if err := w.nodes[0].core.ProposeTenant(ring.TenantCreate{Name: "default", RF: 3, Policy: 1}); err != nil {
		t.Fatal(err)
	}
	if r := w.nodes[0].core.Proposal(); r == nil || !errors.Is(r.Err, meta.ErrTenantExists) {
		t.Errorf("create of what exists: %+v", r)
	}
}

func TestBootstrapAlone(t *testing.T) {
	w := newWorld(t, 5, 1, 1)
	w.boot(0)
	c := w.nodes[0].core
	if err := c.ProposeTenant(ring.TenantCreate{Name: "x", RF: 1, Policy: 1}); !errors.Is(err, meta.ErrNotReady) {
		t.Errorf("before founding: %v", err)
	}
	if err := c.Bootstrap(1000); err != nil || c.Ready() {
		t.Fatalf("ready %v before it was acknowledged, %v", c.Ready(), err)
	}
	w.settle(0)
	if !c.Ready() {
		t.Fatal("not ready")
	}
	w.create(0, "x")
	if len(w.won["x"]) != 1 {
		t.Errorf("created at %v", w.won["x"])
	}
	w.crash(0)
	w.boot(0)
	if s := w.nodes[0].core.Snapshot(); !s.Ready || s.Version != 2 {
		t.Errorf("after a restart: ready %v, version %d", s.Ready, s.Version)
	}
	if err := w.nodes[0].core.Bootstrap(1); err != nil {
		t.Errorf("a second bootstrap: %v", err)
	}
}

// calmOnly is calm for some of the nodes.
func (w *world) calmOnly(rounds int, who ...int) {
	for range rounds {
		for _, i := range who {
			w.tick(i)
		}
		for n := 0; len(w.net) > 0 && n < 2000; n++ {
			p := w.net[0]
			w.net = w.net[1:]
			w.carry(p)
		}
	}
}

func TestSameNamesFoundNothing(t *testing.T) {
	w := newWorld(t, 7, 3, 3)
	w.nodes[1].name = "n1"
	for i := range w.nodes {
		w.boot(i)
	}
	w.calm(20)
	wait, ok := w.nodes[2].core.Waiting()
	if !ok || len(wait.Conflicts) != 1 || wait.Conflicts[0].Name != "n1" || len(wait.Seen) != 3 {
		t.Errorf("%+v, %v", wait, ok)
	}
}

func TestPledgeBinds(t *testing.T) {
	w := newWorld(t, 8, 3, 3)
	for i := range w.nodes {
		w.boot(i)
	}
	// Run until somebody has pledged to another, then take that node away.
	for range 2000 {
		for i := range w.nodes {
			w.tick(i)
		}
		if len(w.net) > 0 {
			p := w.net[0]
			w.net = w.net[1:]
			w.carry(p)
		}
		for i, m := range w.nodes {
			if f := m.core.Founder(); !f.IsZero() && f != m.id && !m.core.Founded() {
				w.crash(i)
				w.boot(i)
				if err := w.nodes[i].core.Bootstrap(1); !errors.Is(err, meta.ErrPledged) {
					t.Fatalf("bootstrap after a pledge: %v", err)
				}
				w.calm(30)
				w.check(3)
				return
			}
		}
	}
	t.Fatal("no pledge was made")
}

// Founding and creates with every store write of every node failing once, before
// and after it takes effect.
func TestCrashAtEveryWrite(t *testing.T) {
	script := func(w *world) {
		for i := range w.nodes {
			if w.nodes[i].core == nil {
				w.boot(i)
			}
		}
		w.calmSoft(40)
		w.create(0, "t0")
		w.create(1, "t0")
		w.create(2, "t1")
		w.calmSoft(80)
	}
	w := newWorld(t, 9, 3, 3)
	script(w)
	w.calm(100)
	w.check(3)
	points := 0
	for victim, m := range w.nodes {
		for n := 2; n <= m.store.Writes; n++ { // write 1 is Open, which tells its caller
			for _, keep := range []bool{false, true} {
				w := newWorld(t, 9, 3, 3)
				for i := range w.nodes {
					w.boot(i)
				}
				w.nodes[victim].store.FailAt(n-1, keep)
				script(w)
				w.calm(300)
				w.check(3)
				points++
			}
		}
	}
	t.Logf("%d crash points", points)
	if points < 20 {
		t.Errorf("only %d crash points", points)
	}
}

// calmSoft runs without mending what failed.
func (w *world) calmSoft(rounds int) { w.calmOnly(rounds, 0, 1, 2) }

func TestRandomFaults(t *testing.T) {
	seeds := 150
	if testing.Short() {
		seeds = 40
	}
	founded, created := 0, 0
	for seed := range seeds {
		n := 1 + seed%5
		w := newWorld(t, uint64(1000+seed), n, n)
		for range 600 {
			w.faults()
		}
		w.calm(400)
		w.check(n)
		founded++
		created += len(w.won)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d clusters, %d tenants acknowledged", founded, created)
	if created == 0 {
		t.Error("no tenant was ever created: the schedules are too hostile to mean anything")
	}
}

// A copied data directory comes to life beside the original: one of them ends.
func TestClonedIdentity(t *testing.T) {
	w := up(t, 10, 2)
	old := w.nodes[0]
	clone := &member{name: old.name, store: old.store.Clone()}
	w.nodes[0] = clone
	clone.id, clone.inc, clone.acked = old.id, old.inc, old.acked
	w.boot(0)
	w.calm(10)
	old.core.Exchange(w.nodes[1].id)
	for _, s := range old.core.Take().Send {
		reply, err := w.nodes[1].core.HandleRequest(old.id, s.Method, s.Payload)
		if err != nil {
			t.Fatal(err)
		}
		err = old.core.HandleReply(s, reply, nil)
		if !errors.Is(err, meta.ErrIdentity) || !errors.Is(old.core.Fatal(), meta.ErrIdentity) {
			t.Errorf("the original goes on: %v", err)
		}
	}
	if w.nodes[0].core.Fatal() != nil {
		t.Error("the newer life ends, too")
	}
}

func TestOpenRefuses(t *testing.T) {
	w := up(t, 11, 1)
	open := func(s meta.Store, cluster string) error {
		_, err := meta.Open(meta.Options{
			Store: s, Rand: w.seed, ClusterName: cluster, Partitions: 8, Logger: discard(),
			Info: meta.Info{Name: "n1", Capacity: 1},
		})
		return err
	}
	if err := open(w.nodes[0].store.Clone(), "other"); !errors.Is(err, meta.ErrOtherCluster) {
		t.Errorf("another cluster: %v", err)
	}
	unknown := []byte{1, 77, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	for name, c := range map[string]struct {
		r    meta.Record
		want error
	}{
		"newer store":    {meta.Record{Key: "format", Value: []byte{2}}, meta.ErrNewerFormat},
		"newer vote":     {meta.Record{Key: "vote", Value: []byte{1, 9}}, meta.ErrNewerFormat},
		"unknown kind":   {meta.Record{Key: "log/0000000000000002", Value: unknown}, meta.ErrNewerFormat},
		"short identity": {meta.Record{Key: "identity", Value: []byte{1, 2}}, meta.ErrCorrupt},
		"no identity":    {meta.Record{Key: "identity"}, meta.ErrCorrupt},
		"torn entry":     {meta.Record{Key: "log/0000000000000001", Value: []byte{1, 1, 0}}, meta.ErrCorrupt},
		"strange record": {meta.Record{Key: "zzz", Value: []byte{1}}, meta.ErrCorrupt},
	} {
		s := w.nodes[0].store.Clone()
		if err := s.Write([]meta.Record{c.r}); err != nil {
			t.Fatal(err)
		}
		if err := open(s, "test"); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func FuzzHandleRequest(f *testing.F) {
	w := up(f, 12, 2)
	from := w.nodes[1].id
	w.nodes[1].core.Exchange(w.nodes[0].id)
	for _, s := range w.nodes[1].core.Take().Send {
		f.Add(s.Method, s.Payload)
	}
	w.create(1, "t")
	for _, p := range w.net {
		f.Add(p.send.Method, p.send.Payload)
	}
	f.Fuzz(func(t *testing.T, method string, payload []byte) {
		c := w.nodes[0].core
		before := c.Version()
		reply, err := c.HandleRequest(from, method, payload)
		if (err == nil) != (len(reply) > 0) || len(reply) > meta.MaxMessageBytes {
			t.Fatalf("%d bytes, %v", len(reply), err)
		}
		if c.Fatal() != nil || c.Version() < before {
			t.Fatalf("fatal %v, version %d after %d", c.Fatal(), c.Version(), before)
		}
		c.Take()
	})
}

// Whatever a joiner is answered: it does not end but by a refusal, and is ready only if
// a log names it.
func FuzzJoinerHandlesReply(f *testing.F) {
	w := trimmed(f, 13, 2)
	w.trim.Piece = 0 // so that all is in one answer
	w.crash(0)
	w.boot(0)
	w.calm(40)
	at := w.join("n3")[0]
	w.boot(at)
	w.calm(20)
	c := w.nodes[at].core
	ask, _ := c.PullFrom(w.nodes[0].id)
	for _, from := range []ring.NodeID{w.nodes[at].id, w.nodes[1].id} {
		reply, err := w.nodes[0].core.HandleRequest(from, ask.Method, ask.Payload)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(reply)
	}
	f.Fuzz(func(t *testing.T, reply []byte) {
		err := c.HandleReply(ask, reply, nil)
		if fatal := c.Fatal(); fatal != nil {
			if !errors.Is(err, meta.ErrRetired) && !errors.Is(err, meta.ErrPlaceTaken) {
				t.Fatalf("it ends with %v", fatal)
			}
			w.crash(at)
			w.nodes[at].store, w.nodes[at].id, w.nodes[at].acked, w.nodes[at].witness = &storetest.Mem{}, ring.NodeID{}, 0, nil
			w.boot(at)
			c = w.nodes[at].core
		}
		if c.Ready() {
			t.Fatal("it takes itself for a member")
		}
		c.Take()
	})
}
