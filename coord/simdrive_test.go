package coord_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
)

// drive carries changes on by what the node knows, now and then.
func (n *simNode) drive() {
	rng := n.w.rand(n.name + " drive")
	n.later(time.Duration(200+rng.IntN(800))*time.Millisecond, func() {
		if l := n.w.chosen; n.known == l.last().Version() && n.known > 0 && !l.told {
			if e := l.next(n, rng); e != nil {
				l.choose(n, e)
			}
		}
		n.drive()
	})
}

// next is the entry that a node would have now, nil for none.
func (l *simLog) next(n *simNode, rng *rand.Rand) *ring.Entry {
	s := n.state()
	step := func(k ring.Kind, why string) *ring.Entry {
		return &ring.Entry{Kind: k, Step: &ring.Step{Change: s.Change().ID, Reason: why}}
	}
	c := s.Change()
	switch {
	case len(l.turns) > 0:
		return l.turn(s)
	case c == nil:
		for _, o := range s.Outsiders() {
			if s.MayRetire(o.ID, n.report) || !l.planned && l.w.nodes[o.ID[0]-1].member.lost {
				return &ring.Entry{Kind: ring.KindRetire, Retire: &ring.Retire{Node: o.ID}}
			}
		}
		if l.planned {
			if i := l.intent(s); i != nil {
				return &ring.Entry{Kind: ring.KindIntent, Intent: i}
			}
			return l.plan(s, rng)
		}
		return l.propose(s, rng)
	case c.Stage == ring.Proposed && l.mustAbort(c):
		return step(ring.KindAbort, "it is not wanted any more")
	case c.Stage == ring.Proposed:
		ok, waiting := s.MayCommit(n.report)
		if l.w.planted.noShrinkSync {
			ok = !slices.ContainsFunc(waiting, func(id ring.NodeID) bool { _, in := s.Layout().Node(id); return !in })
		}
		if ok || l.w.planted.syncEarly {
			return step(ring.KindCommit, "")
		}
	case c.Stage == ring.Committed:
		if ok, _ := s.MayFinalize(n.report); ok {
			return step(ring.KindFinalize, "")
		}
	}
	return nil
}

// mustAbort says whether a change is to be given up: an operator wants that, or one of
// its nodes is lost.
func (l *simLog) mustAbort(c *ring.Change) bool {
	if l.aborts > 0 {
		l.aborts--
		return true
	}
	return slices.ContainsFunc(c.Next.Nodes(), func(n ring.LayoutNode) bool { return l.w.nodes[n.ID[0]-1].member.lost })
}

// propose is the change that is wanted now: those that wait join, those that are lost are
// removed, and what operators want is done.
func (l *simLog) propose(s *ring.State, rng *rand.Rand) *ring.Entry {
	var nodes []ring.LayoutNode
	var removed []ring.NodeID
	changed := l.reorder
	for _, n := range s.Layout().Nodes() {
		switch {
		case l.w.nodes[n.ID[0]-1].member.lost:
			removed = append(removed, n.ID)
			continue
		case slices.Contains(l.leaves, n.ID):
			changed = true
			continue
		}
		if c := l.weights[n.ID]; c != 0 {
			n.Capacity, changed = c, true
		}
		nodes = append(nodes, n)
	}
	joiners := l.joiners(s)
	nodes = append(nodes, joiners...)
	factors := l.wantedFactors(s)
	if l.factors = nil; len(factors) > 0 {
		changed = true
	}
	if !changed || len(nodes) == 0 {
		l.leaves, l.weights = nil, map[ring.NodeID]uint32{} // of nodes that are not there any more, or of the last one
	}
	if len(joiners) == 0 && !changed && len(removed) == 0 || len(nodes) == 0 {
		return nil
	}
	v := s.Version() + 1
	layout, err := s.Layout().Rebalance(v, nodes)
	if err != nil {
		panic(err)
	}
	if rng.IntN(3) == 0 {
		layout = placedAnew(v, nodes)
	}
	if l.reorder {
		layout = shuffled(layout, rng)
	}
	l.leaves, l.weights, l.reorder = nil, map[ring.NodeID]uint32{}, false
	for _, id := range removed {
		l.w.note("%s is removed", l.w.nodes[id[0]-1].name)
	}
	l.w.counts["changes proposed"]++
	return &ring.Entry{Kind: ring.KindPropose, Propose: &ring.Propose{Parent: s.Layout().Version(), Layout: layout, Removed: removed, Factors: factors}}
}

// intent is the next that operators note, nil for none.
func (l *simLog) intent(s *ring.State) *ring.Intent {
	var wanted []*ring.Intent
	for _, m := range s.Members() {
		if n := l.w.nodes[m.ID[0]-1]; n.member.lost && !slices.ContainsFunc(s.Intents(), func(r *ring.IntentRecord) bool { return r.Node == m.ID }) {
			wanted = append(wanted, l.instead(s, n))
		}
	}
	for _, id := range l.leaves {
		wanted = append(wanted, &ring.Intent{Verb: ring.VerbLeave, Node: id})
	}
	for _, n := range l.w.nodes {
		if c := l.weights[n.id]; c != 0 {
			wanted = append(wanted, &ring.Intent{Verb: ring.VerbWeigh, Node: n.id, Capacity: c})
		}
	}
	for _, f := range l.factors {
		wanted = append(wanted, &ring.Intent{Verb: ring.VerbReplicate, Tenant: f.Tenant, RF: f.RF})
	}
	l.leaves, l.weights, l.factors = nil, map[ring.NodeID]uint32{}, nil
	alive := func(id ring.NodeID) bool { return !l.w.nodes[id[0]-1].member.lost }
	joiner := func(id ring.NodeID) bool { return !l.w.nodes[id[0]-1].never() && l.joins(s, id) }
	for i, want := range wanted {
		if err := s.CheckIntent(want, alive, joiner); err != nil {
			l.w.note("%v of node %d or tenant %d is refused: %v", want.Verb, want.Node[0], want.Tenant, err)
			l.w.counts["intents refused"]++
			continue
		}
		for _, later := range wanted[i+1:] { // those of lost nodes come again by themselves
			switch later.Verb {
			case ring.VerbLeave:
				l.leaves = append(l.leaves, later.Node)
			case ring.VerbWeigh:
				l.weights[later.Node] = later.Capacity
			case ring.VerbReplicate:
				l.factors = append(l.factors, ring.Factor{Tenant: later.Tenant, RF: later.RF, AskedAtMs: 1})
			}
		}
		return want
	}
	return nil
}

// instead is what is to be done about a lost node.
func (l *simLog) instead(s *ring.State, lost *simNode) *ring.Intent {
	if _, in := s.Layout().Node(lost.id); in {
		for _, p := range l.w.nodes {
			if !p.never() && l.joins(s, p.id) {
				return &ring.Intent{Verb: ring.VerbReplace, Node: lost.id, By: p.id}
			}
		}
	}
	return &ring.Intent{Verb: ring.VerbRemove, Node: lost.id}
}

// plan is the change that is planned, or what ends an intent that has no use any more.
func (l *simLog) plan(s *ring.State, rng *rand.Rand) *ring.Entry {
	p, err := s.Plan(l.joiners(s))
	if err != nil {
		panic(err)
	}
	switch {
	case p == nil && l.reorder:
		p = &ring.Plan{Layout: withRows(s.Version()+1, s.Layout(), func(ring.Partition, []uint16) {})}
	case p == nil:
		return nil
	case p.Layout == nil:
		return &ring.Entry{Kind: ring.KindIntent, Intent: &ring.Intent{Verb: ring.VerbCancel, Cancels: p.Void[0].Intent.Op}}
	}
	if l.reorder {
		p.Layout, l.reorder = shuffled(p.Layout, rng), false
	}
	l.w.counts["changes planned"]++
	return &ring.Entry{Kind: ring.KindPropose, Propose: &ring.Propose{Parent: s.Layout().Version(), Layout: p.Layout, Removed: p.Removed, Closes: p.Closes, Factors: p.Factors}}
}

// joiners are the nodes that wait to be given partitions.
func (l *simLog) joiners(s *ring.State) (all []ring.LayoutNode) {
	for _, p := range l.w.nodes {
		if !p.never() && l.joins(s, p.id) {
			all = append(all, ring.LayoutNode{ID: p.id, Name: p.name, Zone: "z" + p.name, Capacity: 1})
		}
	}
	return all
}

// joins says whether a node that runs waits to be given partitions.
func (l *simLog) joins(s *ring.State, id ring.NodeID) bool {
	if _, there := s.Layout().Node(id); there || s.IsRetired(id) {
		return false
	}
	i := slices.IndexFunc(s.Outsiders(), func(o ring.Outsider) bool { return o.ID == id })
	return i < 0 || !s.Outsiders()[i].Leaving
}

// placedAnew is a layout that knows of none before it: it moves more than it has to.
func placedAnew(v ring.Version, nodes []ring.LayoutNode) *ring.Layout {
	l, err := ring.NewLayout(simPartitions, nodes)
	if err != nil {
		panic(err)
	}
	return withRows(v, l, func(ring.Partition, []uint16) {})
}

// shuffled is a layout with two owners of each row in each other's places.
func shuffled(l *ring.Layout, rng *rand.Rand) *ring.Layout {
	return withRows(l.Version(), l, func(_ ring.Partition, row []uint16) {
		i, j := rng.IntN(len(row)), rng.IntN(len(row))
		row[i], row[j] = row[j], row[i]
	})
}

// withRows is a layout with another version and other rows: indexes into its nodes.
func withRows(v ring.Version, l *ring.Layout, edit func(p ring.Partition, row []uint16)) *ring.Layout {
	b := ring.AppendLayout(nil, l)
	binary.BigEndian.PutUint64(b[1:], uint64(v))
	at := 13
	for _, n := range l.Nodes() {
		at += 22 + len(n.Name) + len(n.Zone)
	}
	row := make([]uint16, b[at])
	at++
	for p := range l.Partitions() {
		for i := range row {
			row[i] = binary.BigEndian.Uint16(b[at+2*i:])
		}
		edit(ring.Partition(p), row)
		for _, i := range row {
			binary.BigEndian.PutUint16(b[at:], i)
			at += 2
		}
	}
	l, err := ring.DecodeLayout(b)
	if err != nil {
		panic(err)
	}
	return l
}

// unfinished says what is still to be done before the ring is at rest, "" for nothing.
func (l *simLog) unfinished() string {
	s := l.last()
	if c := s.Change(); c != nil {
		return fmt.Sprintf("a change is %v", c.Stage)
	}
	if len(l.leaves) > 0 || len(l.weights) > 0 || l.reorder || len(l.factors) > 0 || len(l.turns) > 0 ||
		slices.ContainsFunc(s.Intents(), func(i *ring.IntentRecord) bool { return i.Verb == ring.VerbReplicate }) {
		return "a change is wanted"
	}
	for _, o := range s.Outsiders() {
		if o.Leaving {
			return l.w.nodes[o.ID[0]-1].name + " is to be retired"
		}
	}
	for _, n := range l.w.nodes {
		_, in := s.Layout().Node(n.id)
		switch {
		case in && n.member.lost:
			return n.name + " is lost and has an own part"
		case n.never():
		case !in && l.joins(s, n.id):
			return n.name + " waits to join"
		case (!s.IsRetired(n.id) || n.up) && n.known != s.Version():
			// Clients of one that is retired and has not heard of it would see it end.
			return fmt.Sprintf("%s knows the log up to %d of %d", n.name, n.known, s.Version())
		}
		for p := range s.Layout().Partitions() {
			for _, t := range l.w.tenants {
				if !n.never() && !n.view.Clean(ring.Partition(p), t.Class()) {
					return fmt.Sprintf("partition %d is not clean for %s", p, n.name)
				}
			}
		}
	}
	return ""
}
