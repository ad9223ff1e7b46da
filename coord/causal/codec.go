package causal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/xxh3"
)

// The encoding of an object, format 1. Integers are big endian or uvarint.
//
//	format     u8 = 1
//	context    uvarint entries, then per entry, ascending by actor:
//	           actor u64, counter uvarint (at least 1)
//	siblings   uvarint count, then per sibling, ascending by dot:
//	           index of the actor in the context uvarint, counter uvarint,
//	           hlc u64, flags u8,
//	           expires at i64, only with FlagExpiry,
//	           length uvarint and idempotency key, only with its flag,
//	           past, only with its flag: uvarint entries, then per entry,
//	           ascending, index of the actor in the context uvarint and
//	           counter uvarint (at least 1); less than the context, with the dot,
//	           length uvarint and value
//
// It is canonical: equal objects have equal bytes, and Decode refuses every
// other spelling. Stored data depends on it; it never changes.
const formatObject = 1

// Limits of what Decode accepts.
const (
	// MaxActors bounds the entries of a context.
	MaxActors = 1 << 16
	// MaxSiblings bounds the siblings of an object; clients are refused long
	// before, repair never is.
	MaxSiblings = 1 << 16
	// MaxIdempotencyKey bounds an idempotency key, in bytes.
	MaxIdempotencyKey = 256
	// minEntry, minSibling and minPast are the smallest encodings of an entry of a
	// context, of a sibling and of an entry of its past.
	minEntry, minSibling, minPast = 9, 12, 2
)

var (
	// ErrFormat says that an object was written in a format this program does
	// not know.
	ErrFormat = errors.New("unknown object format")
	// ErrMalformed says that bytes are not the encoding of an object.
	ErrMalformed = errors.New("malformed object")
)

// EncodedLen returns an upper bound of the length of o's encoding, in bytes.
func (o *Object) EncodedLen() int {
	const varint = binary.MaxVarintLen64
	n := 1 + 2*varint + len(o.Context)*(8+varint)
	for i := range o.Siblings {
		s := &o.Siblings[i]
		n += 5*varint + 17 + len(s.IdempotencyKey) + 2*varint*len(s.Past) + len(s.Value)
	}
	return n
}

// Append appends the encoding of o to dst. The zero object is encoded too; by
// convention messages use no bytes at all for it.
func (o *Object) Append(dst []byte) []byte {
	dst = append(dst, formatObject)
	dst = o.Context.Append(dst)
	dst = binary.AppendUvarint(dst, uint64(len(o.Siblings)))
	for i := range o.Siblings {
		s := &o.Siblings[i]
		at, _ := o.Context.find(s.Dot.Actor)
		dst = binary.AppendUvarint(dst, uint64(at))
		dst = binary.AppendUvarint(dst, s.Dot.Counter)
		dst = binary.BigEndian.AppendUint64(dst, s.HLC)
		f := s.Flags &^ (flagIdempotency | flagPast)
		if len(s.IdempotencyKey) > 0 {
			f |= flagIdempotency
		}
		if len(s.Past) > 0 {
			f |= flagPast
		}
		dst = append(dst, byte(f))
		if f&FlagExpiry != 0 {
			dst = binary.BigEndian.AppendUint64(dst, uint64(s.ExpiresAt))
		}
		if f&flagIdempotency != 0 {
			dst = appendBytes(dst, s.IdempotencyKey)
		}
		if f&flagPast != 0 {
			dst = s.Past.appendWithin(dst, o.Context)
		}
		dst = appendBytes(dst, s.Value)
	}
	return dst
}

// appendWithin appends the encoding of a context whose actors are all in whole.
func (c Context) appendWithin(dst []byte, whole Context) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(c)))
	at := 0
	for _, d := range c {
		for whole[at].Actor != d.Actor {
			at++
		}
		dst = binary.AppendUvarint(dst, uint64(at))
		dst = binary.AppendUvarint(dst, d.Counter)
	}
	return dst
}

// Append appends the encoding of c to dst.
func (c Context) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(c)))
	for _, d := range c {
		dst = binary.BigEndian.AppendUint64(dst, d.Actor)
		dst = binary.AppendUvarint(dst, d.Counter)
	}
	return dst
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

// Decode returns the object that b encodes, the zero object for no bytes.
// Values and idempotency keys alias b. Memory allocated is bounded by the
// length of b.
func Decode(b []byte) (Object, error) { return decode(b, nil) }

// decode is Decode with memory from a slab, if there is one.
func decode(b []byte, from *Slab) (Object, error) {
	if len(b) == 0 {
		return Object{}, nil
	}
	if b[0] != formatObject {
		return Object{}, fmt.Errorf("decode object: %w %d", ErrFormat, b[0])
	}
	r := reader{b: b[1:], from: from}
	o := Object{Context: r.context(MaxActors)}
	n := r.count(MaxSiblings, minSibling)
	if r.ok() && n > 0 {
		o.Siblings = from.newSiblings(n)
	}
	for i := range o.Siblings {
		r.sibling(&o.Siblings[i], o.Context)
		if i > 0 && o.Siblings[i-1].Dot.Compare(o.Siblings[i].Dot) >= 0 {
			r.fail()
		}
	}
	if !r.ok() || len(r.b) > 0 {
		return Object{}, fmt.Errorf("decode object of %d bytes: %w", len(b), ErrMalformed)
	}
	return o, nil
}

// DecodeContext returns the context that b encodes; more than limit entries
// are refused.
func DecodeContext(b []byte, limit int) (Context, error) {
	r := reader{b: b}
	c := r.context(limit)
	if !r.ok() || len(r.b) > 0 {
		return nil, fmt.Errorf("decode context of %d bytes: %w", len(b), ErrMalformed)
	}
	return c, nil
}

// reader takes an encoding apart; after the first failure it yields zeros.
type reader struct {
	b    []byte
	bad  bool
	from *Slab // of memory; may be nil
}

func (r *reader) ok() bool { return !r.bad }

func (r *reader) fail() { r.bad, r.b = true, nil }

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	// A last byte of zero is a longer spelling of a shorter number.
	if n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) u64() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

// count reads a number of items of which each needs at least size bytes.
func (r *reader) count(limit, size int) int {
	v := r.uvarint()
	if v > uint64(limit) || v > uint64(len(r.b)/size) {
		r.fail()
		return 0
	}
	return int(v)
}

func (r *reader) bytes(limit uint64) []byte {
	n := r.uvarint()
	if n > limit || n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) context(limit int) Context {
	n := r.count(limit, minEntry)
	if n == 0 {
		return nil
	}
	// One spare entry: a write to the object adds at most its own actor.
	c := r.from.newContext(n)
	for i := range c {
		c[i] = Dot{r.u64(), r.uvarint()}
		if c[i].Counter == 0 || i > 0 && c[i-1].Actor >= c[i].Actor {
			r.fail()
			return nil
		}
	}
	return c
}

// within reads a context that is part of whole.
func (r *reader) within(whole Context) Context {
	n := r.count(len(whole), minPast)
	if n == 0 {
		return nil
	}
	c := r.from.newContext(n)
	next := uint64(0)
	for i := range c {
		at, counter := r.uvarint(), r.uvarint()
		if r.bad || at < next || at >= uint64(len(whole)) || counter == 0 || counter > whole[at].Counter {
			r.fail()
			return nil
		}
		c[i], next = Dot{whole[at].Actor, counter}, at+1
	}
	return c
}

func (r *reader) sibling(s *Sibling, seen Context) {
	at, counter := r.uvarint(), r.uvarint()
	s.HLC = r.u64()
	if r.bad || at >= uint64(len(seen)) || counter == 0 || counter > seen[at].Counter || len(r.b) == 0 {
		r.fail()
		return
	}
	s.Dot = Dot{seen[at].Actor, counter}
	s.Flags = Flags(r.b[0])
	r.b = r.b[1:]
	if s.Flags&^knownFlags != 0 {
		r.fail()
		return
	}
	if s.Flags&FlagExpiry != 0 {
		s.ExpiresAt = int64(r.u64())
	}
	if s.Flags&flagIdempotency != 0 {
		s.Flags &^= flagIdempotency
		if s.IdempotencyKey = r.bytes(MaxIdempotencyKey); len(s.IdempotencyKey) == 0 {
			r.fail()
			return
		}
	}
	if s.Flags&flagPast != 0 {
		s.Flags &^= flagPast
		if s.Past = r.within(seen); !s.Past.Covers(s.Dot) || s.Past.CoversAll(seen) {
			r.fail()
			return
		}
	}
	s.Value = r.bytes(uint64(len(r.b)))
	if s.Flags&(FlagTombstone|FlagStripped) != 0 && len(s.Value) > 0 {
		r.fail()
	}
}

// Digest is 16 bytes over the context and the siblings' dots and flags. Two
// copies with equal digests know the same. It is no defence against forgers:
// digests are compared among owners only.
func (o *Object) Digest() [16]byte {
	var scratch [256]byte
	b := o.Context.Append(scratch[:0])
	for i := range o.Siblings {
		s := &o.Siblings[i]
		b = binary.BigEndian.AppendUint64(b, s.Dot.Actor)
		b = binary.BigEndian.AppendUint64(b, s.Dot.Counter)
		b = append(b, byte(s.Flags&^FlagStripped))
	}
	return xxh3.Hash128(b).Bytes()
}
