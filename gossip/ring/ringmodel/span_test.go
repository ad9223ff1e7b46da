package ringmodel

import (
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// knowledge is what a node knows of a span: the data in one partition of all tenants of
// one class.
type knowledge struct {
	confirmed, released causal.Confirmed
	floor               uint64
	// parted says of a class that a tenant has for itself that what is known of it is
	// known by itself.
	parted bool
}

func (k *knowledge) isZero() bool { return k.confirmed.IsZero() && k.released.IsZero() }

// spans are what a node knows of all spans: of the classes that tenants share, and then
// of those that tenants have for themselves.
type spans [partitions][ring.MaxRF + tenants]knowledge

func (s *spans) at(p ring.Partition, c ring.Class) *knowledge {
	if t, own := c.Own(); own {
		return &s[p][ring.MaxRF+int(t)-1]
	}
	return &s[p][int(c)-1]
}

// know is what n knows of the span of u.
func (w *world) know(n *node, u int) knowledge {
	return w.knows(n, partitionOf(u), w.serving(n).class[tenantOf(u)])
}

// knows is what n knows of a span. Of a class that a tenant has for itself that is what it
// knows of the class that the tenant was born in, until they part.
func (w *world) knows(n *node, p ring.Partition, c ring.Class) knowledge {
	if c == 0 {
		return knowledge{} // there is no such tenant
	}
	k := *n.spans.at(p, c)
	if _, own := c.Own(); own && !k.parted && w.in(fallBack) {
		born := *n.spans.at(p, c.Born())
		born.floor = max(born.floor, k.floor)
		return born
	}
	return k
}

// part has what n knows of each class that was born in c stay what it is, whatever comes
// to be known of c.
func (w *world) part(n *node, p ring.Partition, c ring.Class) {
	if !w.in(copyOnWrite) {
		return
	}
	for _, own := range w.serving(n).classes {
		if _, is := own.Own(); !is || own.Born() != c || n.spans.at(p, own).parted {
			continue
		}
		k := w.knows(n, p, own)
		k.parted = true
		*n.spans.at(p, own) = k
		w.count["partings"]++
		w.trace("n%d parts %v in partition %d", n.id, own, p)
	}
}

// learnKnown takes over what another one knows of a span.
func (w *world) learnKnown(n *node, p ring.Partition, c ring.Class, more *knowledge) {
	if c == 0 {
		return
	}
	k := w.knows(n, p, c)
	next := knowledge{
		confirmed: k.confirmed.Join(&more.confirmed), released: k.released.Join(&more.released), floor: max(k.floor, more.floor), parted: true,
	}
	if next.confirmed.Equal(&k.confirmed) && next.released.Equal(&k.released) && next.floor == k.floor {
		return
	}
	w.part(n, p, c)
	*n.spans.at(p, c) = next
}

// forgetSpan has n know nothing of a span any more.
func (w *world) forgetSpan(n *node, p ring.Partition, c ring.Class) {
	w.part(n, p, c)
	_, own := c.Own()
	*n.spans.at(p, c) = knowledge{parted: own && w.in(staysParted)}
}

// unitsOf are the units of a span.
func (v *view) unitsOf(p ring.Partition, c ring.Class) (us []int) {
	for u := range units {
		if partitionOf(u) == p && v.class[tenantOf(u)] == c {
			us = append(us, u)
		}
	}
	return us
}

// isOwner says whether a node owns a span by the layout in force.
func (v *view) isOwner(i int, p ring.Partition, c ring.Class) bool {
	return v.state.Layout().IsOwner(idOf(i), p, v.copies(c).From)
}

// copies says how many owners a class has.
func (v *view) copies(c ring.Class) ring.Copies {
	for _, t := range v.state.Tenants() {
		if t.Class() == c {
			return v.state.Copies(t)
		}
	}
	if _, own := c.Own(); own {
		return ring.Copies{}
	}
	return ring.Same(int(c))
}

// holdsAny says whether n has any data of a span.
func (n *node) holdsAny(v *view, p ring.Partition, c ring.Class) bool {
	for _, u := range v.unitsOf(p, c) {
		if n.holds[u] {
			return true
		}
	}
	return false
}

// forgetForeign has n know nothing of the spans that it does not own and has no data of.
func (w *world) forgetForeign(n *node, v *view) {
	forget := func(p ring.Partition, c ring.Class) {
		if !n.spans.at(p, c).isZero() && !v.isOwner(n.id, p, c) && !n.holdsAny(v, p, c) {
			w.forgetSpan(n, p, c)
		}
	}
	for i := range partitions {
		p := ring.Partition(i)
		if v.state.Change().Touches(p) {
			continue
		}
		for rf := 1; rf <= ring.MaxRF; rf++ {
			forget(p, ring.SharedClass(rf))
		}
		for _, c := range v.classes {
			if _, own := c.Own(); own {
				forget(p, c)
			}
		}
	}
}

// dropDeleted drops what n has of tenants that are deleted, once since it started.
func (w *world) dropDeleted(n *node, v *view) {
	for t := range tenants {
		if !v.deleted(t) {
			n.forgot[t] = false
			continue
		}
		if n.forgot[t] {
			continue
		}
		n.forgot[t] = true
		w.count["tenants dropped"]++
		w.trace("n%d drops what was of tenant %d", n.id, t+1)
		for i := range partitions {
			u := t*partitions + i
			n.data[u], n.holds[u], n.pushes[u] = causal.Object{}, false, push{}
			n.changes[u]++
			n.spans[i][ring.MaxRF+t] = knowledge{}
		}
	}
}
