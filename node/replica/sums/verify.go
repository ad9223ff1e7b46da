package sums

import (
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/gossip/ring"
)

// Verify reads a partition, compares its leaves with what was counted, and has
// those read again that differed, whose number it returns. Leaves that were known
// to be dirty do not count. Writes go on meanwhile.
func (s *Sums) Verify(at ring.Partition, from Reader) (differed int, err error) {
	if err := s.Know(at, from); err != nil {
		return 0, err
	}
	p := s.part(at)
	tenants, err := s.present(at, p, from)
	for _, t := range tenants {
		var n int
		if err == nil {
			n, err = s.verify(at, p, t, from)
		}
		differed += n
	}
	return differed, err
}

// present returns the tenants that have data in a partition, by the sums or by
// what is stored.
func (s *Sums) present(at ring.Partition, p *part, from Reader) ([]ring.TenantNumber, error) {
	view := from.Snapshot()
	defer view.Close()
	var stored []ring.TenantNumber
	err := view.Tenants(at, func(t ring.TenantNumber, _ int, _ uint64) { stored = append(stored, t) })
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range stored {
		p.ensure(t) // without data, if the sums lack it
	}
	all := make([]ring.TenantNumber, 0, len(p.tenants))
	for _, t := range p.tenants {
		all = append(all, t.number)
	}
	return all, nil
}

// verify does the part of Verify that belongs to one tenant.
func (s *Sums) verify(at ring.Partition, p *part, n ring.TenantNumber, from Reader) (differed int, err error) {
	var g *grid
	p.work.Lock()
	p.mu.Lock()
	if t, _ := p.find(n); t != nil {
		c := newGrid(t.depth, dirty)
		g, t.check = &c, &c
	}
	p.mu.Unlock()
	p.work.Unlock()
	if g == nil {
		return 0, nil
	}
	if err := s.fill(at, p, n, g, from); err != nil {
		return 0, err
	}
	visible := from.VisibleSeq()
	s.Drain()
	differed = s.compare(p, n, g, visible)
	if differed > 0 {
		first, last := s.tokens(&grid{}, at, 0)
		_, _, err = s.Range(repair.Range{Partition: at, Tenant: n, First: first, Last: last}, 0, from)
	}
	return differed, err
}

// fill computes all leaves of a grid that is checked with, piece by piece, so that
// others get their turn.
func (s *Sums) fill(at ring.Partition, p *part, n ring.TenantNumber, g *grid, from Reader) error {
	for {
		p.work.Lock()
		p.mu.Lock()
		t, _ := p.find(n)
		first, k := g.dirtyRun(0, len(g.leaves)-1, stepLeaves)
		if t == nil || t.check != g || k == 0 {
			p.mu.Unlock()
			p.work.Unlock()
			return nil
		}
		err := s.compute(at, p, t, g, first, k, from)
		p.work.Unlock()
		if err != nil {
			p.mu.Lock()
			if t.check == g {
				t.check = nil
			}
			p.mu.Unlock()
			return err
		}
	}
}

// compare holds the leaves of a tenant against those of g, all writes up to visible
// having been counted, and makes those dirty that differ. Leaves that were computed
// since cannot be wrong.
func (s *Sums) compare(p *part, n ring.TenantNumber, g *grid, visible base.SeqNum) (differed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, _ := p.find(n)
	if t == nil || t.check != g {
		return 0 // it was doubted, or everything was
	}
	t.check = nil
	depth := min(g.depth, t.depth)
	for i := range 1 << depth {
		a, read := g.fold(depth, i, visible)
		b, counted := t.fold(depth, i, visible)
		if !read || !counted || a == b {
			continue
		}
		differed++
		t.next = nil
		for j := range 1 << (t.depth - depth) {
			t.leaves[i<<(t.depth-depth)+j].state = dirty
		}
	}
	if differed > 0 {
		p.changed, p.touched = true, true
	}
	return differed
}

// fold returns the sum of the leaves that are leaf i at a depth of at most g's; ok
// is false if one of them is not clean, or its base is above seq.
func (g *grid) fold(depth uint8, i int, seq base.SeqNum) (sum repair.Sum, ok bool) {
	k := g.depth - depth
	for j := range 1 << k {
		l := &g.leaves[i<<k+j]
		if l.state != clean || l.base > seq {
			return sum, false
		}
		plus(&sum, &l.sum)
	}
	return sum, true
}
