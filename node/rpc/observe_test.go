package rpc

import (
	"context"
	"fmt"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pairdb/pairdb/api/errcode"
	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// observed is what node i of a test answers: events behind the number asked for up
// to 3, and the key "hot" with 10 reads a second.
func observed(i int, id ring.NodeID, req *peerv1.ObserveRequest) *peerv1.ObserveResponse {
	r := &peerv1.ObserveResponse{NodeId: id[:], Incarnation: 3}
	if q := req.GetEvents(); q != nil {
		first := uint64(1)
		if q.GetIncarnation() == 3 {
			first = q.GetNumber() + 1
		}
		for n := first; n <= 3; n++ {
			r.Events = append(r.Events, &pairdbv1.Event{Number: n, Time: timestamppb.New(time.Unix(int64(100*n)-int64(i), 0)), Text: fmt.Sprintf("%d-%d", i, n)})
		}
		r.Number = 3
	}
	if q := req.GetTraffic(); q != nil {
		r.Traffic = &pairdbv1.NodeTraffic{ReadsPerSecond: 50}
		r.ReadFloor = 1
		r.HotKeys = []*peerv1.KeyRate{{Tenant: 1, Key: []byte("hot"), Low: 10, High: 12, Noise: 3}, {Tenant: 9, Key: fmt.Append(nil, "own-", i), Low: 2, High: 2}}
		if q.GetHotKeys() == 0 {
			r.HotKeys = nil
		}
	}
	return r
}

// observerFunc is an Observer.
type observerFunc func(*peerv1.ObserveRequest) *peerv1.ObserveResponse

func (f observerFunc) Observe(req *peerv1.ObserveRequest) *peerv1.ObserveResponse { return f(req) }

// observing is a server of node 0 of four, of which node 2 is silent and node 3 dead.
func observing(t *testing.T) *Server {
	t.Helper()
	f := foundedCluster(t, 4)
	f.with(t, map[int]schema.Liveness{3: schema.Dead})
	opts := serverOptions(t, f.Snapshot().Self, f, echo)
	opts.Asker = &fakeAsker{silent: map[string]bool{"peer2": true}}
	opts.Observer = observerFunc(func(req *peerv1.ObserveRequest) *peerv1.ObserveResponse { return observed(0, ring.NodeID{}, req) })
	s, _ := clientOf(t, opts)
	return s
}

func eventTexts(r *pairdbv1.EventsResponse) string {
	var all []string
	for _, e := range r.GetEvents() {
		all = append(all, e.GetNode().GetName()+":"+e.GetText())
	}
	return strings.Join(all, " ")
}

// TestEventsOfAllNodes are in the order of their time, whoever does not answer is
// named, and a cursor goes on where each node was.
func TestEventsOfAllNodes(t *testing.T) {
	s := observing(t)
	ctx := testContext(t)
	r, err := s.Events(ctx, &pairdbv1.EventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := eventTexts(r), "node1:1-1 node0:0-1 node1:1-2 node0:0-2 node1:1-3 node0:0-3"; got != want {
		t.Errorf("%s", got)
	}
	if u := r.GetUnreachable(); len(u) != 2 || u[0].GetName() != "node2" || u[1].GetName() != "node3" || u[1].GetReason() == "" {
		t.Errorf("unreachable %v", u)
	}
	again, err := s.Events(ctx, &pairdbv1.EventsRequest{Cursor: r.GetNextCursor()})
	if err != nil || len(again.GetEvents()) != 0 || again.GetNextCursor() != r.GetNextCursor() {
		t.Errorf("again: %s, %v", eventTexts(again), err)
	}
	one, err := s.Events(ctx, &pairdbv1.EventsRequest{Node: "node1"})
	if err != nil || eventTexts(one) != "node1:1-1 node1:1-2 node1:1-3" || len(one.GetUnreachable()) != 0 {
		t.Errorf("of one: %s, %v", eventTexts(one), err)
	}
	for name, req := range map[string]*pairdbv1.EventsRequest{
		"no node": {Node: "nobody"}, "too many": {Limit: 1001}, "no cursor": {Cursor: "x"}, "half a cursor": {Cursor: r.GetNextCursor() + "_"},
		"both": {Cursor: r.GetNextCursor(), Since: timestamppb.Now()}, "no time": {Since: &timestamppb.Timestamp{Nanos: -1}},
	} {
		if _, err := s.Events(ctx, req); err == nil || Classify(err).Code != errcode.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCursorForgetsNobody: nodes that the node which is asked has not heard of, or that do not
// answer it, go on later where they were, and not before what was asked for.
func TestCursorForgetsNobody(t *testing.T) {
	s := observing(t)
	ctx := testContext(t)
	stranger, _, _ := named(7) // a member that the node asked before knew
	gone := fmt.Sprintf("%s.3.2", stranger)
	r, err := s.Events(ctx, &pairdbv1.EventsRequest{Cursor: gone})
	if err != nil || !strings.Contains(r.GetNextCursor(), gone) {
		t.Errorf("%s, %v: its events would be told twice", r.GetNextCursor(), err)
	}
	many := make([]string, maxPlaces)
	for i := range many {
		many[i] = fmt.Sprintf("%s.3.2", ring.NodeID{0xdd, byte(i >> 8), byte(i)})
	}
	if r, err = s.Events(ctx, &pairdbv1.EventsRequest{Cursor: strings.Join(many, "_")}); err != nil {
		t.Fatal(err)
	}
	if places, err := parseCursor(r.GetNextCursor()); err != nil || len(places) != maxPlaces {
		t.Errorf("%d nodes, %v: the cursor that it gave cannot be used", len(places), err)
	}

	since := time.UnixMilli(1_700_000_000_123)
	if r, err = s.Events(ctx, &pairdbv1.EventsRequest{Since: timestamppb.New(since)}); err != nil {
		t.Fatal(err)
	}
	places, err := parseCursor(r.GetNextCursor())
	if err != nil || len(places) != 4 {
		t.Fatalf("%v, %v", places, err)
	}
	silent, _, _ := named(2)
	if q := places[silent].query(nil, 9); !q.GetSince().AsTime().Equal(since) || q.GetIncarnation() != 0 || q.GetNumber() != 0 || q.GetLimit() != 9 {
		t.Errorf("who did not answer is asked %v", q)
	}
	if again, err := s.Events(ctx, &pairdbv1.EventsRequest{Cursor: r.GetNextCursor()}); err != nil || again.GetNextCursor() != r.GetNextCursor() {
		t.Errorf("%s, %v", again.GetNextCursor(), err)
	}
	if q := places[s.opts.Self].query(nil, 9); q.GetSince() != nil || q.GetIncarnation() != 3 || q.GetNumber() != 3 {
		t.Errorf("who answered is asked %v", q)
	}
}

// TestTrafficOfAllNodes: keys are added up over the nodes, with what is not known of
// nodes that do not list them.
func TestTrafficOfAllNodes(t *testing.T) {
	s := observing(t)
	r, err := s.Traffic(testContext(t), &pairdbv1.TrafficRequest{HotKeys: 2})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.GetNodes()) != 2 || r.GetNodes()[1].GetNode().GetName() != "node1" || len(r.GetUnreachable()) != 2 || len(r.GetHotKeys()) != 2 {
		t.Fatalf("%v", r)
	}
	near := func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }
	hot := r.GetHotKeys()[0]
	if string(hot.GetKey()) != "hot" || hot.GetTenantId() != "default" || hot.GetKind() != "read" || !near(hot.GetPerSecond(), 22) ||
		!near(hot.GetPerSecondError(), 2+math.Sqrt(18)) || !near(hot.GetShare(), 0.22) {
		t.Errorf("%v", hot)
	}
	// The other node has it at most as often as its floor says.
	if own := r.GetHotKeys()[1]; own.GetTenantId() != "tenant 9" || !near(own.GetPerSecond(), 2.5) || !near(own.GetPerSecondError(), 0.5) {
		t.Errorf("%v", own)
	}
	if r, err := s.Traffic(testContext(t), &pairdbv1.TrafficRequest{}); err != nil || len(r.GetHotKeys()) != 0 {
		t.Errorf("no keys asked for: %v, %v", r.GetHotKeys(), err)
	}
	if _, err := s.Traffic(testContext(t), &pairdbv1.TrafficRequest{HotKeys: 257}); err == nil {
		t.Error("257 keys are too many")
	}
}

// TestObserveIsForThisMachine, and among nodes for members.
func TestObserveIsForThisMachine(t *testing.T) {
	s := observing(t)
	far := grpcpeer.NewContext(context.Background(), &grpcpeer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}})
	o := &observeService{s: s}
	if _, err := o.Events(far, &pairdbv1.EventsRequest{}); err == nil || Classify(err).Code != errcode.Forbidden {
		t.Errorf("events from afar: %v", err)
	}
	if _, err := o.Traffic(far, &pairdbv1.TrafficRequest{}); err == nil || Classify(err).Code != errcode.Forbidden {
		t.Errorf("traffic from afar: %v", err)
	}
	p := &peerService{frames: s.frames, observe: s.observeLocal}
	stranger := ring.NodeID{0xee}
	if _, err := p.Observe(context.Background(), &peerv1.ObserveRequest{Sender: stranger[:]}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a stranger: %v", err)
	}
	member, _, _ := named(1)
	r, err := p.Observe(context.Background(), &peerv1.ObserveRequest{Sender: member[:], Events: &peerv1.EventQuery{Limit: 10}})
	if err != nil || len(r.GetEvents()) != 3 || ring.NodeID(r.GetNodeId()) != s.opts.Self {
		t.Errorf("a member: %v, %v", r, err)
	}
}
