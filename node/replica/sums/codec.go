package sums

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/gossip/ring"
)

// The file, integers big endian or uvarint:
//
//	header     "PSUM", format u8 = 1, partition bits u8, seq u64,
//	           crc32c u32 of what stands before it
//	record     length u32 (not 0), crc32c u32 of what follows, then
//	           partition u16, known u8,
//	           length uvarint and what was seen, as causal encodes a context,
//	           tenants uvarint, per tenant, ascending:
//	           number u32, depth u8, and per leaf
//	           0 for an empty one, 1 for a dirty one, 2 for a sum:
//	           count uvarint, hi u64, lo u64
//	end        length u32 = 0, records u32, crc32c u32 of those eight bytes
//
// Records are ascending by partition; a partition without one is known and empty.
const (
	formatFile = 1
	magic      = "PSUM"
	headerLen  = 4 + 1 + 1 + 8 + 4
	frameLen   = 8
	endLen     = 12
	// maxRecord bounds a record, in bytes.
	maxRecord = 256 << 20

	leafEmpty, leafDirty, leafSum = 0, 1, 2
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	// ErrFile says that a file of sums is damaged, of another format, or not of
	// this data.
	ErrFile = errors.New("no usable file of range sums")
)

func fileError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrFile, fmt.Errorf(format, args...))
}

func appendHeader(dst []byte, partitionBits uint, seq base.SeqNum) []byte {
	at := len(dst)
	dst = append(append(dst, magic...), formatFile, byte(partitionBits))
	dst = binary.BigEndian.AppendUint64(dst, uint64(seq))
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
}

func decodeHeader(b []byte) (partitionBits uint, seq base.SeqNum, err error) {
	switch {
	case len(b) != headerLen || string(b[:4]) != magic:
		return 0, 0, fileError("no header")
	case b[4] != formatFile:
		return 0, 0, fileError("format %d", b[4])
	case crc32.Checksum(b[:headerLen-4], castagnoli) != binary.BigEndian.Uint32(b[headerLen-4:]):
		return 0, 0, fileError("checksum of the header")
	}
	return uint(b[5]), base.SeqNum(binary.BigEndian.Uint64(b[6:])), nil
}

// appendRecord appends the record of a partition with its frame; nothing if it is
// known and empty. mu is held.
func (p *part) appendRecord(dst []byte, at ring.Partition) []byte {
	if p.known && len(p.tenants) == 0 && len(p.seen) == 0 {
		return dst
	}
	start := len(dst)
	dst = append(dst, make([]byte, frameLen)...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(at))
	known := byte(0)
	if p.known {
		known = 1
	}
	dst = append(dst, known)
	seen := p.seen.Append(nil)
	dst = binary.AppendUvarint(dst, uint64(len(seen)))
	dst = append(dst, seen...)
	dst = binary.AppendUvarint(dst, uint64(len(p.tenants)))
	for _, t := range p.tenants {
		dst = binary.BigEndian.AppendUint32(dst, uint32(t.number))
		dst = append(dst, t.depth)
		for i := range t.leaves {
			dst = t.leaves[i].append(dst)
		}
	}
	body := dst[start+frameLen:]
	binary.BigEndian.PutUint32(dst[start:], uint32(len(body)))
	binary.BigEndian.PutUint32(dst[start+4:], crc32.Checksum(body, castagnoli))
	return dst
}

func (l *leaf) append(dst []byte) []byte {
	switch {
	case l.state != clean:
		return append(dst, leafDirty)
	case l.sum.Count == 0 && l.sum.Hi == 0 && l.sum.Lo == 0:
		return append(dst, leafEmpty)
	}
	dst = append(dst, leafSum)
	dst = binary.AppendUvarint(dst, l.sum.Count)
	dst = binary.BigEndian.AppendUint64(dst, l.sum.Hi)
	return binary.BigEndian.AppendUint64(dst, l.sum.Lo)
}

// record is a partition as the file has it.
type record struct {
	at      ring.Partition
	known   bool
	seen    causal.Context
	tenants []*tenant
}

var errRecord = errors.New("a record does not decode")

// decodeRecord decodes a record without its frame. Memory is bounded by the
// length of b: a leaf takes a byte of it and 40 of memory.
func decodeRecord(b []byte, partitionBits uint) (record, error) {
	r := reader{b: b}
	rec := record{at: ring.Partition(r.u16())}
	known := r.u8()
	rec.known = known == 1
	seen := r.bytes(r.uvarint())
	if r.bad || known > 1 || uint(rec.at)>>partitionBits != 0 {
		return record{}, errRecord
	}
	var err error
	if rec.seen, err = causal.DecodeContext(seen, causal.MaxActors); err != nil {
		return record{}, err
	}
	n := r.uvarint()
	if r.bad || n > uint64(len(r.b)/6) {
		return record{}, errRecord
	}
	for range n {
		t := &tenant{number: ring.TenantNumber(r.u32())}
		t.depth = r.u8()
		last := len(rec.tenants) - 1
		if r.bad || t.depth > maxDepth || uint(t.depth)+partitionBits > 64 || len(r.b) < 1<<t.depth ||
			last >= 0 && rec.tenants[last].number >= t.number {
			return record{}, errRecord
		}
		t.leaves = make([]leaf, 1<<t.depth)
		for i := range t.leaves {
			t.leaves[i].decode(&r)
		}
		rec.tenants = append(rec.tenants, t)
	}
	if r.bad || len(r.b) > 0 {
		return record{}, errRecord
	}
	return rec, nil
}

func (l *leaf) decode(r *reader) {
	switch r.u8() {
	case leafEmpty:
	case leafDirty:
		l.state = dirty
	case leafSum:
		l.sum.Count, l.sum.Hi, l.sum.Lo = r.uvarint(), r.u64(), r.u64()
	default:
		r.bad = true
	}
}

// reader takes fields off a buffer. After the first shortage it is bad and gives
// zeroes.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) bytes(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}
