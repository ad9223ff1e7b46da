package ringmodel

import (
	"bytes"

	"github.com/pairdb/pairdb/gossip/ring"
)

// learn has n know the log up to version v, in memory.
func (w *world) learn(n *node, v int) {
	if v = min(v, len(w.views)-1); v > n.known {
		n.known = v
		for i := w.base + 1; i <= v; i++ {
			n.entries[string(w.chosen[i])] = true
		}
	}
}

// persist has it on disk, and so acknowledged.
func (w *world) persist(n *node) {
	if n.durable < n.known {
		n.durable = n.known
		w.trace("n%d acknowledges v%d", n.id, n.durable)
	}
	for i := w.base + 1; i <= n.durable && !w.in(entryBytes); i++ {
		n.kept[string(w.chosen[i])] = true
	}
	if n.proposer != nil && int(n.proposer.Slot()) <= n.durable {
		n.proposer = nil
	}
}

// catchUp has n know what the sender of a message knew, on disk.
func (w *world) catchUp(n *node, v int) {
	w.learn(n, v)
	if w.in(durableAck) {
		w.persist(n)
	}
}

// voters are who votes on the entry after v.
func (w *world) voters(v *view) []ring.NodeID {
	if c := v.state.Change(); c != nil && !w.in(votersInForce) {
		return c.Next.Voters()
	}
	return v.state.Voters()
}

// spoken is what stands in registers for an entry: its bytes, or without that rule
// a name for them.
func (w *world) spoken(value []byte) []byte {
	if w.in(entryBytes) {
		return value
	}
	return value[10:26] // the Op
}

// resolve finds the entry that a register speaks of, if n has it.
func (w *world) resolve(n *node, spoken []byte) ([]byte, bool) {
	if w.in(entryBytes) {
		return spoken, true
	}
	//seams:ordered at most one has that name
	for value := range n.entries {
		if value[10:26] == string(spoken) {
			return []byte(value), true
		}
	}
	return nil, false
}

// count the registers that n has heard of: is the next slot decided?
func (w *world) tally(n *node) {
	for {
		slot := n.known + 1
		spoken, ok := ring.Chosen(n.heard, ring.Version(slot), w.voters(w.view(n)))
		if !ok {
			return
		}
		value, ok := w.resolve(n, spoken)
		if !ok {
			return
		}
		switch {
		case slot == len(w.views):
			if w.appendEntry(value, n.id); slot == len(w.views) {
				return
			}
		case !bytes.Equal(w.chosen[slot], value):
			w.fail("two values in one slot", "v%d as n%d sees it", slot, n.id)
			return
		}
		n.known = slot
		n.entries[string(value)] = true
	}
}

// publish has n say of itself what it says.
func (w *world) publish(n *node) {
	n.report.Acked = ring.Version(n.durable)
	if !w.in(durableAck) {
		n.report.Acked = ring.Version(n.known)
	}
	n.reports[n.id] = n.report
	n.heard[idOf(n.id)] = n.vote
}

// gossip has a tell b what it has heard.
func (w *world) gossip(a, b *node, all bool) {
	w.publish(a)
	for i := range w.nodes {
		if !all && w.n(3) == 0 {
			continue
		}
		w.hear(b, i, a.heard[idOf(i)])
		was, now := &b.reports[i], &a.reports[i]
		*was = ring.Report{Acked: max(was.Acked, now.Acked), Synced: max(was.Synced, now.Synced), Clean: max(was.Clean, now.Clean)}
	}
	if all || w.percent(w.prof.logGossip) {
		//seams:ordered all are copied
		for value := range a.entries {
			b.entries[value] = true
		}
		v := a.known
		if !all && v > b.known {
			v = b.known + 1 + w.n(v-b.known)
		}
		w.learn(b, v)
	}
	w.tally(b)
	w.advance(b)
}

// hear takes in the register of a node.
func (w *world) hear(n *node, of int, r ring.Register) {
	if old := n.heard[idOf(of)]; old.Compare(r) < 0 {
		n.heard[idOf(of)] = r
	}
}

// propose begins to get an entry chosen.
func (w *world) propose(n *node, e *ring.Entry) {
	if w.count["proposals"] >= 500 {
		return
	}
	w.count["proposals"]++
	n.value = ring.AppendEntry(nil, e)
	n.entries[string(n.value)] = true
	incarnation := n.actor
	if !w.in(uniqueBallots) {
		incarnation = 0
	}
	v := w.view(n)
	n.proposer = ring.NewProposer(e.Version, w.voters(v), idOf(n.id), incarnation, n.rounds, w.spoken(n.value))
	n.tries = 0
	w.trace("n%d proposes %v for v%d", n.id, e.Kind, e.Version)
	w.canvass(n)
}

// canvass sends what the proposer wants of the voters now.
func (w *world) canvass(n *node) {
	p := n.proposer
	n.rounds = max(n.rounds, p.HighestRound())
	kind := askPromise
	value, _ := p.Value()
	switch p.Phase() {
	case ring.Preparing:
	case ring.Accepting:
		kind = askVote
	default:
		return
	}
	for _, id := range w.voters(w.views[p.Slot()-1]) {
		w.send(&message{kind: kind, from: n.id, to: indexOf(id), slot: p.Slot(), ballot: p.Ballot(), value: value})
	}
}

// advance hands the proposer what its node has heard.
func (w *world) advance(n *node) {
	if n.proposer == nil {
		return
	}
	if n.known >= int(n.proposer.Slot()) {
		n.proposer = nil
		return
	}
	moved := false
	for i := range w.nodes {
		moved = n.proposer.OnRegister(idOf(i), n.heard[idOf(i)]) || moved
	}
	n.rounds = max(n.rounds, n.proposer.HighestRound())
	if value, _ := n.proposer.Value(); moved && n.proposer.Phase() == ring.Accepting {
		if _, ok := w.resolve(n, value); ok || w.in(entryBytes) {
			w.canvass(n)
		}
	}
}

// onBallot is a voter that is asked.
func (w *world) onBallot(n *node, m *message) {
	if ring.Version(n.durable) < m.slot-1 {
		w.learn(n, m.knows)
		w.persist(n)
	}
	if ring.Version(n.durable) == m.slot-1 {
		voter := false
		for _, id := range w.voters(w.views[n.durable]) {
			voter = voter || id == idOf(n.id)
		}
		if !voter {
			return
		}
	}
	var r ring.Register
	var err error
	if m.kind == askPromise {
		r, err = ring.Prepare(n.vote, ring.Version(n.durable), m.slot, m.ballot)
	} else {
		r, err = ring.Accept(n.vote, ring.Version(n.durable), m.slot, m.ballot, m.value)
	}
	if err == nil {
		if r.Compare(n.vote) < 0 {
			w.fail("a register went back", "n%d", n.id)
		}
		n.vote = r
		if w.in(durableVotes) || w.n(3) == 0 {
			n.voted = r
		}
	}
	w.send(&message{kind: vote, from: n.id, to: m.from, register: n.vote})
}

// onVote hears of a register by an answer.
func (w *world) onVote(n *node, m *message) {
	w.hear(n, m.from, m.register)
	w.learn(n, m.knows)
	w.tally(n)
	w.advance(n)
}

// reported is what n has heard that others say.
func (n *node) reported(id ring.NodeID) ring.Report { return n.reports[indexOf(id)] }

// drive has n do what it may to take the ring on.
func (w *world) drive(n *node) {
	w.publish(n)
	if p := n.proposer; p != nil && int(p.Slot()) > n.known {
		if n.tries++; n.tries > 3 && w.n(3) == 0 {
			p.Retry()
			n.tries = 0
		}
		w.advance(n)
		if n.proposer != nil {
			w.canvass(n)
		}
		return
	}
	n.proposer = nil
	v := w.view(n)
	if v.retired.has(n.id) || !v.members.has(n.id) {
		return
	}
	s := v.state
	next := s.Version() + 1
	if i := w.retirable(n, v); i >= 0 && w.n(2) == 0 {
		e := w.entry(ring.KindRetire, next, s)
		e.Retire = &ring.Retire{Node: idOf(i)}
		w.propose(n, e)
		return
	}
	if w.n(5) == 0 && w.driveTenants(n, s) {
		return
	}
	switch c := s.Change(); {
	case c == nil:
		if w.healing {
			if p, removed := w.mendingPlan(v); p != nil {
				w.propose(n, w.proposal(p, removed, next, s))
			}
		} else if len(w.views) < w.prof.maxLog && w.percent(w.prof.change) {
			if p, removed, factors := w.newPlan(v); p != nil {
				w.propose(n, w.proposal(p, removed, next, s, factors...))
			}
		}
	case c.Stage == ring.Proposed:
		if w.mayCommit(n, v) {
			w.propose(n, w.entry(ring.KindCommit, next, s))
		} else if w.healing && w.n(6) == 0 || !w.healing && w.n(1000) < w.prof.abort {
			w.propose(n, w.entry(ring.KindAbort, next, s))
		}
	default:
		if ok, _ := s.MayFinalize(n.reported); ok || !w.in(finalizeGuard) {
			w.propose(n, w.entry(ring.KindFinalize, next, s))
		}
	}
}

// driveTenants has n make or delete a tenant.
func (w *world) driveTenants(n *node, s *ring.State) bool {
	e := w.newTenant(s)
	if !w.healing && w.deletesTenants && e == nil && w.n(40) == 0 && s.LastTenant() < tenants {
		if all := s.Tenants(); len(all) > 1 {
			t := all[w.n(len(all))].Number
			if t != ring.DefaultTenant {
				e = w.deleteTenant(t, s.Version()+1)
			}
		}
	}
	if e != nil {
		w.propose(n, e)
	}
	return e != nil
}

// mayCommit is the guard of the log, or what is left of it without a rule.
func (w *world) mayCommit(n *node, v *view) bool {
	ok, _ := v.state.MayCommit(n.reported)
	if ok || w.in(commitGuard) && w.in(newVoters) && w.in(shrinkSync) && w.in(gainCopies) {
		return ok
	}
	c := v.state.Change()
	gainers, first := mask(0), false
	for u := range v.at {
		gainers |= v.at[u].sync
	}
	if !w.in(shrinkSync) {
		gainers = 0
		for u := range v.at {
			gainers |= v.at[u].w2 &^ v.at[u].w1
		}
	}
	for _, i := range gainers.list() {
		synced := n.reports[i].Synced == c.ProposedAt
		first = first || synced
		if !synced && w.in(commitGuard) {
			return false
		}
	}
	if !w.in(commitGuard) {
		return first || gainers == 0
	}
	knowing := 0
	for _, id := range c.Next.Voters() {
		if n.reported(id).Acked >= c.ProposedAt {
			knowing++
		}
	}
	return !w.in(newVoters) || knowing >= ring.Majority(len(c.Next.Voters()))
}

// retirable is a leaver that may be retired, or one that is lost, -1 if there is none.
func (w *world) retirable(n *node, v *view) int {
	for _, o := range v.state.Outsiders() {
		i := indexOf(o.ID)
		if o.Leaving && (v.state.MayRetire(o.ID, n.reported) || !w.in(retireGuard)) || w.nodes[i].lost {
			return i
		}
	}
	return -1
}
