package rpc

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// TestBackgroundLane: what nobody waits for goes in a lane of its own, whatever its
// size, and so do its answers; when nothing of it is answered, the others go on.
func TestBackgroundLane(t *testing.T) {
	stop := make(chan struct{})
	handler := handlerFunc(func(f ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
		if msgs[0].Op == coord.OpApply {
			<-stop
		}
		echo(f, msgs, reply)
	})
	s, addr := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), handler))
	ps := startPeers(t, peersOptions(t, constant(addr)))
	for _, size := range []int{100, 200 << 10} {
		if res := call(t, ps, coord.Message{Op: coord.OpMerge, Body: make([]byte, size), Background: true}); res.err != nil || res.r.Status != coord.StatusOK {
			t.Fatalf("%d bytes: %+v", size, res)
		}
	}
	if l := ps.Stats().Lanes; l[LaneBackground].ItemsSent != 2 || l[LaneSmall].ItemsSent != 0 || l[LaneLarge].ItemsSent != 0 {
		t.Fatalf("sent %+v", l)
	}
	stuck := make(chan error, 1)
	m := coord.Message{Op: coord.OpApply, Background: true, Deadline: time.Now().Add(time.Minute)}
	ps.Send(nodeB, &m, func(_ coord.Reply, err error) { stuck <- err })
	for _, size := range []int{100, 200 << 10} {
		if res := call(t, ps, coord.Message{Op: coord.OpMerge, Body: make([]byte, size)}); res.err != nil {
			t.Fatal(res.err)
		}
	}
	if st := s.SessionStats(); st.Lanes[LaneBackground].Unanswered != 1 {
		t.Fatalf("%+v", st.Lanes)
	}
	close(stop)
	if err := <-stuck; err != nil {
		t.Fatal(err)
	}
	bundle := []coord.Outgoing{}
	got := make(chan error, 3)
	for i := range 3 {
		bundle = append(bundle, coord.Outgoing{
			Message: coord.Message{Op: coord.OpMerge, Body: make([]byte, i*50<<10), Background: i > 0, Deadline: time.Now().Add(time.Minute)},
			Reply:   func(_ coord.Reply, err error) { got <- err },
		})
	}
	ps.SendAll(nodeB, bundle)
	for range 3 {
		if err := <-got; err != nil {
			t.Fatal(err)
		}
	}
	if l := ps.Stats().Lanes; l[LaneBackground].ItemsSent != 5 || l[LaneSmall].ItemsSent != 2 || l[LaneLarge].ItemsSent != 1 {
		t.Fatalf("sent %+v", l)
	}
}

// twoLanes is a node of before there was a lane for the background.
type twoLanes struct {
	peerv1.UnimplementedPeerServer
	s *Server
}

func (o twoLanes) Frames(stream grpc.BidiStreamingServer[peerv1.Frame, peerv1.Frame]) error {
	if md, _ := metadata.FromIncomingContext(stream.Context()); md.Get(mdLane)[0] == LaneBackground.String() {
		return status.Error(codes.Unimplemented, "this node has no such lane")
	}
	return o.s.frames.frames(stream)
}

// TestPeerWithoutBackgroundLane: it gets everything all the same.
func TestPeerWithoutBackgroundLane(t *testing.T) {
	s, err := NewServer(serverOptions(t, nodeB, clusterOf(nodeB, nodeA), handlerFunc(echo)))
	if err != nil {
		t.Fatal(err)
	}
	old := grpc.NewServer(s.peerOptions()...)
	peerv1.RegisterPeerServer(old, twoLanes{s: s})
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- old.Serve(l) }()
	t.Cleanup(func() {
		old.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	ps := startPeers(t, peersOptions(t, constant(l.Addr().String())))
	for i := range 50 {
		size := 100 + i%2*(200<<10)
		res := call(t, ps, coord.Message{Op: coord.OpMerge, Key: fmt.Append(nil, i), Body: make([]byte, size), Background: i%3 > 0})
		if res.err != nil || res.r.Status != coord.StatusOK {
			t.Fatalf("%d: %+v", i, res)
		}
	}
	st := ps.Stats()
	if st.Lanes[LaneBackground].ItemsSent != 0 || st.Lanes[LaneSmall].ItemsSent+st.Lanes[LaneLarge].ItemsSent != 50 || st.QueuedItems != 0 || st.QueuedBytes != 0 || st.Pending != 0 {
		t.Fatalf("%+v", st)
	}
}
