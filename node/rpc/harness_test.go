package rpc

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// handlerFunc is a coord.PeerHandler.
type handlerFunc func(from ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply))

func (f handlerFunc) HandlePeer(from ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
	f(from, msgs, reply)
}

// echo answers each message with its body at once.
var echo = handlerFunc(func(_ ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
	for i := range msgs {
		reply(i, coord.Reply{Status: coord.StatusOK, Body: msgs[i].Body})
	}
})

// fakeCluster is the metadata of a node in a test. The fields may be set before
// it is shared.
type fakeCluster struct {
	snap   atomic.Pointer[schema.Snapshot]
	create func(ctx context.Context, name string, rf int, p schema.ConflictPolicy) (schema.Tenant, error)
	remove func(name string) (schema.Tenant, error)
	late   map[string]*schema.Tenant
}

func (f *fakeCluster) Snapshot() *schema.Snapshot { return f.snap.Load() }

func (f *fakeCluster) CreateTenant(ctx context.Context, name string, rf int, p schema.ConflictPolicy) (schema.Tenant, error) {
	return f.create(ctx, name, rf, p)
}

func (f *fakeCluster) DeleteTenant(_ context.Context, name string) (schema.Tenant, error) {
	return f.remove(name)
}

func (f *fakeCluster) RefreshTenant(_ context.Context, name string) (*schema.Tenant, error) {
	if t, ok := f.late[name]; ok {
		return t, nil
	}
	return nil, coord.UnknownTenant(name, true, errcode.NotApplied)
}

// clusterOf is the metadata of node self in the test cluster, with the others.
func clusterOf(self ring.NodeID, others ...ring.NodeID) *fakeCluster {
	s := schema.Snapshot{ClusterID: testCluster, Self: self, Members: []schema.Member{{ID: self, Liveness: schema.Alive}}}
	for _, id := range others {
		s.Members = append(s.Members, schema.Member{ID: id, Liveness: schema.Alive})
	}
	f := new(fakeCluster)
	f.snap.Store(schema.Build(s, nil))
	return f
}

// unused parts of a server under test.
type noMeta struct{}

func (noMeta) HandleMeta(_ context.Context, method string, _, _, payload []byte) ([]byte, error) {
	return append([]byte(method+":"), payload...), nil
}

type noAsker struct{}

func (noAsker) Info(context.Context, string) (NodeInfo, error) { return NodeInfo{}, ErrClosed }

func (noAsker) Observe(context.Context, string, *peerv1.ObserveRequest) (*peerv1.ObserveResponse, error) {
	return nil, ErrClosed
}

func (noAsker) Scrub(context.Context, string, bool) (*peerv1.ScrubResponse, error) {
	return nil, ErrClosed
}

func (noAsker) StartRepair(context.Context, string, *pairdbv1.StartRepairRequest) (*peerv1.StartRepairResponse, error) {
	return nil, ErrClosed
}

func (noAsker) Drain(context.Context, string, bool, bool) (*peerv1.DrainResponse, error) {
	return nil, ErrClosed
}

type noObserver struct{}

func (noObserver) Observe(*peerv1.ObserveRequest) *peerv1.ObserveResponse {
	return new(peerv1.ObserveResponse)
}

// serverOptions are those of node self with the handler h.
func serverOptions(t testing.TB, self ring.NodeID, meta Metadata, h coord.PeerHandler) Options {
	return Options{
		Self: self, Coordinator: new(fakeCoordinator), Metadata: meta, Meta: noMeta{}, Peer: h,
		Local: func() NodeInfo { return NodeInfo{Incarnation: 3, Bytes: 4, Keys: 5, DiskUsedPercent: 6} },
		Asker: noAsker{}, Observer: noObserver{}, Admin: new(fakeAdmin), Logger: testLogger(t),
	}
}

// testLogger writes what is wrong to the test's log.
func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(&testWriter{t: t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type testWriter struct {
	t  testing.TB
	mu sync.Mutex
}

func (w *testWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t.Context().Err() == nil {
		w.t.Logf("%s", b)
	}
	return len(b), nil
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// startPeerServer serves the frames of node B for node A and returns the address.
func startPeerServer(t testing.TB, opts Options) (*Server, string) {
	t.Helper()
	s, err := NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	if err := s.ServePeers(l); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, l.Addr().String()
}

// peersOptions are those of node A, which finds node B at *addr.
func peersOptions(t testing.TB, addr func() string) PeersOptions {
	return PeersOptions{
		Self: nodeA, Cluster: func() ring.ClusterID { return testCluster },
		Resolve: func(id ring.NodeID) (string, bool) { return addr(), id == nodeB && addr() != "" },
		Logger:  testLogger(t),
		// On a machine that stands still connecting takes longer than it may.
		ConnectWindow: 15 * time.Second, DialTimeout: 15 * time.Second,
	}
}

func startPeers(t testing.TB, opts PeersOptions) *Peers {
	t.Helper()
	ps, err := NewPeers(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ps.Close(); err != nil {
			t.Error(err)
		}
	})
	return ps
}

// result is what came of one message.
type result struct {
	r   coord.Reply
	err error
}

// call sends m to node B and waits for what comes of it.
func call(t testing.TB, ps *Peers, m coord.Message) result {
	t.Helper()
	if m.Deadline.IsZero() {
		m.Deadline = time.Now().Add(15 * time.Second)
	}
	c := make(chan result, 2)
	ps.Send(nodeB, &m, func(r coord.Reply, err error) { c <- result{r, err} })
	select {
	case res := <-c:
		return res
	case <-time.After(20 * time.Second):
		t.Fatal("no reply and no error")
		return result{}
	}
}

func constant(addr string) func() string { return func() string { return addr } }
