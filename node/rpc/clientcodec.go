package rpc

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
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
