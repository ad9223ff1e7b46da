package coord_test

import (
	"slices"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// mistaken says which class a store is asked about by mistake: of a tenant that has one
// for itself another one of which nothing is known, or the one that it was born in.
func (p *planted) mistaken(c ring.Class) ring.Class {
	t, own := c.Own()
	switch {
	case own && p.classLost:
		return ring.OwnClass(t+1<<20, ring.MaxRF)
	case own && p.classShared:
		return c.Born()
	}
	return c
}

// mistakenReplica is a store that is asked about the wrong class by whoever merges, reads
// and writes.
type mistakenReplica struct {
	coord.Replica
	p *planted
}

func (r mistakenReplica) Update(at coord.Address, edit func(*causal.Object, func() causal.Dot) (causal.Object, error), durable func(error)) ([]byte, error) {
	at.Class = r.p.mistaken(at.Class)
	return r.Replica.Update(at, edit, durable)
}

func (r mistakenReplica) Merge(items []coord.MergeItem, done func(int, []byte, error)) {
	for i := range items {
		items[i].Class = r.p.mistaken(items[i].Class)
	}
	r.Replica.Merge(items, done)
}

func (r mistakenReplica) Read(at coord.Address, done func([]byte, error)) {
	at.Class = r.p.mistaken(at.Class)
	r.Replica.Read(at, done)
}

func (r mistakenReplica) ReadDigest(at coord.Address, done func([16]byte, error)) {
	at.Class = r.p.mistaken(at.Class)
	r.Replica.ReadDigest(at, done)
}

// mistaken is the span that a store is asked about in rounds.
func (m *mender) mistaken(s repair.Span) repair.Span {
	s.Class = m.n.w.planted.mistaken(s.Class)
	return s
}

// Known implements repair.Replica.
func (m *mender) Known(s repair.Span) (confirmed, released causal.Confirmed, floor uint64, err error) {
	return m.Store.Known(m.mistaken(s))
}

// mendsBy is what a node believes where it repairs.
func (n *simNode) mendsBy() *schema.Snapshot {
	v := n.view
	if !n.w.planted.oneSource || v.Change == nil || v.Change.Stage != ring.Proposed {
		return v
	}
	var tenants []*schema.Tenant
	for _, t := range v.Tenants() {
		mistaken := *t
		if t.Born > 0 {
			mistaken.NextRF, mistaken.RF = t.Copies().To, 1
		}
		tenants = append(tenants, &mistaken)
	}
	return schema.Build(schema.Snapshot{
		ClusterID: v.ClusterID, Self: v.Self, Version: v.Version, Layout: v.Layout, Change: v.Change, Ring: v.Ring, Ready: v.Ready,
		Members: slices.Clone(v.Members), TokenKeys: v.TokenKeys,
	}, tenants)
}
