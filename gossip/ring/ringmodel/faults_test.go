package ringmodel

import (
	"maps"

	"github.com/pairdb/pairdb/gossip/ring"
)

func (w *world) crash(n *node) {
	if !n.up {
		return
	}
	w.count["crashes"]++
	w.trace("n%d crashes at v%d, v%d on disk", n.id, n.known, n.durable)
	n.up = false
	n.known = n.durable
	n.vote = n.voted
	n.heard[idOf(n.id)] = n.voted
	if !w.in(entryBytes) {
		n.entries = maps.Clone(n.kept)
	}
	n.proposer, n.rounds = nil, 0
	n.pushes, n.condemn, n.round = [units]push{}, [units]bool{}, round{}
	n.forgot = [tenants]bool{}
	for _, op := range w.ops {
		if op.at == n.id && !op.done {
			w.end(nil, op)
		}
	}
}

func (w *world) restart(n *node) {
	if n.up || n.lost || w.actors >= maxActors && !w.healing && w.in(actorPerStart) {
		return
	}
	n.up = true
	n.seq = [partitions]uint64{}
	if w.in(actorPerStart) {
		w.newActor(n)
	}
	w.trace("n%d starts at v%d as actor %d", n.id, n.durable, n.actor)
}

// loseDisk destroys a disk for good, if the design promises to survive that, and adds
// a node in its place.
func (w *world) loseDisk(n *node) {
	if n.lost || len(w.nodes) >= maxIDs || w.actors >= maxActors || !w.mayLose(n) {
		return
	}
	w.crash(n)
	n.lost = true
	w.count["lost disks"]++
	w.forced |= bit(n.id)
	fresh := w.addNode()
	w.trace("n%d loses its disk; n%d is new", n.id, fresh.id)
}

func (w *world) mayLose(n *node) bool {
	v := w.last()
	if v.state.LastTenant() < 2 && w.rf < 3 {
		return false // who is to own its data alone may not be gone before that is there
	}
	bad := w.lostDisks()
	in := v.nodes
	if c := v.state.Change(); c != nil {
		next, voters := planOf(c.Next).nodes, maskOf(c.Next.Voters())
		in |= next
		if voters.n() < 3 || voters&bad != 0 {
			return false
		}
	}
	voters := maskOf(v.state.Voters())
	if in&bad != 0 || voters&bad != 0 || voters.n() < 3 || !in.has(n.id) && (v.members|v.retired).has(n.id) {
		return false
	}
	for u := range v.at {
		o := &v.at[u]
		if o.w1.has(n.id) && o.w1.n() < 3 || o.w2.has(n.id) && o.w2.n() < 3 || o.all().has(n.id) && !w.spreadWithout(u, n.id) {
			return false
		}
	}
	for _, m := range w.nodes { // the newest entry is on another disk
		if m != n && !m.lost && m.durable == len(w.views)-1 {
			return true
		}
	}
	return false
}

// spreadWithout says whether every quorum still meets what must be known once a node
// is gone: losses before may have used up what the level stands.
func (w *world) spreadWithout(u, gone int) bool {
	k, v := &w.keys[u], w.last()
	o := &v.at[u]
	sets := []mask{o.w1}
	if o.w2 != 0 && o.stage != ring.Proposed {
		sets = append(sets, o.w2)
	}
	for _, set := range sets {
		left := set &^ w.lostDisks() &^ bit(gone)
		for x := range k.made {
			if (k.covered&^k.collected)>>x&1 == 0 {
				continue
			}
			lack := 0
			for _, i := range left.list() {
				if w.truth(u, &w.nodes[i].data[u])>>x&1 == 0 {
					lack++
				}
			}
			if lack >= ring.Majority(set.n()) {
				return false
			}
		}
	}
	return true
}

// fault has something go wrong; f chooses.
func (w *world) fault(f int) {
	p := w.prof
	switch {
	case f < p.crash:
		if n := w.someone(); n != nil {
			w.crash(n)
		}
		if w.n(12) < p.power { // many at once
			for _, n := range w.nodes {
				if w.n(4) > 0 {
					w.crash(n)
				}
			}
		}
	case f < p.crash+p.loseDisk:
		if n := w.someone(); n != nil {
			w.loseDisk(n)
		}
	case f < p.crash+p.loseDisk+p.cut:
		w.count["cuts"]++
		w.cutUntil = w.step + 30 + w.n(250)
		switch w.n(3) {
		case 0: // in two
			a := mask(w.n(1 << maxIDs))
			for i := range w.cut {
				if w.cut[i] = a; a.has(i) {
					w.cut[i] = ^a
				}
			}
		case 1: // one that hears and is not heard
			i := w.n(len(w.nodes))
			w.cut[i] = ^bit(i)
		default: // some links
			for range 4 {
				w.cut[w.n(len(w.nodes))] |= bit(w.n(len(w.nodes)))
			}
		}
	default:
		if n := w.someone(); n != nil {
			w.count["pauses"]++
			n.asleepUntil = w.step + 50 + w.n(500)
			w.trace("n%d stands still until %d", n.id, n.asleepUntil)
		}
	}
}
