package rpc

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// park answers merges with their body at once and everything else when it is
// told to.
type park struct {
	arrived chan int // the size of the body
	release chan struct{}
}

func newPark() *park { return &park{arrived: make(chan int, 10_000), release: make(chan struct{})} }

func (p *park) HandlePeer(from ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
	for i := range msgs {
		if msgs[i].Op == coord.OpMerge {
			reply(i, coord.Reply{Status: coord.StatusOK, Body: msgs[i].Body})
			continue
		}
		p.arrived <- len(msgs[i].Body)
		go func() {
			<-p.release
			reply(i, coord.Reply{Status: coord.StatusOK})
		}()
	}
}

// TestLanesDoNotWaitForEachOther: a lane whose requests are not answered is not
// read from any more; the other goes on.
func TestLanesDoNotWaitForEachOther(t *testing.T) {
	const small, large = 100, 1 << 20
	for name, c := range map[string]struct {
		parked, other, atMost int
	}{
		// 3 of 4 MiB are the large lane's, and one frame may be over.
		"large stands still": {parked: large, other: small, atMost: 4},
		"small stands still": {parked: small, other: large, atMost: 20},
	} {
		t.Run(name, func(t *testing.T) {
			h := newPark()
			opts := serverOptions(t, nodeB, clusterOf(nodeB, nodeA), h)
			opts.MaxUnanswered, opts.MaxHeldBytes = 10, 4<<20
			s, addr := startPeerServer(t, opts)
			ps := startPeers(t, peersOptions(t, constant(addr)))
			var wg sync.WaitGroup
			const sent = 60
			for range sent {
				wg.Add(1)
				m := coord.Message{Op: coord.OpForward, Body: make([]byte, c.parked), Deadline: time.Now().Add(time.Minute)}
				ps.Send(nodeB, &m, func(_ coord.Reply, err error) {
					if err != nil {
						t.Error(err)
					}
					wg.Done()
				})
				if c.parked == small {
					// Each in a frame of its own, or nearly.
					waitFor(t, func() bool { return ps.Stats().QueuedItems == 0 || len(h.arrived) >= 10 })
				}
			}
			for range 50 {
				if res := call(t, ps, coord.Message{Op: coord.OpMerge, Body: make([]byte, c.other)}); res.err != nil || len(res.r.Body) != c.other {
					t.Fatalf("the other lane: %v", res.err)
				}
			}
			if n := len(h.arrived); n > c.atMost+10 || n == 0 {
				t.Errorf("%d were read from the lane that is full", n)
			}
			st := s.SessionStats()
			full, free := st.Lanes[laneOf(c.parked)], st.Lanes[1-laneOf(c.parked)]
			if full.Pauses == 0 || full.Unanswered == 0 || full.HeldBytes == 0 || free.Pauses != 0 {
				t.Errorf("stats %+v", st)
			}
			close(h.release)
			wg.Wait()
			waitFor(t, func() bool {
				st := s.SessionStats()
				return st.Lanes[LaneSmall].Unanswered+st.Lanes[LaneLarge].Unanswered == 0 && st.Lanes[LaneSmall].HeldBytes+st.Lanes[LaneLarge].HeldBytes == 0
			})
		})
	}
}

// TestLargeRepliesNobodyReads: they hold up neither small replies nor the
// answers to large writes, and end no session.
func TestLargeRepliesNobodyReads(t *testing.T) {
	handler := handlerFunc(func(_ ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
		for i := range msgs {
			r := coord.Reply{Status: coord.StatusOK}
			if msgs[i].Op == coord.OpRead {
				r.Body = make([]byte, 1<<20)
			}
			reply(i, r)
		}
	})
	opts := serverOptions(t, nodeB, clusterOf(nodeB, nodeA), handler)
	opts.MaxReplyBytes = 4 << 20
	s, addr := startPeerServer(t, opts)
	small := rawStream(t, addr, handshake(LaneSmall, someLink))
	if _, err := small.Header(); err != nil {
		t.Fatal(err)
	}
	large := rawStream(t, addr, handshake(LaneLarge, someLink))
	if _, err := large.Header(); err != nil {
		t.Fatal(err)
	}
	// More than gRPC's window, the socket's buffers and the bound hold.
	const reads = 60
	b := appendHeader(nil, kindRequests, testCluster, nodeA)
	for i := range uint64(reads) {
		b = appendRequest(b, i+1, &coord.Message{Op: coord.OpRead}, time.Minute)
	}
	sealFrame(b, reads, 0)
	if err := small.Send(&peerv1.Frame{Payload: b}); err != nil {
		t.Fatal(err)
	}
	b = appendHeader(nil, kindRequests, testCluster, nodeA)
	b = appendRequest(b, 1000, &coord.Message{Op: coord.OpMerge, Body: make([]byte, largeItem)}, time.Minute)
	sealFrame(b, 1, 0)
	if err := large.Send(&peerv1.Frame{Payload: b}); err != nil {
		t.Fatal(err)
	}
	// The answer to the write comes in the small lane, among the refusals of
	// reads whose replies found no room. How many those are depends on what
	// the transport took.
	for answered := false; !answered; {
		for id, r := range recvReplies(t, small, 1) {
			if id <= reads && r.Status != coord.StatusOverloaded {
				t.Errorf("read %d: %+v", id, r)
			}
			answered = answered || id == 1000 && r.Status == coord.StatusOK
		}
	}
	waitFor(t, func() bool {
		st := s.SessionStats()
		return st.RepliesRefused > 0 && st.Lanes[LaneSmall].Unanswered == 0
	})
	if n := queuedReplies(s); n > 2*(4<<20)+1<<20 {
		t.Errorf("%d bytes of replies wait", n)
	}
	if st := s.SessionStats(); st.Unread != 0 || st.Sessions != 1 || st.Lanes[LaneLarge].ReplyBytes == 0 {
		t.Errorf("stats %+v", st)
	}
	if err := small.Send(&peerv1.Frame{Payload: requestFrame(0, time.Minute, coord.Message{Op: coord.OpMerge})}); err != nil {
		t.Fatal(err)
	}
	recvReplies(t, small, 1)
}

// TestSlowPeerDelaysNobodyElse: to a peer that reads nothing the queue fills and
// refuses; another is served meanwhile.
func TestSlowPeerDelaysNobodyElse(t *testing.T) {
	nodeC := ring.NodeID{0xc}
	_, addrB := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), echo))
	_, addrC := startPeerServer(t, serverOptions(t, nodeC, clusterOf(nodeC, nodeA), echo))
	stalled := newSlowLink(t, addrB, 0)
	opts := peersOptions(t, constant(""))
	opts.Logger = nil
	opts.MaxQueuedBytes = 4 << 20
	opts.Resolve = func(id ring.NodeID) (string, bool) {
		return map[ring.NodeID]string{nodeB: stalled.addr(), nodeC: addrC}[id], true
	}
	ps := startPeers(t, opts)
	if res := call(t, ps, coord.Message{Op: coord.OpMerge}); res.err != nil {
		t.Fatal(res.err)
	}
	stalled.rate(-1)
	var refused [laneCount]atomic.Int64
	var wg sync.WaitGroup
	for _, size := range []int{1000, 1 << 20} {
		m := coord.Message{Op: coord.OpMerge, Body: make([]byte, size), Deadline: time.Now().Add(time.Minute)}
		for range 64 << 20 / size {
			wg.Add(1)
			ps.Send(nodeB, &m, func(_ coord.Reply, err error) {
				if errors.Is(err, ErrOverloaded) && errors.Is(err, coord.ErrNotSent) {
					refused[laneOf(size)].Add(1)
				}
				wg.Done()
			})
		}
	}
	s := ps.Stats()
	for _, lane := range []Lane{LaneSmall, LaneLarge} {
		if l := s.Lanes[lane]; l.QueuedBytes > 4<<20 || l.QueuedBytes == 0 || l.Overloaded != uint64(refused[lane].Load()) || l.TooLarge+l.Disconnected != 0 {
			t.Errorf("lane %v: %+v, refused %d", lane, l, refused[lane].Load())
		}
	}
	if s.QueuedBytes > laneCount*4<<20 || refused[LaneSmall].Load() == 0 || refused[LaneLarge].Load() == 0 {
		t.Errorf("%d bytes wait, %d and %d refused", s.QueuedBytes, refused[LaneSmall].Load(), refused[LaneLarge].Load())
	}
	for range 100 {
		done := make(chan error, 1)
		m := coord.Message{Op: coord.OpMerge, Deadline: time.Now().Add(10 * time.Second)}
		ps.Send(nodeC, &m, func(_ coord.Reply, err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if err := ps.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

// TestExpiredLeaveTheQueue: what nobody waits for any more makes room, and is
// not sent when a peer that stood still goes on.
func TestExpiredLeaveTheQueue(t *testing.T) {
	var mu sync.Mutex
	seen := make(map[ring.Token]int)
	handler := handlerFunc(func(f ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
		mu.Lock()
		for i := range msgs {
			seen[msgs[i].Token]++
		}
		mu.Unlock()
		echo(f, msgs, reply)
	})
	_, addr := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), handler))
	var hold sync.RWMutex
	opts := peersOptions(t, constant(addr))
	opts.Dial = gatedDial(&hold)
	opts.MaxQueuedBytes = 1 << 20 // more than one frame and the sockets take
	ps := startPeers(t, opts)
	if res := call(t, ps, coord.Message{Op: coord.OpMerge}); res.err != nil {
		t.Fatal(res.err)
	}
	hold.Lock()
	held := true
	release := func() {
		if held {
			held = false
			hold.Unlock()
		}
	}
	defer release()
	var refused, notSent, expired atomic.Int64
	var wg sync.WaitGroup
	send := func(size int, token ring.Token, in time.Duration) {
		wg.Add(1)
		m := coord.Message{Op: coord.OpMerge, Body: make([]byte, size), Token: token, Deadline: time.Now().Add(in)}
		ps.Send(nodeB, &m, func(_ coord.Reply, err error) {
			switch {
			case errors.Is(err, ErrOverloaded):
				refused.Add(1)
			case errors.Is(err, ErrExpired):
				expired.Add(1)
				if errors.Is(err, coord.ErrNotSent) {
					notSent.Add(1)
				}
			case err != nil:
				t.Error(err)
			}
			wg.Done()
		})
	}
	for range 4000 {
		send(1000, 1, time.Second)
	}
	for range 10 {
		send(256<<10, 1, time.Second)
	}
	wg.Wait()
	if refused.Load() == 0 || notSent.Load() == 0 {
		t.Fatalf("%d refused, %d expired, %d of them not sent", refused.Load(), expired.Load(), notSent.Load())
	}
	if s := ps.Stats(); s.QueuedItems != 0 || s.QueuedBytes != 0 || s.Pending != 0 || s.ExpiredUnsent != uint64(notSent.Load()) {
		t.Errorf("expired, and still there: %+v", s)
	}
	before := refused.Load()
	send(1000, 2, time.Minute)
	send(256<<10, 2, time.Minute)
	release()
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	if refused.Load() != before || seen[2] != 2 {
		t.Errorf("of the fresh ones %d were served", seen[2])
	}
}

// TestLargeBesideSmall: on a slow network small items do not wait for 10 MiB
// ones that are on their way, in either direction.
func TestLargeBesideSmall(t *testing.T) {
	body := make([]byte, 10<<20)
	for op, name := range map[coord.Op]string{coord.OpMerge: "writes", coord.OpRead: "reads"} {
		t.Run(name, func(t *testing.T) {
			handler := handlerFunc(func(_ ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
				for i := range msgs {
					r := coord.Reply{Status: coord.StatusOK}
					if msgs[i].Op == coord.OpRead {
						r.Body = body
					}
					reply(i, r)
				}
			})
			_, addr := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), handler))
			link := newSlowLink(t, addr, 20<<20)
			ps := startPeers(t, peersOptions(t, constant(link.addr())))
			if res := call(t, ps, coord.Message{Op: coord.OpMerge}); res.err != nil {
				t.Fatal(res.err)
			}
			done := make(chan error, 3)
			m := coord.Message{Op: op, Deadline: time.Now().Add(time.Minute)}
			if op == coord.OpMerge {
				m.Body = body
			}
			start := time.Now()
			for range cap(done) {
				ps.Send(nodeB, &m, func(_ coord.Reply, err error) { done <- err })
			}
			var took []time.Duration
			for len(done) < cap(done) {
				began := time.Now()
				if res := call(t, ps, coord.Message{Op: coord.OpMerge, Body: make([]byte, 1024)}); res.err != nil {
					t.Fatal(res.err)
				}
				took = append(took, time.Since(began))
			}
			all := time.Since(start)
			for range cap(done) {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			slices.Sort(took)
			// A large value takes half a second. With one connection the median
			// is a third of that; it is less than a hundredth.
			if median := took[len(took)/2]; median > all/20 {
				t.Errorf("the median of %d small items is %v beside %v of large ones", len(took), median, all)
			} else {
				t.Logf("the median of %d small items is %v, p99 %v, beside %v of large ones", len(took), median, took[len(took)*99/100], all)
			}
		})
	}
}
