package repair

import (
	"encoding/binary"
	"errors"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// errBody says that a body of an OpRepair, or of its answer, does not decode.
var errBody = errors.New("malformed repair message")

// reader takes a body apart; after the first failure it yields zeros. What it
// allocates is bounded by the length of the body.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.bad, r.b = true, nil }

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.fail()
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) class() ring.Class {
	c, rest, ok := ring.CutClass(r.b)
	if r.b = rest; !ok {
		r.fail()
	}
	return c
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads a number of things of at least size bytes each.
func (r *reader) count(limit, size int) int {
	n := r.uvarint()
	if n > uint64(limit) || n > uint64(len(r.b)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) bytes(limit int) []byte {
	n := r.uvarint()
	if n > uint64(limit) {
		r.fail()
		return nil
	}
	return r.take(int(n))
}

func (r *reader) context() causal.Context {
	c, err := causal.DecodeContext(r.bytes(len(r.b)), causal.MaxActors)
	if err != nil {
		r.fail()
	}
	return c
}

func (r *reader) confirmed() causal.Confirmed {
	c, err := causal.DecodeConfirmed(r.bytes(len(r.b)))
	if err != nil {
		r.fail()
	}
	return c
}

func (r *reader) end() error {
	if r.bad || len(r.b) > 0 {
		return errBody
	}
	return nil
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func appendContext(dst []byte, c causal.Context) []byte { return appendBytes(dst, c.Append(nil)) }

func appendConfirmed(dst []byte, c *causal.Confirmed) []byte {
	return appendBytes(dst, c.Append(nil))
}

func appendU64(dst []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(dst, v) }

// position is a place in the order of rows: behind the row of that token and key.
type position struct {
	Token ring.Token
	Key   []byte
}

func (p *position) compare(q *position) int {
	a, b := coord.Position{Token: p.Token, Key: p.Key}, coord.Position{Token: q.Token, Key: q.Key}
	return a.Compare(&b)
}

// row returns p as the row that Replica.Rows goes on behind.
func (p *position) row() *Row {
	if p == nil {
		return nil
	}
	return &Row{Token: p.Token, Key: p.Key}
}

func appendPosition(dst []byte, p *position) []byte {
	if p == nil {
		return append(dst, 0)
	}
	return appendBytes(appendU64(append(dst, 1), uint64(p.Token)), p.Key)
}

func (r *reader) position() *position {
	switch r.u8() {
	case 0:
		return nil
	case 1:
		return &position{ring.Token(r.u64()), r.bytes(coord.MaxKeySize)}
	}
	r.fail()
	return nil
}
