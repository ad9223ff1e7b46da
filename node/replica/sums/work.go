package sums

import (
	"math"
	"math/bits"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/gossip/ring"
)

// Reader reads what is stored.
type Reader interface {
	// Snapshot returns a view of all that is visible now. It never waits for the
	// disk, and calls nothing of Sums.
	Snapshot() View
	// VisibleSeq is the newest write that is visible.
	VisibleSeq() base.SeqNum
}

// View is a snapshot. One goroutine uses it, and closes it.
type View interface {
	Seq() base.SeqNum
	// Scan calls fn with each key that a tenant has from token first to last, both
	// included, in ascending order; the arguments are valid during the call.
	Scan(p ring.Partition, t ring.TenantNumber, first, last ring.Token, fn func(t ring.Token, key []byte, o *causal.Object)) error
	// Tenants calls fn with each tenant that has keys in a partition, ascending, and
	// how many they are; if within is not 0, how many there are within as many tokens,
	// which is to tell how many there are in all.
	Tenants(p ring.Partition, fn func(t ring.TenantNumber, keys int, within uint64)) error
	Close()
}

const (
	// stepLeaves is how many leaves are computed in one go in the background,
	// askedLeaves when somebody waits for them.
	stepLeaves, askedLeaves = 32, 256
)

// work is the computing of some neighbouring leaves of a grid. Whoever does it
// holds part.work.
type work struct {
	s     *Sums
	p     *part
	g     *grid
	at    ring.Partition
	of    ring.TenantNumber
	first int // leaf
	sums  []repair.Sum
	seen  causal.Context
	keys  int64
	view  View
}

// start makes n leaves of g from first on wait for what a snapshot says of them.
// mu is held: so every write is either in the snapshot, or counted afterwards
// with a number above it, or has been counted before and is in the snapshot.
func (s *Sums) start(at ring.Partition, p *part, t *tenant, g *grid, first, n int, r Reader) *work {
	w := &work{s: s, p: p, g: g, at: at, of: t.number, first: first, sums: make([]repair.Sum, n), view: r.Snapshot()}
	for i := range n {
		g.leaves[first+i] = leaf{base: w.view.Seq(), state: computing}
	}
	return w
}

// read reads the keys of the leaves. mu is not held.
func (w *work) read() error {
	first, _ := w.s.tokens(w.g, w.at, w.first)
	_, last := w.s.tokens(w.g, w.at, w.first+len(w.sums)-1)
	pb := w.s.partitionBits()
	return w.view.Scan(w.at, w.of, first, last, func(t ring.Token, key []byte, o *causal.Object) {
		Object(&w.sums[w.g.index(pb, t)-w.first], key, o)
		w.keys++
		for _, d := range o.Context {
			w.seen = w.seen.With(d)
		}
	})
}

// end makes the leaves clean, or dirty again after a failure. mu is not held.
func (w *work) end(err error) {
	w.p.mu.Lock()
	for i := range w.sums {
		l := &w.g.leaves[w.first+i]
		switch {
		case l.state != computing: // somebody has doubted it meanwhile
		case err != nil:
			l.state = dirty
		default:
			plus(&l.sum, &w.sums[i])
			l.state = clean
		}
	}
	p := w.p
	p.newest = max(p.newest, w.view.Seq())
	p.changed, p.touched = true, true
	for _, d := range w.seen {
		p.see(d)
	}
	w.p.mu.Unlock()
	w.view.Close()
	w.s.recomputed.Add(w.keys)
}

// compute is start, read and end; mu is held before and not afterwards.
func (s *Sums) compute(at ring.Partition, p *part, t *tenant, g *grid, first, n int, r Reader) error {
	w := s.start(at, p, t, g, first, n, r)
	p.mu.Unlock()
	err := w.read()
	w.end(err)
	return err
}

// tokens returns the first and the last token of a leaf.
func (s *Sums) tokens(g *grid, p ring.Partition, leaf int) (first, last ring.Token) {
	below := 64 - s.partitionBits() - uint(g.depth) // bits that follow the leaf's
	n := uint64(p)<<g.depth | uint64(leaf)
	first = ring.Token(n << below) // a shift of 64 gives 0
	return first, first + ring.Token(uint64(1)<<below-1)
}

// dirtyRun returns the first run of leaves that are not clean among lo to hi, and
// at most limit of them; n is 0 if there are none.
func (g *grid) dirtyRun(lo, hi, limit int) (first, n int) {
	for first = lo; first <= hi && g.leaves[first].state == clean; first++ {
	}
	for n = 0; first+n <= hi && n < limit && g.leaves[first+n].state != clean; n++ {
	}
	return first, n
}

// siblings counts those of a grid that is clean.
func (g *grid) siblings() (n uint64) {
	for i := range g.leaves {
		n += g.leaves[i].sum.Count
	}
	return n
}

// doubtAbsurd makes leaves dirty that cannot be right, before anything is divided
// for their sake.
func (g *grid) doubtAbsurd() {
	for i := range g.leaves {
		if l := &g.leaves[i]; l.sum.Count > 1<<40 {
			l.state = dirty
		}
	}
}

// depthFor returns the depth at which n siblings make leaves of the size wanted.
func (s *Sums) depthFor(n uint64) uint8 {
	d := bits.Len64(n / s.sizes.target)
	return uint8(min(d, maxDepth, 64-int(s.partitionBits())))
}

// list finds out which tenants a partition has. part.work is held.
func (s *Sums) list(at ring.Partition, p *part, r Reader) error {
	view := r.Snapshot()
	defer view.Close()
	type found struct {
		tenant ring.TenantNumber
		keys   uint64
	}
	var all []found
	if err := view.Tenants(at, func(t ring.TenantNumber, keys int, within uint64) {
		n := float64(keys)
		if within > 0 {
			n *= math.Ldexp(1/float64(within), 64-int(s.partitionBits()))
		}
		all = append(all, found{t, uint64(min(n, 1<<40))})
	}); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range all {
		t := p.ensure(f.tenant)
		if _, n := t.dirtyRun(0, len(t.leaves)-1, len(t.leaves)); n == len(t.leaves) {
			// Nothing is lost with these leaves: divide it right away.
			t.grid = newGrid(s.depthFor(f.keys), dirty)
		}
	}
	// A write that was not counted yet when a tenant was missed here is in the
	// snapshot, too.
	p.known, p.listed, p.changed = true, view.Seq(), true
	p.newest = max(p.newest, view.Seq())
	return nil
}

// Step does a piece of what there is to do in the background: it lists tenants,
// computes dirty leaves, divides large ones and joins small ones. more is false
// when there was nothing left to do. After an error the next call goes on with
// another partition.
func (s *Sums) Step(r Reader) (more bool, err error) {
	s.stepping.Lock()
	defer s.stepping.Unlock()
	parts := s.all()
	for range parts {
		at := s.cursor % len(parts)
		p := &parts[at]
		p.mu.Lock()
		touched := p.touched
		p.mu.Unlock()
		if touched && p.work.TryLock() {
			did, err := s.step(ring.Partition(at), p, r)
			p.work.Unlock()
			if err != nil {
				s.cursor = at + 1
				return true, err
			}
			if did {
				return true, nil
			}
		}
		s.cursor = at + 1
	}
	return false, nil
}

// step does a piece for one partition, whose work is held.
func (s *Sums) step(at ring.Partition, p *part, r Reader) (did bool, err error) {
	p.mu.Lock()
	if !p.known {
		p.mu.Unlock()
		return true, s.list(at, p, r)
	}
	p.touched = false
	for _, t := range p.tenants {
		t.doubtAbsurd()
		if first, n := t.dirtyRun(0, len(t.leaves)-1, stepLeaves); n > 0 {
			return true, s.compute(at, p, t, &t.grid, first, n, r)
		}
		n := t.siblings()
		if t.next == nil && n > s.sizes.large<<t.depth {
			if d := s.depthFor(n); d > t.depth {
				g := newGrid(d, dirty)
				t.next = &g
			}
		}
		if t.next != nil {
			return true, s.divide(at, p, t, r)
		}
		if t.check == nil && (t.depth > 0 && n < s.sizes.small<<t.depth || n == 0) {
			if n == 0 && !t.empty() {
				continue // a wrong one; it is not to be lost
			}
			p.mu.Unlock()
			did = s.merge(p, t, r)
			if !did {
				p.mu.Lock()
				p.touched = true // later
				p.mu.Unlock()
			}
			return did, nil
		}
	}
	p.mu.Unlock()
	return false, nil
}

// divide computes a piece of the finer grid, and uses it once it has all. mu is
// held before and not afterwards.
func (s *Sums) divide(at ring.Partition, p *part, t *tenant, r Reader) error {
	g := t.next
	first, n := g.dirtyRun(0, len(g.leaves)-1, stepLeaves)
	if n == 0 {
		t.grid, t.next, p.changed, p.touched = *g, nil, true, true
		p.mu.Unlock()
		return nil
	}
	return s.compute(at, p, t, g, first, n, r)
}

// merge halves the leaves of a tenant that has few siblings, or lets go of one that
// has none, and reports whether it did. Two leaves have different bases: which of
// the writes that are not counted yet are in the sum of both? So it waits until all
// that a base may speak of are counted.
func (s *Sums) merge(p *part, t *tenant, r Reader) (did bool) {
	visible := r.VisibleSeq()
	s.Drain()
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.next != nil || t.check != nil || !t.settled(visible) {
		return false
	}
	n := t.siblings()
	if n == 0 && t.empty() {
		if _, i := p.find(t.number); i < len(p.tenants) && p.tenants[i] == t {
			p.tenants = append(p.tenants[:i:i], p.tenants[i+1:]...)
		}
		p.changed, p.touched = true, true
		return true
	}
	if t.depth == 0 || n >= s.sizes.small<<t.depth {
		return false
	}
	half := grid{depth: t.depth - 1, leaves: make([]leaf, len(t.leaves)/2)}
	for i := range half.leaves {
		l := &half.leaves[i]
		l.sum, l.base = t.leaves[2*i].sum, visible
		plus(&l.sum, &t.leaves[2*i+1].sum)
	}
	t.grid = half
	p.changed, p.touched = true, true
	return true
}

// settled reports whether all leaves are clean, with bases up to seq.
func (g *grid) settled(seq base.SeqNum) bool {
	for i := range g.leaves {
		if l := &g.leaves[i]; l.state != clean || l.base > seq {
			return false
		}
	}
	return true
}
