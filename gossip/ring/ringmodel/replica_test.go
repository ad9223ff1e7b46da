package ringmodel

import (
	"time"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// fenced says whether n serves m, and answers if it does not. Who is behind catches
// up with the sender first.
func (w *world) fenced(n *node, m *message) bool {
	v := w.serving(n)
	if v.retired.has(m.from) && m.from != n.id {
		return false
	}
	if v.at[m.u].pv < m.pv {
		w.catchUp(n, m.knows)
		v = w.serving(n)
	}
	o := &v.at[m.u]
	if o.pv != m.pv && w.in(fence) || o.deleted && w.in(forgetDeleted) {
		w.send(answer(m, stale))
		return false
	}
	// Who gains serves nothing before it knows what was confirmed.
	return !w.gaining(n, v, m.u) || !w.in(inherit) || w.informed(n, v, m.u)
}

// gaining says whether a change is about to give u to n.
func (w *world) gaining(n *node, v *view, u int) bool {
	o := &v.at[u]
	return o.stage == ring.Proposed && o.w2.has(n.id) && !o.w1.has(n.id)
}

func (w *world) informed(n *node, v *view, u int) bool {
	g := &n.gains[u]
	return g.change == v.state.Change().ProposedAt && g.told.n() >= ring.Meeting(v.at[u].w1.n())
}

// mustKeep says whether n may not leave out what was confirmed: it may lack it only
// because nobody has told it yet.
func (w *world) mustKeep(n *node, u int) bool {
	v := w.serving(n)
	return w.in(gainerWhole) && w.gaining(n, v, u) && (n.gains[u].change != v.state.Change().ProposedAt || n.gains[u].got == 0)
}

func (w *world) confirmed(n *node, u int) *causal.Confirmed {
	k := w.know(n, u)
	return &k.confirmed
}

// merge joins what came into what n holds. stripped says that something was left out.
func (w *world) merge(n *node, u int, came *causal.Object) (stripped bool) {
	if came.IsZero() {
		return false
	}
	held := &n.data[u]
	var joined causal.Object
	if w.in(strip) && !w.mustKeep(n, u) {
		joined, stripped = causal.JoinUnder(held, came, w.confirmed(n, u), lww(u))
	} else {
		joined = causal.Join(held, came)
	}
	joined.Floor = max(held.Floor, joined.Floor)
	if !n.holds[u] || !joined.Equal(held) {
		w.set(n, u, joined)
	}
	return stripped
}

// shows is what a reader is shown of u by n: no delete that all owners have.
func (w *world) shows(n *node, u int) causal.Object {
	return w.settled(n, u, w.confirmed(n, u))
}

// settled is what is left of what n holds, and the truth of what is not.
func (w *world) settled(n *node, u int, c *causal.Confirmed) causal.Object {
	held := n.data[u]
	o := held.Settled(c, lww(u))
	w.keys[u].collected |= w.truth(u, &held) &^ w.truth(u, &o)
	return o
}

func (w *world) now(n *node) time.Time { return time.UnixMilli(int64(max(1, w.step+n.skew))) }

// onMint makes a write: its dot, and the object with it.
func (w *world) onMint(n *node, m *message) {
	if !w.fenced(n, m) {
		return
	}
	o := &w.serving(n).at[m.u]
	if !o.r1.has(n.id) && w.in(fence) {
		return
	}
	op, u, p := m.op, m.u, partitionOf(m.u)
	k := &w.keys[u]
	if k.made >= maxWrites {
		return
	}
	held := n.data[u]
	seen, truth := op.token, op.tokenTruth
	floor := w.know(n, u).floor
	if lww(u) {
		truth = w.truth(u, &held)
		seen = causal.JoinContext(held.Context, m.object.Context)
		for i := range m.object.Siblings {
			floor = max(floor, m.object.Siblings[i].HLC)
			truth |= w.truthOf(u, &m.object.Siblings[i])
		}
	}
	n.seq[p]++
	s := causal.Sibling{Dot: causal.Dot{Actor: n.actor, Counter: n.seq[p]}, HLC: causal.NextHLC(w.now(n), floor), Value: []byte{byte(k.made)}}
	if op.deletes {
		s.Flags = causal.FlagTombstone
	}
	k.covers[k.made] = truth
	k.dots[s.Dot] = k.made
	object := causal.Mint(&held, seen, s)
	w.trace("n%d mints w%d of u%d, %v, delete %v, pv %d, op%d", n.id, k.made, u, s.Dot, op.deletes, m.pv, op.id)
	w.set(n, u, object)
	a := answer(m, minted)
	a.object, a.written, a.dot = object, k.made, s.Dot
	k.made++
	w.send(a)
}

func (w *world) onWrite(n *node, m *message) {
	if !w.fenced(n, m) {
		return
	}
	held := &n.data[m.u]
	stub, ok := causal.Uncovered(held, &m.object)
	// Its own new dot is to be left out: then it was never seen by all, but something
	// of its actor that came later was.
	own := m.op.kind != reading && !held.Context.Covers(m.op.dot) && w.confirmed(n, m.u).Seen.Covers(m.op.dot)
	// Another owner may have shown nothing of what replaced what was found.
	replaced := m.found && w.in(refuseFound) && !w.gaining(n, w.serving(n), m.u) && held.Superseded(&m.object, w.confirmed(n, m.u))
	if w.merge(n, m.u, &m.object) && (own || m.op.kind == reading) && w.in(refuseStripped) {
		return // what a read found was collected meanwhile: it is not to be returned
	}
	if replaced {
		return
	}
	a := answer(m, written)
	if ok {
		a.object = stub
	}
	w.send(a)
}

func (w *world) onRead(n *node, m *message) {
	if !w.fenced(n, m) {
		return
	}
	a := answer(m, shown)
	a.object, a.before = w.shows(n, m.u), n.changedAt[m.u] < m.pv
	w.send(a)
}

func (w *world) onHandOver(n *node, m *message) {
	if w.fenced(n, m) {
		w.merge(n, m.u, &m.object)
		w.send(answer(m, handedOver))
	}
}

func (w *world) onHint(n *node, m *message) {
	if !w.in(hintsFenced) || w.fenced(n, m) {
		w.merge(n, m.u, &m.object)
		w.send(answer(m, hintTaken))
	}
}
