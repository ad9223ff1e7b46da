package ringmodel

import (
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// key is the truth about the key of a unit. No node knows it. Writes are numbered, and
// a set of them is a bit each.
type key struct {
	made      int
	dots      map[causal.Dot]int // which write a dot is
	covers    [64]uint64         // what a write replaces, and what that replaces
	covered   uint64             // what every later read has to know
	dead      uint64             // replaced, and seen to be: it never comes back
	collected uint64             // hidden or gone, with a delete that all owners had
	acked     uint64
	old       uint64 // of the tenant that had the number before
	lastAcked int    // of a key without tokens: the last acknowledged write, plus one
	ones      []ackedAtOne
	busy      *operation

	tokens     [2]causal.Context
	tokenTruth [2]uint64
}

// ackedAtOne is a write that the nodes of at have on disk.
type ackedAtOne struct {
	write int
	at    mask
}

// wrote says which write a sibling is. Its value says that, but for those of which only
// the dot is told; and without a rule two writes may have one dot.
func (k *key) wrote(s *causal.Sibling) int {
	if len(s.Value) > 0 {
		return int(s.Value[0])
	}
	return k.dots[s.Dot]
}

// truthOf is what a sibling stands for: its write and what that replaces.
func (w *world) truthOf(u int, s *causal.Sibling) uint64 {
	k := &w.keys[u]
	wrote := k.wrote(s)
	return 1<<wrote | k.covers[wrote]
}

// truth is what an object stands for.
func (w *world) truth(u int, o *causal.Object) (m uint64) {
	for i := range o.Siblings {
		m |= w.truthOf(u, &o.Siblings[i])
	}
	return m
}

// holding are the writes that an object holds.
func (k *key) holding(o *causal.Object) (m uint64) {
	for i := range o.Siblings {
		m |= 1 << k.wrote(&o.Siblings[i])
	}
	return m
}

func (w *world) onAcknowledged(op *operation) {
	k, wrote := &w.keys[op.u], op.write-1
	if op.kind == writingOne {
		k.ones = append(k.ones, ackedAtOne{wrote, op.acks})
		return
	}
	k.acked |= 1 << wrote
	k.covered |= 1<<wrote | k.covers[wrote]
	k.dead |= k.covers[wrote]
	switch kindOf(op.u) {
	case blind:
		k.lastAcked = max(k.lastAcked, op.write)
	case single:
		k.tokens[0], k.tokenTruth[0] = op.object.Context, w.truth(op.u, &op.object)
	}
}

// answerRead ends a read, and looks at what it returns.
func (w *world) answerRead(op *operation) {
	op.done = true
	w.count["reads"]++
	k := &w.keys[op.u]
	knows, holds := w.truth(op.u, &op.object), k.holding(&op.object)
	w.trace("op%d returns %s of u%d, pv %d", op.id, writes(holds), op.u, op.sets.pv)
	if lww(op.u) && op.owesLast > 0 {
		best := -1
		if s := op.object.Winner(); s != nil {
			best = k.wrote(s)
		}
		if best < 0 || best < op.owesLast-1 && k.acked>>best&1 == 1 {
			w.fail("an older acknowledged write won", "op%d returned w%d, and w%d was acknowledged before", op.id, best, op.owesLast-1)
		}
	}
	if missing := op.owesCovered &^ knows &^ k.collected; missing != 0 {
		if missing&k.acked != 0 {
			w.fail("a read missed an acknowledged write", "op%d misses %s", op.id, writes(missing))
		} else {
			w.fail("a read missed what was read before", "op%d misses %s", op.id, writes(missing))
		}
	}
	if old := holds & k.old; old != 0 {
		w.fail("something of a deleted tenant was seen", "op%d shows %s", op.id, writes(old))
	}
	if back := op.owesDead & holds; back != 0 {
		w.fail("a replaced value came back", "op%d shows %s", op.id, writes(back))
	}
	k.covered |= knows
	k.dead |= knows &^ holds
	if client := w.n(2); kindOf(op.u) == many {
		k.tokens[client], k.tokenTruth[client] = op.object.Context, knows
	}
}

// checkEnd looks at what the owners hold when all is quiet.
func (w *world) checkEnd() {
	v := w.last()
	for u := range units {
		if v.at[u].deleted {
			w.checkDeleted(u)
			continue
		}
		k, l := &w.keys[u], v.at[u].w1.list()
		var everything causal.Object
		for _, i := range l {
			w.shows(w.nodes[i], u)
		}
		for chosen := mask(1); chosen < 1<<len(l); chosen++ {
			if chosen.n() != ring.Majority(len(l)) {
				continue
			}
			var o causal.Object
			for _, j := range chosen.list() {
				s := w.shows(w.nodes[l[j]], u)
				o = causal.Join(&o, &s)
			}
			if missing := k.covered &^ w.truth(u, &o) &^ k.collected; missing != 0 {
				w.fail("a write is lost in the end", "u%d: a quorum of %v misses %s", u, l, writes(missing))
			}
			if back := k.dead & k.holding(&o); back != 0 {
				w.fail("a replaced value came back", "in the end, u%d shows %s", u, writes(back))
			}
		}
		for _, i := range l {
			everything = causal.Join(&everything, &w.nodes[i].data[u])
		}
		knows := w.truth(u, &everything) | k.collected
		for _, o := range k.ones {
			if knows>>o.write&1 == 0 && o.at&^w.lostDisks() != 0 {
				w.fail("a write at ONE is lost though a disk that had it is not", "u%d w%d was at %v", u, o.write, o.at.list())
			}
		}
	}
	for _, n := range w.nodes {
		for u := range units {
			if !n.lost && !v.retired.has(n.id) && n.holds[u] && !v.at[u].deleted && !v.at[u].w1.has(n.id) {
				w.fail("data is left at a node that does not own it", "n%d u%d", n.id, u)
			}
		}
	}
}

// checkDeleted looks for what is left of a unit of a deleted tenant.
func (w *world) checkDeleted(u int) {
	for _, n := range w.nodes {
		if !n.lost && !w.last().retired.has(n.id) && n.holds[u] {
			w.fail("something is left of a deleted tenant", "n%d u%d", n.id, u)
		}
	}
}
