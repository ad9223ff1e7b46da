package repair

import (
	"github.com/zeebo/xxh3"

	"github.com/pairdb/pairdb/gossip/ring"
)

// settledBy fails unless exactly that is confirmed here whose hash is given.
func (s *service) settledBy(span Span, agreed uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.mu.ledger[span]; e == nil || e.changing > 0 || e.hash != agreed {
		return errMoved
	}
	return nil
}

// has fails unless a tenant is one of a span's. What nothing is told of because the
// tenant was deleted must not be taken for superseded, or for lost.
func (s *service) has(span Span, t ring.TenantNumber) error {
	if known, ok := s.opts.View().TenantByNumber(t); !ok || known.Class() != span.Class {
		return errRing
	}
	return nil
}

// sums tells sums of ranges, or of all tenants.
func (s *service) sums(span Span, q *request) (*sumReply, error) {
	if err := s.settledBy(span, q.agreed); err != nil {
		return nil, err
	}
	a := new(sumReply)
	if len(q.sums) == 0 {
		var err error
		a.tenants, err = s.roots(span)
		return a, err
	}
	for i := range q.sums {
		it := &q.sums[i]
		if err := s.has(span, it.tenant); err != nil {
			return nil, err
		}
		sums, err := s.opts.Replica.Sums(Range{span.Partition, it.tenant, it.first, it.last}, int(it.bits))
		if err != nil {
			return nil, err
		}
		if a.sums = append(a.sums, sums...); len(a.sums) > 1<<15 {
			return nil, errBody
		}
	}
	return a, nil
}

// roots tells the sums of all tenants of the span.
func (s *service) roots(span Span) (all []tenantSum, err error) {
	v := s.opts.View()
	if v.Layout == nil {
		return nil, errRing
	}
	first, last := tokens(v.Layout, span.Partition)
	for _, t := range s.opts.Replica.Tenants(span.Partition) {
		known, ok := v.TenantByNumber(t)
		if !ok || known.Class() != span.Class {
			continue
		}
		sums, err := s.opts.Replica.Sums(Range{span.Partition, t, first, last}, 0)
		if err != nil {
			return nil, err
		}
		all = append(all, tenantSum{t, uint8(s.opts.Replica.Depth(span.Partition, t)), sums[0]})
	}
	return all, nil
}

// tokens returns the first and the last token of a partition.
func tokens(l *ring.Layout, p ring.Partition) (first, last ring.Token) {
	first = l.FirstToken(p)
	if int(p)+1 == l.Partitions() {
		return first, ^ring.Token(0)
	}
	return first, l.FirstToken(p+1) - 1
}

// hash stands for what an owner holds of a key: the key and its siblings' dots.
func (row *Row) hash() uint64 {
	b := make([]byte, 0, len(row.Key)+16*len(row.Object.Siblings))
	b = append(b, row.Key...)
	for i := range row.Object.Siblings {
		d := row.Object.Siblings[i].Dot
		b = appendU64(appendU64(b, d.Actor), d.Counter)
	}
	return xxh3.Hash(b)
}

// diff tells the rows that the asker does not have.
func (s *service) diff(span Span, q *request) (*diffReply, error) {
	if err := s.settledBy(span, q.agreed); err != nil {
		return nil, err
	}
	a := new(diffReply)
	left := maxReplies
	for i := range q.diffs {
		it := &q.diffs[i]
		if err := s.has(span, it.tenant); err != nil {
			return nil, err
		}
		p, err := s.diffOf(span, it, &left)
		if err != nil {
			return nil, err
		}
		a.parts = append(a.parts, p)
	}
	for i := range q.diffs { // once more: it may have been deleted meanwhile
		if err := s.has(span, q.diffs[i].tenant); err != nil {
			return nil, err
		}
	}
	// What was read is settled by what was confirmed before and after.
	return a, s.settledBy(span, q.agreed)
}

func (s *service) diffOf(span Span, it *diffItem, left *int) (p diffPart, err error) {
	p.missing = make([]byte, (len(it.hashes)+7)/8)
	for k := range it.hashes {
		p.missing[k/8] |= 1 << (k % 8)
	}
	at := make(map[uint64]int, len(it.hashes))
	for k, h := range it.hashes {
		at[h] = k
	}
	r := Range{span.Partition, it.tenant, it.first, it.last}
	for after := it.after; ; {
		if *left <= 0 {
			if p.end = after; after == nil {
				p.end = &position{Token: it.first} // before the first row
			}
			return p, nil
		}
		rows, more, err := s.opts.Replica.Rows(r, after.row(), maxRows)
		if err != nil {
			return p, err
		}
		for i := range rows {
			row := &rows[i]
			if it.until != nil && row.at().compare(it.until) > 0 {
				return p, nil
			}
			after = row.at()
			if k, ok := at[row.hash()]; ok {
				p.missing[k/8] &^= 1 << (k % 8)
				continue
			}
			if !row.Object.IsZero() {
				p.rows = append(p.rows, *row)
				*left -= 40 + len(row.Key) + row.Object.EncodedLen()
			}
			if *left <= 0 {
				break
			}
		}
		if !more && *left > 0 {
			return p, nil
		}
	}
}
