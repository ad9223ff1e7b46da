package ringmodel

import (
	"slices"

	"github.com/pairdb/pairdb/gossip/ring"
)

// pickVoters chooses who is to vote: of those before as many as may stay.
func (w *world) pickVoters(nodes, before mask) mask {
	want := 3
	switch n := nodes.n(); {
	case n <= 2:
		want = 1
	case n >= 5 && w.percent(40):
		want = 5
	}
	v := before & nodes
	for v.n() > want {
		v &^= bit(w.pick(v))
	}
	for v.n() < want {
		v |= bit(w.pick(nodes &^ v))
	}
	return v
}

// fill completes the rows of p, each of which begins as one of old without those
// that are not in p.
func (w *world) fill(p *plan, old *plan) {
	for i := range p.rows {
		row := slices.DeleteFunc(slices.Clone(old.rows[i]), func(id int) bool { return !p.nodes.has(id) })
		in := mask(0)
		for _, id := range row {
			in |= bit(id)
		}
		for len(row) < min(ring.MaxRF, p.nodes.n()) {
			id := w.pick(p.nodes &^ in)
			in |= bit(id)
			row = slices.Insert(row, w.n(len(row)+1), id)
		}
		p.rows[i] = row
	}
	p.voters = w.pickVoters(p.nodes, old.voters)
}

// mendingPlan replaces what is lost for good.
func (w *world) mendingPlan(v *view) (*plan, mask) {
	dead := v.nodes & w.lostDisks()
	if dead == 0 || dead == v.nodes {
		return nil, 0
	}
	old := planOf(v.state.Layout())
	p := old
	p.nodes &^= dead
	w.fill(&p, &old)
	return &p, dead
}

// newPlan is some change or other: nodes join and leave, lost ones are removed, and
// owners of a partition are others, or in another order.
func (w *world) newPlan(v *view) (*plan, mask, []ring.Factor) {
	old := planOf(v.state.Layout())
	p := old
	factors := w.newFactors(v)
	if len(factors) > 0 && w.n(2) == 0 {
		return &p, 0, factors
	}
	gone := w.lostDisks()
	dead, removed := old.nodes&gone, mask(0)
	if dead != 0 && w.n(10) < 7 && dead != p.nodes {
		p.nodes &^= dead
		removed = dead
	}
	leaving := mask(0)
	for _, o := range v.state.Outsiders() {
		if o.Leaving {
			leaving |= bit(indexOf(o.ID))
		}
	}
	spare := mask(0)
	for _, n := range w.nodes {
		if !n.lost && !(p.nodes | v.retired | leaving).has(n.id) {
			spare |= bit(n.id)
		}
	}
	move := false
	for range 1 + w.n(2) {
		switch w.n(5) {
		case 0:
			for range 1 + w.n(3) {
				if i := w.pick(spare &^ p.nodes); i >= 0 && p.nodes.n() < w.prof.maxNodes {
					p.nodes |= bit(i)
				}
			}
		case 1:
			for range 1 + w.n(2) {
				if p.nodes.n() > 1 {
					p.nodes &^= bit(w.pick(p.nodes))
				}
			}
		default:
			move = true
		}
	}
	if move {
		for i, row := range old.rows {
			row = slices.Clone(row)
			switch w.n(3) {
			case 0:
				if len(row) > 1 {
					at := w.n(len(row))
					row = slices.Delete(row, at, at+1)
				}
			case 1:
				w.shuffle(row)
			}
			old.rows[i] = row
		}
	}
	w.fill(&p, &old)
	return &p, removed & dead &^ p.nodes, factors
}

// newFactors gives some tenants another replication factor.
func (w *world) newFactors(v *view) (factors []ring.Factor) {
	if !w.percent(w.prof.refactor) {
		return nil
	}
	for number := ring.TenantNumber(1); number <= v.state.LastTenant(); number++ {
		t, ok := v.state.TenantByNumber(number)
		if rf := uint8(1 + w.n(ring.MaxRF)); ok && w.n(2) == 0 && t.RF != rf {
			factors = append(factors, ring.Factor{Tenant: number, RF: rf})
		}
	}
	return factors
}
