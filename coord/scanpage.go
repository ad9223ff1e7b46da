package coord

import (
	"sync"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// page is one page of a scan. It is made in rounds: some partitions in a row are
// asked at once; what they tell is put one behind the other as far as there is
// room; the keys on which owners differ are read by themselves, as Get does; then
// the next round begins where this one ended.
//
// As in read, no lock is held across calls.
type page struct {
	job  *job
	want *scanWant

	mu struct {
		sync.Mutex
		// at is where the next round begins, unless ended.
		at    Position
		ended bool
		resp  ScanResponse
		used  room
		// visited counts partitions, those that were begun included.
		visited int
		// scans and parts are those of the present round, open how many of them,
		// or of its reads, have not ended.
		scans []*partitionScan
		parts []partitionPart
		open  int
		got   gathered
		// full says that no more is to be put into the page.
		full     bool
		begun    bool
		answered bool
		stop     func() bool
	}
}

// errNoPageKey is the error of a cluster without a key for tokens.
func errNoPageKey() *Error {
	return &Error{Code: errcode.Unavailable, Message: "the cluster has no key to authenticate page tokens with"}
}

func startPage(j *job) {
	c := j.c
	s, t, err := c.look(j)
	switch {
	case err != nil:
		j.done(result{}, err)
		return
	case len(s.TokenKeys) == 0:
		j.done(result{}, errNoPageKey())
		return
	}
	p := &page{job: j, want: j.scan}
	if p.want.group != nil {
		p.mu.at = Position{ring.KeyToken(t.Number, p.want.group), p.want.low}
	}
	if len(p.want.pageToken) > 0 {
		at, err := openPage(s, t.Number, p.want)
		if err != nil {
			j.fail(errcode.InvalidArgument, "", err.Error())
			return
		}
		p.mu.at = at
	}
	if p.want.empty() {
		j.done(result{}, nil)
		return
	}
	stop := c.opts.Clock.AfterFunc(c.remaining(j.deadline), p.timeout)
	p.mu.Lock()
	p.mu.stop = stop
	p.mu.Unlock()
	if !c.pages.enter(p.begin) {
		p.mu.Lock()
		if p.mu.answered {
			p.mu.Unlock()
			return
		}
		p.finish(&Error{Code: errcode.ResourceExhausted, Message: "too many scans wait at this node"})
	}
}

// begin makes the page, now that it has its turn.
func (p *page) begin() {
	p.mu.Lock()
	if p.mu.answered {
		p.mu.Unlock()
		p.job.c.pages.leave()
		return
	}
	p.mu.begun = true
	p.round()
}

// left is the room that the page still has. The lock is held.
func (p *page) left() room {
	return room{p.want.maxKeys - p.mu.used.keys, MaxPageBytes - pageOverhead - p.mu.used.bytes, pageBudget - p.mu.used.scanned}
}

// round asks the next partitions. The lock is held and released.
func (p *page) round() {
	j, c := p.job, p.job.c
	s, t, err := c.look(j)
	if err != nil {
		p.finish(err)
		return
	}
	left := p.left()
	first := s.Layout.PartitionOf(p.mu.at.Token)
	n := 1
	if p.want.group == nil {
		n = min(ahead(p.mu.visited, p.mu.used, left), s.Layout.Partitions()-int(first))
	}
	p.mu.scans, p.mu.parts, p.mu.open = make([]*partitionScan, n), make([]partitionPart, n), n
	for i := range n {
		r := ScanRange{
			Partition: first + ring.Partition(i), Tenant: t.Number, Class: t.Class(), LWW: t.Policy == schema.PolicyLWW,
			From: p.mu.at, Group: p.want.group != nil,
			Start: p.want.low, End: p.want.high,
			MaxKeys: min(pieceKeys, left.keys), MaxBytes: pieceBytes, Budget: max(2, min(pieceBudget, left.scanned)),
		}
		if i > 0 {
			// What may not be needed is not worth much memory.
			r.From = Position{Token: s.Layout.FirstToken(r.Partition)}
			r.MaxBytes, r.Strict = min(pieceBytes, roundBytes/n), true
		}
		if p.want.keysOnly {
			r.Mode = ScanKeys
		}
		p.mu.scans[i] = &partitionScan{page: p, i: i, ask: r}
	}
	scans := p.mu.scans
	// The page may be answered before all are asked.
	c.hold(1)
	p.mu.Unlock()
	for _, s := range scans {
		s.start()
	}
	c.leave()
}

// heard takes in what a partition told.
func (p *page) heard(i int, part partitionPart) {
	p.mu.Lock()
	if p.mu.answered {
		p.mu.Unlock()
		return
	}
	p.mu.parts[i] = part
	if p.mu.open--; p.mu.open > 0 {
		p.mu.Unlock()
		return
	}
	p.gather()
}

// gather sees what the round brought. The lock is held and released.
func (p *page) gather() {
	p.mu.got = gather(p.mu.parts, p.left())
	if p.mu.got.reads == 0 {
		p.settle()
		return
	}
	// Each read has its slot to itself, and settle waits for all.
	var reads []*slot
	for i := range p.mu.got.slots {
		if s := &p.mu.got.slots[i]; s.item == nil {
			reads = append(reads, s)
		}
	}
	p.mu.open = len(reads)
	p.job.c.hold(len(reads)) // left by each as it ends
	p.mu.Unlock()
	for _, s := range reads {
		p.read(s)
	}
}

// read reads a key on which its owners differ, and brings them level, as a Get at
// the same level does.
func (p *page) read(s *slot) {
	c := p.job.c
	j := &job{c: c, number: p.job.number, began: p.job.began, request: request{
		kind: KindGet, tenant: p.job.tenant, key: s.at.Key, level: p.job.level, deadline: p.job.deadline,
	}}
	j.answer = func(res result, e *Error) {
		p.mu.Lock()
		defer c.leave()
		switch {
		case e == nil:
			it := &ScanItem{Key: s.at.Key, Siblings: res.get.Siblings, Token: res.get.Token, Context: res.get.Context}
			if p.want.keysOnly {
				it.Siblings = withoutValues(it.Siblings)
			}
			s.item, s.size = it, itemSize(it)
		case e.Code != errcode.KeyNotFound:
			s.err = e
		}
		if p.mu.open--; p.mu.open > 0 || p.mu.answered {
			p.mu.Unlock()
			return
		}
		p.settle()
	}
	j.run()
}

// settle puts what the round brought into the page, and goes on or answers. The
// lock is held and released.
func (p *page) settle() {
	g := &p.mu.got
	p.mu.visited += g.visited
	p.mu.used.scanned += g.scanned
	p.mu.resp.Scanned += g.scanned
	at, failed := g.at, g.err
	for i := range g.slots {
		s := &g.slots[i]
		if s.err != nil {
			at, failed = &s.at, s.err
			break
		}
		if s.item == nil {
			continue
		}
		// What was read may be larger than it was thought to be.
		if p.mu.used.keys > 0 && s.size > p.left().bytes {
			at, failed, p.mu.full = &s.at, nil, true
			break
		}
		p.mu.resp.Items = append(p.mu.resp.Items, *s.item)
		p.mu.used.keys++
		p.mu.used.bytes += s.size
	}
	p.move(at, failed)
	left := p.left()
	began, now := p.job.began, p.job.c.opts.Clock.Now()
	p.mu.full = p.mu.full || left.keys <= 0 || left.bytes <= 0 || left.scanned <= 0 || now.Sub(began) >= pageTime(&p.job.c.opts)
	switch {
	case failed != nil && len(p.mu.resp.Items) == 0:
		p.finish(failed)
	case failed != nil || p.mu.ended || p.mu.full:
		p.finish(nil)
	default:
		p.round()
	}
}

// move sets where the next round begins: at a position, or else behind the
// partitions that the round has been through. The lock is held.
func (p *page) move(at *Position, failed *Error) {
	if at != nil {
		p.mu.at = clonePosition(at)
		return
	}
	l := p.job.c.opts.View().Layout
	first := int(p.mu.scans[0].ask.Partition)
	switch next := first + p.mu.got.visited; {
	case failed != nil && p.mu.got.visited == 0:
	case failed == nil && (p.want.group != nil || next >= l.Partitions()):
		p.mu.ended = true
	default:
		p.mu.at = Position{Token: l.FirstToken(ring.Partition(next))}
	}
}

// timeout answers with what there is.
func (p *page) timeout() {
	p.mu.Lock()
	if p.mu.answered {
		p.mu.Unlock()
		return
	}
	var err *Error
	if len(p.mu.resp.Items) == 0 {
		err = &Error{Code: errcode.Timeout, Message: "the deadline passed before the owners of a partition answered"}
	}
	p.finish(err)
}

// finish answers with the page, or with e. The lock is held and released.
func (p *page) finish(e *Error) {
	j := p.job
	p.mu.answered = true
	if p.mu.stop != nil {
		p.mu.stop()
	}
	scans, resp, begun := p.mu.scans, p.mu.resp, p.mu.begun
	if e == nil && !p.mu.ended {
		if s, t, err := j.c.look(j); err != nil {
			e = err
		} else if resp.PageToken = sealPage(s, t.Number, p.want, &p.mu.at); resp.PageToken == nil {
			e = errNoPageKey()
		}
	}
	p.mu.Unlock()
	// Their timers must not ask anybody any more.
	for _, s := range scans {
		s.abandon()
	}
	if begun {
		j.c.pages.leave()
	}
	if e != nil {
		j.done(result{}, e)
		return
	}
	j.done(result{scan: resp}, nil)
}

// pageTime is how long a page may take before it ends early.
func pageTime(o *Options) time.Duration { return o.ReadTimeout / 3 }
