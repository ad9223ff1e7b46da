package repair

import (
	"slices"
	"strings"

	"github.com/pairdb/pairdb/gossip/ring"
)

// Records implements Replica.
func (f *fakeReplica) Records(s Span, after *RecordRow, limit int, votes bool) (rows []RecordRow, more bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for name, r := range f.records {
		if !votes && strings.HasPrefix(name, "vote") {
			continue
		}
		if f.in(s, r.Tenant, f.c.layout.PartitionOf(r.Token)) && (after == nil || name > string(after.IdempotencyKey)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names[:min(limit, len(names), 2)] {
		rows = append(rows, f.records[name])
	}
	return rows, len(names) > len(rows), nil
}

// Restore implements Replica.
func (f *fakeReplica) Restore(_ Span, _ ring.Version, rows []RecordRow) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range rows {
		f.records[string(r.IdempotencyKey)] = r
	}
	return nil
}

// OpenVotes implements Replica.
func (f *fakeReplica) OpenVotes(s Span) (rows []RecordRow, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.open {
		if f.in(s, r.Tenant, f.c.layout.PartitionOf(r.Token)) {
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// Applied implements Replica.
func (f *fakeReplica) Applied(s Span, of []RecordRow) (rows []RecordRow, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range of {
		if held, ok := f.records[string(r.IdempotencyKey)]; ok && f.in(s, r.Tenant, f.c.layout.PartitionOf(r.Token)) {
			rows = append(rows, held)
		}
	}
	return rows, nil
}

// Outvoted implements Replica.
func (f *fakeReplica) Outvoted(_ Span, _ ring.Version, rows []RecordRow) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range rows {
		f.records[string(r.IdempotencyKey)] = r
		f.open = slices.DeleteFunc(f.open, r.same)
	}
	if len(f.open) == 0 {
		f.votes = nil
	}
	return nil
}
