package rpc

import (
	"context"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// frameServer is the serving side of all links: it hands requests to the
// handler and gathers the replies.
type frameServer struct {
	self    ring.NodeID
	cluster func() ring.ClusterID
	member  func(ring.NodeID) bool
	handler coord.PeerHandler
	now     func() time.Time
	log     *slog.Logger
	pool    *bufferPool
	// maxUnanswered and maxHeld bound the requests of one lane of a session
	// without a reply, in items and in bytes of their frames: beyond, nothing
	// more is read from the lane. maxReplies does so by the bytes of replies
	// that wait in it; at twice that reads are refused and the session is ended
	// by others. A lane never waits for another.
	maxUnanswered       int
	maxHeld, maxReplies [laneCount]int
	noCompression       bool
	counters            sessionCounters

	mu struct {
		sync.Mutex
		sessions map[sessionKey]*session
		// begun counts them.
		begun    uint64
		draining bool
	}
	wg sync.WaitGroup // one per stream's reader
}

// maxSessions bounds the sessions of one peer. There is one, and for a while
// those of earlier links whose end was not noticed yet: one more ends the
// oldest. Those that are over but have a stream that does not notice come on
// top, and are bounded by maxRemains; at that links are refused.
const (
	maxSessions = 8
	maxRemains  = 32
)

type sessionKey struct {
	from ring.NodeID
	link string
}

// session is the serving side of one link. A reply goes out in the lane of its
// own size, not in that of its request, but for the background's.
type session struct {
	fs  *frameServer
	key sessionKey
	// number counts the sessions of this node in the order they began.
	number uint64

	mu struct {
		sync.Mutex
		lanes [laneCount]outbox
		// attached lanes have a stream.
		attached [laneCount]bool
		// end is why the session is over; nil while it is not.
		end error
		// unanswered items and held bytes of each lane, see frameServer.
		unanswered, held [laneCount]int
		// sending counts the senders that have taken a frame.
		sending  int
		draining bool
		// reading a lane may go on when its condition is signalled.
		room [laneCount]sync.Cond
	}
}

// frames serves one stream: one lane of one link.
func (fs *frameServer) frames(stream grpc.BidiStreamingServer[peerv1.Frame, peerv1.Frame]) error {
	s, lane, err := fs.accept(stream)
	if err != nil {
		return err
	}
	answer := metadata.Pairs(mdCluster, fs.cluster().String(), mdFrom, fs.self.String())
	var c *compressor
	if !fs.noCompression {
		answer.Set(mdAccept, acceptBlock)
		if md, _ := metadata.FromIncomingContext(stream.Context()); acceptsCompressed(md) {
			c = newCompressor(lane, &fs.counters.compress)
			defer c.end()
		}
	}
	if err := stream.SendHeader(answer); err != nil {
		fs.wg.Done() // there is no reader
		fs.detach(s, lane, err)
		return err
	}
	// A session that waits for its handler or for room notices so that the
	// peer has gone.
	stop := context.AfterFunc(stream.Context(), func() {
		s.finish(status.FromContextError(stream.Context().Err()).Err())
	})
	defer stop()
	// The reader cannot be interrupted but by the end of this function, which
	// ends the stream.
	go func() {
		defer fs.wg.Done()
		s.finish(s.receiveLoop(stream, lane))
	}()
	err = s.sendLoop(stream, lane, c)
	fs.detach(s, lane, err)
	return err
}

// The others connect to a node that joins as soon as they know that it is to own
// something, which may be a moment before it knows of them. It has them wait that long
// for it to know its cluster, within the window in which their first requests wait, too.
const (
	clusterWait = time.Second
	clusterPoll = 5 * time.Millisecond
)

// awaitCluster returns this node's cluster, zero if it does not get to know it in time.
func (fs *frameServer) awaitCluster(ctx context.Context) ring.ClusterID {
	mine := fs.cluster()
	if !mine.IsZero() {
		return mine
	}
	ctx, cancel := context.WithTimeout(ctx, clusterWait)
	defer cancel()
	again := time.NewTicker(clusterPoll)
	defer again.Stop()
	for mine.IsZero() {
		select {
		case <-ctx.Done():
			return fs.cluster()
		case <-again.C:
			mine = fs.cluster()
		}
	}
	return mine
}

// accept checks who calls and finds or makes the session. With a nil error it
// has counted the stream's reader.
func (fs *frameServer) accept(stream grpc.ServerStream) (*session, Lane, error) {
	md, _ := metadata.FromIncomingContext(stream.Context())
	one := func(key string) string {
		if v := md.Get(key); len(v) == 1 {
			return v[0]
		}
		return ""
	}
	if mine := fs.awaitCluster(stream.Context()); mine.IsZero() || one(mdCluster) != mine.String() {
		return nil, 0, status.Errorf(codes.FailedPrecondition, "this node is of cluster %s, the caller says %q", mine, one(mdCluster))
	}
	if one(mdTo) != fs.self.String() {
		return nil, 0, status.Errorf(codes.FailedPrecondition, "this is node %s, the caller looks for %q", fs.self, one(mdTo))
	}
	from, err := ring.ParseNodeID(one(mdFrom))
	if err != nil {
		return nil, 0, status.Errorf(codes.InvalidArgument, "the caller does not say which node it is: %v", err)
	}
	if !fs.member(from) {
		return nil, 0, status.Errorf(codes.PermissionDenied, "node %s is no member of this cluster", from)
	}
	lane, ok := parseLane(one(mdLane))
	if !ok {
		return nil, 0, status.Errorf(codes.Unimplemented, "this node has no lane %q", one(mdLane))
	}
	key := sessionKey{from: from, link: one(mdLink)}
	if len(key.link) != 16 {
		return nil, 0, status.Error(codes.InvalidArgument, "the caller does not number its link")
	}
	s, err := fs.attach(key, lane)
	return s, lane, err
}

func (fs *frameServer) attach(key sessionKey, lane Lane) (*session, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.mu.draining {
		return nil, status.Error(codes.Unavailable, "this node is shutting down")
	}
	s := fs.mu.sessions[key]
	if s == nil {
		if err := fs.makeRoomLocked(key.from); err != nil {
			return nil, err
		}
		fs.mu.begun++
		s = &session{fs: fs, key: key, number: fs.mu.begun}
		for i := range s.mu.lanes {
			s.mu.room[i].L = &s.mu.Mutex
			s.mu.lanes[i].init(&s.mu.Mutex)
		}
		fs.mu.sessions[key] = s
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.mu.end != nil:
		return nil, status.Error(codes.Aborted, "the link is over")
	case s.mu.attached[lane]:
		return nil, status.Errorf(codes.AlreadyExists, "the link has its lane %s already", lane)
	}
	s.mu.attached[lane] = true
	fs.wg.Add(1)
	return s, nil
}

// makeRoomLocked ends the oldest session of a peer that has as many as it may.
// A node keeps one link to another, so the newest is the one that counts.
func (fs *frameServer) makeRoomLocked(from ring.NodeID) error {
	var oldest *session
	live, all := 0, 0
	for k, s := range fs.mu.sessions {
		if k.from != from {
			continue
		}
		all++
		if s.over() {
			continue
		}
		live++
		if oldest == nil || s.number < oldest.number {
			oldest = s
		}
	}
	if all >= maxRemains {
		return status.Errorf(codes.ResourceExhausted, "%d links from node %s are open", all, from)
	}
	if live >= maxSessions {
		fs.counters.superseded.Add(1)
		oldest.finish(status.Errorf(codes.Aborted, "%d newer links from node %s", live, from))
	}
	return nil
}

// detach ends the session, of which a stream is over, and forgets it with its
// last stream.
func (fs *frameServer) detach(s *session, lane Lane, err error) {
	s.finish(err)
	fs.mu.Lock()
	defer fs.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.attached[lane] = false
	if s.mu.attached == [laneCount]bool{} {
		delete(fs.mu.sessions, s.key)
	}
}

// drain lets the sessions end once what they have read is answered. New
// requests are refused.
func (fs *frameServer) drain() {
	fs.mu.Lock()
	fs.mu.draining = true
	sessions := make([]*session, 0, len(fs.mu.sessions))
	for _, s := range fs.mu.sessions {
		sessions = append(sessions, s)
	}
	fs.mu.Unlock()
	for _, s := range sessions {
		s.mu.Lock()
		s.mu.draining = true
		s.wakeLocked()
		s.mu.Unlock()
	}
}

// end ends all sessions at once.
func (fs *frameServer) end() {
	fs.mu.Lock()
	fs.mu.draining = true
	for _, s := range fs.mu.sessions {
		s.finish(status.Error(codes.Unavailable, "this node is shutting down"))
	}
	fs.mu.Unlock()
}

// finish ends the session for the reason err, the first of which counts.
func (s *session) finish(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(err)
}

// over says that the session has ended; its streams may not have noticed.
func (s *session) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.end != nil
}

func (s *session) endLocked(err error) {
	if s.mu.end != nil {
		return
	}
	if err == nil {
		err = io.EOF
	}
	s.mu.end = err
	for i := range s.mu.lanes {
		for _, f := range s.mu.lanes[i].drop() {
			s.fs.pool.Put(f.buf)
		}
	}
	s.wakeLocked()
}

func (s *session) wakeLocked() {
	for i := range s.mu.lanes {
		s.mu.lanes[i].wake.Broadcast()
		s.mu.room[i].Broadcast()
	}
}

// sendLoop sends the replies that gather in the lane until the session is over,
// and returns the status the stream ends with.
func (s *session) sendLoop(stream grpc.ServerStream, lane Lane, c *compressor) error {
	o := &s.mu.lanes[lane]
	stopped := func() bool { return s.mu.end != nil || s.drainedLocked() }
	for {
		s.mu.Lock()
		f := o.take(stopped)
		end, waiting := s.mu.end, o.bytes
		if f != nil {
			s.mu.sending++
		}
		s.mu.room[lane].Signal()
		s.mu.Unlock()
		switch {
		case f != nil:
		case end == nil:
			return status.Error(codes.Unavailable, "this node is shutting down")
		case end == io.EOF:
			return nil
		default:
			if _, ok := status.FromError(end); ok {
				return end
			}
			return status.Error(codes.InvalidArgument, end.Error())
		}
		sealFrame(*f.buf, f.count, 0)
		if err := stream.SendMsg(c.frame(f, waiting, s.fs.pool)); err != nil {
			return err
		}
		s.sent()
	}
}

// sent says that a frame that was taken is on its way.
func (s *session) sent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.sending--
	if s.drainedLocked() {
		s.wakeLocked()
	}
}

// drainedLocked says that a session that is to end has nothing left to do.
func (s *session) drainedLocked() bool {
	for i := range s.mu.lanes {
		if !s.mu.lanes[i].empty() {
			return false
		}
	}
	return s.mu.draining && s.mu.unanswered == [laneCount]int{} && s.mu.sending == 0
}

// receiveLoop takes in requests until the stream ends; it returns nil when the
// peer ended it in an orderly way.
func (s *session) receiveLoop(stream grpc.ServerStream, lane Lane) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s.fs.log.Error("peer handler panicked", "peer", s.key.from.Short(), "panic", r, "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "internal error")
		}
	}()
	for s.waitForRoom(lane) {
		var in inFrame
		if err := stream.RecvMsg(&in); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		if err := s.receive(in.payload, lane); err != nil {
			return err
		}
	}
	return nil
}

// waitForRoom parks while the lane has too much unanswered; false means that
// the session is over.
func (s *session) waitForRoom(lane Lane) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for paused := false; s.mu.end == nil && (s.mu.unanswered[lane] >= s.fs.maxUnanswered || s.mu.held[lane] >= s.fs.maxHeld[lane] ||
		s.mu.lanes[lane].bytes >= s.fs.maxReplies[lane]); {
		if !paused {
			paused = true
			s.fs.counters.pauses[lane].Add(1)
		}
		s.mu.room[lane].Wait()
	}
	return s.mu.end == nil
}
