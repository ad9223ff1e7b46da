package repair

import (
	"fmt"
	"slices"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/schema"
)

// page is what this node holds of a part, up to end.
type page struct {
	part *part
	rows []Row
	// end is where the page ends before the part does, nil if it does not.
	end *position
}

// list finds the keys of parts that owners differ in, and has them mended. It returns
// what is left of parts with many rows.
func (c *comparison) list(fb *fiber, some []part) (next []part, err error) {
	c.m.figures.change(func(f *Figures) { f.Differing += uint64(len(some)) })
	var pages []page
	left := pageRows
	read := 0
	for i := range some {
		p := &some[i]
		if left <= 0 {
			next = append(next, *p)
			continue
		}
		pg, err := c.own(p, left)
		if err != nil {
			return nil, fmt.Errorf("this node: %w", err)
		}
		left -= len(pg.rows) + 1
		for k := range pg.rows {
			read += 32 + len(pg.rows[k].Key)
		}
		pages = append(pages, pg)
	}
	if err := c.paid(fb, read); err != nil {
		return nil, err
	}
	mask := uint16(0)
	for i := range pages {
		mask |= pages[i].part.mask
	}
	ids := c.others(mask)
	replies := make([]*diffReply, len(ids))
	errs := make([]error, len(ids))
	ok := fb.each(len(ids), max(len(ids), 1), func(fb *fiber, k int) {
		replies[k], errs[k] = c.askDiff(fb, ids[k], pages)
	})
	if !ok {
		return nil, errClosed
	}
	if err := first(errs); err != nil {
		return nil, err
	}
	// What was read here is settled by what was confirmed then and is now.
	if err := c.m.service.settledBy(c.job.Span, hashOf(&c.job.agreed)); err != nil {
		return nil, err
	}
	for i := range pages {
		if err := c.m.service.has(c.job.Span, pages[i].part.tenant.Number); err != nil {
			return nil, err
		}
	}
	var fixes []fix
	at := make([]int, len(ids))
	for n := range pages {
		pg := &pages[n]
		end := pg.end
		parts := make([]*diffPart, len(ids)) // nil for owners that are equal
		for k, i := range ids {
			if pg.part.mask>>i&1 == 0 {
				continue
			}
			parts[k] = &replies[k].parts[at[k]]
			at[k]++
			if e := parts[k].end; e != nil && (end == nil || e.compare(end) < 0) {
				end = e
			}
		}
		fixes = append(fixes, c.keysOf(pg, ids, parts, end)...)
		if end != nil {
			rest := *pg.part
			rest.after = end
			next = append(next, rest)
		}
	}
	c.keys += len(fixes)
	c.m.figures.change(func(f *Figures) { f.Differed += uint64(len(fixes)) })
	if c.job.fix != nil {
		return next, c.job.fix(fb, c, fixes)
	}
	return next, c.mend(fb, fixes)
}

// own reads this node's rows of a part.
func (c *comparison) own(p *part, limit int) (page, error) {
	r := Range{c.job.Partition, p.tenant.Number, p.first, p.last}
	pg := page{part: p}
	for after := p.after; ; {
		rows, more, err := c.m.opts.Replica.Rows(r, after.row(), limit)
		if err != nil {
			return pg, err
		}
		for i := range rows {
			if !rows[i].Object.IsZero() {
				pg.rows = append(pg.rows, rows[i])
			}
		}
		if !more || len(rows) == 0 {
			return pg, nil
		}
		after = rows[len(rows)-1].at()
		if limit -= len(rows); limit <= 0 {
			pg.end = after
			return pg, nil
		}
	}
}

// askDiff asks an owner for the rows it has and this node does not, and which of this
// node's it lacks.
func (c *comparison) askDiff(fb *fiber, i int, pages []page) (*diffReply, error) {
	q := c.request(kindDiff)
	for n := range pages {
		pg := &pages[n]
		if pg.part.mask>>i&1 == 0 {
			continue
		}
		it := diffItem{tenant: pg.part.tenant.Number, first: pg.part.first, last: pg.part.last, after: pg.part.after, until: pg.end}
		for k := range pg.rows {
			it.hashes = append(it.hashes, pg.rows[k].hash())
		}
		q.diffs = append(q.diffs, it)
	}
	body, err := c.m.askAgain(fb, c.job, c.job.owners[i], q)
	if err != nil {
		return nil, err
	}
	if err := c.paid(fb, len(body)); err != nil {
		return nil, err
	}
	a, err := decodeDiff(body, q)
	if err == nil && a.session != c.job.first[i].Session {
		err = errRestarted
	}
	return a, err
}

// fix is a key that owners differ in, and what is to be done.
type fix struct {
	verdict
	tenant *schema.Tenant
	at     coord.Address
	// size is about how many bytes the objects have that are to be read.
	size int
	// here are the owners that take part, by whose place verdict counts.
	here []int
}

// keysOf decides about each key of a page. parts are what the owners ids answered.
func (c *comparison) keysOf(pg *page, ids []int, parts []*diffPart, end *position) (fixes []fix) {
	// Both are in order, so they are walked together.
	own := 0
	theirs := make([]int, len(ids))
	within := func(row *Row) bool { return end == nil || row.at().compare(end) <= 0 }
	for {
		var least *position
		consider := func(rows []Row, i int) {
			if i < len(rows) && within(&rows[i]) && (least == nil || rows[i].at().compare(least) < 0) {
				least = rows[i].at()
			}
		}
		consider(pg.rows, own)
		for k, p := range parts {
			if p != nil {
				consider(p.rows, theirs[k])
			}
		}
		if least == nil {
			return fixes
		}
		var mine *Row
		if own < len(pg.rows) && pg.rows[own].at().compare(least) == 0 {
			mine = &pg.rows[own]
			own++
		}
		rows := make([]*Row, len(c.job.owners)) // as this node's where nothing else is known
		for i := range rows {
			rows[i] = mine
		}
		differs := false
		for k, p := range parts {
			if p == nil {
				continue
			}
			switch at := theirs[k]; {
			case at < len(p.rows) && p.rows[at].at().compare(least) == 0:
				rows[ids[k]] = &p.rows[at]
				theirs[k]++
				differs = true
			case mine != nil && p.misses(own-1):
				rows[ids[k]] = nil
				differs = true
			}
		}
		if differs {
			if f, ok := c.decide(pg, least, rows); ok {
				fixes = append(fixes, f)
			}
		}
	}
}

// decide makes what owners hold of a key into what is to be done.
func (c *comparison) decide(pg *page, at *position, rows []*Row) (f fix, ok bool) {
	j := c.job
	var views []view
	var nothing causal.Object
	for i := range j.owners {
		if !j.here[i] {
			continue
		}
		v := view{object: &nothing, vouches: j.vouches == nil || j.vouches[i]}
		if rows[i] != nil {
			v.object = &rows[i].Object
		}
		f.here = append(f.here, i)
		views = append(views, v)
	}
	f.verdict = plan(views, &j.agreed, j.horizon)
	f.tenant = pg.part.tenant
	f.at = coord.Address{
		Partition: j.Partition, Tenant: f.tenant.Number, Token: at.Token, Key: slices.Clone(at.Key),
		Class: j.Class, LWW: f.tenant.Policy == schema.PolicyLWW, PV: j.pv,
	}
	c.young = c.young || f.young
	if f.damaged {
		c.damaged(&f)
		return f, false
	}
	for _, i := range f.from {
		if r := rows[f.here[i]]; r != nil {
			f.size += r.Size
		}
	}
	return f, len(f.want) > 0
}

// damaged tells of a key that an owner has lost, or got back. It is left as it is.
func (c *comparison) damaged(f *fix) {
	c.m.figures.change(func(f *Figures) { f.Damaged++ })
	c.m.opts.Note(Note{
		Warning: true,
		Text:    "an owner has nothing of a key of which all owners had something: it has lost data, or another one has got back what was deleted; verify the nodes",
		Details: []string{"partition", fmt.Sprint(f.at.Partition), "tenant", f.tenant.Name, "key", fmt.Sprintf("%q", clip(string(f.at.Key)))},
	})
}
