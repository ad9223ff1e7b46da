package ringmodel

import (
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

type opKind byte

const (
	reading    opKind = iota
	writing           // at QUORUM
	writingOne        // at ONE
)

func (k opKind) String() string { return [...]string{"read", "write", "write at ONE"}[k] }

// operation is what a client wants of a coordinator.
type operation struct {
	id, u, at  int
	actor      uint64 // the start of the coordinator that runs it
	kind       opKind
	deletes    bool
	token      causal.Context
	tokenTruth uint64

	done      bool
	sets      owners // as of the version it runs under
	version   int
	attempt   int // answers to others do not count
	bounces   int
	object    causal.Object
	dot       causal.Dot
	write     int // 0: not minted; else what it wrote, plus one
	acks      mask
	answers   [maxIDs]causal.Object
	before    mask // whose copy did not change under this version of the partition
	repairs   bool // a read that writes back
	others    causal.Object
	restamped bool

	owesCovered, owesDead uint64 // what a read must know, and must not show
	owesLast              int
}

func (w *world) startOperation(c *node) {
	there := mask(0)
	for u := range units {
		if w.view(c).at[u].there() {
			there |= bit(u)
		}
	}
	u := w.pick(there)
	if w.percent(w.prof.blind) {
		u = blindUnit
	}
	if !there.has(u) {
		return // there is no such tenant, yet or any more
	}
	kind := reading
	switch w.n(10) {
	case 0, 1, 2, 3:
		kind = writing
	case 4, 5, 6:
		if w.n(3) < w.prof.ones {
			kind = writing
			if kindOf(u) == many && w.prof.one {
				kind = writingOne
			}
		}
	}
	w.begin(c, u, kind)
}

// begin starts an operation; nil if the key takes no more.
func (w *world) begin(c *node, u int, kind opKind) *operation {
	k := &w.keys[u]
	op := &operation{u: u, at: c.id, actor: c.actor, kind: kind, version: -1}
	if kind == reading {
		op.owesCovered, op.owesDead, op.owesLast = k.covered, k.dead, k.lastAcked
	} else {
		if k.made >= maxWrites || kindOf(u) != many && k.busy != nil {
			return nil
		}
		if kindOf(u) != many {
			k.busy = op
		}
		if !lww(u) {
			client := 0
			if kindOf(u) == many {
				client = w.n(2)
			}
			if kindOf(u) == single || w.n(8) > 0 {
				op.token, op.tokenTruth = k.tokens[client], k.tokenTruth[client]
			}
			op.deletes = w.percent(w.prof.deletes)
		}
	}
	w.opCount++
	op.id = w.opCount
	w.ops = append(w.ops, op)
	w.trace("op%d %v u%d at n%d, which is at v%d", op.id, kind, u, c.id, c.known)
	w.run(c, op)
	return op
}

// run begins an operation, or goes on with it at another version.
func (w *world) run(c *node, op *operation) {
	v := w.view(c)
	o := v.at[op.u]
	if o.deleted {
		w.giveUp(op)
		return
	}
	if op.version < 0 || op.sets.pv != o.pv {
		if w.in(freshTally) {
			op.acks, op.before, op.answers = 0, 0, [maxIDs]causal.Object{}
		}
		op.attempt++
	}
	op.sets, op.version, op.repairs = o, c.known, false
	if op.kind == reading {
		for _, i := range w.asked(op).list() {
			w.send(&message{kind: askRead, from: c.id, to: i, u: op.u, pv: o.pv, op: op, attempt: op.attempt})
		}
		return
	}
	if op.write > 0 {
		w.replicate(c, op)
		return
	}
	if i := w.pick(o.r1); i >= 0 {
		w.send(&message{kind: askMint, from: c.id, to: i, u: op.u, pv: o.pv, op: op, attempt: op.attempt, object: op.others})
	}
}

// asked are all whom a read has to do with.
func (w *world) asked(op *operation) mask {
	if w.in(jointReads) {
		return op.sets.r1 | op.sets.r2
	}
	return op.sets.r1
}

// confirming is the second set that has to hold what a read returns.
func (w *world) confirming(op *operation) mask {
	if w.in(jointReads) {
		return op.sets.r2
	}
	return 0
}

// second is the second set that has to be written.
func (w *world) second(op *operation) mask {
	if !w.in(writeBoth) && op.sets.stage == ring.Proposed {
		return 0
	}
	return op.sets.w2
}

func (w *world) replicate(c *node, op *operation) {
	for _, i := range ((op.sets.w1 | w.second(op)) &^ op.acks).list() {
		w.send(&message{kind: write, from: c.id, to: i, u: op.u, pv: op.sets.pv, op: op, attempt: op.attempt, object: op.object})
	}
}

// onAnswer hands a coordinator what came for one of its operations.
func (w *world) onAnswer(n *node, m *message) {
	op := m.op
	if m.kind == stale {
		w.learn(n, m.knows)
	}
	if op == nil || op.done || op.at != n.id || op.actor != n.actor {
		return
	}
	if m.attempt != op.attempt && (m.kind == stale || w.in(freshTally)) {
		return
	}
	switch m.kind {
	case stale:
		w.count["bounces"]++
		if op.bounces++; op.bounces < 12 && (w.view(n).at[op.u].pv != op.sets.pv || w.view(n).at[op.u].deleted) {
			w.run(n, op)
		}
		return
	case minted:
		if op.write > 0 || m.attempt != op.attempt {
			return
		}
		op.object, op.write, op.dot, op.acks = m.object, m.written+1, m.dot, bit(m.from)
		w.replicate(n, op)
	case written:
		op.acks |= bit(m.from)
		if op.kind != reading && lww(op.u) {
			op.others = causal.Join(&op.others, &m.object)
		}
	case shown:
		op.answers[m.from] = m.object
		if m.before {
			op.before |= bit(m.from)
		}
		op.acks |= bit(m.from)
	}
	if op.kind == reading {
		w.onReadAnswer(n, op)
	} else if op.write > 0 {
		w.onWriteAnswer(n, op)
	}
}

func (w *world) onWriteAnswer(c *node, op *operation) {
	acks := op.acks
	if !w.in(hintsDoNotCount) {
		for _, i := range op.sets.all().list() {
			if !w.alive(i) {
				acks |= bit(i)
			}
		}
	}
	w2 := w.second(op)
	if op.kind == writingOne {
		if acks&op.sets.w1 != 0 && (w2 == 0 || acks&w2 != 0) {
			w.acknowledge(c, op)
		}
		return
	}
	if !quorate(acks, op.sets.w1) || !quorate(acks, w2) {
		return
	}
	if lww(op.u) && w.in(restamp) && !op.restamped && beaten(op) {
		// Somebody holds what this write has not seen and would lose to: the same
		// value is minted again above that.
		op.restamped, op.acks, op.write = true, 0, 0
		op.attempt++
		if i := w.pick(op.sets.r1); i >= 0 {
			w.send(&message{kind: askMint, from: c.id, to: i, u: op.u, pv: op.sets.pv, op: op, attempt: op.attempt, object: op.others})
		}
		return
	}
	w.acknowledge(c, op)
}

func beaten(op *operation) bool {
	own := op.object.Winner()
	for i := range op.others.Siblings {
		if s := &op.others.Siblings[i]; !op.object.Context.Covers(s.Dot) && (own == nil || s.HLC >= own.HLC) {
			return true
		}
	}
	return false
}

func (w *world) acknowledge(c *node, op *operation) {
	w.onAcknowledged(op)
	w.trace("op%d: %v w%d of u%d acknowledged by %v, pv %d", op.id, op.kind, op.write-1, op.u, op.acks.list(), op.sets.pv)
	w.end(c, op)
	w.count["acknowledged"]++
}

func (w *world) end(c *node, op *operation) {
	op.done = true
	if w.keys[op.u].busy == op {
		w.keys[op.u].busy = nil
	}
	if op.kind == reading || op.write == 0 || c == nil {
		return
	}
	for _, i := range (op.sets.all() &^ op.acks).list() {
		if w.percent(w.prof.hints) && len(c.hints) < 6 {
			w.count["hints"]++
			c.hints = append(c.hints, &hint{target: i, u: op.u, object: op.object})
		}
	}
}

// giveUp ends an operation without an answer.
func (w *world) giveUp(op *operation) {
	if !op.done {
		w.trace("op%d gives up", op.id)
		w.end(w.nodes[op.at], op)
	}
}

func (w *world) onReadAnswer(c *node, op *operation) {
	r1, r2 := op.sets.r1, w.confirming(op)
	if op.repairs {
		if quorate(op.acks, r1) && quorate(op.acks, r2) {
			w.answerRead(op)
		}
		return
	}
	if w.shortcuts && r2 != 0 && w.needsNoConfirming(c, op) {
		r2 = 0
	}
	if !quorate(op.acks, r1) || !quorate(op.acks, r2) {
		return
	}
	read := op.acks
	if (w.in(gainerSilent) || r2 == 0) && op.sets.stage == ring.Proposed {
		read &= r1
	}
	var o causal.Object
	found := !lww(op.u)
	for _, i := range read.list() {
		o = causal.Join(&o, &op.answers[i])
		found = found || op.answers[i].IsZero()
	}
	op.object = o
	equal := mask(0)
	for _, i := range op.acks.list() {
		if o.Equal(&op.answers[i]) {
			equal |= bit(i)
		}
	}
	if !w.in(readRepair) || quorate(equal, r1) && quorate(equal, r2) {
		w.answerRead(op)
		return
	}
	op.repairs = true
	op.attempt++
	op.acks = equal
	for _, i := range ((r1 | r2) &^ equal).list() {
		w.send(&message{kind: write, from: c.id, to: i, u: op.u, pv: op.sets.pv, op: op, attempt: op.attempt, object: o, found: found})
	}
}

// needsNoConfirming says whether no read at the other set can miss what op returns: the
// old owners agree on what they had before the change, or so many of them know that
// they are read no more.
func (w *world) needsNoConfirming(c *node, op *operation) bool {
	o := &op.sets
	if o.stage == ring.Committed {
		knowing := 0
		for _, i := range o.w1.list() {
			if c.reports[i].Acked >= w.views[op.version].state.Change().CommittedAt {
				knowing++
			}
		}
		return knowing >= ring.Meeting(o.w1.n())
	}
	first, agree := -1, mask(0)
	for _, i := range (op.acks & o.r1 & op.before).list() {
		if first < 0 {
			first = i
		}
		if op.answers[i].Equal(&op.answers[first]) {
			agree |= bit(i)
		}
	}
	return op.acks&o.r1 == agree && quorate(agree, o.r1)
}

// replayHints sends one hint of n, or forgets it if its target is no owner any more:
// who wrote it down got it from an owner.
func (w *world) replayHints(n *node) {
	if len(n.hints) == 0 {
		return
	}
	h := n.hints[w.n(len(n.hints))]
	o := &w.view(n).at[h.u]
	if w.in(hintsFenced) && !o.all().has(h.target) || w.nodes[h.target].lost {
		w.dropHint(n, h)
		return
	}
	w.send(&message{kind: handHint, from: n.id, to: h.target, u: h.u, pv: o.pv, object: h.object, hint: h})
}

func (w *world) dropHint(n *node, h *hint) {
	for i, x := range n.hints {
		if x == h {
			n.hints = append(n.hints[:i:i], n.hints[i+1:]...)
			return
		}
	}
}
