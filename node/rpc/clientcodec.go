package rpc

import (
	"context"
	"fmt"
	"runtime"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/node/door"
)

// clientCodec is gRPC's own codec, but for requests that hold many: of these it
// decodes one more than the limit at the most, which is enough to refuse them.
// An empty item is two bytes on the wire and about a hundred in memory, so that
// a message within its limit could else take a gigabyte before any code of ours
// looks at it.
type clientCodec struct{ encoding.CodecV2 }

func newClientCodec() clientCodec { return clientCodec{encoding.GetCodecV2(protocodec.Name)} }

// Unmarshal implements encoding.CodecV2.
func (c clientCodec) Unmarshal(data mem.BufferSlice, v any) error {
	field, ok := repeatedField(v)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	b, err := clipItems(buf.ReadOnlyData(), field, coord.MaxBatchItems+1)
	if err != nil {
		return err
	}
	return proto.Unmarshal(b, v.(proto.Message))
}

// Marshal implements encoding.CodecV2.
func (c clientCodec) Marshal(v any) (mem.BufferSlice, error) {
	a, ok := v.(*answer)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	size := proto.Size(a.msg)
	if size < heldBytes {
		return c.CodecV2.Marshal(a.msg) // nobody would hear when it has left
	}
	pool := newHeldPool(a.conn.Hold(size))
	buf := mem.DefaultBufferPool().Get(size)
	if _, err := (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend((*buf)[:0], a.msg); err != nil {
		pool.Put(buf)
		return nil, err
	}
	return mem.BufferSlice{mem.NewBuffer(buf, pool)}, nil
}

// heldBytes is the size from which an answer is counted until it has left. It is
// above the size from which gRPC pools buffers, of which it tells the pool; those
// below are bounded by the number of streams.
const heldBytes = 4 << 10

// answer is a message that is counted on its connection until gRPC has written it
// or given it up.
type answer struct {
	msg  proto.Message
	conn *door.Conn
}

// answerTo is msg as it is to be sent to the client of ctx, with size bytes in it
// at the least.
func answerTo(ctx context.Context, msg proto.Message, size int) any {
	if size < heldBytes {
		return msg
	}
	c := connOf(ctx)
	if c == nil {
		return msg
	}
	return &answer{msg, c}
}

// connOf is the connection of a call, nil if nobody counts it.
func connOf(ctx context.Context) *door.Conn {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return nil
	}
	return door.Of(p.Addr)
}

// heldPool hears that a buffer is done with.
type heldPool struct {
	hold *door.Hold
	lost runtime.Cleanup
}

// newHeldPool returns one that releases the hold when the buffer comes back, or
// when it cannot any more: gRPC drops the data of a stream that the client has
// cancelled while it was being queued, and frees no buffer then (v1.85,
// controlbuf.go: preprocessData).
func newHeldPool(hold *door.Hold) *heldPool {
	p := &heldPool{hold: hold}
	p.lost = runtime.AddCleanup(p, (*door.Hold).Release, hold)
	return p
}

// Get implements mem.BufferPool; nobody calls it.
func (*heldPool) Get(n int) *[]byte { return mem.DefaultBufferPool().Get(n) }

// Put implements mem.BufferPool.
func (p *heldPool) Put(b *[]byte) {
	p.lost.Stop()
	mem.DefaultBufferPool().Put(b)
	p.hold.Release()
	runtime.KeepAlive(p)
}

// repeatedField is the field that holds the requests of v, if it holds many.
func repeatedField(v any) (protowire.Number, bool) {
	switch v.(type) {
	case *pairdbv1.BatchRequest, *pairdbv1.MultiGetRequest:
		return 3, true
	case *pairdbv1.PipelineRequest:
		return 1, true
	}
	return 0, false
}

// clipItems cuts an encoded message off after the limit-th occurrence of field.
func clipItems(b []byte, field protowire.Number, limit int) ([]byte, error) {
	for at, items := 0, 0; at < len(b); {
		num, typ, n := protowire.ConsumeTag(b[at:])
		if n < 0 {
			return nil, fmt.Errorf("decode a field: %w", protowire.ParseError(n))
		}
		at += n
		if n = protowire.ConsumeFieldValue(num, typ, b[at:]); n < 0 {
			return nil, fmt.Errorf("decode a field: %w", protowire.ParseError(n))
		}
		at += n
		if num == field && typ == protowire.BytesType {
			if items++; items == limit {
				return b[:at], nil
			}
		}
	}
	return b, nil
}
