package causal

import (
	"encoding/binary"
	"fmt"
)

// Confirmed says what all owners of some data are known to have applied. Whatever
// it says stays true, whoever knows it, so two of them are joined by taking the
// greater of each part. The zero Confirmed says nothing.
type Confirmed struct {
	// Seen covers dots that every owner has applied, or something that superseded
	// them.
	Seen Context
	// Expired is an instant in Unix milliseconds that every owner's clock has
	// passed, 0 for none.
	Expired int64
}

// IsZero reports whether c says nothing.
func (c *Confirmed) IsZero() bool { return len(c.Seen) == 0 && c.Expired == 0 }

// Equal reports whether both say the same.
func (c *Confirmed) Equal(d *Confirmed) bool { return c.Expired == d.Expired && c.Seen.Equal(d.Seen) }

// Within reports whether d says all that c says.
func (c *Confirmed) Within(d *Confirmed) bool {
	return c.Expired <= d.Expired && d.Seen.CoversAll(c.Seen)
}

// Join returns what both say together, in fresh memory.
func (c *Confirmed) Join(d *Confirmed) Confirmed {
	return Confirmed{JoinContext(c.Seen, d.Seen), max(c.Expired, d.Expired)}
}

// Collectable reports whether nobody needs a sibling any more: all owners have
// it, and it is a delete or has expired for all of them.
func (c *Confirmed) Collectable(s *Sibling) bool {
	if !c.Seen.Covers(s.Dot) {
		return false
	}
	return s.Tombstone() || s.Flags&FlagExpiry != 0 && s.ExpiresAt <= c.Expired
}

// Settled returns what is left of o for readers once c is known: without
// collectable siblings, and with a context that c's is not repeated in, except
// where a sibling's dot needs an entry. Owners that hold the same siblings and know
// the same Confirmed get equal objects, whenever each of them collects. The zero
// object is as good as none. The result shares siblings' values with o, and may be
// o itself.
func (o *Object) Settled(c *Confirmed) Object {
	if c.IsZero() {
		return *o
	}
	out := Object{}
	for i := range o.Siblings {
		if !c.Collectable(&o.Siblings[i]) {
			out.Siblings = append(out.Siblings, o.Siblings[i])
		}
	}
	for _, d := range o.Context {
		if c.Seen.Covers(d) {
			d.Counter = 0
			for i := range out.Siblings {
				if t := out.Siblings[i].Dot; t.Actor == d.Actor {
					d.Counter = max(d.Counter, t.Counter)
				}
			}
		}
		if d.Counter > 0 {
			out.Context = append(out.Context, d)
		}
	}
	return out
}

// JoinUnder is Join of what an owner holds with what has come to it, where the
// owner knows c: what c covers and the owner does not hold has been superseded,
// and is left out of what came. stripped says that something was that held alone
// would not have left out.
func JoinUnder(held, came *Object, c *Confirmed) (o Object, stripped bool) {
	var keep []Sibling
	for i := range came.Siblings {
		s := &came.Siblings[i]
		if !c.Seen.Covers(s.Dot) || held.Has(s.Dot) || held.Context.Covers(s.Dot) {
			continue
		}
		if keep == nil {
			keep = make([]Sibling, 0, len(came.Siblings))
		}
		stripped = true
	}
	if !stripped {
		return Join(held, came), false
	}
	for i := range came.Siblings {
		if s := came.Siblings[i]; !c.Seen.Covers(s.Dot) || held.Has(s.Dot) {
			keep = append(keep, s)
		}
	}
	rest := Object{Context: came.Context, Siblings: keep}
	return Join(held, &rest), true
}

// formatConfirmed is the first byte of an encoded Confirmed. Stored data depends
// on it.
const formatConfirmed = 1

// Append appends the encoding of c to dst: the format, Expired as i64 and the
// context.
func (c *Confirmed) Append(dst []byte) []byte {
	dst = append(dst, formatConfirmed)
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.Expired))
	return c.Seen.Append(dst)
}

// DecodeConfirmed returns what b encodes, in fresh memory that is bounded by the
// length of b; the zero Confirmed for no bytes.
func DecodeConfirmed(b []byte) (Confirmed, error) {
	if len(b) == 0 {
		return Confirmed{}, nil
	}
	if b[0] != formatConfirmed {
		return Confirmed{}, fmt.Errorf("decode confirmed: %w %d", ErrFormat, b[0])
	}
	r := reader{b: b[1:]}
	expired := int64(r.u64())
	seen := r.context(MaxActors)
	if !r.ok() || len(r.b) > 0 || expired < 0 {
		return Confirmed{}, fmt.Errorf("decode confirmed of %d bytes: %w", len(b), ErrMalformed)
	}
	return Confirmed{seen, expired}, nil
}
