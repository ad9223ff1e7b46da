package rpc

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/coord"
)

// batch is the requests of one frame until the last is answered.
type batch struct {
	s    *session
	lane Lane
	// ids has 0 where the reply was given; guarded by s.mu, as left is.
	ids   []uint64
	left  int
	bytes int
	// reads says which requests change nothing.
	reads []bool
	// served maps the indexes that the handler knows to those in the frame;
	// nil where they are the same.
	served []int
}

// receive hands one frame to the handler.
func (s *session) receive(payload []byte, lane Lane) error {
	fs := s.fs
	payload, err := expandFrame(payload)
	if err != nil {
		return err
	}
	h, items, err := decodeHeader(payload)
	if err != nil {
		return err
	}
	if h.cluster != fs.cluster() || h.sender != s.key.from {
		return fmt.Errorf("%w: from node %s of cluster %s on a stream of %s", errFrame, h.sender, h.cluster, s.key.from)
	}
	if !fs.member(s.key.from) {
		return status.Errorf(codes.PermissionDenied, "node %s is no member of this cluster any more", s.key.from)
	}
	now := fs.now()
	rs, err := decodeRequests(h, items, now)
	if err != nil {
		return err
	}
	b := &batch{s: s, lane: lane, ids: rs.ids, left: len(rs.ids), bytes: len(payload)}
	if msgs := b.begin(rs.msgs, now); len(msgs) > 0 {
		fs.handler.HandlePeer(s.key.from, msgs, func(i int, r coord.Reply) {
			if b.served != nil {
				i = b.served[i]
			}
			b.reply(i, &r)
		})
	}
	return nil
}

// begin accounts for the batch, answers at once what is not to be served, and
// returns the rest, in place.
func (b *batch) begin(msgs []coord.Message, now time.Time) []coord.Message {
	s := b.s
	s.mu.Lock()
	draining := s.mu.draining
	s.mu.unanswered[b.lane] += b.left
	if b.left > 0 {
		s.mu.held[b.lane] += b.bytes
	}
	s.mu.Unlock()

	b.reads = make([]bool, len(msgs))
	dead := 0
	for i := range msgs {
		switch msgs[i].Op {
		case coord.OpRead, coord.OpDigest, coord.OpLookup, coord.OpScan:
			b.reads[i] = true
		}
		if draining || !msgs[i].Deadline.After(now) {
			dead++
		}
	}
	if dead == 0 {
		return msgs
	}
	b.served = make([]int, 0, len(msgs)-dead)
	live := msgs[:0]
	for i := range msgs {
		switch {
		case draining:
			b.reply(i, &coord.Reply{Status: coord.StatusOverloaded})
		case !msgs[i].Deadline.After(now):
			b.reply(i, &coord.Reply{Status: coord.StatusExpired})
		default:
			live = append(live, msgs[i])
			b.served = append(b.served, i)
		}
	}
	return live
}

// reply queues the reply to the i-th request of the frame. Only the first
// counts.
func (b *batch) reply(i int, r *coord.Reply) {
	s := b.s
	size := replySize(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	id := b.ids[i]
	if id == 0 {
		return
	}
	b.ids[i] = 0
	if s.mu.end == nil {
		s.queueLocked(b, i, id, r, size)
	}
	b.left--
	s.mu.unanswered[b.lane]--
	if b.left == 0 {
		s.mu.held[b.lane] -= b.bytes
	}
	if s.mu.draining && s.mu.unanswered == [laneCount]int{} {
		s.wakeLocked()
	} else {
		s.mu.room[b.lane].Signal()
	}
}

// queueLocked puts a reply into the lane it belongs to. It lets go of the lock
// while it copies a large one.
func (s *session) queueLocked(b *batch, i int, id uint64, r *coord.Reply, size int) {
	lane := laneOf(size)
	if b.lane == LaneBackground || !s.mu.attached[lane] {
		lane = b.lane
	}
	o := &s.mu.lanes[lane]
	if size > MaxFrameBytes-headerLen || o.bytes > 0 && o.bytes+size > 2*s.fs.maxReplies[lane] {
		if !b.reads[i] {
			// It was done; there is no honest reply but that none came.
			s.fs.counters.unread.Add(1)
			s.endLocked(status.Error(codes.ResourceExhausted, "the peer does not read its replies"))
			return
		}
		s.fs.counters.refusedReplies.Add(1)
		r = &coord.Reply{Status: coord.StatusOverloaded}
		size = replySize(r)
	}
	var f *pendingFrame
	if size >= largeItem {
		o.reserve(size)
		s.mu.Unlock()
		f = s.newFrame(size)
		*f.buf = appendReply(*f.buf, id, r)
		s.mu.Lock()
		if s.mu.end != nil {
			return
		}
		o.unreserve(size)
		o.push(f)
		o.add(f, size)
		return
	}
	if f = o.tail(size); f == nil {
		f = s.newFrame(size)
		o.push(f)
	}
	*f.buf = appendReply(*f.buf, id, r)
	o.add(f, size)
}

func (s *session) newFrame(size int) *pendingFrame {
	f := &pendingFrame{buf: s.fs.pool.Get(headerLen + size)}
	*f.buf = appendHeader(*f.buf, kindReplies, s.fs.cluster(), s.fs.self)
	return f
}
