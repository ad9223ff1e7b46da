package repair

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Status is what rounds here have come to, and what is under way.
type Status struct {
	Figures
	// Runs are the latest demands, the newest last.
	Runs []Run
	// Driven is how many spans this node drives, and Due how many of them are to be
	// compared as soon as may be.
	Driven, Due int
	// Owned is how many spans this node owns. Repaired are those of which it knows
	// that a round ended with all owners equal since it started, and Oldest when that
	// began longest ago, zero if one is not known to have been.
	Owned, Repaired int
	Oldest          time.Time
	// OldestSpan is the one, and OldestWhy why its last round here was not confirmed.
	OldestSpan Span
	OldestWhy  string
	// Refetching is the partition being fetched again, -1 for none, with what has come
	// so far; Waiting says why others cannot be.
	Refetching                    int
	RefetchedKeys, RefetchedSoFar int
	Waiting                       map[ring.Partition]string
	// Running says that a round is under way.
	Running bool
}

// Status returns it.
func (m *Manager) Status() Status {
	v, now := m.opts.View(), m.opts.Clock.Now()
	at := m.service.repaired()
	st := Status{Figures: m.figures.get(), Refetching: -1, Waiting: make(map[ring.Partition]string)}
	spans := m.spansOf(v)
	m.mu.Lock()
	defer m.mu.Unlock()
	oldest := int64(-1)
	for _, span := range spans {
		st.Owned++
		s := m.mu.spans[span]
		if s != nil {
			st.Driven++
			if !s.due.IsZero() && !now.Before(s.due) {
				st.Due++
			}
		}
		ms := at[span]
		if ms > 0 {
			st.Repaired++
		}
		if oldest < 0 || ms < oldest {
			oldest, st.OldestSpan, st.OldestWhy = ms, span, ""
			if s != nil {
				st.OldestWhy = s.why
			}
		}
	}
	if oldest > 0 {
		st.Oldest = time.UnixMilli(oldest)
	}
	for _, r := range m.mu.runs {
		c := *r
		c.pending = nil
		st.Runs = append(st.Runs, c)
	}
	st.Running = m.mu.busy
	if m.mu.fetching {
		st.Refetching, st.RefetchedKeys, st.RefetchedSoFar = m.mu.fetch.under, m.mu.fetch.keys, m.mu.fetch.bytes
	}
	//seams:ordered a map is copied
	for p, why := range m.mu.fetch.waiting {
		if m.opts.Quarantined(p) {
			st.Waiting[p] = why
		}
	}
	return st
}

// RepairedAt returns for each of this node's spans when the last round began that
// ended with all owners equal, the zero time if none did since this node started.
func (m *Manager) RepairedAt() map[Span]time.Time {
	at := m.service.repaired()
	out := make(map[Span]time.Time)
	for _, span := range m.spansOf(m.opts.View()) {
		out[span] = time.Time{}
		if ms := at[span]; ms > 0 {
			out[span] = time.UnixMilli(ms)
		}
	}
	return out
}

// StartRepair begins rounds of the spans that this node drives of what is asked for:
// tenant "" and partition -1 are all. It returns the id of the run; one that asks for
// the same and is under way is joined.
func (m *Manager) StartRepair(tenant string, partition int) (id string, err error) {
	// A newer ring than the run goes by is looked at after the run is there, so that what
	// this node owns no more by then is taken out of it.
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.opts.View()
	bad := func(code errcode.Code, format string, args ...any) (string, error) {
		return "", &coord.Error{Code: code, Outcome: errcode.NotApplied, Message: fmt.Sprintf(format, args...)}
	}
	if v.Layout == nil || !v.Ready {
		return bad(errcode.Unavailable, "the node is not part of a ready cluster yet")
	}
	class := ring.Class(0)
	if tenant != "" {
		t, ok := v.Tenant(tenant)
		if !ok {
			return bad(errcode.TenantNotFound, "there is no tenant %q", tenant)
		}
		class = t.Class()
	}
	if partition < -1 || partition >= v.Layout.Partitions() {
		return bad(errcode.InvalidArgument, "there is no partition %d; there are 0 to %d", partition, v.Layout.Partitions()-1)
	}
	now := m.opts.Clock.Now()
	run := &Run{Tenant: tenant, Partition: partition, Started: now, pending: make(map[Span]bool)}
	for _, span := range m.spansOf(v) {
		if (class == 0 || class == span.Class) && (partition < 0 || partition == int(span.Partition)) && m.driver(v, span) == m.opts.Self {
			run.pending[span] = true
		}
	}
	run.Spans = len(run.pending)
	for _, r := range m.mu.runs {
		if r.Ended.IsZero() && r.Tenant == tenant && r.Partition == partition {
			return r.ID, nil
		}
	}
	m.mu.nextRun++
	run.ID = fmt.Sprintf("%s-%d-%d", m.opts.Self.Short(), now.Unix(), m.mu.nextRun)
	//seams:ordered all are due at the same time
	for span := range run.pending {
		m.dueLocked(span, now)
	}
	if run.Spans == 0 {
		run.Ended = now
	}
	if m.mu.runs = append(m.mu.runs, run); len(m.mu.runs) > maxRuns {
		m.mu.runs = slices.Delete(m.mu.runs, 0, 1)
	}
	return run.ID, nil
}

// doneLocked notes in the runs that a round has dealt with a span.
func (m *Manager) doneLocked(j *job, began, now time.Time) {
	for _, r := range m.mu.runs {
		if !r.pending[j.Span] || began.Before(r.Started) {
			continue
		}
		delete(r.pending, j.Span)
		r.KeysDiffered, r.RowsSent, r.Bytes = r.KeysDiffered+uint64(j.keys), r.RowsSent+uint64(j.rows), r.Bytes+uint64(j.moved)
		if r.Done++; j.end == endConfirmed {
			r.Confirmed++
		} else if r.Error == "" {
			r.Error = fmt.Sprintf("partition %d: %s: %s", j.Partition, j.end, j.why)
		}
		if len(r.pending) == 0 {
			r.Ended = now
		}
	}
}

// leftLocked takes a span out of the runs that this node does not drive any more.
func (m *Manager) leftLocked(span Span, now time.Time) {
	for _, r := range m.mu.runs {
		if r.pending[span] {
			delete(r.pending, span)
			r.Done++
			r.Error = fmt.Sprintf("partition %d: another node drives it by now", span.Partition)
			if len(r.pending) == 0 {
				r.Ended = now
			}
		}
	}
}

// overdue tells of spans that have not been repaired for long, once for each time.
func (m *Manager) overdue(v *schema.Snapshot, now time.Time) {
	limit := 6 * m.opts.Interval
	at := m.service.repaired()
	m.mu.Lock()
	var late []Span
	var since time.Time
	var room [ring.MaxRF]ring.NodeID
	away := make(map[ring.NodeID]bool)
	why := ""
	for _, span := range m.spansOf(v) {
		s := m.mu.spans[span]
		if s == nil || s.told {
			continue
		}
		last := s.first
		if ms := at[span]; ms > 0 && time.UnixMilli(ms).After(last) {
			last = time.UnixMilli(ms)
		}
		if now.Sub(last) < limit {
			continue
		}
		s.told = true
		if late = append(late, span); since.IsZero() || last.Before(since) {
			since, why = last, s.why
		}
		for _, id := range v.Layout.Owners(room[:0], span.Partition, v.Copies(span.Class).From) {
			if !m.healthy(v, id) {
				away[id] = true
			}
		}
	}
	m.mu.Unlock()
	if len(late) == 0 {
		return
	}
	var names []string
	//seams:ordered they are sorted
	for id := range away {
		names = append(names, nameOf(v, id))
	}
	slices.Sort(names)
	if len(names) > 0 {
		why = strings.Join(names, ", ") + " away"
	}
	text := fmt.Sprintf("partition %d has", late[0].Partition)
	if len(late) > 1 {
		text = fmt.Sprintf("partition %d and %d others have", late[0].Partition, len(late)-1)
	}
	m.opts.Note(Note{Warning: true, Text: fmt.Sprintf("%s not been repaired for %v: %s", text, now.Sub(since).Round(time.Second), why)})
}
