package sums

import (
	"errors"
	"fmt"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/gossip/ring"
)

// MaxBits bounds the parts that a range is asked to be cut into: 65,536.
const MaxBits = 16

// maxTries bounds how often Range begins again because leaves became dirty or were
// divided. Then it reads the range.
const maxTries = 1 << 13

// ErrRange says that a range is not one that can be cut as asked.
var ErrRange = errors.New("no range of the partition that divides into such parts")

// errUnknown says that the number of partitions is not known yet.
var errUnknown = errors.New("the number of partitions is not known yet: the node is in no cluster")

// Range returns the sums of 1<<bits equal parts of r, in order, and the newest
// write that may be in any of them. What is dirty is computed first, and parts
// that are no whole leaves are read.
func (s *Sums) Range(r repair.Range, bits int, from Reader) (sums []repair.Sum, newest base.SeqNum, err error) {
	p := s.part(r.Partition)
	if p == nil {
		return nil, 0, s.noPart(r.Partition)
	}
	c, err := s.cut(r, bits)
	if err != nil {
		return nil, 0, err
	}
	for range maxTries {
		p.mu.Lock()
		if !p.known {
			p.mu.Unlock()
			if err := s.Know(r.Partition, from); err != nil {
				return nil, 0, err
			}
			continue
		}
		t, _ := p.find(r.Tenant)
		if t == nil {
			newest = p.newest
			p.mu.Unlock()
			return make([]repair.Sum, 1<<bits), newest, nil
		}
		lo, each, ok := c.leaves(s, &t.grid)
		if !ok {
			p.mu.Unlock()
			return s.readParts(c, from)
		}
		if _, n := t.dirtyRun(lo, lo+each<<bits-1, askedLeaves); n == 0 {
			sums, newest = t.total(lo, each, bits), p.newest
			p.mu.Unlock()
			return sums, newest, nil
		}
		p.mu.Unlock()
		if err := s.clean(r.Partition, p, c, from); err != nil {
			return nil, 0, err
		}
	}
	return s.readParts(c, from)
}

// clean computes some of the dirty leaves that c covers.
func (s *Sums) clean(at ring.Partition, p *part, c cut, from Reader) error {
	p.work.Lock()
	defer p.work.Unlock()
	p.mu.Lock()
	// Somebody else may have done it, or changed the grid.
	t, _ := p.find(c.r.Tenant)
	if t != nil {
		if lo, each, ok := c.leaves(s, &t.grid); ok {
			if first, n := t.dirtyRun(lo, lo+each<<c.bits-1, askedLeaves); n > 0 {
				return s.compute(at, p, t, &t.grid, first, n, from)
			}
		}
	}
	p.mu.Unlock()
	return nil
}

// Know makes sure that all tenants of a partition are known.
func (s *Sums) Know(at ring.Partition, from Reader) error {
	p := s.part(at)
	if p == nil {
		return s.noPart(at)
	}
	p.work.Lock()
	defer p.work.Unlock()
	p.mu.Lock()
	known := p.known
	p.mu.Unlock()
	if known {
		return nil
	}
	return s.list(at, p, from)
}

// noPart says why there is no such partition.
func (s *Sums) noPart(p ring.Partition) error {
	if s.Partitions() == 0 {
		return errUnknown
	}
	return fmt.Errorf("%w: there is no partition %d", ErrRange, p)
}

// cut is a range that is to be cut into equal parts.
type cut struct {
	r    repair.Range
	bits int
	// size is how many tokens a part has, less one: all of them are 2^64.
	size uint64
}

// cut checks a range.
func (s *Sums) cut(r repair.Range, bits int) (cut, error) {
	first, last := s.tokens(&grid{}, r.Partition, 0)
	tokens := uint64(r.Last-r.First) + 1 // 0 stands for 2^64
	switch {
	case bits < 0 || bits > MaxBits:
		return cut{}, fmt.Errorf("%w: 2^%d parts, at most 2^%d can be asked for", ErrRange, bits, MaxBits)
	case r.First > r.Last || r.First < first || r.Last > last:
		return cut{}, fmt.Errorf("%w: tokens %s to %s of partition %d", ErrRange, r.First, r.Last, r.Partition)
	case tokens&(1<<bits-1) != 0:
		return cut{}, fmt.Errorf("%w: %d tokens into 2^%d", ErrRange, tokens, bits)
	}
	// With 2^64 tokens the difference has its upper bits right, too.
	return cut{r, bits, uint64(r.Last-r.First) >> bits}, nil
}

// leaves returns the first leaf of the first part and how many leaves a part has;
// ok is false if parts are not made of whole leaves.
func (c cut) leaves(s *Sums, g *grid) (lo, each int, ok bool) {
	below := 64 - s.partitionBits() - uint(g.depth)
	leaf := uint64(1)<<below - 1 // tokens of a leaf, less one
	if uint64(c.r.First)&leaf != 0 || c.size&leaf != leaf {
		return 0, 0, false
	}
	each = 1
	if below < 64 {
		each = int(c.size>>below) + 1
	}
	return g.index(s.partitionBits(), c.r.First), each, true
}

// total adds up 1<<bits times each leaves from lo on. mu is held.
func (g *grid) total(lo, each, bits int) []repair.Sum {
	sums := make([]repair.Sum, 1<<bits)
	for i := range sums {
		for k := range each {
			plus(&sums[i], &g.leaves[lo+i*each+k].sum)
		}
	}
	return sums
}

// readParts reads what is asked for.
func (s *Sums) readParts(c cut, from Reader) ([]repair.Sum, base.SeqNum, error) {
	view := from.Snapshot()
	defer view.Close()
	sums := make([]repair.Sum, 1<<c.bits)
	err := view.Scan(c.r.Partition, c.r.Tenant, c.r.First, c.r.Last, func(t ring.Token, key []byte, o *causal.Object) {
		i := uint64(0)
		if c.bits > 0 {
			i = uint64(t-c.r.First) / (c.size + 1) // it is not all tokens then
		}
		Object(&sums[i], key, o)
	})
	if err != nil {
		return nil, 0, err
	}
	return sums, view.Seq(), nil
}
