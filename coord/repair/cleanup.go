package repair

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// cleanPause is when it is looked again for what is not owned, after something could not
// be handed over or the ring was changing.
const cleanPause = 10 * time.Second

// cleaning is what is known of data that this node does not own.
type cleaning struct {
	running bool
	// held is the version of the ring at which there was none, 0 for none; seen is the
	// layout that was looked at last, and next when to look again all the same, zero
	// for not.
	held ring.Version
	seen *ring.Layout
	next time.Time
	// spans are what is to be handed over.
	spans map[Span]*Transfer
	told  string
}

// lookForeign begins to look for data that is not owned, at the start and whenever the
// layout is another one.
func (m *Manager) lookForeign(v *schema.Snapshot) {
	if v.Layout == nil || !v.Ready {
		return
	}
	now := m.opts.Clock.Now()
	m.mu.Lock()
	c := &m.mu.clean
	begin := !c.running && (c.seen != v.Layout || !c.next.IsZero() && !now.Before(c.next))
	c.running = c.running || begin
	m.mu.Unlock()
	if begin && !m.fibers.spawn("cleanup", func(fb *fiber) { m.cleanUp(fb, v) }) {
		m.mu.Lock()
		c.running = false
		m.mu.Unlock()
	}
}

// foreign returns the spans that are here and not owned. What the open change touches is
// left alone until that is over.
func (m *Manager) foreign(v *schema.Snapshot) ([]Span, error) {
	return m.opts.Replica.Foreign(func(s Span) bool {
		return int(s.Partition) >= v.Layout.Partitions() || v.Change.Touches(s.Partition) || m.owns(v, s)
	})
}

// cleanUp hands over and drops what is not owned, and says so when nothing of it is left.
func (m *Manager) cleanUp(fb *fiber, v *schema.Snapshot) {
	began := m.opts.Clock.Now()
	dropped, keys, bytes := 0, m.figures.handed.keys.Load(), m.figures.handed.bytes.Load()
	again := false
	var err error
	for {
		var spans []Span
		if spans, err = m.foreign(v); err != nil || len(spans) == 0 {
			break
		}
		m.mu.Lock()
		m.mu.clean.spans = make(map[Span]*Transfer, len(spans))
		for _, span := range spans {
			m.mu.clean.spans[span] = &Transfer{
				Kind: TransferCleanup, At: v.Layout.PV(span.Partition),
				Span: span, From: []ring.NodeID{m.opts.Self}, State: TransferWaiting,
			}
		}
		m.mu.Unlock()
		errs := make([]error, len(spans))
		if !fb.each(len(spans), m.opts.Concurrency, func(fb *fiber, i int) { errs[i] = m.cleanSpan(fb, v, spans[i]) }) {
			err = errClosed // some were not begun
			break
		}
		for _, e := range errs {
			if e == nil {
				dropped++
			} else if err == nil {
				err = e
			}
		}
		if err != nil {
			break // those that failed are tried again later
		}
	}
	if again = err != nil || v.Change != nil; !again {
		if err = m.opts.Cleaned(v.Version); err != nil {
			again = true
		}
	}
	if dropped > 0 {
		m.opts.Note(Note{
			Text:    fmt.Sprintf("this node has dropped what it owned no more: %s", countOf(dropped, "span")),
			Details: []string{"handed_over", countOf(int(m.figures.handed.keys.Load()-keys), "key"), "bytes", sizeOf(int(m.figures.handed.bytes.Load() - bytes)), "took", m.opts.Clock.Now().Sub(began).Round(time.Millisecond).String()},
		})
	}
	m.cleaned(v, err, again)
}

// cleaned notes how it went.
func (m *Manager) cleaned(v *schema.Snapshot, err error, again bool) {
	why := ""
	if err != nil && !errors.Is(err, errClosed) && !errors.Is(err, ErrNotForeign) {
		why = err.Error()
	}
	m.mu.Lock()
	c := &m.mu.clean
	c.running, c.seen, c.next = false, v.Layout, time.Time{}
	if again {
		c.next = m.opts.Clock.Now().Add(m.jitter(cleanPause))
	} else {
		c.held, c.spans = v.Version, nil
	}
	tell := why != "" && why != c.told
	c.told = why
	m.mu.Unlock()
	if tell {
		m.opts.Note(Note{Warning: true, Text: "this node still has data that it does not own: " + why})
	}
}

// cleanSpan hands over what the owners of a span lack, and drops it.
func (m *Manager) cleanSpan(fb *fiber, v *schema.Snapshot, span Span) error {
	m.mu.Lock()
	t := m.mu.clean.spans[span]
	t.State = TransferRunning
	m.mu.Unlock()
	err := m.handOver(fb, v, span)
	if err == nil {
		err = m.service.drop(span, func() bool { return m.isForeign(span, v.Layout.PV(span.Partition)) })
	}
	if err == nil {
		m.figures.change(func(f *Figures) { f.CleanedSpans++ })
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if t.State = TransferDone; err != nil {
		t.State, t.Error = TransferWaiting, err.Error()
	}
	return err
}

// isForeign reports whether a span is not owned under the version of the ring that it was
// handed over under, which then is the present one.
func (m *Manager) isForeign(span Span, pv ring.Version) bool {
	v := m.opts.View()
	return v.Layout != nil && v.Layout.PV(span.Partition) == pv && !v.Change.Touches(span.Partition) && !m.owns(v, span)
}

// giveUpLost ends the quarantine of a partition of which nothing is owned here any more.
// What was lost is not fetched, since it could only come from the owners that the rest
// goes to; and as long as the rest stays this node could never be retired, nor deletes of
// the partition be collected anywhere. Of what is owned here the fetch comes first.
func (m *Manager) giveUpLost(v *schema.Snapshot, p ring.Partition) error {
	if !m.opts.Quarantined(p) {
		return nil
	}
	for _, c := range v.Classes() {
		if m.owns(v, Span{p, c.Class}) {
			return fmt.Errorf("partition %d is under quarantine here: what is owned of it is to be fetched before the rest is handed over", p)
		}
	}
	m.opts.Fetching(p)
	err := m.opts.Fetched([]ring.Partition{p})
	if err == nil && m.opts.Quarantined(p) {
		err = errMetAgain
	}
	if err != nil {
		return fmt.Errorf("partition %d: %w", p, err)
	}
	m.opts.Note(Note{
		Warning: true, Text: "some of a partition that this node owns no more was damaged: what is left of it is handed over",
		Details: []string{"partition", fmt.Sprint(p)},
	})
	return nil
}

// handOver brings all owners of a span what they lack of what is here. It is over only
// when all of them took part.
func (m *Manager) handOver(fb *fiber, v *schema.Snapshot, span Span) error {
	if err := m.giveUpLost(v, span.Partition); err != nil {
		return err
	}
	before, err := m.service.roots(span)
	if err != nil || len(before) == 0 {
		return err
	}
	r := &round{m: m, view: v, began: m.opts.Clock.Now()}
	j := r.guest(span)
	j.bucket, j.need = m.stream, len(j.owners)-1
	j.trust(false)
	if err := r.meet(fb, j); err != nil {
		return fmt.Errorf("partition %d: %w", span.Partition, err)
	}
	// All that is here is old: nothing of it is on its way.
	j.horizon = causal.JoinContext(horizonOf(j.some(j.first)), j.first[j.self].Seen)
	if err := m.handRows(fb, r, j, before); err != nil {
		return fmt.Errorf("partition %d: %w", span.Partition, err)
	}
	after, err := m.service.roots(span)
	if err == nil && !slices.Equal(before, after) {
		err = fmt.Errorf("partition %d: %w", span.Partition, errMoved)
	}
	return err
}

// sparse decides whether what is here is so little of what there is that it is sent as it
// is: a comparison would list what the owners have.
func sparse(own, theirs uint64) bool { return own < theirs/8 }

// handRows compares, or sends all that is here, tenant by tenant.
func (m *Manager) handRows(fb *fiber, r *round, j *job, own []tenantSum) error {
	c := &comparison{m: m, view: r.view, job: j}
	mask := uint16(1)<<len(j.owners) - 1
	ids := c.others(mask)
	replies := make([]*sumReply, len(ids))
	if err := c.askSums(fb, ids, func(int) *request { return c.request(kindSums) }, replies); err != nil {
		return err
	}
	var few []tenantSum
	c.only = make(map[ring.TenantNumber]bool)
	for i := range own {
		most := uint64(0)
		for _, a := range replies {
			for _, s := range a.tenants {
				if s.tenant == own[i].tenant {
					most = max(most, s.sum.Count)
				}
			}
		}
		if sparse(own[i].sum.Count, most) {
			few = append(few, own[i])
		} else {
			c.only[own[i].tenant] = true
		}
	}
	if err := m.handAll(fb, r, j, few); err != nil || len(c.only) == 0 {
		return err
	}
	j.fix = func(fb *fiber, c *comparison, all []fix) error {
		var some []fix
		for _, f := range all {
			f.want = slices.DeleteFunc(f.want, func(w int) bool { return f.here[w] == j.self })
			if len(f.want) > 0 {
				some = append(some, f)
			}
		}
		rows, moved := j.rows, j.moved
		err := c.mend(fb, some)
		m.handed(j, rows, moved)
		return err
	}
	return c.run(fb)
}

// handed counts what was handed over of a span since so many rows and bytes.
func (m *Manager) handed(j *job, rows, moved int) {
	keys, size := j.rows-rows, j.moved-moved
	m.figures.handed.add(keys, size)
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.mu.clean.spans[j.Span]; t != nil {
		t.KeysDone, t.BytesDone = t.KeysDone+int64(keys), t.BytesDone+int64(size)
	}
}

// handAll sends all objects that are here to all owners, which leave out what they had.
func (m *Manager) handAll(fb *fiber, r *round, j *job, own []tenantSum) error {
	c := &comparison{m: m, view: r.view, job: j}
	for i := range own {
		t, ok := r.view.TenantByNumber(own[i].tenant)
		if !ok {
			return errRing
		}
		q := &request{kind: kindObjects, spans: []spanItem{{Span: j.Span, pv: j.pv}}, agreed: hashOf(&j.agreed), tenant: t.Number}
		for {
			a, err := m.service.objects(fb, j.Span, q)
			if err != nil {
				return fmt.Errorf("this node: %w", err)
			}
			if err := c.handFrame(fb, t, a.rows); err != nil {
				return err
			}
			if q.from = a.next; q.from == nil {
				break
			}
		}
	}
	return nil
}

// handFrame sends objects to all owners.
func (c *comparison) handFrame(fb *fiber, t *schema.Tenant, rows []objectRow) error {
	var fixes []fix
	var objects [][]byte
	size := 0
	for i := range rows {
		f := fix{tenant: t, at: coord.Address{
			Partition: c.job.Partition, Tenant: t.Number, Token: ring.KeyToken(t.Number, rows[i].key), Key: rows[i].key,
			Class: c.job.Class, LWW: t.Policy == schema.PolicyLWW, PV: c.job.pv,
		}}
		for k := range c.job.owners {
			if f.here = append(f.here, k); k != c.job.self {
				f.want = append(f.want, k)
			}
		}
		fixes, objects = append(fixes, f), append(objects, rows[i].object)
		size += len(rows[i].object) * len(f.want)
	}
	if err := c.pause(fb); err != nil {
		return err
	}
	if err := c.paid(fb, size); err != nil {
		return err
	}
	for len(fixes) > 0 {
		n := min(len(fixes), batchKeys)
		rows, moved := c.job.rows, c.job.moved
		err := c.send(fb, fixes[:n], objects[:n])
		c.m.handed(c.job, rows, moved)
		if err != nil {
			return err
		}
		fixes, objects = fixes[n:], objects[n:]
	}
	return nil
}
