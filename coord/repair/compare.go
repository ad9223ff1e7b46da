package repair

import (
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

const (
	// fewKeys is how many keys of a range are listed instead of halved: their hashes
	// take about as much as the sums of its parts.
	fewKeys = 48
	// aimKeys is how many a part has that its rows are listed of.
	aimKeys = 32
	// maxStep bounds the parts that a range is divided into at once, as a power of two.
	maxStep = 4
	// maxParts bounds the ranges that are asked about in one message.
	maxParts = 64
	// pageRows bounds the rows of this node that are compared at once.
	pageRows = 4096
)

// comparison finds the keys of one span that its owners differ in. This node is the
// hub: each other owner is compared with it, and those parts that are equal end
// there.
type comparison struct {
	m    *Manager
	view *schema.Snapshot
	job  *job
	keys int
	// only are the tenants that are compared; nil: all.
	only map[ring.TenantNumber]bool
	// young says that owners differ in writes under way, too.
	young bool
	// missed says that something that this node lacks was not brought.
	missed bool
}

// part is a range that some owners differ from this node in.
type part struct {
	tenant      *schema.Tenant
	first, last ring.Token
	// depth is how often the partition was halved to get it, leaf how often it is at
	// all of the owners at least.
	depth, leaf int
	// count is the highest number of siblings that any of them has there.
	count uint64
	// mask has a bit for each owner that differs.
	mask uint16
	// rows says that its rows are to be listed, and after where to go on.
	rows  bool
	after *position
}

// run finds and mends all differences, tenant after tenant, from whole partitions to
// parts of a few keys.
func (c *comparison) run(fb *fiber) error {
	todo, err := c.roots(fb)
	if err != nil {
		return err
	}
	for len(todo) > 0 {
		if err := c.pause(fb); err != nil {
			return err
		}
		// The deepest first: what is left to do stays few.
		var some []part
		rows := todo[len(todo)-1].rows
		for len(todo) > 0 && len(some) < maxParts && todo[len(todo)-1].rows == rows {
			some = append(some, todo[len(todo)-1])
			todo = todo[:len(todo)-1]
		}
		slices.Reverse(some)
		var next []part
		if rows {
			next, err = c.list(fb, some)
		} else {
			next, err = c.split(fb, some)
		}
		if err != nil {
			return err
		}
		slices.Reverse(next)
		todo = append(todo, next...)
	}
	return nil
}

// pause waits while clients need the node more.
func (c *comparison) pause(fb *fiber) error { return c.m.pause(fb) }

func (m *Manager) pause(fb *fiber) error {
	for range 10 {
		if !m.opts.Busy() {
			break
		}
		if !fb.sleep(25 * time.Millisecond) {
			return errClosed
		}
	}
	return nil
}

// others returns the owners in a mask, this node left out.
func (c *comparison) others(mask uint16) (ids []int) {
	for i := range c.job.owners {
		if i != c.job.self && mask>>i&1 == 1 {
			ids = append(ids, i)
		}
	}
	return ids
}

// request returns a request about the span.
func (c *comparison) request(k kind) *request {
	return &request{kind: k, spans: []spanItem{{Span: c.job.Span, pv: c.job.pv}}, agreed: hashOf(&c.job.agreed)}
}

// roots compares whole tenants.
func (c *comparison) roots(fb *fiber) ([]part, error) {
	j := c.job
	own, err := c.m.service.sums(j.Span, c.request(kindSums))
	if err != nil {
		return nil, fmt.Errorf("this node: %w", err)
	}
	mask := uint16(0)
	for i := range j.owners {
		if j.here[i] {
			mask |= 1 << i
		}
	}
	ids := c.others(mask)
	replies := make([]*sumReply, len(ids))
	if err := c.askSums(fb, ids, func(int) *request { return c.request(kindSums) }, replies); err != nil {
		return nil, err
	}
	all := slices.Clone(own.tenants)
	for _, r := range replies {
		for _, t := range r.tenants {
			if !slices.ContainsFunc(all, func(s tenantSum) bool { return s.tenant == t.tenant }) {
				all = append(all, tenantSum{tenant: t.tenant, depth: t.depth})
			}
		}
	}
	slices.SortFunc(all, func(a, b tenantSum) int { return int(int64(a.tenant) - int64(b.tenant)) })
	var todo []part
	for i := range all {
		if c.only != nil && !c.only[all[i].tenant] {
			continue
		}
		t, ok := c.view.TenantByNumber(all[i].tenant)
		if !ok && c.view.Deleted(all[i].tenant) {
			continue // who tells of it has not learned that yet
		}
		if !ok || t.Class() != j.Class {
			return nil, fmt.Errorf("there is a tenant %d that this node does not know yet: %w", all[i].tenant, errRing)
		}
		p := part{tenant: t, leaf: int(all[i].depth), count: all[i].sum.Count}
		p.first, p.last = tokens(c.view.Layout, j.Partition)
		for k, r := range replies {
			its := tenantSum{depth: all[i].depth}
			for _, s := range r.tenants {
				if s.tenant == t.Number {
					its = s
				}
			}
			if its.sum != all[i].sum {
				p.mask |= 1 << ids[k]
				p.leaf = min(p.leaf, int(its.depth))
				p.count = max(p.count, its.sum.Count)
			}
		}
		if p.mask != 0 {
			todo = append(todo, c.ripe(p))
		}
	}
	return todo, nil
}

// askSums asks owners for sums, at the same time.
func (c *comparison) askSums(fb *fiber, ids []int, of func(k int) *request, replies []*sumReply) error {
	errs := make([]error, len(ids))
	ok := fb.each(len(ids), len(ids), func(fb *fiber, k int) {
		body, err := c.m.askAgain(fb, c.job, c.job.owners[ids[k]], of(k))
		if err == nil {
			err = c.paid(fb, len(body))
		}
		if err == nil {
			replies[k], err = decodeSums(body)
		}
		if err == nil && replies[k].session != c.job.first[ids[k]].Session {
			err = errRestarted
		}
		errs[k] = err
	})
	if !ok {
		return errClosed
	}
	return first(errs)
}

func first(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// paid waits until n bytes more may be used.
func (c *comparison) paid(fb *fiber, n int) error {
	return c.m.paid(fb, c.job.bucket, n)
}

// paid takes bytes from a bucket, nil for that of rounds, and waits until it has them.
func (m *Manager) paid(fb *fiber, b *bucket, n int) error {
	if b == nil {
		b = m.bucket
	}
	d := b.take(int64(n), m.opts.Clock.Now())
	if b == m.stream {
		d = max(d, m.opts.Streamed(n))
	}
	if d > 0 && !fb.sleep(d) {
		return errClosed
	}
	return nil
}

// ripe decides whether a part's rows are listed.
func (c *comparison) ripe(p part) part {
	p.rows = p.rows || p.count <= fewKeys || p.first == p.last
	return p
}

// step returns into how many parts, as a power of two, a part is divided next. Above
// the leaves sums are at hand; a leaf is read once, and divided once, as finely as its
// rows are to be listed.
func (p *part) step() (step int, rows bool) {
	size := bits.Len64(uint64(p.last - p.first)) // tokens, as a power of two
	if p.depth < p.leaf {
		return min(maxStep, p.leaf-p.depth, size), false
	}
	step = bits.Len64((p.count - 1) / aimKeys)
	return min(max(step, 1), maxStep+1, size), true
}

// split compares the parts of ranges.
func (c *comparison) split(fb *fiber, some []part) (next []part, err error) {
	q := c.request(kindSums)
	mask := uint16(0)
	for i := range some {
		p := &some[i]
		step, _ := p.step()
		q.sums = append(q.sums, sumItem{p.tenant.Number, p.first, p.last, uint8(step)})
		mask |= p.mask
	}
	own, err := c.m.service.sums(c.job.Span, q)
	if err != nil {
		return nil, fmt.Errorf("this node: %w", err)
	}
	ids := c.others(mask)
	replies := make([]*sumReply, len(ids))
	asked := make([]*request, len(ids))
	for k, i := range ids {
		asked[k] = c.request(kindSums)
		for n := range some {
			if some[n].mask>>i&1 == 1 {
				asked[k].sums = append(asked[k].sums, q.sums[n])
			}
		}
	}
	if err := c.askSums(fb, ids, func(k int) *request { return asked[k] }, replies); err != nil {
		return nil, err
	}
	at := make([]int, len(ids)) // how far each reply was read
	ownAt := 0
	for n := range some {
		p := &some[n]
		step, rows := p.step()
		size := uint64(p.last-p.first)>>step + 1
		parts := make([]part, 1<<step)
		for x := range parts {
			from := uint64(p.first) + uint64(x)*size
			parts[x] = part{
				tenant: p.tenant, first: ring.Token(from), last: ring.Token(from + size - 1),
				depth: p.depth + step, leaf: p.leaf, count: own.sums[ownAt+x].Count, rows: rows,
			}
		}
		for k, i := range ids {
			if p.mask>>i&1 == 0 {
				continue
			}
			if len(replies[k].sums) < at[k]+len(parts) {
				return nil, errBody
			}
			for x := range parts {
				if s := replies[k].sums[at[k]+x]; s != own.sums[ownAt+x] {
					parts[x].mask |= 1 << i
					parts[x].count = max(parts[x].count, s.Count)
				}
			}
			at[k] += len(parts)
		}
		ownAt += len(parts)
		for x := range parts {
			if parts[x].mask != 0 {
				next = append(next, c.ripe(parts[x]))
			}
		}
	}
	return next, nil
}
