package repair

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// refetchPause is how long a refetch that failed, or for which too few owners are
// there, waits until it is tried again.
const refetchPause = 30 * time.Second

// refetchPasses is how often the owners are compared: each pass brings what was
// written since the one before.
const refetchPasses = 3

// fetchState is what is known of refetches.
type fetchState struct {
	next time.Time
	// waiting says why a partition could not be fetched, and told what was told of
	// that last.
	waiting map[ring.Partition]string
	told    map[ring.Partition]string
	// under is the partition being fetched, -1 for none, with what has come so far.
	under       int
	keys, bytes int
}

// refetchAll fetches partitions under quarantine, one after the other.
func (m *Manager) refetchAll(fb *fiber, spans []Span) {
	failed := false
	for len(spans) > 0 && !m.fibers.isClosed() {
		n := 1
		for n < len(spans) && spans[n].Partition == spans[0].Partition {
			n++
		}
		failed = m.refetchPartition(fb, spans[:n]) != nil || failed
		spans = spans[n:]
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.fetching = false
	if m.mu.fetch.next = m.opts.Clock.Now(); failed {
		m.mu.fetch.next = m.mu.fetch.next.Add(m.jitter(refetchPause))
	}
}

// refetchPartition fetches all spans of one partition, and says that it may be served
// again.
func (m *Manager) refetchPartition(fb *fiber, spans []Span) error {
	p := spans[0].Partition
	began := m.opts.Clock.Now()
	m.mu.Lock()
	m.mu.fetch.under, m.mu.fetch.keys, m.mu.fetch.bytes = int(p), 0, 0
	m.mu.Unlock()
	var err error
	for _, span := range spans {
		if err = m.refetch(fb, span); err != nil {
			break
		}
	}
	if err == nil {
		err = m.opts.Fetched(p)
	}
	m.mu.Lock()
	f := &m.mu.fetch
	keys, bytes := f.keys, f.bytes
	f.under = -1
	if f.waiting == nil {
		f.waiting, f.told = make(map[ring.Partition]string), make(map[ring.Partition]string)
	}
	tell := false
	if err != nil {
		f.waiting[p] = err.Error()
		tell = f.told[p] != err.Error() && !errors.Is(err, errClosed)
		f.told[p] = err.Error()
	} else {
		delete(f.waiting, p)
		delete(f.told, p)
	}
	m.mu.Unlock()
	switch {
	case err == nil:
		m.opts.Note(Note{
			Text:    fmt.Sprintf("partition %d fetched again: %s, %s", p, countOf(keys, "key"), sizeOf(bytes)),
			Details: []string{"partition", fmt.Sprint(p), "took", m.opts.Clock.Now().Sub(began).Round(time.Millisecond).String()},
		})
		m.Dirty(p)
	case tell:
		m.opts.Note(Note{
			Warning: true,
			Text:    fmt.Sprintf("partition %d stays under quarantine: %v", p, err),
			Details: []string{"partition", fmt.Sprint(p)},
		})
	}
	return err
}

// errAlone says that nobody else has a partition's data.
var errAlone = errors.New("no other node has its data, because a tenant in it has the replication factor 1 or the cluster has one node; restore it from a backup")

// refetch brings this node's copy of a span all that the other owners have. Any write
// that was acknowledged is at one of N-q+1 others at least.
func (m *Manager) refetch(fb *fiber, span Span) error {
	r := &round{m: m, view: m.opts.View(), began: m.opts.Clock.Now()}
	j := r.add(span)
	n := len(j.owners)
	if n < 2 {
		return m.alone(span)
	}
	j.vouches = make([]bool, n)
	for i := range j.vouches {
		j.vouches[i] = i != j.self
	}
	r.states(fb, r.jobs, func(j *job) []State { return j.first })
	r.level(fb)
	if err := r.enough(j); err != nil {
		return err
	}
	// What was under way when this copy was set aside may count on what it said then:
	// once that is over, whatever came of it is at the others.
	if !fb.sleep(m.opts.Settle) {
		return errClosed
	}
	if err := m.fetchRecords(fb, j); err != nil {
		return err
	}
	for pass := range refetchPasses {
		r.states(fb, r.jobs, func(j *job) []State { return j.second })
		r.restarted(j)
		if err := r.enough(j); err != nil {
			return err
		}
		// Everything the others have by now is to be had.
		j.horizon = horizonOf(j.some(j.second))
		fetched := 0
		j.fix = func(fb *fiber, c *comparison, all []fix) error {
			some := c.lacking(all)
			fetched += len(some)
			return c.refetch(fb, some)
		}
		c := &comparison{m: m, view: r.view, job: j}
		if err := c.run(fb); err != nil {
			return err
		}
		if fetched == 0 || pass == refetchPasses-1 {
			break
		}
	}
	return nil
}

// alone is why a span without other owners cannot be fetched, nil if it has no data.
func (m *Manager) alone(span Span) error {
	tenants, err := m.service.roots(span)
	if err != nil {
		return err
	}
	if len(tenants) == 0 && !m.tenantWith(span) {
		return nil
	}
	return errAlone
}

// tenantWith reports whether any tenant has the span's replication factor: its keys may
// have been lost altogether.
func (m *Manager) tenantWith(span Span) bool {
	for _, t := range m.opts.View().Tenants() {
		if t.RF == int(span.RF) {
			return true
		}
	}
	return false
}

// enough fails unless this node and so many others take part that they have all that
// was ever acknowledged.
func (r *round) enough(j *job) error {
	if j.end != "" {
		return errors.New(j.why)
	}
	n := len(j.owners)
	need := n - n/2 // N-q+1
	var away []string
	there := 0
	for i, id := range j.owners {
		switch {
		case i == j.self:
		case j.here[i]:
			there++
		default:
			away = append(away, r.name(id))
		}
	}
	if there >= need {
		return nil
	}
	why := ""
	if j.why != "" {
		why = " (" + j.why + ")"
	}
	return fmt.Errorf("it takes %d of its other owners to fetch it again; waiting for %s%s", need, strings.Join(away, ", "), why)
}

// fetchRecords brings what the other owners remember of idempotency keys.
func (m *Manager) fetchRecords(fb *fiber, j *job) error {
	for i := range j.owners {
		if i == j.self || !j.here[i] {
			continue
		}
		var after *RecordRow
		for {
			q := &request{kind: kindRecords, spans: []spanItem{{Span: j.Span, pv: j.pv}}, after: after}
			body, err := m.askAgain(fb, j.owners[i], q)
			if err != nil {
				return err
			}
			a, err := decodeRecords(body)
			if err == nil && a.session != j.first[i].Session {
				err = errRestarted
			}
			if err == nil && len(a.rows) > 0 {
				err = m.opts.Replica.Restore(j.Span, a.rows)
			}
			if err != nil {
				return err
			}
			if d := m.bucket.take(int64(len(body)), m.opts.Clock.Now()); d > 0 && !fb.sleep(d) {
				return errClosed
			}
			if !a.more || len(a.rows) == 0 {
				break
			}
			after = &a.rows[len(a.rows)-1]
		}
	}
	return nil
}

// lacking returns what this node is to fetch, from the others alone.
func (c *comparison) lacking(all []fix) (some []fix) {
	for _, f := range all {
		self := false
		for _, w := range f.want {
			self = self || f.here[w] == c.job.self
		}
		if !self {
			continue
		}
		var from, others []int
		for i := range f.here {
			if f.here[i] != c.job.self {
				others = append(others, i)
			}
		}
		for _, i := range f.from {
			if f.here[i] != c.job.self {
				from = append(from, i)
			}
		}
		if len(from) == 0 && !f.absent {
			from = others
		}
		f.from = from
		some = append(some, f)
	}
	return some
}

// refetch joins what others hold into this node's copy, where it replaces whatever all
// of them had.
func (c *comparison) refetch(fb *fiber, all []fix) (failed error) {
	m := c.m
	err := c.batches(fb, all, func(fb *fiber, some []fix) error {
		objects, err := c.fetch(fb, some)
		if err != nil && !errors.Is(err, errMoved) && failed == nil {
			failed = err
		}
		if err == errClosed {
			return err
		}
		var items []coord.MergeItem
		size := 0
		for i := range some {
			if len(objects[i]) == 0 {
				if !some[i].absent || len(some[i].from) > 0 {
					continue // it was had by nobody any more, or could not be had
				}
				nothing := causal.Object{}
				objects[i] = nothing.Append(nil)
			}
			it := c.item(&some[i], objects[i])
			it.Refetch = &c.job.agreed
			items = append(items, it)
			size += len(objects[i])
		}
		if err := c.paid(fb, size); err != nil {
			return err
		}
		errs := make([]error, len(items))
		ok := fb.await(func(done func()) {
			left := newCountdown(len(items), done)
			if len(items) > 0 {
				m.opts.Objects.Merge(items, func(i int, _ []byte, err error) {
					errs[i] = err
					left()
				})
			}
		})
		if !ok {
			return errClosed
		}
		m.mu.Lock()
		m.mu.fetch.keys += len(items)
		m.mu.fetch.bytes += size
		m.mu.Unlock()
		m.figures.change(func(f *Figures) { f.Refetched += uint64(len(items)); f.RefetchedBytes += uint64(size) })
		if failed == nil {
			failed = first(errs)
		}
		return nil
	})
	return errors.Join(err, failed)
}
