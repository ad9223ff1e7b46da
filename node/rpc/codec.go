package rpc

import (
	"encoding/binary"
	"fmt"
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// framePayloadTag is the protobuf tag of Frame.payload: field 1, length-delimited.
const framePayloadTag = 1<<3 | 2

// outFrame and inFrame stand in for peerv1.Frame on the stream. Their bytes on
// the wire are the same; they save a copy of the payload on either side and the
// reflection.
type (
	// outFrame gives its buffer away: gRPC returns it once written, to pool.
	outFrame struct {
		buf   *[]byte
		pool  *bufferPool
		timed *timing // nil if nobody wants to know when that was
	}
	// inFrame gets a buffer of its own, which the receiver may keep.
	inFrame struct{ payload []byte }
)

// Get implements mem.BufferPool.
func (f *outFrame) Get(length int) *[]byte { return f.pool.Get(length) }

// Put implements mem.BufferPool.
func (f *outFrame) Put(b *[]byte) {
	wire := len(*b)
	f.pool.Put(b)
	if f.timed != nil {
		f.timed.written(wire)
	}
}

// frameCodec encodes outFrame and inFrame itself and leaves every other message
// to protobuf, under whose name it goes.
type frameCodec struct{ proto encoding.CodecV2 }

func newFrameCodec() frameCodec {
	return frameCodec{proto: encoding.GetCodecV2(proto.Name)}
}

// Name is that of protobuf: on the wire there is no difference.
func (frameCodec) Name() string { return proto.Name }

// Marshal implements encoding.CodecV2.
func (c frameCodec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*outFrame)
	if !ok {
		return c.proto.Marshal(v)
	}
	prefix := make(mem.SliceBuffer, 1, 1+binary.MaxVarintLen32)
	prefix[0] = framePayloadTag
	prefix = binary.AppendUvarint(prefix, uint64(len(*f.buf)))
	return mem.BufferSlice{prefix, mem.NewBuffer(f.buf, f)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (c frameCodec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*inFrame)
	if !ok {
		return c.proto.Unmarshal(data, v)
	}
	b := make([]byte, data.Len())
	data.CopyTo(b)
	if len(b) == 0 || b[0] != framePayloadTag {
		return fmt.Errorf("%w: no payload", errFrame)
	}
	size, n := binary.Uvarint(b[1:])
	if n <= 0 || size != uint64(len(b)-1-n) {
		return fmt.Errorf("%w: payload of %d in %d bytes", errFrame, size, len(b))
	}
	f.payload = b[1+n:]
	return nil
}

const (
	// newBufferBytes is what a frame's buffer starts with; it must be above
	// gRPC's threshold for pooling, 1 KiB.
	newBufferBytes = 8 << 10
	// keepBufferBytes is the largest buffer worth keeping.
	keepBufferBytes = 2 * maxFrameItems
)

// bufferPool recycles the buffers of frames that were sent. It is safe for
// concurrent use; the zero value is ready.
type bufferPool struct{ pool sync.Pool }

// Get returns an empty buffer with room for length bytes. The signature is that
// of mem.BufferPool.
func (p *bufferPool) Get(length int) *[]byte {
	if length <= keepBufferBytes {
		if b, ok := p.pool.Get().(*[]byte); ok {
			if cap(*b) >= length {
				*b = (*b)[:0]
				return b
			}
			p.pool.Put(b)
		}
	}
	b := make([]byte, 0, max(length, newBufferBytes))
	return &b
}

// Put takes a buffer back.
func (p *bufferPool) Put(b *[]byte) {
	if c := cap(*b); c >= newBufferBytes && c <= keepBufferBytes {
		p.pool.Put(b)
	}
}
