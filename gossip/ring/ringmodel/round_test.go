package ringmodel

import (
	"slices"

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
	id      int // 0: none
	p       ring.Partition
	class   ring.Class
	members []int
	pv      ring.Version
	want    messageKind
	acks    mask
	asked   mask
	actors  [maxIDs]uint64
	drawn   []causal.Dot
	seen    causal.Context
	agreed  knowledge
	objects [units]causal.Object
	common  mask // units that all owners count among those of the class
}

// beginRound has n compare a span, if it may.
func (w *world) beginRound(n *node) {
	classes := w.views[n.durable].classes
	w.beginRoundOf(n, ring.Partition(w.n(partitions)), classes[w.n(len(classes))])
}

func (w *world) beginRoundOf(n *node, p ring.Partition, c ring.Class) {
	v := w.views[n.durable]
	us := v.unitsOf(p, c)
	if len(us) == 0 || !v.at[us[0]].w1.has(n.id) || !w.mayConfirm(n, v, p, c) {
		return
	}
	w.roundIDs++
	n.round = round{id: w.roundIDs, p: p, class: c, members: us, pv: v.pv[p], want: state, asked: v.at[us[0]].w1}
	w.tell(n, askState, causal.Confirmed{})
}

// mayConfirm says whether all that may hold something of a span are its owners.
func (w *world) mayConfirm(n *node, v *view, p ring.Partition, c ring.Class) bool {
	if v.state.Change().Touches(p) {
		return !w.in(roundsRest)
	}
	w.publish(n)
	return !w.in(cleanGate) || v.state.Clean(p, v.copies(c).From, n.reported)
}

// tell sends all owners the next question of a round.
func (w *world) tell(n *node, kind messageKind, c causal.Confirmed) {
	r := &n.round
	r.acks = 0
	for _, i := range r.asked.list() {
		m := &message{kind: kind, from: n.id, to: i, u: r.members[0], class: r.class, pv: r.pv, round: r.id}
		switch kind {
		case level:
			m.knowing = r.agreed
		case mend:
			m.objects = r.objects
			for _, u := range r.members {
				m.members |= bit(u)
			}
		case adopt, release:
			m.knowing.confirmed = c
		}
		w.send(m)
	}
}

// inRound says whether n takes part in a round of a span: it has the version of the
// partition that the driver has, and owns the span.
func (w *world) inRound(n *node, m *message) bool {
	v, p := w.serving(n), partitionOf(m.u)
	if v.retired.has(m.from) && m.from != n.id {
		return false
	}
	if v.pv[p] < m.pv {
		w.catchUp(n, m.knows)
		v = w.serving(n)
	}
	return (v.pv[p] == m.pv || !w.in(fence)) && v.isOwner(n.id, p, m.class)
}

// overtake has n learn more of the log: what it was about to take in, since its version
// was that of the sender, it takes in when it goes by another one.
func (w *world) overtake(n *node) {
	if more := len(w.views) - 1 - n.known; more > 0 {
		w.learn(n, n.known+1+w.n(more))
		w.persist(n)
		w.count["overtaken"]++
	}
}

// onRound is an owner in a round.
func (w *world) onRound(n *node, m *message) {
	if !w.inRound(n, m) {
		return
	}
	if m.kind != askState && m.kind != mend && !w.healing && w.n(8) == 0 {
		w.overtake(n)
	}
	w.takePart(n, m)
}

// takePart is onRound when the message is fenced.
func (w *world) takePart(n *node, m *message) {
	p, v := partitionOf(m.u), w.serving(n)
	var a *message
	switch m.kind {
	case askState:
		a = answer(m, state)
		a.drawn, a.knowing = n.seq[p], w.knows(n, p, m.class)
		for _, u := range v.unitsOf(p, m.class) {
			a.seen = causal.JoinContext(a.seen, n.data[u].Context)
		}
	case level:
		w.learnKnown(n, p, m.class, &m.knowing)
		if k := w.knows(n, p, m.class); v.pv[p] != m.pv && w.in(fence) || !k.confirmed.Equal(&m.knowing.confirmed) {
			return // it has learned more meanwhile: the round is void
		}
		a = answer(m, rows)
		for _, u := range v.unitsOf(p, m.class) {
			a.objects[u] = w.shows(n, u)
			a.members |= bit(u)
		}
	case mend:
		a = answer(m, mended)
		for _, u := range m.members.list() {
			if v.class[tenantOf(u)] != m.class {
				continue
			}
			if w.in(stripRows) {
				w.merge(n, u, &m.objects[u])
			} else if o := causal.Join(&n.data[u], &m.objects[u]); !o.Equal(&n.data[u]) {
				w.set(n, u, o)
			}
		}
	case adopt:
		a = answer(m, adopted)
		w.learnKnown(n, p, m.class, &knowledge{confirmed: m.knowing.confirmed})
		if w.in(adoptStands) && v.pv[p] != m.pv && w.in(fence) {
			return // a tenant may have left the class, and it was not adopted of that one
		}
	case release:
		w.learnKnown(n, p, m.class, &knowledge{confirmed: m.knowing.confirmed, released: m.knowing.confirmed})
		w.trace("n%d releases %v of partition %d %v", n.id, m.class, p, m.knowing.confirmed.Seen)
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
	v := w.views[n.durable]
	if m.kind == rows {
		w.foldAnswer(r, m, v)
	}
	if r.acks |= bit(m.from); r.acks != r.asked {
		return
	}
	if r.id == 0 || v.pv[r.p] != r.pv || !slices.Equal(v.unitsOf(r.p, r.class), r.members) || !w.mayConfirm(n, v, r.p, r.class) {
		r.id = 0
		return
	}
	switch m.kind {
	case state:
		r.want = rows
		w.tell(n, level, causal.Confirmed{})
	case rows:
		for _, u := range r.members {
			if !r.objects[u].IsZero() && !r.common.has(u) {
				r.id = 0 // who does not know the tenant tells nothing of it
				return
			}
		}
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

// foldAnswer takes in what an owner holds. An owner that holds something of a tenant that
// the driver does not count among those of the class makes the round void.
func (w *world) foldAnswer(r *round, m *message, v *view) {
	if r.acks == 0 {
		r.common = m.members
	}
	r.common &= m.members
	for _, u := range m.members.list() {
		switch {
		case slices.Contains(r.members, u):
			if r.acks == 0 {
				r.objects[u] = m.objects[u]
			} else {
				r.objects[u] = foldRows(&r.objects[u], &m.objects[u], &r.agreed.confirmed)
			}
		case !v.at[u].deleted && !m.objects[u].IsZero():
			r.id = 0
		}
	}
}

// foldRows joins what two owners hold that know c: what c covers and one of them does
// not hold it has replaced.
func foldRows(a, b *causal.Object, c *causal.Confirmed) causal.Object {
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
		p, c := partitionOf(u), v.class[tenantOf(u)]
		if _, own := c.Own(); own && !n.spans.at(p, c).parted {
			continue // what is released of the others is swept of them alone
		}
		k := w.know(n, u)
		before := n.data[u]
		after := w.settled(n, u, &k.released)
		if after.Equal(&before) {
			continue
		}
		w.trace("n%d sweeps u%d", n.id, u)
		w.count["sweeps"]++
		at := n.spans.at(p, c)
		at.floor = max(at.floor, after.Floor)
		w.set(n, u, after)
	}
}
