package rpc

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/s2"
)

const (
	// leastSqueezed is the smallest frame that is compressed, in bytes.
	leastSqueezed = 4 << 10
	// sampleBytes at each of three places are tried before a frame is.
	sampleBytes = 4 << 10
	// backlogBytes is what has to wait in the small lane for its sending to be
	// timed: below, the link keeps up.
	backlogBytes = 64 << 10
)

// CompressionStats are the figures of the frames that one side sends, since the
// start but for Active.
type CompressionStats struct {
	// Frames were compressed, which saved SavedBytes.
	Frames, SavedBytes uint64
	// SwitchedOn and SwitchedOff count the decisions; Active is the number of
	// lanes that compress now.
	SwitchedOn, SwitchedOff uint64
	Active                  int
}

type compressCounters struct {
	frames, saved, on, off atomic.Uint64
	active                 atomic.Int64
}

func (c *compressCounters) stats() CompressionStats {
	return CompressionStats{
		Frames: c.frames.Load(), SavedBytes: c.saved.Load(),
		SwitchedOn: c.on.Load(), SwitchedOff: c.off.Load(), Active: int(c.active.Load()),
	}
}

// compressor compresses the frames of one lane of one link while that pays. Its
// methods may be called on nil, which never does; frame only by the lane's one
// sender.
type compressor struct {
	lane     Lane
	counters *compressCounters

	on atomic.Bool // as decision.on
	mu struct {
		sync.Mutex
		decision squeeze
		// last is when the frame before was written.
		last  time.Time
		ended bool
	}
}

func newCompressor(lane Lane, counters *compressCounters) *compressor {
	return &compressor{lane: lane, counters: counters}
}

// end takes the lane out of the figures.
func (c *compressor) end() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.ended = true
	if c.on.Swap(false) {
		c.counters.active.Add(-1)
	}
}

// frame makes of a frame what is given to gRPC, compressed if that is decided
// and saves something; waiting are the bytes that are queued behind it. The
// frame must not be used any more.
func (c *compressor) frame(f *pendingFrame, waiting int, pool *bufferPool) *outFrame {
	out := &outFrame{buf: f.buf, pool: pool}
	if c == nil || c.lane != LaneLarge && waiting < backlogBytes && !c.on.Load() {
		return out
	}
	out.timed = &timing{c: c, begun: time.Now(), plain: len(*f.buf)}
	if !c.on.Load() || !worthCompressing(*f.buf) {
		return out
	}
	if b, ok := compressFrame(*f.buf, pool); ok {
		c.counters.frames.Add(1)
		c.counters.saved.Add(uint64(len(*f.buf) - len(*b)))
		pool.Put(f.buf)
		out.buf = b
	}
	return out
}

// timing is of a frame whose sending is timed: begun is when that was its turn,
// or before, plain its size before it was compressed, in bytes.
type timing struct {
	c     *compressor
	begun time.Time
	plain int
}

// written takes note that the last of the frame's wire bytes was given to the
// connection.
func (f *timing) written(wire int) {
	c, now := f.c, time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	begun := f.begun
	if begun.Before(c.mu.last) {
		// It had to wait for the one before, whose time that was.
		begun = c.mu.last
	}
	c.mu.last = now
	if c.mu.ended {
		return
	}
	d := &c.mu.decision
	was := d.on
	d.sent(now, f.plain, wire, now.Sub(begun))
	switch {
	case d.on == was:
		return
	case d.on:
		c.counters.on.Add(1)
		c.counters.active.Add(1)
	default:
		c.counters.off.Add(1)
		c.counters.active.Add(-1)
	}
	c.on.Store(d.on)
}

// worthCompressing tries some of the frame's bytes.
func worthCompressing(frame []byte) bool {
	if len(frame) < leastSqueezed {
		return false
	}
	items := frame[headerLen:]
	if len(items) <= 4*sampleBytes {
		return true // to try them all costs no more
	}
	var scratch [sampleBytes + sampleBytes/4]byte
	size := 0
	for _, from := range []int{0, (len(items) - sampleBytes) / 2, len(items) - sampleBytes} {
		size += len(s2.Encode(scratch[:], items[from:from+sampleBytes]))
	}
	return size < 3*sampleBytes*8/10
}

// compressFrame returns the frame with its items compressed, in a buffer of its
// own, or false if that saves less than a tenth.
func compressFrame(frame []byte, pool *bufferPool) (*[]byte, bool) {
	items := frame[headerLen:]
	b := pool.Get(headerLen + s2.MaxEncodedLen(len(items)))
	*b = append(*b, frame[:headerLen]...)
	(*b)[0] = frameCompressed
	items = s2.Encode((*b)[headerLen:cap(*b)], items)
	*b = (*b)[:headerLen+len(items)]
	if len(*b) > len(frame)-len(frame)/10 {
		pool.Put(b)
		return nil, false
	}
	return b, true
}

// expandFrame returns a frame as it was before it was compressed, b itself if it
// was not. What it claims to hold is checked before anything is allocated.
func expandFrame(b []byte) ([]byte, error) {
	if len(b) <= headerLen || b[0] != frameCompressed {
		return b, nil
	}
	n, err := s2.DecodedLen(b[headerLen:])
	if err != nil {
		return nil, fmt.Errorf("%w: compressed items: %w", errFrame, err)
	}
	if n > MaxFrameBytes-headerLen {
		return nil, fmt.Errorf("%w: compressed items of %d bytes, at most %d", errFrame, n, MaxFrameBytes-headerLen)
	}
	frame := make([]byte, headerLen+n)
	copy(frame, b[:headerLen])
	frame[0] = frameFormat
	if _, err := s2.Decode(frame[headerLen:], b[headerLen:]); err != nil {
		return nil, fmt.Errorf("%w: compressed items of %d bytes: %w", errFrame, n, err)
	}
	return frame, nil
}
