package ringmodel

import (
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// fetch has n ask for something of what it gains.
func (w *world) fetch(n *node) {
	v := w.views[n.durable]
	c := v.state.Change()
	if c == nil || c.Stage != ring.Proposed {
		return
	}
	var open []int
	done := true
	for u := range v.at {
		if !v.at[u].sync.has(n.id) || !w.in(shrinkSync) && v.at[u].w1.has(n.id) {
			continue
		}
		g := &n.gains[u]
		if g.change != c.ProposedAt {
			*g = gain{change: c.ProposedAt}
		}
		if !g.finished {
			open, done = append(open, u), false
		}
	}
	if done {
		// What it gains has come, in this change: it says so once and for all.
		if n.gainsAnything(v) {
			n.report.Synced = max(n.report.Synced, c.ProposedAt)
		}
		return
	}
	u := open[w.n(len(open))]
	o := &v.at[u]
	from := w.pick(o.w1)
	if from == n.id {
		w.mergedFrom(n, u, from, o)
		return
	}
	kind := askAll
	if w.gaining(n, v, u) && !w.informed(n, v, u) {
		kind = askKnown
	}
	w.send(&message{kind: kind, from: n.id, to: from, u: u, pv: o.pv, at: c.ProposedAt})
}

func (n *node) gainsAnything(v *view) bool {
	for u := range v.at {
		if v.at[u].sync.has(n.id) {
			return true
		}
	}
	return false
}

// onGainer is an old owner that is asked by one that gains.
func (w *world) onGainer(n *node, m *message) {
	if w.in(fencedSources) && !w.fenced(n, m) {
		return
	}
	kind := known
	if m.kind == askAll {
		kind = all
	}
	a := answer(m, kind)
	a.knowing = w.know(n, m.u)
	if kind == all {
		a.object = w.shows(n, m.u)
	}
	w.trace("n%d tells n%d about u%d", n.id, m.from, m.u)
	w.send(a)
}

// open gives how far n is with what a source answers about, nil if that is over.
func (w *world) open(n *node, m *message) (*gain, *owners) {
	v := w.views[n.durable]
	c := v.state.Change()
	if c == nil || c.Stage != ring.Proposed || c.ProposedAt != m.at || !v.at[m.u].sync.has(n.id) {
		return nil, nil
	}
	g := &n.gains[m.u]
	if g.change != m.at || g.finished {
		return nil, nil
	}
	return g, &v.at[m.u]
}

func (w *world) onKnown(n *node, m *message) {
	g, _ := w.open(n, m)
	if g == nil {
		return
	}
	if w.in(inherit) {
		w.learnKnown(n, partitionOf(m.u), w.serving(n).class[tenantOf(m.u)], &m.knowing)
	}
	v := w.serving(n)
	for _, u := range v.unitsOf(partitionOf(m.u), v.class[tenantOf(m.u)]) {
		if x := &n.gains[u]; x.change == m.at {
			x.told |= bit(m.from)
		}
	}
}

// onAll joins all that a source holds.
func (w *world) onAll(n *node, m *message) {
	g, o := w.open(n, m)
	if g == nil {
		return
	}
	held := &n.data[m.u]
	joined := causal.JoinFetched(held, &m.object, &m.knowing.confirmed)
	joined.Floor = max(held.Floor, joined.Floor)
	if !n.holds[m.u] || !joined.Equal(held) {
		w.set(n, m.u, joined)
	}
	if w.in(inherit) {
		w.learnKnown(n, partitionOf(m.u), w.serving(n).class[tenantOf(m.u)], &m.knowing)
	}
	w.mergedFrom(n, m.u, m.from, o)
}

func (w *world) mergedFrom(n *node, u, from int, o *owners) {
	g := &n.gains[u]
	g.got |= bit(from)
	need := ring.Meeting(o.w1.n())
	if !w.in(sources) {
		need = 1
	}
	if g.got.n() >= need && !g.finished {
		g.finished = true
		w.trace("n%d has u%d from %v", n.id, u, g.got.list())
	}
}

// cleanUp has n hand over what it does not own, and then drop it.
func (w *world) cleanUp(n *node) {
	v := w.serving(n)
	if v.retired.has(n.id) {
		return
	}
	w.dropDeleted(n, v)
	dirty := false
	for u := range v.at {
		if n.condemn[u] { // only without recheckDrop
			if w.healing || w.n(5) == 0 {
				n.condemn[u] = false
				w.drop(n, u)
			}
			continue
		}
		o := &v.at[u]
		if !n.holds[u] || o.deleted || o.all().has(n.id) {
			n.pushes[u].active = false
			continue
		}
		dirty = true
		if n.report.Clean >= o.pv {
			w.fail("data at a node that had reported clean", "n%d u%d", n.id, u)
		}
		if !w.in(pushFirst) || !w.in(abortPush) && n.gains[u].change > 0 && n.gains[u].change+1 == o.pv {
			w.drop(n, u)
			continue
		}
		p := &n.pushes[u]
		if !p.active || p.pv != o.pv || p.changes != n.changes[u] {
			*p = push{active: true, pv: o.pv, changes: n.changes[u]}
		}
		for _, i := range (o.all() &^ p.acks).list() {
			w.send(&message{kind: handOver, from: n.id, to: i, u: u, pv: o.pv, object: n.data[u], changes: p.changes})
		}
	}
	w.forgetForeign(n, v)
	if !dirty && v.state.Change() == nil {
		n.report.Clean = max(n.report.Clean, ring.Version(n.durable))
	}
}

func (w *world) onHandedOver(n *node, m *message) {
	p := &n.pushes[m.u]
	if !p.active || p.pv != m.pv || p.changes != m.changes {
		return
	}
	p.acks |= bit(m.from)
	o := &w.views[n.durable].at[m.u]
	if p.pv != o.pv || p.changes != n.changes[m.u] || o.all().has(n.id) || p.acks&o.all() != o.all() {
		return
	}
	if w.in(recheckDrop) {
		w.drop(n, m.u)
	} else {
		n.condemn[m.u] = true
	}
}

// drop forgets a unit, and of its span what was confirmed when nothing of it is left.
func (w *world) drop(n *node, u int) {
	if !n.holds[u] {
		return
	}
	w.trace("n%d drops u%d", n.id, u)
	w.count["drops"]++
	n.data[u], n.holds[u], n.pushes[u] = causal.Object{}, false, push{}
	n.changes[u]++
	v := w.serving(n)
	p, c := partitionOf(u), v.class[tenantOf(u)]
	if c == 0 || n.holdsAny(v, p, c) {
		return
	}
	w.forgetSpan(n, p, c)
	if w.in(seqSurvives) {
		return
	}
	for x := range units {
		if partitionOf(x) == partitionOf(u) && n.holds[x] {
			return
		}
	}
	n.seq[partitionOf(u)] = 0
}
