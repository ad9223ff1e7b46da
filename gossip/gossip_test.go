package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/meta/storetest"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

func TestMain(m *testing.M) {
	// memberlist's goroutines end a little after Shutdown; goleak waits for them.
	// Badger leaves some behind when it cannot open a store, and the process ends then.
	const badger = "github.com/dgraph-io/badger/v4"
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreAnyFunction(badger+".(*DB).monitorCache"), goleak.IgnoreAnyFunction(badger+".(*DB).updateSize"),
		goleak.IgnoreAnyFunction(badger+"/y.(*WaterMark).process"),
		goleak.IgnoreAnyFunction("github.com/dgraph-io/ristretto/v2/z.(*AllocatorPool).freeupAllocators"))
}

func TestBadgerStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (meta.Store, func() meta.Store) {
		dir := t.TempDir()
		o := Options{}
		o.EnsureDefaults()
		open := func() *badgerStore {
			s, err := openBadger(dir, o.Logger)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.close() })
			return s
		}
		s := open()
		return s, func() meta.Store { _ = s.close(); return open() }
	})
}

func TestBootstrapOfOne(t *testing.T) {
	f := newFabric()
	n := launch(t, f, nodeOptions(t, f, "solo", func(o *Options) { o.Bootstrap = true }))
	n.awaitReady(t)
	s := n.Snapshot()
	if _, ok := s.Tenant("default"); !ok || s.Version != 1 || s.ClusterID.IsZero() || len(s.Layout.Nodes()) != 1 {
		t.Errorf("%+v", s)
	}
	made, err := n.CreateTenant(context.Background(), "shop", 3, schema.PolicyLWW)
	if err != nil || made.Number != 2 || made.RF != 3 || made.Version != 2 || made.CreatedAt.IsZero() {
		t.Fatalf("%+v, %v", made, err)
	}
	for name, c := range map[string]struct {
		id   string
		rf   int
		p    schema.ConflictPolicy
		want error
	}{
		"exists": {"shop", 3, schema.PolicyLWW, ErrTenantExists},
		"id":     {"Shop", 3, schema.PolicyLWW, schema.ErrTenantID},
		"rf 0":   {"a", 0, schema.PolicyLWW, schema.ErrRF},
		"rf 8":   {"a", 8, schema.PolicyLWW, schema.ErrRF},
		"policy": {"a", 3, 9, schema.ErrPolicy},
	} {
		if _, err := n.CreateTenant(context.Background(), c.id, c.rf, c.p); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if made, err = n.CreateTenant(context.Background(), "carts", 3, schema.PolicySiblings); err != nil || made.Policy != schema.PolicySiblings {
		t.Fatalf("%+v, %v", made, err)
	}
	id, inc, actor := n.Identity()
	n.stop()
	n = n.again(t, func(o *Options) { o.Bootstrap, o.Join = false, []string{"127.0.0.1:1"} })
	n.awaitReady(t)
	id2, inc2, actor2 := n.Identity()
	if id2 != id || inc2 != inc+1 || actor2 == actor || actor2 == 0 {
		t.Errorf("was %s/%d/%d, is %s/%d/%d", id, inc, actor, id2, inc2, actor2)
	}
	for name, policy := range map[string]schema.ConflictPolicy{"shop": schema.PolicyLWW, "carts": schema.PolicySiblings} {
		if kept, ok := n.Snapshot().Tenant(name); !ok || kept.Policy != policy {
			t.Errorf("the tenant %s did not survive: %+v", name, kept)
		}
	}
	if k := n.Snapshot().TokenKeys; len(k) != 1 || k[0] != s.TokenKeys[0] {
		t.Error("the token key did not survive")
	}
}

// TestFollowingDoesNotWaitForTheDisk: metadata is written with the lock held; who
// follows the snapshots goes on though that write hangs.
func TestFollowingDoesNotWaitForTheDisk(t *testing.T) {
	n := launch(t, newFabric(), nodeOptions(t, newFabric(), "solo", func(o *Options) { o.Bootstrap = true }))
	n.awaitReady(t)
	n.mu.Lock() // as during a write that hangs
	got := make(chan (<-chan struct{}))
	go func() { got <- n.Changed() }()
	var changed <-chan struct{}
	select {
	case changed = <-got:
	case <-time.After(5 * time.Second):
		t.Error("Changed waits for the lock")
	}
	n.mu.Unlock()
	if changed == nil {
		return
	}
	n.SetWithdrawn(true)
	select {
	case <-changed:
	case <-time.After(5 * time.Second):
		t.Error("a new snapshot was not told")
	}
}

func TestFoundTogetherAndLive(t *testing.T) {
	for _, size := range []int{3, 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			f := newFabric()
			nodes := cluster(t, f, size)
			first := nodes[0].Snapshot()
			for _, n := range nodes {
				n.await(t, "all alive", allAlive)
				s := n.Snapshot()
				if s.ClusterID != first.ClusterID || len(s.Members) != size || !s.Ready {
					t.Errorf("%s: %+v", n.opts.Name, s)
				}
				for _, m := range s.Members {
					if m.Actor == 0 || m.Incarnation != 1 || m.Addresses.Peer == "" || m.Addresses.Gossip == "" {
						t.Errorf("%s knows little of %s: %+v", n.opts.Name, m.Name, m)
					}
				}
			}
		})
	}
}

func TestCreateAtTwoNodesAtOnce(t *testing.T) {
	f := newFabric()
	nodes := clusterOf(t, f, 3, patient)
	for round := range 5 {
		name := fmt.Sprintf("shop-%d", round)
		errs := make([]error, len(nodes))
		made := make([]schema.Tenant, len(nodes))
		var wg sync.WaitGroup
		began := time.Now()
		for i, n := range nodes {
			wg.Go(func() { made[i], errs[i] = n.CreateTenant(context.Background(), name, 3, schema.PolicyLWW) })
		}
		wg.Wait()
		won := -1
		for i, err := range errs {
			switch {
			case err == nil && won < 0:
				won = i
			case err == nil:
				t.Fatalf("%s was created twice", name)
			case !errors.Is(err, ErrTenantExists):
				t.Fatalf("%s at %s: %v", name, nodes[i].opts.Name, err)
			}
		}
		if won < 0 {
			t.Fatalf("nobody created %s: %v", name, errs)
		}
		waited(t, nodes, began, func(s *schema.Snapshot) bool { _, ok := s.Tenant(name); return ok })
		for _, n := range nodes {
			if got, ok := n.Snapshot().Tenant(name); !ok || got.Number != made[won].Number || got.Version != made[won].Version {
				t.Errorf("%s knows %+v of %s", n.opts.Name, got, name)
			}
		}
	}
}

// waited checks that all nodes know of what was created or deleted since began: at once,
// unless that took so long that who did it may have given up waiting for them.
func waited(t *testing.T, nodes []*testNode, began time.Time, known func(*schema.Snapshot) bool) {
	t.Helper()
	late := time.Since(began) >= ackPatience
	for _, n := range nodes {
		if !late && !known(n.Snapshot()) {
			t.Errorf("%s was not waited for", n.opts.Name)
		}
		n.await(t, "what was created or deleted", known)
	}
}

func TestManyCreates(t *testing.T) {
	f := newFabric()
	nodes := cluster(t, f, 3)
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			for j := range 5 {
				if _, err := n.CreateTenant(context.Background(), fmt.Sprintf("t-%d-%d", i, j), 3, schema.PolicyLWW); err != nil {
					t.Errorf("%s: %v", n.opts.Name, err)
				}
			}
		})
	}
	wg.Wait()
	for _, n := range nodes {
		n.await(t, "all tenants", func(s *schema.Snapshot) bool { return len(s.Tenants()) == 16 })
	}
}

func TestJoinNobody(t *testing.T) {
	f := newFabric()
	seed := fmt.Sprintf("127.0.0.1:%d", seedPort(t))
	n := launch(t, f, nodeOptions(t, f, "lost", func(o *Options) {
		o.Join, o.JoinTimeout = []string{seed, "no-such-host.invalid:1"}, 100*time.Millisecond
	}))
	err := n.awaitFatal(t)
	var j *JoinError
	if !errors.Is(err, ErrJoinNobody) || !errors.As(err, &j) || len(j.Seeds) != 2 || !strings.Contains(err.Error(), seed) {
		t.Errorf("%v", err)
	}
}

func TestRefusedOptions(t *testing.T) {
	f := newFabric()
	for name, c := range map[string]struct {
		edit func(*Options)
		want error
	}{
		"nothing to do":    {func(o *Options) {}, ErrNoBootstrap},
		"two ways":         {func(o *Options) { o.Bootstrap, o.BootstrapExpect = true, 3 }, ErrOptions},
		"bootstrap + join": {func(o *Options) { o.Bootstrap, o.Join = true, []string{"a:1"} }, ErrOptions},
		"short key":        {func(o *Options) { o.Bootstrap, o.SecretKey = true, make([]byte, 16) }, ErrOptions},
		"partitions":       {func(o *Options) { o.Bootstrap, o.Partitions = true, 100 }, ErrOptions},
		"name":             {func(o *Options) { o.Bootstrap, o.Name = true, "a b" }, ErrOptions},
		"cluster name":     {func(o *Options) { o.Bootstrap, o.ClusterName = true, "a b" }, ErrOptions},
	} {
		if _, err := tryLaunch(f, nodeOptions(t, f, "n", c.edit)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestDataDirectories(t *testing.T) {
	f := newFabric()
	n := launch(t, f, nodeOptions(t, f, "n", func(o *Options) { o.Bootstrap = true }))
	if _, err := tryLaunch(f, n.opts); !errors.Is(err, ErrLocked) {
		t.Errorf("a directory in use: %v", err)
	}
	n.stop()
	o := n.opts
	o.ClusterName = "other"
	if _, err := tryLaunch(f, o); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("a directory of another cluster: %v", err)
	}
	s, err := openBadger(n.opts.Dir+"/meta", n.log)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Write([]meta.Record{{Key: "format", Value: []byte{2}}}), s.close()); err != nil {
		t.Fatal(err)
	}
	if _, err := tryLaunch(f, n.opts); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("a newer format: %v", err)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f := newFabric()
	_, err = tryLaunch(f, nodeOptions(t, f, "n", func(o *Options) {
		o.Bootstrap, o.BindPort = true, l.Addr().(*net.TCPAddr).Port
	}))
	for _, want := range []string{l.Addr().String(), "address already in use", "choose another port with --gossip-port (0 takes a free one)"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
}

func TestDeathAndReturn(t *testing.T) {
	f := newFabric()
	nodes := cluster(t, f, 3)
	id, inc, actor := nodes[2].Identity()
	nodes[2].stop()
	nodes[0].await(t, "the death", is(schema.Dead, id))
	if nodes[0].Snapshot().Alive(id) {
		t.Error("the dead are not alive")
	}
	if _, err := nodes[0].CreateTenant(context.Background(), "without", 3, schema.PolicyLWW); err != nil {
		t.Fatalf("two of three voters: %v", err)
	}
	back := nodes[2].again(t, nil)
	back.awaitReady(t)
	id2, inc2, actor2 := back.Identity()
	if id2 != id || inc2 != inc+1 || actor2 == actor {
		t.Errorf("was %s/%d/%d, is %s/%d/%d", id, inc, actor, id2, inc2, actor2)
	}
	back.await(t, "what it missed", func(s *schema.Snapshot) bool { _, ok := s.Tenant("without"); return ok })
	nodes[1].await(t, "the return", func(s *schema.Snapshot) bool {
		m, _ := s.Member(id)
		return m.Liveness == schema.Alive && m.Incarnation == inc+1 && m.Actor == actor2 && m.AckedVersion == 2
	})
}

// TestWithdrawnIsHeard: a node that withdraws is marked so everywhere, itself
// included, stays alive, and comes back; a later life has not withdrawn.
func TestWithdrawnIsHeard(t *testing.T) {
	f := newFabric()
	nodes := cluster(t, f, 3)
	id, _, _ := nodes[1].Identity()
	for _, n := range nodes {
		n.await(t, "all alive", allAlive)
	}
	withdrawn := func(want bool) func(*schema.Snapshot) bool {
		return func(s *schema.Snapshot) bool {
			m, ok := s.Member(id)
			others := 0
			for i := range s.Members {
				if s.Members[i].Withdrawn && s.Members[i].ID != id {
					others++
				}
			}
			return ok && m.Withdrawn == want && m.Liveness == schema.Alive && others == 0
		}
	}
	for _, want := range []bool{true, false, true} {
		nodes[1].SetWithdrawn(want)
		for _, n := range nodes {
			n.await(t, fmt.Sprintf("withdrawn %v", want), withdrawn(want))
		}
	}
	// That it is drained is another thing, which is told likewise.
	drained := func(want bool) func(*schema.Snapshot) bool {
		return func(s *schema.Snapshot) bool {
			m, ok := s.Member(id)
			return ok && m.Drained == want && m.Withdrawn
		}
	}
	for _, want := range []bool{true, false, true} {
		nodes[1].SetDrained(want)
		for _, n := range nodes {
			n.await(t, fmt.Sprintf("drained %v", want), drained(want))
		}
	}
	nodes[1].stop()
	nodes[1].SetWithdrawn(false) // too late, and no harm
	nodes[0].await(t, "the death", is(schema.Dead, id))
	back := nodes[1].again(t, nil)
	back.awaitReady(t)
	nodes[0].await(t, "the return", withdrawn(false))
	if m, _ := nodes[0].Snapshot().Member(id); m.Drained {
		t.Error("a later life is drained")
	}
}

func TestGoodbye(t *testing.T) {
	f := newFabric()
	nodes := cluster(t, f, 3)
	id, _, _ := nodes[1].Identity()
	nodes[0].await(t, "all alive", allAlive)
	if err := nodes[1].Leave(context.Background()); err != nil {
		t.Fatal(err)
	}
	nodes[1].stop()
	nodes[0].await(t, "the goodbye", is(schema.Left, id))
	back := nodes[1].again(t, nil)
	back.awaitReady(t)
	nodes[0].await(t, "the return", is(schema.Alive, id))
}

func TestAllRestartAtOnce(t *testing.T) {
	f := newFabric()
	nodes := cluster(t, f, 3)
	if _, err := nodes[0].CreateTenant(context.Background(), "kept", 1, schema.PolicyLWW); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		n.stop()
	}
	for i, n := range nodes {
		nodes[i] = n.again(t, func(o *Options) { o.BootstrapExpect, o.Join = 0, nil }) // flags are not needed
		nodes[i].awaitReady(t)
	}
	// n1 has its old port; the others find each other through it.
	for _, n := range nodes {
		n.await(t, "all alive and back", func(s *schema.Snapshot) bool {
			for _, m := range s.Members {
				if m.Incarnation != 2 {
					return false
				}
			}
			return allAlive(s)
		})
		if _, ok := n.Snapshot().Tenant("kept"); !ok {
			t.Errorf("%s lost the tenant", n.opts.Name)
		}
	}
}

func TestCutAndHeal(t *testing.T) {
	f := newFabric()
	nodes := cluster(t, f, 3)
	f.isolate("n3", true)
	if _, err := nodes[0].CreateTenant(context.Background(), "behind", 3, schema.PolicyLWW); err != nil {
		t.Fatal(err)
	}
	if _, ok := nodes[2].Snapshot().Tenant("behind"); ok {
		t.Fatal("the cut leaks")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // it ends by itself
	defer cancel()
	_, err := nodes[2].CreateTenant(ctx, "alone", 3, schema.PolicyLWW)
	var v *VotersUnreachableError
	if !errors.Is(err, ErrIndeterminate) && !errors.As(err, &v) {
		t.Errorf("a create without a majority: %v", err)
	}
	from, _, _ := nodes[0].Identity()
	if err := nodes[2].CatchUp(ctx, from, 2); err == nil {
		t.Error("CatchUp through a cut")
	}
	f.isolate("n3", false)
	if err := nodes[2].CatchUp(context.Background(), from, 2); err != nil || nodes[2].Snapshot().Version < 2 {
		t.Errorf("CatchUp: %v, version %d", err, nodes[2].Snapshot().Version)
	}
	if err := nodes[2].CatchUp(context.Background(), from, 99); !errors.Is(err, ErrUnavailable) {
		t.Errorf("CatchUp with what nobody has: %v", err)
	}
	for _, n := range nodes {
		n.await(t, "one state", func(s *schema.Snapshot) bool {
			_, ok := s.Tenant("behind")
			return ok && acked(s, 2) && allAlive(s)
		})
	}
}

// Two clusters of one name, and nodes with another name or key, keep apart.
func TestStrangersKeepApart(t *testing.T) {
	f := newFabric()
	a := launch(t, f, nodeOptions(t, f, "a", func(o *Options) { o.Bootstrap = true }))
	b := launch(t, f, nodeOptions(t, f, "b", func(o *Options) { o.Bootstrap = true }))
	a.awaitReady(t)
	b.awaitReady(t)
	b.stop()
	b = b.again(t, func(o *Options) { o.Join = []string{a.GossipAddress()} })
	if err := b.awaitFatal(t); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("a seed of another cluster: %v", err)
	}
	idA, _, _ := a.Identity()
	idB, _, _ := b.Identity()
	cb := b.Snapshot().ClusterID
	if _, err := a.HandleMeta(context.Background(), meta.MethodExchange, cb[:], idB[:], nil); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("a request of another cluster: %v", err)
	}
	if _, err := a.HandleMeta(context.Background(), meta.MethodExchange, nil, idB[:3], nil); err == nil {
		t.Error("a request without a sender")
	}
	for name, edit := range map[string]func(*Options){
		"name": func(o *Options) { o.ClusterName = "other" },
		"key":  func(o *Options) { o.SecretKey = bytes.Repeat([]byte{7}, 32) },
	} {
		c := launch(t, f, nodeOptions(t, f, "c", func(o *Options) {
			o.Join, o.JoinTimeout = []string{a.GossipAddress()}, 200*time.Millisecond
			edit(o)
		}))
		if err := c.awaitFatal(t); !errors.Is(err, ErrJoinNobody) {
			t.Errorf("wrong %s: %v", name, err)
		}
		c.stop()
	}
	if s := a.Snapshot(); len(s.Members) != 1 || s.Members[0].ID != idA {
		t.Errorf("a stranger came in: %+v", s.Members)
	}
}

func TestKeyedCluster(t *testing.T) {
	f := newFabric()
	key := bytes.Repeat([]byte{3}, 32)
	port := seedPort(t)
	var nodes []*testNode
	for i, name := range []string{"x", "y"} {
		nodes = append(nodes, launch(t, f, nodeOptions(t, f, name, func(o *Options) {
			o.BootstrapExpect, o.Join, o.SecretKey = 2, []string{fmt.Sprintf("127.0.0.1:%d", port)}, key
			if i == 0 {
				o.BindPort = port
			}
		})))
	}
	for _, n := range nodes {
		n.awaitReady(t)
	}
}

func TestSameNameIsReported(t *testing.T) {
	f := newFabric()
	port := seedPort(t)
	var nodes []*testNode
	for i := range 2 {
		nodes = append(nodes, launch(t, f, nodeOptions(t, f, "twin", func(o *Options) {
			o.BootstrapExpect, o.Join, o.NameGrace = 2, []string{fmt.Sprintf("127.0.0.1:%d", port)}, time.Millisecond
			if i == 0 {
				o.BindPort = port
			}
		})))
	}
	if err := nodes[0].awaitFatal(t); !errors.Is(err, ErrDuplicateName) || !strings.Contains(err.Error(), `"twin"`) {
		t.Errorf("%v", err)
	}
}

func TestCloseIsIdempotentAndEndsWaiters(t *testing.T) {
	f := newFabric()
	nodes := cluster(t, f, 3)
	f.isolate("n1", true)
	result := make(chan error, 1)
	go func() {
		_, err := nodes[0].CreateTenant(context.Background(), "never", 3, schema.PolicyLWW)
		result <- err
	}()
	if err := errors.Join(nodes[0].Close(), nodes[0].Close()); err != nil {
		t.Error(err)
	}
	if err := <-result; err == nil {
		t.Error("a create ended well without a majority")
	}
	if _, err := nodes[0].CreateTenant(context.Background(), "x", 3, schema.PolicyLWW); err == nil {
		t.Error("a create after Close")
	}
	id := ring.NodeID{1}
	if _, err := nodes[0].HandleMeta(context.Background(), meta.MethodExchange, nil, id[:], nil); !errors.Is(err, ErrClosed) {
		t.Errorf("a request after Close: %v", err)
	}
}

func FuzzDecodeCard(f *testing.F) {
	f.Add(card{id: ring.NodeID{1}, version: 3, peerPort: 9}.encode())
	f.Add(card{id: ring.NodeID{2}, withdrawn: true}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := decodeCard(b); err == nil {
			if again, err := decodeCard(c.encode()); err != nil || again != c {
				t.Fatal("a card does not survive its encoding")
			}
		}
	})
}
