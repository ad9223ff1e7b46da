package causal

// Slab is memory for objects that are decoded one after the other and let go of
// together, so that a frame of them costs no allocation each. The zero Slab is
// empty and usable. One goroutine uses it at a time.
type Slab struct {
	dots     []Dot
	siblings []Sibling
}

// Bounds of the pieces that a slab takes, in entries, and of what it keeps.
const minSlab, maxSlab = 64, 8192

// Decode is Decode into memory of the slab: the object is valid until Reset.
func (s *Slab) Decode(b []byte) (Object, error) { return decode(b, s) }

// Reset lets go of all objects that were decoded, and of what they alias. The
// memory is used again.
func (s *Slab) Reset() {
	clear(s.siblings)
	s.dots, s.siblings = keep(s.dots), keep(s.siblings)
}

func keep[T any](piece []T) []T {
	if cap(piece) > maxSlab {
		return nil
	}
	return piece[:0]
}

// newContext returns n dots with room for one more. Without a slab they are memory of
// their own; so are newSiblings.
func (s *Slab) newContext(n int) Context {
	if s == nil {
		return make(Context, n, n+1)
	}
	return take(&s.dots, n, n+1)
}

func (s *Slab) newSiblings(n int) []Sibling {
	if s == nil {
		return make([]Sibling, n)
	}
	return take(&s.siblings, n, n)
}

// take cuts n zero entries with a capacity of c off a piece, or a new one if it
// has no room: those of the old one live on in what was cut off it.
func take[T any](piece *[]T, n, c int) []T {
	at := len(*piece)
	if cap(*piece)-at < c {
		*piece, at = make([]T, 0, max(c, minSlab, min(2*cap(*piece), maxSlab))), 0
	}
	*piece = (*piece)[:at+c]
	out := (*piece)[at : at+n : at+c]
	clear(out)
	return out
}
