package causal

import "slices"

// Join returns the union of what both objects know: a sibling stays if the
// other side holds it too or has never seen it. It is commutative, associative
// and idempotent. The result has slices of its own; values and idempotency
// keys are shared with a and b.
func Join(a, b *Object) Object {
	out := Object{Context: JoinContext(a.Context, b.Context)}
	out.Siblings = make([]Sibling, 0, len(a.Siblings)+len(b.Siblings))
	i, j := 0, 0
	for i < len(a.Siblings) || j < len(b.Siblings) {
		var c int
		switch {
		case i == len(a.Siblings):
			c = 1
		case j == len(b.Siblings):
			c = -1
		default:
			c = a.Siblings[i].Dot.Compare(b.Siblings[j].Dot)
		}
		switch {
		case c < 0:
			if !b.Context.Covers(a.Siblings[i].Dot) {
				out.Siblings = append(out.Siblings, a.Siblings[i])
			}
			i++
		case c > 0:
			if !a.Context.Covers(b.Siblings[j].Dot) {
				out.Siblings = append(out.Siblings, b.Siblings[j])
			}
			j++
		default:
			s := a.Siblings[i]
			if s.Flags&FlagStripped != 0 {
				s = b.Siblings[j]
			}
			out.Siblings = append(out.Siblings, s)
			i++
			j++
		}
	}
	return out
}

// Replaces reports whether the join of o and p is o as it is: o has seen all that p
// has, and p nothing of o's siblings that it does not hold. It may be false where
// siblings are stripped.
func (o *Object) Replaces(p *Object) bool {
	if !o.Context.CoversAll(p.Context) {
		return false
	}
	for i := range o.Siblings {
		s := &o.Siblings[i]
		if p.Context.Covers(s.Dot) && (s.Flags&FlagStripped != 0 || !p.Has(s.Dot)) {
			return false
		}
	}
	return true
}

// Mint returns the object after a new write: o without the siblings that seen
// covers, with s beside what is left, and a context that covers o, seen and s.
// s.HLC is raised above that of every sibling of o that seen covers, so that no
// order by HLC ever contradicts causality; the caller adds what it knows of
// writes that o does not hold. s.Dot must be new. o and seen are not changed.
func Mint(o *Object, seen Context, s Sibling) Object {
	out := Object{
		Context:  JoinContext(o.Context, seen).With(s.Dot),
		Siblings: make([]Sibling, 0, len(o.Siblings)+1),
	}
	for i := range o.Siblings {
		if t := &o.Siblings[i]; !seen.Covers(t.Dot) {
			out.Siblings = append(out.Siblings, *t)
		} else {
			s.HLC = above(s.HLC, t.HLC)
		}
	}
	at, _ := slices.BinarySearchFunc(out.Siblings, s.Dot, func(t Sibling, d Dot) int { return t.Dot.Compare(d) })
	out.Siblings = slices.Insert(out.Siblings, at, s)
	return out
}

// Uncovered returns held without values if it has a sibling that incoming's
// context does not cover; ok is false if it has none. A minter that supersedes
// all of the result's context supersedes exactly what held has seen. The result
// must never be joined into a copy of the key, where it would stand for writes
// whose values it lacks.
func Uncovered(held, incoming *Object) (o Object, ok bool) {
	for i := range held.Siblings {
		ok = ok || !incoming.Context.Covers(held.Siblings[i].Dot)
	}
	if !ok {
		return Object{}, false
	}
	o = Object{Context: held.Context, Siblings: slices.Clone(held.Siblings)}
	for i := range o.Siblings {
		s := &o.Siblings[i]
		s.Value, s.IdempotencyKey = nil, nil
		s.Flags |= FlagStripped
	}
	return o, true
}

// StripLosers drops the values of all siblings but the winner, for tenants
// where the last writer wins. Dots, HLCs and contexts stay, so causality stays
// exact; and the value of a loser can never be asked for again, because every
// write that supersedes the winner has a higher HLC than it. Of the winner it
// keeps what that has seen at most, as the copies say that o is the join of: see
// Object.Saw. It changes o in place.
func (o *Object) StripLosers(from ...*Object) {
	var none Confirmed
	o.StripLosersUnder(&none, from...)
}

// StripLosersUnder is StripLosers for an owner that knows c: the winner is that of
// what remains, since what does not may beat it and will be gone. A write beside a
// delete that no reader is shown any more keeps its value.
func (o *Object) StripLosersUnder(c *Confirmed, from ...*Object) {
	if len(o.Siblings) < 2 {
		return
	}
	left := o.Remaining(c, true)
	w := left.Winner()
	if w == nil {
		w = o.Winner()
	}
	dot := w.Dot
	o.keepPast(dot, from)
	for i := range o.Siblings {
		if s := &o.Siblings[i]; s.Dot != dot && !s.Tombstone() {
			s.Flags |= FlagStripped
			s.Value = nil
		}
	}
}

// KeepPast keeps with the winner what that has seen at most, and drops no values.
func (o *Object) KeepPast(from ...*Object) {
	if len(o.Siblings) > 1 {
		o.keepPast(o.Winner().Dot, from)
	}
}

func (o *Object) keepPast(winner Dot, from []*Object) {
	for i := range o.Siblings {
		if s := &o.Siblings[i]; s.Dot == winner {
			s.Past = o.past(winner, from)
		} else {
			s.Past = nil
		}
	}
}

// past returns what a sibling of o has seen at most, nil if that may be all that o
// has: no more than any of the copies, of which some may be nil, that holds it.
func (o *Object) past(d Dot, copies []*Object) Context {
	var least Context
	for _, c := range copies {
		if c == nil {
			continue
		}
		s := c.find(d)
		if s == nil {
			continue
		}
		p := s.Past
		if p == nil {
			p = c.Context
		}
		if least == nil {
			least = p
		} else {
			least = least.meet(p)
		}
	}
	if least.CoversAll(o.Context) {
		return nil
	}
	return least
}

// Saw reports whether the write of a sibling of o may have seen d, which o covers.
// It has not if it was there before d was: d was then superseded by another one, which
// s may win over.
func (o *Object) Saw(s *Sibling, d Dot) bool {
	return s.Past == nil || s.Past.Covers(d)
}
