package rpc

import (
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/pairdb/pairdb/coord"
)

// Lane keeps items apart that must not wait for each other. Each lane of a link
// is a stream of its own.
type Lane uint8

const (
	// LaneSmall has items below 64 KiB, many to a frame.
	LaneSmall Lane = 0
	// LaneLarge has the others, one to a frame.
	LaneLarge Lane = 1
	// LaneBackground has what nobody waits for, of any size.
	LaneBackground Lane = 2

	laneCount = 3
)

// String names the lane as the streams' metadata does.
func (l Lane) String() string {
	switch l {
	case LaneSmall:
		return "small"
	case LaneLarge:
		return "large"
	default:
		return "background"
	}
}

// parseLane is the inverse of String.
func parseLane(s string) (Lane, bool) {
	for l := range Lane(laneCount) {
		if l.String() == s {
			return l, true
		}
	}
	return 0, false
}

// laneFor chooses the lane for a request of size bytes.
func laneFor(m *coord.Message, size int) Lane {
	if m.Background {
		return LaneBackground
	}
	return laneOf(size)
}

// laneOf chooses the lane for an item of size bytes that somebody waits for.
func laneOf(size int) Lane {
	if size < largeItem {
		return LaneSmall
	}
	return LaneLarge
}

// laneBounds divides a bound in bytes among the lanes: a lane that has used up
// its part leaves the others their own.
func laneBounds(bytes int) [laneCount]int {
	return [laneCount]int{LaneSmall: bytes / 4, LaneLarge: bytes - bytes/4 - bytes/8, LaneBackground: bytes / 8}
}

// pendingFrame is a frame that waits to be sent.
type pendingFrame struct {
	buf *[]byte
	// ids are the request ids of the items; nil for replies.
	ids   []uint64
	count int
	// size is the sum of the items' sizes, in bytes.
	size int
	// begun is when the first item came; items count their time from it.
	begun time.Time
	// seq numbers the frames of one outbox in the order they are sent, from 1.
	seq uint64
}

// outbox gathers the items of one lane into frames while the lane's one sender
// is busy. Every field is guarded by the mutex that its owner gave to init.
type outbox struct {
	// frames[head:] wait, the next to be sent first.
	frames []*pendingFrame
	head   int
	items  int
	bytes  int
	// lastSeq is the newest frame, takenSeq the newest the sender took.
	lastSeq, takenSeq uint64
	wake              sync.Cond
	parked            bool
}

func (o *outbox) init(mu *sync.Mutex) { o.wake.L = mu }

// add accounts for an item of size bytes in f, which is in the outbox, and
// wakes the sender.
func (o *outbox) add(f *pendingFrame, size int) {
	f.count++
	f.size += size
	o.items++
	o.bytes += size
	if o.parked {
		o.parked = false
		o.wake.Signal()
	}
}

// reserve holds room for an item that is being encoded; unreserve gives it back.
func (o *outbox) reserve(size int)   { o.items++; o.bytes += size }
func (o *outbox) unreserve(size int) { o.items--; o.bytes -= size }

// empty says that nothing waits.
func (o *outbox) empty() bool { return o.head == len(o.frames) }

// tail returns the frame that an item of size bytes can still join, or nil.
func (o *outbox) tail(size int) *pendingFrame {
	if o.empty() {
		return nil
	}
	f := o.frames[len(o.frames)-1]
	if len(*f.buf)+size > maxFrameItems {
		return nil
	}
	return f
}

// push puts a new frame at the end.
func (o *outbox) push(f *pendingFrame) {
	o.lastSeq++
	f.seq = o.lastSeq
	o.frames = append(o.frames, f)
}

// take removes and returns the next frame. It parks until there is one, and
// returns nil once stopped says so.
func (o *outbox) take(stopped func() bool) *pendingFrame {
	for {
		if stopped() {
			return nil
		}
		if !o.empty() {
			break
		}
		o.parked = true
		o.wake.Wait()
		o.parked = false
		// Others that are about to add come first.
		o.wake.L.Unlock()
		runtime.Gosched()
		o.wake.L.Lock()
	}
	f := o.frames[o.head]
	o.frames[o.head] = nil
	o.head++
	switch {
	case o.empty():
		o.frames, o.head = o.frames[:0], 0
	case o.head >= 64:
		// A queue that is never empty must not creep through memory.
		n := copy(o.frames, o.frames[o.head:])
		clear(o.frames[n:])
		o.frames, o.head = o.frames[:n], 0
	}
	o.takenSeq = f.seq
	o.items -= f.count
	o.bytes -= f.size
	return f
}

// discard removes and returns the waiting frames of which over is true.
func (o *outbox) discard(over func(*pendingFrame) bool) []*pendingFrame {
	var gone []*pendingFrame
	kept := o.frames[:o.head]
	for _, f := range o.frames[o.head:] {
		if !over(f) {
			kept = append(kept, f)
			continue
		}
		gone = append(gone, f)
		o.items -= f.count
		o.bytes -= f.size
	}
	clear(o.frames[len(kept):])
	o.frames = kept
	return gone
}

// drop forgets all that was not sent and returns it. Frames numbered after it
// go on from where they were.
func (o *outbox) drop() []*pendingFrame {
	frames := o.frames[o.head:]
	o.frames, o.head, o.items, o.bytes = nil, 0, 0, 0
	o.takenSeq = o.lastSeq
	return frames
}

// Errors of Peers.Send, beside those of the gRPC status a stream ended with.
var (
	// ErrOverloaded says that the lane's queue to the peer is full. Always
	// together with coord.ErrNotSent.
	ErrOverloaded = errors.New("peer queue full")
	// ErrDisconnected says that there is no link to the peer now. Always
	// together with coord.ErrNotSent.
	ErrDisconnected = errors.New("peer not connected")
	// ErrLinkLost says that the link broke after the message was handed to it:
	// it may have been served.
	ErrLinkLost = errors.New("peer link lost")
	// ErrExpired says that the deadline passed before the reply came. Together
	// with coord.ErrNotSent if the message had not left by then.
	ErrExpired = errors.New("deadline passed")
	// ErrItemTooLarge says that the message fits in no frame. Always together
	// with coord.ErrNotSent.
	ErrItemTooLarge = errors.New("message too large for a frame")
	// ErrClosed says that this side was closed.
	ErrClosed = errors.New("closed")
)
