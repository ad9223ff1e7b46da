package sstable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// lenSize is the declared decoded length in front of a compressed payload.
const lenSize = 4

var (
	errCodec   = errors.New("unknown codec")
	errLength  = errors.New("decoded length out of range")
	errPayload = errors.New("payload does not decode")
)

// encoder compresses blocks for one Writer.
type encoder struct {
	codec Codec
	zstd  *zstd.Encoder
	buf   []byte
}

// encode returns the payload to store and the codec it is in: b itself unless
// compression saves more than 12 %. The payload is valid until the next call.
func (e *encoder) encode(b []byte) ([]byte, Codec, error) {
	if e.codec == CodecNone || len(b) < 32 {
		return b, CodecNone, nil
	}
	e.buf = binary.LittleEndian.AppendUint32(e.buf[:0], uint32(len(b)))
	switch e.codec {
	case CodecS2:
		if n := lenSize + s2.MaxEncodedLen(len(b)); cap(e.buf) < n {
			e.buf = append(make([]byte, 0, n), e.buf...)
		}
		out := s2.Encode(e.buf[lenSize:cap(e.buf)], b)
		e.buf = e.buf[:lenSize+len(out)]
	case CodecZstd:
		if e.zstd == nil {
			enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest),
				zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
			if err != nil {
				return nil, 0, fmt.Errorf("make zstd encoder: %w", err)
			}
			e.zstd = enc
		}
		e.buf = e.zstd.EncodeAll(b, e.buf)
	}
	if len(e.buf) >= len(b)-len(b)*12/100 {
		return b, CodecNone, nil
	}
	return e.buf, e.codec, nil
}

// Decoder decompresses blocks for any number of Readers, at most a few at a
// time for zstd, and keeps the buffers they read into. It starts no goroutine
// and needs no closing. Make one with NewDecoder.
type Decoder struct {
	once    sync.Once
	zstd    *zstd.Decoder
	zstdErr error
	bufs    sync.Pool // *[]byte
}

// NewDecoder returns a decoder.
func NewDecoder() *Decoder { return &Decoder{} }

// maxPooled keeps one huge block from pinning its read buffer for good.
const maxPooled = 1 << 20

// buffer lends a buffer of n bytes.
func (d *Decoder) buffer(n int) *[]byte {
	p, _ := d.bufs.Get().(*[]byte)
	if p == nil {
		p = new([]byte)
	}
	if cap(*p) < n {
		*p = make([]byte, max(n, 8<<10))
	}
	*p = (*p)[:n]
	return p
}

func (d *Decoder) release(p *[]byte) {
	if cap(*p) <= maxPooled {
		d.bufs.Put(p)
	}
}

// decodedLen checks a compressed payload's declared length before anything is
// allocated for it.
func decodedLen(payload []byte) (int, error) {
	if len(payload) < lenSize {
		return 0, errLength
	}
	n := binary.LittleEndian.Uint32(payload)
	if n > MaxBlockBytes {
		return 0, errLength
	}
	return int(n), nil
}

// decode decompresses payload into dst, which has exactly the declared length.
func (d *Decoder) decode(dst, payload []byte, codec Codec) error {
	payload = payload[lenSize:]
	switch codec {
	case CodecS2:
		n, err := s2.DecodedLen(payload)
		if err != nil || n != len(dst) {
			return errLength
		}
		if _, err := s2.Decode(dst, payload); err != nil {
			return errPayload
		}
		return nil
	case CodecZstd:
		d.once.Do(func() {
			d.zstd, d.zstdErr = zstd.NewReader(nil, zstd.WithDecoderConcurrency(0),
				zstd.WithDecoderMaxMemory(MaxBlockBytes), zstd.WithDecodeAllCapLimit(true))
		})
		if d.zstdErr != nil {
			return fmt.Errorf("make zstd decoder: %w", d.zstdErr)
		}
		// The capacity is a hard limit, so nothing can make this grow.
		out, err := d.zstd.DecodeAll(payload, dst[:0:len(dst)])
		if err != nil || len(out) != len(dst) {
			return errPayload
		}
		return nil
	default:
		return errCodec
	}
}
