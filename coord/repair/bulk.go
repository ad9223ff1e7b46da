package repair

import (
	"fmt"
	"math"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

const (
	// frameBytes and maxFrameKeys bound the objects that come in one answer; one object
	// comes alone whatever its size.
	frameBytes   = 256 << 10
	maxFrameKeys = 1024
	// frameBudget bounds the entries of the engine that are looked at for one.
	frameBudget = 1 << 16
	// maxHold bounds how long an answer is held back for the sake of clients: who asked is
	// not to take this node for one that does not answer.
	maxHold = 2 * time.Second
	// fewToBulk is how many siblings of a tenant are not worth a bulk.
	fewToBulk = 64
)

// bulkWorth decides whether a tenant's objects are fetched in bulk: one that has most of
// them is compared, which finds the others.
func bulkWorth(own, theirs uint64) bool { return theirs >= fewToBulk && own < theirs/2 }

// bulk brings the objects of tenants of which there is little here from one old owner, in
// storage order. What it has not, the comparison that follows brings. It returns about how
// many siblings there are to compare.
func (m *Manager) bulk(fb *fiber, at ring.Version, r *round, j *job, g *gain, note func(keys, size int)) (siblings uint64, err error) {
	own, err := m.service.roots(j.Span)
	if err != nil {
		return 0, fmt.Errorf("this node: %w", err)
	}
	for i := range own {
		siblings += own[i].sum.Count
	}
	if len(j.order) == 0 {
		return siblings, nil
	}
	source := j.order[0]
	q := &request{kind: kindSums, spans: []spanItem{{Span: j.Span, pv: j.pv}}, agreed: hashOf(&j.agreed)}
	body, err := m.askAgain(fb, j, j.owners[source], q)
	if err != nil {
		return 0, err
	}
	theirs, err := decodeSums(body)
	if err != nil {
		return 0, err
	}
	for i := range theirs.tenants {
		s := &theirs.tenants[i]
		siblings += s.sum.Count
		held := uint64(0)
		for k := range own {
			if own[k].tenant == s.tenant {
				held = own[k].sum.Count
			}
		}
		t, ok := r.view.TenantByNumber(s.tenant)
		if !ok && r.view.Deleted(s.tenant) {
			continue
		}
		if !ok || t.Class() != j.Class {
			return 0, fmt.Errorf("there is a tenant %d that this node does not know yet: %w", s.tenant, errRing)
		}
		m.mu.Lock()
		over, begun := g.bulked[s.tenant], g.from[s.tenant] != nil
		m.mu.Unlock()
		if over || !begun && !bulkWorth(held, s.sum.Count) {
			continue
		}
		b := &bulking{m: m, at: at, job: j, g: g, source: source, tenant: t, note: note, keys: s.sum.Count}
		if err := b.run(fb); err != nil {
			return 0, err
		}
		m.mu.Lock()
		g.bulked[s.tenant] = true
		m.mu.Unlock()
	}
	return siblings, nil
}

// bulking is the bulk of one tenant.
type bulking struct {
	m      *Manager
	at     ring.Version
	job    *job
	g      *gain
	source int
	tenant *schema.Tenant
	note   func(keys, size int)
	keys   uint64 // about how many there are
	first  ring.Token
	last   ring.Token
}

// run fetches frames one after the other, each while the one before is being stored.
func (b *bulking) run(fb *fiber) error {
	m := b.m
	b.first, b.last = tokens(m.opts.View().Layout, b.job.Partition)
	m.mu.Lock()
	from := b.g.from[b.tenant.Number]
	m.mu.Unlock()
	// Two frames are in memory at a time, beside those of other spans.
	const held = 2 * frameBytes
	if !fb.await(func(done func()) { m.room.enter(held, done) }) {
		return errClosed
	}
	rest := int64(held)
	defer func() { m.room.leave(rest) }()
	frame, err := b.fetch(fb, from)
	if err == nil && frame.next == nil {
		// It is all there is: others may come while it is stored.
		if n := min(int64(frame.size()), rest); n < rest {
			m.room.leave(rest - n)
			rest = n
		}
	}
	for err == nil {
		var after *objectReply
		var failed, lost error
		ok := fb.each(2, 2, func(fb *fiber, i int) {
			switch {
			case i == 0:
				failed = b.store(fb, frame)
			case frame.next != nil:
				after, lost = b.fetch(fb, frame.next)
			}
		})
		if !ok {
			return errClosed
		}
		if failed != nil {
			return failed
		}
		m.mu.Lock()
		b.g.from[b.tenant.Number] = frame.next
		b.estimate(frame.next)
		m.mu.Unlock()
		if frame.next == nil {
			return nil
		}
		frame, err = after, lost
	}
	return err
}

// estimate says about how many bytes there are, by how far the bulk has come. The
// manager is locked.
func (b *bulking) estimate(next *position) {
	if next == nil || next.Token <= b.first {
		return
	}
	part := float64(next.Token-b.first) / (float64(b.last-b.first) + 1)
	b.g.BytesTotal = max(b.g.BytesDone, int64(math.Min(float64(b.g.BytesDone)/part, 1<<60)))
}

// fetch asks the source for a frame, and pays for it.
func (b *bulking) fetch(fb *fiber, from *position) (*objectReply, error) {
	m, j := b.m, b.job
	if err := m.under(b.at); err != nil {
		return nil, err
	}
	if err := m.pause(fb); err != nil {
		return nil, err
	}
	q := &request{
		kind: kindObjects, spans: []spanItem{{Span: j.Span, pv: j.pv}}, agreed: hashOf(&j.agreed), tenant: b.tenant.Number, from: from,
	}
	body, err := m.askAgain(fb, j, j.owners[b.source], q)
	if err != nil {
		return nil, err
	}
	a, err := decodeObjects(body)
	if err == nil && a.session != j.first[b.source].Session {
		err = errRestarted
	}
	if err == nil && a.next != nil && from != nil && a.next.compare(from) <= 0 {
		err = errBody // it would never end
	}
	if err != nil {
		return nil, err
	}
	return a, m.paid(fb, j.bucket, len(body))
}

// size is about how many bytes a frame takes.
func (a *objectReply) size() (n int) {
	for i := range a.rows {
		n += len(a.rows[i].key) + len(a.rows[i].object)
	}
	return n
}

// store joins a frame into this node's copy.
func (b *bulking) store(fb *fiber, a *objectReply) error {
	m, j, t := b.m, b.job, b.tenant
	items := make([]coord.MergeItem, 0, len(a.rows))
	size := 0
	for i := range a.rows {
		row := &a.rows[i]
		token := ring.KeyToken(t.Number, row.key)
		if token < b.first || token > b.last {
			return fmt.Errorf("node %s sent a key of another partition: %w", j.owners[b.source].Short(), errBody)
		}
		lww := t.Policy == schema.PolicyLWW
		items = append(items, coord.MergeItem{
			Address: coord.Address{Partition: j.Partition, Tenant: t.Number, Token: token, Key: row.key, Class: j.Class, LWW: lww, PV: j.pv},
			Object:  row.object, LastWriteWins: lww, Refetch: &j.agreed,
		})
		size += len(row.key) + len(row.object)
	}
	errs, ok := m.mergeHere(fb, items)
	if !ok {
		return errClosed
	}
	m.brought(&m.figures.gained, b.note, len(items), size)
	return first(errs)
}

// objects tells a piece of what is held of a tenant, whole.
func (s *service) objects(fb *fiber, span Span, q *request) (*objectReply, error) {
	if err := s.settledBy(span, q.agreed); err != nil {
		return nil, err
	}
	v := s.opts.View()
	t, ok := v.TenantByNumber(q.tenant)
	if v.Layout == nil || !ok || t.Class() != span.Class {
		return nil, errRing
	}
	r := &coord.ScanRange{
		Partition: span.Partition, Tenant: t.Number, Class: span.Class, LWW: t.Policy == schema.PolicyLWW, Mode: coord.ScanValues,
		MaxKeys: maxFrameKeys, MaxBytes: frameBytes, Budget: frameBudget,
	}
	if r.From.Token = v.Layout.FirstToken(span.Partition); q.from != nil {
		r.From = coord.Position{Token: q.from.Token, Key: q.from.Key}
	}
	var piece coord.ScanPiece
	var err error
	if !fb.await(func(done func()) {
		s.opts.Objects.Scan(r, func(p coord.ScanPiece, e error) {
			piece, err = p, e
			done()
		})
	}) {
		return nil, errClosed
	}
	if err != nil {
		return nil, err
	}
	a := &objectReply{rows: make([]objectRow, 0, len(piece.Entries))}
	for i := range piece.Entries {
		a.rows = append(a.rows, objectRow{piece.Entries[i].Key, piece.Entries[i].Object})
	}
	// Whoever asks waits for the answer before it asks for more.
	if d := min(s.opts.Streamed(a.size()), maxHold); d > 0 && !fb.sleep(d) {
		return nil, errClosed
	}
	if piece.Next != nil {
		a.next = &position{piece.Next.Token, piece.Next.Key}
	}
	if err := s.has(span, q.tenant); err != nil {
		return nil, err
	}
	// What was read is settled by what was confirmed before and after.
	return a, s.settledBy(span, q.agreed)
}

// nothing is what is held of a key that was superseded altogether.
var nothing = (&causal.Object{}).Append(nil)
