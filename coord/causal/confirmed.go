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

// Transient reports whether something of o is to go once all owners have it: a delete,
// a value that expires, one that has lost for good, or a context with nothing left
// beside it. Settled never changes any other object.
func (o *Object) Transient() bool {
	for i := range o.Siblings {
		if o.Siblings[i].Flags&(FlagTombstone|FlagExpiry|FlagStripped) != 0 {
			return true
		}
	}
	return len(o.Siblings) == 0 && len(o.Context) > 0
}

// dropping says which siblings Remaining leaves out of one object.
type dropping struct {
	c   *Confirmed
	lww bool
	// winner is the index of the sibling that wins among those that c covers, -1 if
	// there is none; it stays if stays is set. Both are for lww.
	winner int
	stays  bool
}

func (o *Object) dropping(c *Confirmed, lww bool) dropping {
	d := dropping{c: c, lww: lww, winner: -1}
	if !lww {
		return d
	}
	for i := range o.Siblings {
		if s := &o.Siblings[i]; c.Seen.Covers(s.Dot) && (d.winner < 0 || s.Beats(&o.Siblings[d.winner])) {
			d.winner = i
		}
	}
	if d.winner < 0 {
		return d
	}
	w := &o.Siblings[d.winner]
	d.stays = !c.Collectable(w)
	for i := range o.Siblings {
		if u := &o.Siblings[i]; !c.Seen.Covers(u.Dot) && w.Beats(u) {
			d.stays = true // without w, u would win
		}
	}
	return d
}

// loses reports whether the sibling at i of the object is left out.
func (d *dropping) loses(o *Object, i int) bool {
	s := &o.Siblings[i]
	switch {
	case !d.lww:
		return d.c.Collectable(s)
	case i == d.winner:
		return !d.stays
	default:
		return d.c.Seen.Covers(s.Dot)
	}
}

// Remaining returns o without the siblings that nobody needs once c is known, and
// with its whole context, which goes on to cover them. Floor is raised to the HLCs of
// what is left out. Which siblings these are depends on the siblings, c and lww only:
//
//   - where all values stay, each that is collectable;
//   - where the last write wins, of those that c covers all but the one that wins, for
//     they have lost everywhere; and that one, too, if it is collectable and beats no
//     sibling that c does not cover. A delete that does is still needed: some owner may
//     have the value that it beats without having had the delete beside it.
//
// The result shares siblings' values with o, and is o itself if nothing is left out.
func (o *Object) Remaining(c *Confirmed, lww bool) Object {
	if len(c.Seen) == 0 {
		return *o
	}
	d := o.dropping(c, lww)
	n := 0
	for i := range o.Siblings {
		if !d.loses(o, i) {
			n++
		}
	}
	if n == len(o.Siblings) {
		return *o
	}
	out := Object{Context: o.Context, Floor: o.Floor}
	if n > 0 {
		out.Siblings = make([]Sibling, 0, n)
	}
	for i := range o.Siblings {
		if d.loses(o, i) {
			out.Floor = max(out.Floor, o.Siblings[i].HLC)
		} else {
			out.Siblings = append(out.Siblings, o.Siblings[i])
		}
	}
	return out
}

// Settled returns what readers are shown of o by an owner that knows c: what remains,
// and nothing at all if that is no sibling and c covers the context. So owners that
// hold the same and know the same show the same, whenever each of them collects.
//
// The context of what remains is left as it is, though c may cover much of it: a
// sibling that a write has superseded which c does not cover may still be held by an
// owner that lacks the write, and nothing but the context says that it has been.
func (o *Object) Settled(c *Confirmed, lww bool) Object {
	out := o.Remaining(c, lww)
	if len(out.Siblings) == 0 && c.Seen.CoversAll(out.Context) {
		return Object{Floor: out.Floor}
	}
	return out
}

// JoinUnder is Join of what an owner holds with what has come to it, where the
// owner knows c: what c covers and the owner does not hold has been superseded,
// and is left out of what came. stripped says that something was that held alone
// would not have left out.
//
// Where the last write wins, what loses in what came to something left out is left out
// as well, and counts as seen: whoever sent both shows neither, and without the winner
// the loser would be shown here. So it is if c covers the winner and the owner has had
// it, and holds nothing that the loser loses to: what superseded the winner has been
// collected, as the winner may have been. If it does hold such a thing, the loser stays
// beside that: whoever minted it may yet be told by an owner what it has to win over.
func JoinUnder(held, came *Object, c *Confirmed, lww bool) (o Object, stripped bool) {
	var winner *Sibling // of those that are not held
	for i := range came.Siblings {
		s := &came.Siblings[i]
		stripped = stripped || lacks(held, s, c)
		if c.Seen.Covers(s.Dot) && !held.Has(s.Dot) && (winner == nil || s.Beats(winner)) {
			winner = s
		}
	}
	if winner == nil {
		return Join(held, came), false
	}
	rest := Object{Context: came.Context, Siblings: make([]Sibling, 0, len(came.Siblings))}
	here, lost := held.Winner(), lacks(held, winner, c)
	for i := range came.Siblings {
		s := &came.Siblings[i]
		bare := lost || here == nil || s.Beats(here)
		if lacks(held, s, c) || lww && bare && winner.Beats(s) && !held.Has(s.Dot) {
			continue
		}
		rest.Siblings = append(rest.Siblings, *s)
	}
	return Join(held, &rest), stripped
}

// lacks reports whether a sibling has been superseded for an owner that knows c,
// though what it holds does not say so.
func lacks(held *Object, s *Sibling, c *Confirmed) bool {
	return c.Seen.Covers(s.Dot) && !held.Context.Covers(s.Dot)
}

// Superseded reports whether an owner that holds o and knows c knows that a sibling of
// came has been superseded: it has had it, by its context or by c, and does not hold it.
func (o *Object) Superseded(came *Object, c *Confirmed) bool {
	for i := range came.Siblings {
		d := came.Siblings[i].Dot
		if (c.Seen.Covers(d) || o.Context.Covers(d)) && !o.Has(d) {
			return true
		}
	}
	return false
}

// CoversNone reports whether c covers no sibling of o: nothing of it is left out of a
// join under c, and nothing that it replaces matters to Remaining.
func (c *Confirmed) CoversNone(o *Object) bool {
	for i := range o.Siblings {
		if c.Seen.Covers(o.Siblings[i].Dot) {
			return false
		}
	}
	return true
}

// JoinFetched is Join of what an owner holds with all that another one holds, which
// knows c: what c covers and the other does not hold has been superseded, whatever
// its context says. The owner's own knowledge counts as its context only.
func JoinFetched(held, came *Object, c *Confirmed) Object {
	rest := Object{Context: held.Context, Siblings: make([]Sibling, 0, len(held.Siblings))}
	for i := range held.Siblings {
		if s := &held.Siblings[i]; !c.Seen.Covers(s.Dot) || came.Has(s.Dot) {
			rest.Siblings = append(rest.Siblings, *s)
		}
	}
	return Join(&rest, came)
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
