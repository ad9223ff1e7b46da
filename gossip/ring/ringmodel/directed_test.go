package ringmodel

import (
	"slices"
	"testing"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// script is a schedule made by hand. It passes with all rules in force.
type script struct {
	name string
	// off is what makes it fail if it is not in force, ruleCount if that is no rule
	// but what package ring says.
	off rule
	run func(w *world)
}

// everybody are the nodes of a script. Of nodes 0 to 6, 0, 1 and 2 own all units in
// the beginning, and 6 votes alone.
var everybody = []int{0, 1, 2, 3, 4, 5, 6}

func newScript(off ruleSet) *world {
	p := profiles()[0]
	p.loss, p.slow, p.hints, p.deletes, p.minNodes, p.maxNodes, p.factors = 0, 0, 0, 0, 7, 7, false
	w := newWorld(newChance(1), off, &p)
	w.lateTenant = false
	w.foundCluster(scriptPlan(0, 1, 2))
	w.step, w.shortcuts = 100, true
	return w
}

// scriptPlan is a layout of all nodes whose rows begin like that.
func scriptPlan(row ...int) plan {
	p := plan{nodes: 1<<7 - 1, voters: bit(6)}
	in := mask(0)
	for _, i := range row {
		in |= bit(i)
	}
	row = append(row, (p.nodes &^ in).list()...)
	for i := range p.rows {
		p.rows[i] = row[:min(ring.MaxRF, len(row))]
	}
	return p
}

// planWithout0 has 3 in the place of 0, which is no member any more.
func planWithout0() plan {
	p := scriptPlan(3, 1, 2)
	p.nodes &^= bit(0)
	for i := range p.rows {
		p.rows[i] = []int{3, 1, 2, 4, 5, 6}
	}
	return p
}

// choose puts an entry into the log; who are told of it, on disk if durable.
func (w *world) choose(e *ring.Entry, durable bool, who ...int) {
	w.appendEntry(ring.AppendEntry(nil, e), -1)
	w.inform(durable, who...)
}

func (w *world) inform(durable bool, who ...int) {
	for _, i := range who {
		w.learn(w.nodes[i], len(w.views)-1)
		if durable {
			w.persist(w.nodes[i])
		}
	}
}

func (w *world) chooseChange(p plan, removed mask, durable bool, who ...int) {
	s := w.last().state
	w.choose(w.proposal(&p, removed, s.Version()+1, s), durable, who...)
}

func (w *world) chooseStep(kind ring.Kind, who ...int) {
	s := w.last().state
	w.choose(w.entry(kind, s.Version()+1, s), true, who...)
}

// finish has a change committed and finalised, known to all.
func (w *world) finish() {
	w.chooseStep(ring.KindCommit, everybody...)
	w.chooseStep(ring.KindFinalize, everybody...)
}

// flow has messages arrive that are from and to these nodes, until there are none.
// All others are lost.
func (w *world) flow(who ...int) {
	w.flowBut(func(*message) bool { return false }, who...)
}

// flowBut is flow that loses some messages.
func (w *world) flowBut(lost func(*message) bool, who ...int) {
	in := mask(0)
	for _, i := range who {
		in |= bit(i)
	}
	for len(w.msgs) > 0 {
		m := w.msgs[0]
		if w.msgs = w.msgs[1:]; in.has(m.to) && in.has(m.from) && w.nodes[m.to].up && !lost(m) {
			w.deliver(m)
		}
	}
}

// deliverOnly has the messages of a kind arrive that are to these nodes. All others on
// the way are lost.
func (w *world) deliverOnly(kind messageKind, to ...int) {
	msgs := w.msgs
	w.msgs = nil
	for _, m := range msgs {
		if m.kind == kind && slices.Contains(to, m.to) {
			w.deliver(m)
		}
	}
}

// put has node at mint a write of u, which reaches who. It replaces what over saw.
func (w *world) put(kind opKind, u, at int, over *operation, deletes bool, who ...int) *operation {
	w.step++
	n := w.nodes[at]
	w.opCount++
	op := &operation{id: w.opCount, u: u, at: at, actor: n.actor, kind: kind, deletes: deletes, version: n.known, sets: w.view(n).at[u], attempt: 1}
	if over != nil {
		op.token, op.tokenTruth = over.object.Context, w.truth(u, &over.object)
	}
	w.ops = append(w.ops, op)
	w.deliver(&message{kind: askMint, from: at, to: at, u: u, pv: op.sets.pv, op: op, attempt: 1})
	w.flow(append(who, at)...)
	return op
}

// read has node at read u of the nodes who.
func (w *world) read(u, at int, who ...int) *operation {
	w.step++
	op := w.begin(w.nodes[at], u, reading)
	for try := 0; try < 5 && !op.done; try++ {
		w.flow(append(who, at)...)
		if !op.done {
			op.version = -1
			w.run(w.nodes[at], op)
		}
	}
	w.flow(append(who, at)...)
	w.giveUp(op)
	return op
}

// sync has nodes fetch what they gain, as far as they may.
func (w *world) sync(who ...int) {
	for range 60 {
		for _, i := range who {
			w.fetch(w.nodes[i])
		}
		w.flow(everybody...)
	}
}

// hearConfirmed has a gainer learn what was confirmed of u, and no more.
func (w *world) hearConfirmed(gainer, u int, from ...int) {
	v := w.last()
	w.nodes[gainer].gains[u].change = v.state.Version()
	for _, i := range from {
		w.send(&message{kind: askKnown, from: gainer, to: i, u: u, pv: v.at[u].pv, at: v.state.Version()})
	}
	w.flow(append(from, gainer)...)
}

// clean has nodes find that they hold nothing that they do not own.
func (w *world) clean(who ...int) {
	for _, i := range who {
		w.cleanUp(w.nodes[i])
	}
}

// listen has a node hear what others report.
func (w *world) listen(at int, from ...int) {
	for _, i := range from {
		w.publish(w.nodes[i])
		w.nodes[at].reports[i] = w.nodes[i].report
	}
}

// collect has a node drive a round of u, and the owners drop what it releases.
func (w *world) collect(u, driver int, owners ...int) {
	w.listen(driver, everybody...)
	w.beginRoundAt(driver, u)
	w.flow(owners...)
	for _, i := range owners {
		w.sweep(w.nodes[i])
	}
}

// beginRoundAt has a node begin a round of the span of u.
func (w *world) beginRoundAt(driver, u int) {
	n := w.nodes[driver]
	w.beginRoundOf(n, partitionOf(u), w.serving(n).class[tenantOf(u)])
}

// tryCommit commits if the guard that node 6 looks at lets it.
func (w *world) tryCommit(who ...int) bool {
	w.listen(6, everybody...)
	n := w.nodes[6]
	if !w.mayCommit(n, w.view(n)) {
		return false
	}
	w.chooseStep(ring.KindCommit, who...)
	return true
}

func (w *world) tryFinalize(who ...int) {
	w.listen(6, everybody...)
	if ok, _ := w.view(w.nodes[6]).state.MayFinalize(w.nodes[6].reported); ok || !w.in(finalizeGuard) {
		w.chooseStep(ring.KindFinalize, who...)
	}
}

// straggler is a message with an old state that arrives now.
func (w *world) straggler(kind messageKind, to, u int, o causal.Object) {
	n := w.nodes[to]
	m := &message{kind: kind, from: 6, to: to, u: u, pv: w.view(n).at[u].pv, object: o, hint: &hint{target: to, u: u}, knows: n.known}
	m.objects[u], m.members, m.class = o, bit(u), w.serving(n).class[tenantOf(u)]
	w.deliver(m)
	w.flow()
}

// TestScripts: each schedule made by hand passes, and fails without its rule.
func TestScripts(t *testing.T) {
	for _, s := range scripts() {
		t.Run(s.name, func(t *testing.T) {
			sets := []ruleSet{0, without(s.off)}
			if s.off == ruleCount {
				sets = sets[:1]
			}
			for _, off := range sets {
				w := newScript(off)
				var lines []string
				w.log = func(line string) { lines = append(lines, line) }
				s.run(w)
				if got, want := len(w.found) > 0, off != 0; got != want {
					t.Errorf("with all rules but%v it finds %q", off, w.found)
					for _, line := range lines {
						t.Log(line)
					}
				}
			}
		})
	}
}
