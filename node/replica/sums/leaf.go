package sums

import (
	"encoding/binary"
	"math/bits"

	"github.com/zeebo/xxh3"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
)

// plus adds b to a, minus takes it away, both modulo 2^64 and 2^128: what is
// taken away before it was added comes out right in the end.
func plus(a, b *repair.Sum) {
	var carry uint64
	a.Count += b.Count
	a.Lo, carry = bits.Add64(a.Lo, b.Lo, 0)
	a.Hi, _ = bits.Add64(a.Hi, b.Hi, carry)
}

func minus(a, b *repair.Sum) {
	var borrow uint64
	a.Count -= b.Count
	a.Lo, borrow = bits.Sub64(a.Lo, b.Lo, 0)
	a.Hi, _ = bits.Sub64(a.Hi, b.Hi, borrow)
}

// Total adds up sums of ranges that have nothing in common.
func Total(of []repair.Sum) repair.Sum {
	var total repair.Sum
	for i := range of {
		plus(&total, &of[i])
	}
	return total
}

// keyHash stands for a key in the hashes of its siblings, so that a long key is
// hashed once.
type keyHash [16]byte

func hashKey(key []byte) keyHash { return xxh3.Hash128(key).Bytes() }

// sum is what a sibling counts: xxh3-128 of the key's hash, the dot and the flags.
// Nodes compare it with one another: it never changes. Whether the value was
// stripped is a matter of one copy.
func (h *keyHash) sum(s *causal.Sibling) repair.Sum {
	// 32 bytes take half as long as 33. No counter ever has its upper byte in use,
	// which is where the flags go.
	var b [32]byte
	copy(b[:], h[:])
	binary.BigEndian.PutUint64(b[16:], s.Dot.Actor)
	binary.BigEndian.PutUint64(b[24:], s.Dot.Counter^uint64(s.Flags&^causal.FlagStripped)<<56)
	u := xxh3.Hash128(b[:])
	return repair.Sum{Count: 1, Hi: u.Hi, Lo: u.Lo}
}

// Object adds what the siblings of a key count to d.
func Object(d *repair.Sum, key []byte, o *causal.Object) {
	h := hashKey(key)
	for i := range o.Siblings {
		s := h.sum(&o.Siblings[i])
		plus(d, &s)
	}
}

// delta adds to d what the write that made after of before changes. The flags of a
// dot never change but for FlagStripped, so that siblings in both are left out.
func delta(d *repair.Sum, key []byte, before, after *causal.Object) {
	h := hashKey(key)
	a, b := before.Siblings, after.Siblings
	for len(a) > 0 || len(b) > 0 {
		c := 0
		switch {
		case len(a) == 0:
			c = 1
		case len(b) == 0:
			c = -1
		default:
			c = a[0].Dot.Compare(b[0].Dot)
		}
		switch {
		case c < 0:
			s := h.sum(&a[0])
			minus(d, &s)
			a = a[1:]
		case c > 0:
			s := h.sum(&b[0])
			plus(d, &s)
			b = b[1:]
		default:
			a, b = a[1:], b[1:]
		}
	}
}
