package rpc

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// rawStream opens a lane by hand, as a peer that keeps no rule might.
func rawStream(t *testing.T, addr string, md metadata.MD) grpc.BidiStreamingClient[peerv1.Frame, peerv1.Frame] {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxFrameBytes+64)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	stream, err := peerv1.NewPeerClient(conn).Frames(metadata.NewOutgoingContext(ctx, md))
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func handshake(lane Lane, link string) metadata.MD {
	return metadata.Pairs(mdCluster, testCluster.String(), mdFrom, nodeA.String(), mdTo, nodeB.String(),
		mdLink, link, mdLane, lane.String())
}

const someLink = "0123456789abcdef"

// recvReplies reads n replies off a raw stream.
func recvReplies(t *testing.T, stream grpc.BidiStreamingClient[peerv1.Frame, peerv1.Frame], n int) map[uint64]coord.Reply {
	t.Helper()
	got := make(map[uint64]coord.Reply)
	for len(got) < n {
		f, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %d of %d replies: %v", len(got), n, err)
		}
		h, items, err := decodeHeader(f.GetPayload())
		if err != nil {
			t.Fatal(err)
		}
		if err := decodeReplies(h, items, func(id uint64, r *coord.Reply) {
			if _, twice := got[id]; twice {
				t.Errorf("two replies to %d", id)
			}
			got[id] = *r
		}); err != nil {
			t.Fatal(err)
		}
	}
	return got
}

func TestHostileStreams(t *testing.T) {
	with := func(key, value string) metadata.MD {
		md := handshake(LaneSmall, someLink)
		md.Set(key, value)
		return md
	}
	other := appendHeader(nil, kindRequests, ring.ClusterID{7}, nodeA)
	sealFrame(other, 0, 0)
	foreign := appendHeader(nil, kindRequests, testCluster, ring.NodeID{0xcc})
	sealFrame(foreign, 0, 0)
	replies := appendHeader(nil, kindReplies, testCluster, nodeA)
	sealFrame(replies, 0, 0)
	for name, c := range map[string]struct {
		md   metadata.MD
		send []byte
		want codes.Code
	}{
		"no metadata":       {md: nil, want: codes.FailedPrecondition},
		"bad sender":        {md: with(mdFrom, "x"), want: codes.InvalidArgument},
		"unknown sender":    {md: with(mdFrom, ring.NodeID{0xcc}.String()), want: codes.PermissionDenied},
		"unknown lane":      {md: with(mdLane, "sideways"), want: codes.Unimplemented},
		"no link":           {md: with(mdLink, ""), want: codes.InvalidArgument},
		"wrong node":        {md: with(mdTo, nodeA.String()), want: codes.FailedPrecondition},
		"wrong cluster":     {md: with(mdCluster, ring.ClusterID{7}.String()), want: codes.FailedPrecondition},
		"empty frame":       {md: handshake(LaneSmall, someLink), send: []byte{}, want: codes.Internal},
		"garbage":           {md: handshake(LaneSmall, someLink), send: []byte("garbage"), want: codes.InvalidArgument},
		"other cluster":     {md: handshake(LaneSmall, someLink), send: other, want: codes.InvalidArgument},
		"other sender":      {md: handshake(LaneSmall, someLink), send: foreign, want: codes.InvalidArgument},
		"replies":           {md: handshake(LaneSmall, someLink), send: replies, want: codes.InvalidArgument},
		"handler panics":    {md: handshake(LaneSmall, someLink), send: requestFrame(0, time.Second, coord.Message{Op: 99}), want: codes.Internal},
		"frame of 65 MiB":   {md: handshake(LaneLarge, someLink), send: make([]byte, 65<<20), want: codes.ResourceExhausted},
		"unfinished object": {md: handshake(LaneSmall, someLink), send: requestFrame(0, time.Second, coord.Message{Body: []byte("x")})[:headerLen+20], want: codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			handler := handlerFunc(func(f ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
				if msgs[0].Op == 99 {
					panic("a broken invariant")
				}
				echo(f, msgs, reply)
			})
			opts := serverOptions(t, nodeB, clusterOf(nodeB, nodeA), handler)
			opts.Logger = nil
			_, addr := startPeerServer(t, opts)
			stream := rawStream(t, addr, c.md)
			if c.send != nil {
				// The status comes from receiving.
				_ = stream.Send(&peerv1.Frame{Payload: c.send})
			}
			_, err := stream.Recv()
			if status.Code(err) != c.want {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if st := status.Convert(err).Message(); c.want == codes.Internal && name == "handler panics" && st != "internal error" {
				t.Errorf("the peer is told %q", st)
			}
			// The server is as well as before.
			ps := startPeers(t, peersOptions(t, constant(addr)))
			if res := call(t, ps, coord.Message{Op: coord.OpMerge}); res.err != nil {
				t.Error(res.err)
			}
		})
	}
}

func TestExpiredIsNotServed(t *testing.T) {
	var served atomic.Int64
	handler := handlerFunc(func(f ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
		served.Add(int64(len(msgs)))
		echo(f, msgs, reply)
	})
	_, addr := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), handler))
	stream := rawStream(t, addr, handshake(LaneSmall, someLink))
	b := appendHeader(nil, kindRequests, testCluster, nodeA)
	for i := range 6 {
		left := 10 * time.Second
		if i%2 == 0 {
			left = 3 * time.Millisecond
		}
		b = appendRequest(b, uint64(i+1), &coord.Message{Body: []byte{byte(i)}}, left)
	}
	sealFrame(b, 6, 3*time.Millisecond)
	if err := stream.Send(&peerv1.Frame{Payload: b}); err != nil {
		t.Fatal(err)
	}
	for id, r := range recvReplies(t, stream, 6) {
		if id%2 == 1 && r.Status != coord.StatusExpired {
			t.Errorf("expired request %d: %+v", id, r)
		}
		if id%2 == 0 && (r.Status != coord.StatusOK || len(r.Body) != 1 || r.Body[0] != byte(id-1)) {
			t.Errorf("request %d: %+v", id, r)
		}
	}
	if served.Load() != 3 {
		t.Errorf("%d served", served.Load())
	}
}

// TestUnansweredBound: a handler that falls behind stops the reading.
func TestUnansweredBound(t *testing.T) {
	var mu sync.Mutex
	var waiting []func()
	got := make(chan int, 1000)
	handler := handlerFunc(func(_ ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
		mu.Lock()
		for i := range msgs {
			waiting = append(waiting, func() { reply(i, coord.Reply{Status: coord.StatusOK}) })
		}
		mu.Unlock()
		got <- len(msgs)
	})
	opts := serverOptions(t, nodeB, clusterOf(nodeB, nodeA), handler)
	opts.MaxUnanswered = 10
	s, addr := startPeerServer(t, opts)
	stream := rawStream(t, addr, handshake(LaneSmall, someLink))
	const frames, each = 20, 4
	for range frames {
		if err := stream.Send(&peerv1.Frame{Payload: requestFrame(0, time.Minute, make([]coord.Message, each)...)}); err != nil {
			t.Fatal(err)
		}
	}
	total := 0
	for total < 12 { // two frames leave room for a third
		total += <-got
	}
	session := func() *session {
		s.frames.mu.Lock()
		defer s.frames.mu.Unlock()
		for _, ses := range s.frames.mu.sessions {
			return ses
		}
		return nil
	}()
	// The reader parks: nothing more may come, however long one waits.
	select {
	case n := <-got:
		t.Fatalf("%d more came with %d unanswered", n, total)
	case <-time.After(50 * time.Millisecond):
	}
	for total < frames*each {
		mu.Lock()
		answer := waiting
		waiting = nil
		mu.Unlock()
		for _, f := range answer {
			f()
			f() // the second does nothing
		}
		select {
		case n := <-got:
			total += n
		case <-time.After(10 * time.Second):
			t.Fatalf("stuck at %d", total)
		}
		session.mu.Lock()
		if n := session.mu.unanswered[LaneSmall]; n > 12 {
			t.Errorf("%d unanswered", n)
		}
		session.mu.Unlock()
	}
}

// queuedReplies is how many bytes of replies wait in all sessions.
func queuedReplies(s *Server) int {
	s.frames.mu.Lock()
	defer s.frames.mu.Unlock()
	n := 0
	for _, ses := range s.frames.mu.sessions {
		ses.mu.Lock()
		n += ses.mu.lanes[LaneSmall].bytes + ses.mu.lanes[LaneLarge].bytes
		ses.mu.Unlock()
	}
	return n
}

// TestRepliesNobodyReads: a peer that asks for much and reads nothing costs a
// bounded amount. Reads are refused; of writes there is no honest reply, so the
// session ends.
func TestRepliesNobodyReads(t *testing.T) {
	const n, size = 400, 60 << 10
	var server atomic.Pointer[Server]
	done := make(chan struct{}, 2)
	handler := handlerFunc(func(_ ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
		for i := range msgs {
			reply(i, coord.Reply{Status: coord.StatusOK, Body: make([]byte, size)})
			if b := queuedReplies(server.Load()); b > 2<<20+n*minItemOnWire {
				t.Errorf("%d bytes of replies wait", b)
			}
		}
		done <- struct{}{}
	})
	opts := serverOptions(t, nodeB, clusterOf(nodeB, nodeA), handler)
	opts.MaxReplyBytes = 1 << 20
	s, addr := startPeerServer(t, opts)
	server.Store(s)
	ask := func(op coord.Op) []byte {
		msgs := make([]coord.Message, n)
		for i := range msgs {
			msgs[i].Op = op
		}
		return requestFrame(0, time.Minute, msgs...)
	}
	stream := rawStream(t, addr, handshake(LaneSmall, someLink))
	if err := stream.Send(&peerv1.Frame{Payload: ask(coord.OpRead)}); err != nil {
		t.Fatal(err)
	}
	<-done
	count := make(map[coord.Status]int)
	for _, r := range recvReplies(t, stream, n) {
		count[r.Status]++
	}
	if count[coord.StatusOK] == 0 || count[coord.StatusOverloaded] == 0 || count[coord.StatusOK]*size > 4<<20 {
		t.Errorf("replies by status: %v", count)
	}
	if err := stream.Send(&peerv1.Frame{Payload: ask(coord.OpMerge)}); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := stream.Recv(); err != nil {
			if status.Code(err) != codes.ResourceExhausted {
				t.Error(err)
			}
			return
		}
	}
}

// TestDrain: what was read is answered, what comes later is refused, then the
// link ends.
func TestDrain(t *testing.T) {
	arrived := make(chan func(), 1)
	handler := handlerFunc(func(_ ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
		arrived <- func() { reply(0, coord.Reply{Status: coord.StatusOK, Body: []byte("late")}) }
	})
	s, addr := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), handler))
	stream := rawStream(t, addr, handshake(LaneSmall, someLink))
	send := func() {
		if err := stream.Send(&peerv1.Frame{Payload: requestFrame(0, time.Minute, coord.Message{})}); err != nil {
			t.Fatal(err)
		}
	}
	send()
	answer := <-arrived
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		stopped <- s.StopPeers(ctx)
	}()
	waitFor(t, func() bool {
		s.frames.mu.Lock()
		defer s.frames.mu.Unlock()
		for _, ses := range s.frames.mu.sessions {
			ses.mu.Lock()
			defer ses.mu.Unlock()
			return ses.mu.draining
		}
		return false
	})
	send()
	if r := recvReplies(t, stream, 1); r[1].Status != coord.StatusOverloaded {
		t.Errorf("while draining: %+v", r)
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped with a request unanswered: %v", err)
	default:
	}
	answer()
	if r := recvReplies(t, stream, 1); string(r[1].Body) != "late" {
		t.Errorf("got %+v", r)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// TestSessionsAreBounded opens more links than a peer can have: each ends the
// oldest, so that a node whose links were lost unnoticed is not kept out.
func TestSessionsAreBounded(t *testing.T) {
	s, addr := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), echo))
	links := "0123456789abcdef"
	open := func(i int) grpc.BidiStreamingClient[peerv1.Frame, peerv1.Frame] {
		stream := rawStream(t, addr, handshake(LaneSmall, links[i:]+links[:i]))
		if md, err := stream.Header(); err != nil || len(md.Get(mdFrom)) == 0 {
			t.Fatalf("link %d: %v, %v", i, md, err)
		}
		return stream
	}
	streams := make([]grpc.BidiStreamingClient[peerv1.Frame, peerv1.Frame], maxSessions)
	for i := range streams {
		streams[i] = open(i)
	}
	for i := range 3 {
		open(maxSessions + i)
		if _, err := streams[i].Recv(); status.Code(err) != codes.Aborted {
			t.Errorf("the oldest link: %v", err)
		}
	}
	if st := s.SessionStats(); st.Superseded != 3 {
		t.Errorf("stats %+v", st)
	}
	if err := streams[3].Send(&peerv1.Frame{Payload: requestFrame(0, time.Minute, coord.Message{})}); err != nil {
		t.Error(err)
	}
	recvReplies(t, streams[3], 1)
	if _, err := rawStream(t, addr, handshake(LaneSmall, links[5:]+links[:5])).Recv(); status.Code(err) != codes.AlreadyExists {
		t.Errorf("the same lane twice: %v", err)
	}
	// Sessions that are over, but whose streams have not noticed, are counted.
	s.frames.mu.Lock()
	for i := range maxRemains {
		key := sessionKey{from: nodeA, link: string(rune(i))}
		over := &session{fs: s.frames, key: key}
		over.mu.end = context.Canceled
		s.frames.mu.sessions[key] = over
	}
	s.frames.mu.Unlock()
	if _, err := rawStream(t, addr, handshake(LaneSmall, "x123456789abcdef")).Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("with too many remains: %v", err)
	}
	s.frames.mu.Lock()
	for key, ses := range s.frames.mu.sessions {
		if ses.number == 0 {
			delete(s.frames.mu.sessions, key)
		}
	}
	s.frames.mu.Unlock()
}

// goneStream is a stream whose caller has gone before it is answered.
type goneStream struct {
	grpc.BidiStreamingServer[peerv1.Frame, peerv1.Frame]
	ctx context.Context
}

func (s goneStream) Context() context.Context { return s.ctx }

func (goneStream) SendHeader(metadata.MD) error { return status.Error(codes.Unavailable, "gone") }

// TestStreamThatIsGone: a lane whose caller goes before it is answered keeps the server
// from nothing.
func TestStreamThatIsGone(t *testing.T) {
	s, _ := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), echo))
	err := s.frames.frames(goneStream{ctx: metadata.NewIncomingContext(t.Context(), handshake(LaneSmall, someLink))})
	if status.Code(err) != codes.Unavailable {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the server waits for a reader that never began")
	}
}
