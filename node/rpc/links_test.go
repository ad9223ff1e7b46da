package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

func TestLinkLost(t *testing.T) {
	arrived := make(chan struct{}, 10)
	silent := handlerFunc(func(f ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
		if msgs[0].Op == coord.OpMerge {
			echo(f, msgs, reply)
			return
		}
		arrived <- struct{}{}
	})
	first, addr := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), silent))
	var where atomic.Pointer[string]
	where.Store(&addr)
	ps := startPeers(t, peersOptions(t, func() string { return *where.Load() }))
	lost := make(chan error, 1)
	m := coord.Message{Op: coord.OpRead, Deadline: time.Now().Add(time.Minute)}
	ps.Send(nodeB, &m, func(_ coord.Reply, err error) { lost <- err })
	<-arrived
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-lost; !errors.Is(err, ErrLinkLost) || errors.Is(err, coord.ErrNotSent) {
		t.Errorf("got %v", err)
	}
	// Nobody is there any more: refused, and certainly not sent.
	waitFor(t, func() bool {
		res := call(t, ps, coord.Message{Op: coord.OpMerge})
		return errors.Is(res.err, ErrDisconnected) && errors.Is(res.err, coord.ErrNotSent)
	})
	// The node comes back elsewhere.
	_, addr2 := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), echo))
	where.Store(&addr2)
	ps.Refresh()
	waitFor(t, func() bool { return call(t, ps, coord.Message{Op: coord.OpMerge}).err == nil })
	if s := ps.Stats(); s.Connects != 2 || s.Disconnects != 1 {
		t.Errorf("stats %+v", s)
	}
}

// TestConnect: a link is made before anything is sent, and whoever asked for it is told
// when it was tried: also where nobody is, and of who is no member.
func TestConnect(t *testing.T) {
	_, addr := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), echo))
	ps := startPeers(t, peersOptions(t, constant(addr)))
	<-ps.Connect(nodeB)
	if s := ps.Stats(); !ps.Linked(nodeB) || s.Connects != 1 {
		t.Errorf("linked: %t; stats %+v", ps.Linked(nodeB), s)
	}
	<-ps.Connect(nodeB) // again
	<-ps.Connect(nodeA)
	if s := ps.Stats(); s.Connects != 1 || ps.Linked(nodeA) {
		t.Errorf("connected again, or to who is no member: %+v", s)
	}

	l := listen(t)
	gone := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	none := startPeers(t, peersOptions(t, constant(gone)))
	<-none.Connect(nodeB)
	if s := none.Stats(); none.Linked(nodeB) || s.Connects != 0 {
		t.Errorf("linked to nobody: %+v", s)
	}
	if res := call(t, none, coord.Message{Op: coord.OpMerge}); !errors.Is(res.err, ErrDisconnected) {
		t.Errorf("what is sent then waits: %v", res.err)
	}
	// One that never answers is left in peace when the links are closed.
	silent := startPeers(t, peersOptions(t, constant(listen(t).Addr().String())))
	tried := silent.Connect(nodeB)
	if err := silent.Close(); err != nil {
		t.Fatal(err)
	}
	<-tried
	<-silent.Connect(nodeB)
}

// waitFor repeats a call that itself takes part in the traffic until it is true.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal("it did not come true")
		}
		// A short pause, so that the other side gets its turn.
		<-time.After(time.Millisecond)
	}
}

func TestRefusedLinks(t *testing.T) {
	stranger := ring.NodeID{0xcc}
	for name, c := range map[string]struct {
		server Options
		change func(*PeersOptions)
		says   string
	}{
		"other cluster": {
			server: serverOptions(t, nodeB, clusterOf(nodeB, nodeA), echo),
			change: func(o *PeersOptions) { o.Cluster = func() ring.ClusterID { return ring.ClusterID{9} } },
			says:   "this node is of cluster 01020300",
		},
		"unknown sender": {
			server: serverOptions(t, nodeB, clusterOf(nodeB), echo),
			says:   "is no member of this cluster",
		},
		"another node answers": {
			server: serverOptions(t, stranger, clusterOf(stranger, nodeA), echo),
			says:   "this is node " + stranger.String(),
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, addr := startPeerServer(t, c.server)
			opts := peersOptions(t, constant(addr))
			opts.Logger = nil
			if c.change != nil {
				c.change(&opts)
			}
			ps := startPeers(t, opts)
			res := call(t, ps, coord.Message{Op: coord.OpMerge})
			if !errors.Is(res.err, coord.ErrNotSent) || !errors.Is(res.err, ErrDisconnected) || !strings.Contains(res.err.Error(), c.says) {
				t.Errorf("got %v", res.err)
			}
		})
	}
}

// TestLinkToAJoiner: a node that is told of by others before it knows of them itself has
// them wait for that. One that gets to know no cluster refuses them.
func TestLinkToAJoiner(t *testing.T) {
	joined := clusterOf(nodeB, nodeA)
	for _, late := range []bool{false, true} {
		meta := &joiner{fakeCluster: new(fakeCluster)}
		meta.snap.Store(schema.Build(schema.Snapshot{Self: nodeB}, nil))
		_, addr := startPeerServer(t, serverOptions(t, nodeB, meta, echo))
		opts := peersOptions(t, constant(addr))
		opts.Logger = nil
		if ps := startPeers(t, opts); !late {
			meta.next.Store(joined.Snapshot())
			if res := call(t, ps, coord.Message{Op: coord.OpMerge}); res.err != nil {
				t.Error(res.err)
			}
		} else if res := call(t, ps, coord.Message{Op: coord.OpMerge}); !errors.Is(res.err, coord.ErrNotSent) {
			t.Errorf("of no cluster: %v", res.err)
		}
	}
}

// joiner is a node that gets to know its cluster once it has been looked for there in
// vain, if there is one to get to know.
type joiner struct {
	*fakeCluster
	next atomic.Pointer[schema.Snapshot]
}

func (j *joiner) Snapshot() *schema.Snapshot {
	now := j.fakeCluster.Snapshot()
	if next := j.next.Load(); next != nil {
		j.snap.Store(next)
	}
	return now
}

func TestNotSentWithoutPeer(t *testing.T) {
	ps := startPeers(t, peersOptions(t, constant("")))
	if res := call(t, ps, coord.Message{}); !errors.Is(res.err, coord.ErrNotSent) || !errors.Is(res.err, ErrDisconnected) {
		t.Errorf("unknown node: %v", res.err)
	}
	opts := peersOptions(t, constant("127.0.0.1:1"))
	opts.Cluster = func() ring.ClusterID { return ring.ClusterID{} }
	if res := call(t, startPeers(t, opts), coord.Message{}); !errors.Is(res.err, coord.ErrNotSent) {
		t.Errorf("no cluster: %v", res.err)
	}
	l := listen(t)
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	opts = peersOptions(t, constant(addr))
	opts.Logger = nil
	closed := startPeers(t, opts)
	if res := call(t, closed, coord.Message{}); !errors.Is(res.err, coord.ErrNotSent) || !errors.Is(res.err, ErrDisconnected) {
		t.Errorf("nobody listens: %v", res.err)
	}
	for range 2 {
		if err := closed.Close(); err != nil {
			t.Error(err)
		}
	}
	if res := call(t, closed, coord.Message{}); !errors.Is(res.err, coord.ErrNotSent) {
		t.Errorf("closed: %v", res.err)
	}
}

// TestConnectWindow: messages wait for a slow connection, but not long.
func TestConnectWindow(t *testing.T) {
	opts := peersOptions(t, constant("ignored:1"))
	opts.Logger = nil
	opts.ConnectWindow = 50 * time.Millisecond
	opts.Dial = func(ctx context.Context, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	ps := startPeers(t, opts)
	start := time.Now()
	res := call(t, ps, coord.Message{Deadline: time.Now().Add(time.Minute)})
	if !errors.Is(res.err, coord.ErrNotSent) || time.Since(start) < 50*time.Millisecond {
		t.Errorf("after %v: %v", time.Since(start), res.err)
	}
	// The attempt goes on; nobody waits for it any more.
	reply := make(chan error, 1)
	ps.Send(nodeB, &coord.Message{}, func(_ coord.Reply, err error) { reply <- err })
	select {
	case err := <-reply:
		if !errors.Is(err, coord.ErrNotSent) {
			t.Error(err)
		}
	default:
		t.Error("the second message waits")
	}
}

// TestRemovedMember: a node that is no member any more is let go.
func TestRemovedMember(t *testing.T) {
	meta := clusterOf(nodeB, nodeA)
	server, addr := startPeerServer(t, serverOptions(t, nodeB, meta, echo))
	var member atomic.Bool
	member.Store(true)
	opts := peersOptions(t, constant(addr))
	opts.Logger = nil
	opts.Resolve = func(ring.NodeID) (string, bool) { return addr, member.Load() }
	ps := startPeers(t, opts)
	if res := call(t, ps, coord.Message{}); res.err != nil {
		t.Fatal(res.err)
	}
	// The serving side notices first, at the next frame.
	meta.snap.Store(schema.Build(schema.Snapshot{ClusterID: testCluster, Self: nodeB}, nil))
	member.Store(false)
	if res := call(t, ps, coord.Message{}); res.err == nil {
		t.Error("a node that is no member was served")
	}
	waitFor(t, func() bool { return len(*ps.byID.Load()) == 0 })
	if err := server.Close(); err != nil {
		t.Error(err)
	}
}

func TestLargeItems(t *testing.T) {
	_, addr := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), echo))
	ps := startPeers(t, peersOptions(t, constant(addr)))
	for _, n := range []int{largeItem - itemSizeLen - requestFixed - 1, largeItem, maxFrameItems, 1 << 20, 10 << 20, 31 << 20} {
		body := make([]byte, n)
		for i := 0; i+4 <= n; i += 4 {
			binary.LittleEndian.PutUint32(body[i:], uint32(i))
		}
		if res := call(t, ps, coord.Message{Op: coord.OpMerge, Body: body, Deadline: time.Now().Add(20 * time.Second)}); res.err != nil || !bytes.Equal(res.r.Body, body) {
			t.Errorf("%d bytes: %d came back, %v", n, len(res.r.Body), res.err)
		}
	}
	res := call(t, ps, coord.Message{Op: coord.OpMerge, Body: make([]byte, MaxFrameBytes)})
	if !errors.Is(res.err, ErrItemTooLarge) || !errors.Is(res.err, coord.ErrNotSent) {
		t.Errorf("got %v", res.err)
	}
}
