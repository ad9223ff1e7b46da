package repair

import (
	"slices"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// Known implements Replica.
func (f *fakeReplica) Known(s Span) (confirmed, released causal.Confirmed, floor uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.part(s.Partition)
	return f.confirmed[s], f.released[s], 0, nil
}

// Inherit implements Replica.
func (f *fakeReplica) Inherit(s Span, _ ring.Version, confirmed, released *causal.Confirmed, _ uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.part(s.Partition)
	c, r := f.confirmed[s], f.released[s]
	f.confirmed[s], f.released[s] = c.Join(confirmed), r.Join(released)
	return nil
}

// Told implements Replica.
func (f *fakeReplica) Told(s Span, change ring.Version) error {
	f.mu.Lock()
	at := f.atTold
	f.mu.Unlock()
	if at != nil {
		at(s)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told[s] = change
	return nil
}

// Foreign implements Replica.
func (f *fakeReplica) Foreign(owns func(Span) bool) (all []Span, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p := range f.c.layout.Partitions() {
		for _, t := range []ring.TenantNumber{tenantA, tenantB} {
			if s := f.span(t, ring.Partition(p)); !owns(s) && f.holds(s) && !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// holds reports whether there is anything of a span; the replica is locked.
func (f *fakeReplica) holds(s Span) bool {
	c := f.confirmed[s]
	held := !c.IsZero()
	for t, rows := range f.rows {
		for key := range rows {
			_, p := f.place(t, key)
			held = held || f.in(s, t, p)
		}
	}
	for _, r := range f.records {
		held = held || f.in(s, r.Tenant, f.c.layout.PartitionOf(r.Token))
	}
	return held
}

// Drop implements Replica.
func (f *fakeReplica) Drop(s Span, still func() bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		if err := f.fail("drop"); err != nil {
			return err
		}
	}
	if !still() {
		return ErrNotForeign
	}
	for t, rows := range f.rows {
		for key := range rows {
			if _, p := f.place(t, key); f.in(s, t, p) {
				delete(rows, key)
			}
		}
	}
	for name, r := range f.records {
		if f.in(s, r.Tenant, f.c.layout.PartitionOf(r.Token)) {
			delete(f.records, name)
		}
	}
	f.part(s.Partition)
	f.confirmed[s], f.released[s] = causal.Confirmed{}, causal.Confirmed{}
	return nil
}

// Scan implements Objects.
func (f *fakeReplica) Scan(r *coord.ScanRange, done func(coord.ScanPiece, error)) {
	first, last := tokens(f.c.layout, r.Partition)
	var p coord.ScanPiece
	f.mu.Lock()
	f.part(r.Partition)
	c := f.confirmed[f.span(r.Tenant, r.Partition)]
	f.mu.Unlock()
	for _, row := range f.sorted(Range{r.Partition, r.Tenant, first, last}) {
		at := coord.Position{Token: row.Token, Key: row.Key}
		if at.Compare(&r.From) < 0 {
			continue
		}
		if len(p.Entries) == min(r.MaxKeys, f.c.frame) {
			p.Next = &at
			break
		}
		if o := row.Object.Settled(&c, r.LWW); !o.IsZero() {
			p.Entries = append(p.Entries, coord.ScanEntry{Key: row.Key, Object: o.Append(nil)})
		}
	}
	done(p, nil)
}

// stored is what there is of a key.
func (f *fakeReplica) stored(t ring.TenantNumber, key string) causal.Object {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rows[t][key]
}

// failed is what an operation is to fail with.
func (f *fakeReplica) failed(op string) error {
	f.mu.Lock()
	fail := f.fail
	f.mu.Unlock()
	if fail == nil {
		return nil
	}
	return fail(op)
}

func (f *fakeReplica) setFail(fail func(op string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

// size is how many keys of a tenant there are.
func (f *fakeReplica) size(t ring.TenantNumber) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.rows[t])
}
