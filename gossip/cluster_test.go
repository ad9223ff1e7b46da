package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/node/freeport"
)

// fabric carries metadata requests between the nodes of one test in memory.
type fabric struct {
	mu    sync.Mutex
	nodes map[string]*Gossip // by peer address
	cut   map[string]bool    // names that reach nobody and are reached by nobody
	next  int
	// meddle, if set, may hold or refuse a request between two nodes.
	meddle func(ctx context.Context, from, to, method string) error
	// delay, if set, may hold the answer to one.
	delay func(ctx context.Context, from, to string)
}

func (f *fabric) meddleWith(fn func(ctx context.Context, from, to, method string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.meddle = fn
}

func newFabric() *fabric { return &fabric{nodes: map[string]*Gossip{}, cut: map[string]bool{}} }

func (f *fabric) isolate(name string, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut[name] = on
}

// port is one node's end of the fabric.
type port struct {
	f    *fabric
	name string
	self func() *Gossip
}

// Call implements MetaTransport.
func (p *port) Call(ctx context.Context, addr, method string, payload []byte) ([]byte, error) {
	me := p.self()
	if me == nil {
		return nil, errors.New("not up yet")
	}
	to, err := p.reach(addr)
	if err != nil {
		return nil, err
	}
	p.f.mu.Lock()
	meddle := p.f.meddle
	p.f.mu.Unlock()
	if meddle != nil {
		if err := meddle(ctx, p.name, to.opts.Name, method); err != nil {
			return nil, err
		}
	}
	var cluster []byte
	if id := me.Snapshot().ClusterID; !id.IsZero() {
		cluster = id[:]
	}
	id, _, _ := me.Identity()
	reply, err := to.HandleMeta(ctx, method, cluster, id[:], payload)
	p.f.mu.Lock()
	delay := p.f.delay
	p.f.mu.Unlock()
	if delay != nil {
		delay(ctx, p.name, to.opts.Name)
	}
	if _, cut := p.reach(addr); cut != nil {
		return nil, cut
	}
	return reply, err
}

func (p *port) reach(addr string) (*Gossip, error) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	to := p.f.nodes[addr]
	if to == nil || p.f.cut[p.name] || p.f.cut[to.opts.Name] {
		return nil, fmt.Errorf("dial %s: refused", addr)
	}
	return to, nil
}

// testNode is a node that can be stopped and started again.
type testNode struct {
	*Gossip
	opts Options
	f    *fabric
}

// quick makes failure detection fit for a test.
func quick(o *Options) {
	o.ProbeInterval, o.ProbeTimeout, o.SuspicionMult = 100*time.Millisecond, 80*time.Millisecond, 2
	o.GossipInterval, o.PushPullInterval = 20*time.Millisecond, 500*time.Millisecond
	o.RejoinInterval = 300 * time.Millisecond
	o.CreateTimeout = 20 * time.Second // syncs may take a second each
	o.Partitions = 16
}

// patient has no node taken for dead because the machine stands still for two seconds. It
// is for tests in which nobody dies and somebody has to be alive.
func patient(o *Options) {
	o.ProbeInterval, o.ProbeTimeout, o.SuspicionMult = time.Second, 500*time.Millisecond, 4
}

type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	if testing.Verbose() {
		l.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

func nodeOptions(t *testing.T, f *fabric, name string, edit func(*Options)) Options {
	o := Options{
		Dir: t.TempDir(), ClusterName: "test", Name: name, Software: "test",
		Logger: slog.New(slog.NewTextHandler(testLog{t}, nil)).With("at", name),
	}
	f.mu.Lock()
	f.next++
	o.Addresses.Peer = fmt.Sprintf("127.0.0.1:%d", f.next)
	f.mu.Unlock()
	quick(&o)
	if edit != nil {
		edit(&o)
	}
	return o
}

// launch starts a node; it is closed with the test.
func launch(t *testing.T, f *fabric, o Options) *testNode {
	t.Helper()
	n, err := tryLaunch(f, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.stop() })
	return n
}

func tryLaunch(f *fabric, o Options) (*testNode, error) {
	n := &testNode{opts: o, f: f}
	var mu sync.Mutex
	var self *Gossip
	o.Transport = &port{f: f, name: o.Name, self: func() *Gossip { mu.Lock(); defer mu.Unlock(); return self }}
	g, err := New(o)
	if err != nil {
		return nil, err
	}
	mu.Lock()
	self = g
	mu.Unlock()
	n.Gossip = g
	f.mu.Lock()
	f.nodes[o.Addresses.Peer] = g
	f.mu.Unlock()
	if err := g.Start(context.Background()); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return n, nil
}

// stop ends the node without a goodbye, like a crash.
func (n *testNode) stop() {
	n.f.mu.Lock()
	if n.f.nodes[n.opts.Addresses.Peer] == n.Gossip {
		delete(n.f.nodes, n.opts.Addresses.Peer)
	}
	n.f.mu.Unlock()
	_ = n.Close() // tests that care close themselves
}

// again starts the node with the data it had.
func (n *testNode) again(t *testing.T, edit func(*Options)) *testNode {
	t.Helper()
	o := n.opts
	if edit != nil {
		edit(&o)
	}
	return launch(t, n.f, o)
}

// seedPort reserves a port.
func seedPort(t *testing.T) int {
	t.Helper()
	ports, err := freeport.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	return ports[0]
}

// cluster founds one of n nodes; identical options but for name and address.
func cluster(t *testing.T, f *fabric, n int) []*testNode {
	t.Helper()
	return clusterOf(t, f, n, func(*Options) {})
}

// clusterOf is cluster with options edited at every node.
func clusterOf(t *testing.T, f *fabric, n int, edit func(*Options)) []*testNode {
	t.Helper()
	port := seedPort(t)
	seeds := []string{fmt.Sprintf("127.0.0.1:%d", port)}
	nodes := make([]*testNode, n)
	for i := range nodes {
		nodes[i] = launch(t, f, nodeOptions(t, f, fmt.Sprintf("n%d", i+1), func(o *Options) {
			o.BootstrapExpect, o.Join = n, seeds
			if i == 0 {
				o.BindPort = port
			}
			edit(o)
		}))
	}
	for _, n := range nodes {
		n.awaitReady(t)
	}
	return nodes
}

func (n *testNode) awaitReady(t *testing.T) {
	t.Helper()
	select {
	case <-n.Ready():
	case err := <-n.Fatal():
		t.Fatalf("%s: %v", n.opts.Name, err)
	case <-time.After(20 * time.Second):
		t.Fatalf("%s is not ready", n.opts.Name)
	}
}

func (n *testNode) awaitFatal(t *testing.T) error {
	t.Helper()
	select {
	case err := <-n.Fatal():
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("%s goes on", n.opts.Name)
		return nil
	}
}

// await waits until the snapshots of a node satisfy a condition.
func (n *testNode) await(t *testing.T, what string, cond func(*schema.Snapshot) bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		changed := n.Changed()
		if cond(n.Snapshot()) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s never saw %s: %+v", n.opts.Name, what, n.Snapshot().Members)
		}
	}
}

func allAlive(s *schema.Snapshot) bool {
	for _, m := range s.Members {
		if m.Liveness != schema.Alive {
			return false
		}
	}
	return true
}

func is(l schema.Liveness, id ring.NodeID) func(*schema.Snapshot) bool {
	return func(s *schema.Snapshot) bool { m, ok := s.Member(id); return ok && m.Liveness == l }
}
