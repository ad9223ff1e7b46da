package ringmodel

import (
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// round is one comparison of the owners of a span, by one of them that drives it:
//
//	state    who mints there, what it has drawn, what it has seen and knows
//	level    what any of them knows all know; what do they hold?
//	mend     all get what any of them holds
//	adopt    what was drawn at the beginning is confirmed
//	release  ... and known by all to be
//
// All owners take part, as the processes that they were when it began.
type round struct {
	id, span int // id 0: none
	pv       ring.Version
	want     messageKind
	acks     mask
	asked    mask
	actors   [maxIDs]uint64
	drawn    []causal.Dot
	seen     causal.Context
	agreed   knowledge
	objects  [units]causal.Object
}

// beginRound has n compare a span, if it may.
func (w *world) beginRound(n *node) {
	w.beginRoundOf(n, w.spanOf(w.n(units)))
}

func (w *world) beginRoundOf(n *node, u int) {
	v := w.views[n.durable]
	o := &v.at[u]
	if !o.w1.has(n.id) || !w.mayConfirm(n, v, u) {
		return
	}
	w.roundIDs++
	n.round = round{id: w.roundIDs, span: u, pv: o.pv, want: state, asked: o.w1}
	w.tell(n, askState, causal.Confirmed{})
}

// mayConfirm says whether all that may hold something of u are its owners.
func (w *world) mayConfirm(n *node, v *view, u int) bool {
	if v.at[u].touched {
		return !w.in(roundsRest)
	}
	w.publish(n)
	return !w.in(cleanGate) || v.state.Clean(partitionOf(u), w.rf[tenantOf(u)], n.reported)
}

// tell sends all owners the next question of a round.
func (w *world) tell(n *node, kind messageKind, c causal.Confirmed) {
	r := &n.round
	r.acks = 0
	for _, i := range r.asked.list() {
		m := &message{kind: kind, from: n.id, to: i, u: r.span, pv: r.pv, round: r.id}
		switch kind {
		case level:
			m.knowing = r.agreed
		case mend:
			m.objects = r.objects
		case adopt, release:
			m.knowing.confirmed = c
		}
		w.send(m)
	}
}

// onRound is an owner in a round.
func (w *world) onRound(n *node, m *message) {
	if !w.fenced(n, m) || !w.serving(n).at[m.u].w1.has(n.id) {
		return
	}
	k := w.know(n, m.u)
	var a *message
	switch m.kind {
	case askState:
		a = answer(m, state)
		a.drawn, a.knowing = n.seq[partitionOf(m.u)], *k
		for _, u := range w.members(m.u) {
			a.seen = causal.JoinContext(a.seen, n.data[u].Context)
		}
	case level:
		w.learnKnown(n, m.u, &m.knowing)
		if !k.confirmed.Equal(&m.knowing.confirmed) {
			return // it has learned more meanwhile: the round is void
		}
		a = answer(m, rows)
		for _, u := range w.members(m.u) {
			a.objects[u] = w.shows(n, u)
		}
	case mend:
		a = answer(m, mended)
		for _, u := range w.members(m.u) {
			if w.in(stripRows) {
				w.merge(n, u, &m.objects[u])
			} else if o := causal.Join(&n.data[u], &m.objects[u]); !o.Equal(&n.data[u]) {
				w.set(n, u, o)
			}
		}
	case adopt:
		a = answer(m, adopted)
		k.confirmed = k.confirmed.Join(&m.knowing.confirmed)
	case release:
		k.confirmed = k.confirmed.Join(&m.knowing.confirmed)
		k.released = k.released.Join(&m.knowing.confirmed)
		w.trace("n%d releases u%d %v", n.id, m.u, k.released.Seen)
		return
	}
	a.actor = n.actor
	w.send(a)
}

// onRoundAnswer takes a round on.
func (w *world) onRoundAnswer(n *node, m *message) {
	r := &n.round
	if r.id == 0 || r.id != m.round || r.want != m.kind {
		return
	}
	if m.kind == state {
		r.actors[m.from] = m.actor
		r.drawn = append(r.drawn, causal.Dot{Actor: m.actor, Counter: m.drawn})
		r.seen = causal.JoinContext(r.seen, m.seen)
		r.agreed.confirmed = r.agreed.confirmed.Join(&m.knowing.confirmed)
		r.agreed.released = r.agreed.released.Join(&m.knowing.released)
		r.agreed.floor = max(r.agreed.floor, m.knowing.floor)
	} else if r.actors[m.from] != m.actor {
		r.id = 0 // it is another process by now
		return
	}
	if m.kind == rows {
		for _, u := range w.members(r.span) {
			r.objects[u] = foldRows(&r.objects[u], &m.objects[u], &r.agreed.confirmed)
		}
	}
	if r.acks |= bit(m.from); r.acks != r.asked {
		return
	}
	v := w.views[n.durable]
	if v.at[r.span].pv != r.pv || !w.mayConfirm(n, v, r.span) {
		r.id = 0
		return
	}
	switch m.kind {
	case state:
		r.want = rows
		w.tell(n, level, causal.Confirmed{})
	case rows:
		r.want = mended
		w.tell(n, mend, causal.Confirmed{})
	case mended:
		r.want = adopted
		w.tell(n, adopt, r.confirms())
	case adopted:
		w.tell(n, release, r.confirms())
		r.id = 0
		w.count["rounds"]++
	}
}

// foldRows joins what two owners hold that know c: what c covers and one of them does
// not hold it has replaced.
func foldRows(a, b *causal.Object, c *causal.Confirmed) causal.Object {
	if a.IsZero() {
		return *b
	}
	context := causal.JoinContext(a.Context, b.Context)
	x := causal.Object{Context: causal.JoinContext(a.Context, c.Seen), Siblings: a.Siblings}
	y := causal.Object{Context: causal.JoinContext(b.Context, c.Seen), Siblings: b.Siblings}
	return causal.Object{Context: context, Siblings: causal.Join(&x, &y).Siblings}
}

// confirms is what was drawn when the round began, and of those that mint no more what
// anybody has seen.
func (r *round) confirms() causal.Confirmed {
	var dots []causal.Dot
	for _, d := range r.drawn {
		if d.Counter > 0 {
			dots = append(dots, d)
		}
	}
	for _, d := range r.seen {
		mints := false
		for _, x := range r.drawn {
			mints = mints || x.Actor == d.Actor
		}
		if !mints {
			dots = append(dots, d)
		}
	}
	c := causal.Confirmed{Seen: causal.NewContext(dots...)}
	return c.Join(&r.agreed.confirmed)
}

// sweep has n drop deletes that are released.
func (w *world) sweep(n *node) {
	v := w.views[n.durable]
	for u := range units {
		if !v.at[u].all().has(n.id) {
			continue
		}
		k := w.know(n, u)
		before := n.data[u]
		after := w.settled(n, u, &k.released)
		if after.Equal(&before) {
			continue
		}
		w.trace("n%d sweeps u%d", n.id, u)
		w.count["sweeps"]++
		k.floor = max(k.floor, after.Floor)
		w.set(n, u, after)
	}
}
