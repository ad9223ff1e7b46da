// Package causal says which writes have seen which. It holds the dotted version
// vectors of PairDB: dots, contexts, siblings and objects, how two copies of an
// object are joined, and the bytes in which objects are stored and sent. It is
// pure and imports nothing of this module.
package causal

import (
	"slices"
	"time"
)

// Dot is the identity of one write: the counter-th write that an actor minted
// in one partition. Counters start at 1. No two writes ever share a dot.
type Dot struct {
	Actor, Counter uint64
}

// IsZero reports whether d names no write.
func (d Dot) IsZero() bool { return d == Dot{} }

// Compare orders dots by actor, then by counter.
func (d Dot) Compare(e Dot) int {
	switch {
	case d.Actor < e.Actor:
		return -1
	case d.Actor > e.Actor:
		return 1
	case d.Counter < e.Counter:
		return -1
	case d.Counter > e.Counter:
		return 1
	}
	return 0
}

// Context says what has been seen: for each actor the highest counter, all
// lower ones included. It is sorted by actor, with one entry per actor and no
// zero counter. A Context is never changed in place once shared.
type Context []Dot

// NewContext returns the smallest context that covers all the dots. Dots with
// counter 0 are dropped.
func NewContext(dots ...Dot) Context {
	c := make(Context, 0, len(dots))
	for _, d := range dots {
		c = c.With(d)
	}
	return c
}

// Counter returns the highest counter of actor that c covers, 0 if none.
func (c Context) Counter(actor uint64) uint64 {
	if i, ok := c.find(actor); ok {
		return c[i].Counter
	}
	return 0
}

// find returns the position of actor, or where it belongs.
func (c Context) find(actor uint64) (int, bool) {
	return slices.BinarySearchFunc(c, actor, func(d Dot, a uint64) int {
		return Dot{Actor: d.Actor}.Compare(Dot{Actor: a})
	})
}

// Covers reports whether c has seen d.
func (c Context) Covers(d Dot) bool { return c.Counter(d.Actor) >= d.Counter }

// CoversAll reports whether c has seen all that other has.
func (c Context) CoversAll(other Context) bool {
	for _, d := range other {
		if !c.Covers(d) {
			return false
		}
	}
	return true
}

// Equal reports whether both have seen the same.
func (c Context) Equal(other Context) bool { return slices.Equal(c, other) }

// With returns a context that also covers d. It may write into c's spare
// capacity, and changes c's entry of d's actor in place: use it on a context
// nobody else holds.
func (c Context) With(d Dot) Context {
	if d.Counter == 0 {
		return c
	}
	i, ok := c.find(d.Actor)
	if ok {
		c[i].Counter = max(c[i].Counter, d.Counter)
		return c
	}
	return slices.Insert(c, i, d)
}

// JoinContext returns the union of both in fresh memory.
func JoinContext(a, b Context) Context {
	out := make(Context, 0, len(a)+len(b))
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		switch {
		case a[i].Actor < b[j].Actor:
			out = append(out, a[i])
			i++
		case a[i].Actor > b[j].Actor:
			out = append(out, b[j])
			j++
		default:
			out = append(out, Dot{a[i].Actor, max(a[i].Counter, b[j].Counter)})
			i++
			j++
		}
	}
	out = append(out, a[i:]...)
	return append(out, b[j:]...)
}

// meet returns what both have seen, in memory that may be c's or other's.
func (c Context) meet(other Context) Context {
	switch {
	case c.CoversAll(other):
		return other
	case other.CoversAll(c):
		return c
	}
	out := make(Context, 0, min(len(c), len(other)))
	for _, d := range c {
		if n := min(d.Counter, other.Counter(d.Actor)); n > 0 {
			out = append(out, Dot{d.Actor, n})
		}
	}
	return out
}

// Flags of a sibling. They are stored; an object with unknown ones is refused.
type Flags uint8

const (
	// FlagTombstone marks a delete; the value is empty.
	FlagTombstone Flags = 1 << 0
	// FlagExpiry says that ExpiresAt counts.
	FlagExpiry Flags = 1 << 1
	// FlagJSON says that the value came in as a JSON document.
	FlagJSON Flags = 1 << 2
	// flagIdempotency says in the encoding that an idempotency key follows.
	flagIdempotency Flags = 1 << 3
	// FlagStripped says that the value was left out because the sibling lost
	// for good. It is a matter of one copy, not of the write: a join prefers
	// the copy with the value, and no digest covers it.
	FlagStripped Flags = 1 << 4
	// flagPast says in the encoding that Past follows.
	flagPast Flags = 1 << 5
	// knownFlags are those that format 1 defines.
	knownFlags = FlagTombstone | FlagExpiry | FlagJSON | flagIdempotency | FlagStripped | flagPast
)

// Names returns the names of the flags that are set, for people and tools.
func (f Flags) Names() []string {
	names := []string{}
	for _, n := range []struct {
		flag Flags
		name string
	}{{FlagTombstone, "tombstone"}, {FlagExpiry, "expires"}, {FlagJSON, "json"}, {FlagStripped, "stripped"}} {
		if f&n.flag != 0 {
			names = append(names, n.name)
		}
	}
	return names
}

// Sibling is one write that no write known to its object has superseded.
type Sibling struct {
	Dot Dot
	// HLC orders siblings where one must win: Unix milliseconds << 16 | a
	// logical counter. It is above that of everything the write covered.
	HLC   uint64
	Flags Flags
	// ExpiresAt is an instant in Unix milliseconds; it counts only with
	// FlagExpiry.
	ExpiresAt int64
	// IdempotencyKey is the client's, empty if it sent none; at most 256 bytes.
	IdempotencyKey []byte
	// Value is empty for a tombstone.
	Value []byte
	// Past covers all that the write has seen, and itself, if that is known to be less
	// than the object's context; else it is nil. Like FlagStripped it is a matter of one
	// copy. It is kept of the winner only, and only where the last write wins: see Saw.
	Past Context
}

// Tombstone reports whether the sibling is a delete.
func (s *Sibling) Tombstone() bool { return s.Flags&FlagTombstone != 0 }

// Live reports whether the sibling is a value at the given instant.
func (s *Sibling) Live(now time.Time) bool {
	return s.Flags&(FlagTombstone|FlagStripped) == 0 && (s.Flags&FlagExpiry == 0 || s.ExpiresAt > now.UnixMilli())
}

// Expires reports whether any value of the object ever expires: of others Live
// says the same at every instant.
func (o *Object) Expires() bool {
	for i := range o.Siblings {
		if o.Siblings[i].Flags&FlagExpiry != 0 {
			return true
		}
	}
	return false
}

// Expiry returns when the value expires, in whole milliseconds, and whether it
// ever does.
func (s *Sibling) Expiry() (t time.Time, ok bool) {
	if s.Flags&FlagExpiry == 0 {
		return time.Time{}, false
	}
	return time.UnixMilli(s.ExpiresAt).UTC(), true
}

// WrittenAt is the wall-clock part of the HLC.
func (s *Sibling) WrittenAt() time.Time { return time.UnixMilli(int64(s.HLC >> hlcLogicalBits)) }

// Beats reports whether s wins over t where one must: higher HLC, then higher
// actor, then higher counter.
func (s *Sibling) Beats(t *Sibling) bool {
	if s.HLC != t.HLC {
		return s.HLC > t.HLC
	}
	return s.Dot.Compare(t.Dot) > 0
}

// Object is one replica's knowledge of a key. The zero Object knows nothing.
type Object struct {
	// Context covers every write ever joined into the object, its siblings'
	// dots included.
	Context Context
	// Siblings are sorted by dot.
	Siblings []Sibling
	// Floor is the highest HLC of what was left out of the object, or forgotten of
	// other keys: what is written to it has to be above. It is neither stored nor
	// sent nor compared.
	Floor uint64
}

// IsZero reports whether o knows of no write at all: the key was never written
// as far as the replica knows.
func (o *Object) IsZero() bool { return len(o.Context) == 0 && len(o.Siblings) == 0 }

// Winner returns the sibling that wins by (HLC, actor), nil if there is none.
// It may be a tombstone. The pointer is into o.
func (o *Object) Winner() *Sibling {
	var w *Sibling
	for i := range o.Siblings {
		if s := &o.Siblings[i]; w == nil || s.Beats(w) {
			w = s
		}
	}
	return w
}

// Has reports whether d is among the siblings.
func (o *Object) Has(d Dot) bool { return o.find(d) != nil }

// Replaced reports whether o has had d and holds it no more: a later write has superseded
// it, be it one that wins or not.
func (o *Object) Replaced(d Dot) bool { return o.Context.Covers(d) && !o.Has(d) }

// find returns the sibling with a dot, nil if there is none. The pointer is into o.
func (o *Object) find(d Dot) *Sibling {
	i, ok := slices.BinarySearchFunc(o.Siblings, d, func(s Sibling, d Dot) int { return s.Dot.Compare(d) })
	if !ok {
		return nil
	}
	return &o.Siblings[i]
}

// Equal reports whether both objects know the same: contexts and siblings'
// dots. Equal dots mean equal values, which is not compared.
func (o *Object) Equal(p *Object) bool {
	return o.Context.Equal(p.Context) && slices.EqualFunc(o.Siblings, p.Siblings,
		func(a, b Sibling) bool { return a.Dot == b.Dot })
}
