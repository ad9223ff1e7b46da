package ringmodel

import "github.com/pairdb/pairdb/coord/causal"

// collectScripts are about deletes that are collected, and what arrives afterwards.
func collectScripts() []script {
	// gone makes a write, has it deleted and collected, and returns its state.
	gone := func(w *world) causal.Object {
		first := w.put(writing, 0, 0, nil, false, 1, 2)
		w.put(writing, 0, 0, first, true, 1, 2)
		w.collect(0, 0, 0, 1, 2)
		return first.object
	}
	return []script{
		{"a hint with what was deleted reaches an owner that has collected the delete", strip, func(w *world) {
			old := gone(w)
			w.straggler(handHint, 1, 0, old)
			w.read(0, 1, 2)
		}},
		{"rows of a round before the last reach two owners", stripRows, func(w *world) {
			old := gone(w)
			w.straggler(mend, 1, 0, old)
			w.straggler(mend, 2, 0, old)
			w.read(0, 1, 2)
		}},
		{"two gainers are given what was deleted after they have fetched what there is", inherit, func(w *world) {
			old := gone(w)
			w.chooseChange(scriptPlan(3, 4, 2), 0, true, everybody...)
			w.sync(3, 4)
			w.straggler(handHint, 3, 0, old)
			w.straggler(handHint, 4, 0, old)
			w.finish()
			w.read(0, 3, 4)
		}},
		{"a gainer is given what was deleted before it has fetched, and is read", gainerSilent, func(w *world) {
			w.shortcuts = false
			old := gone(w)
			w.chooseChange(scriptPlan(3, 1, 2), 0, true, everybody...)
			w.hearConfirmed(3, 0, 0, 1, 2)
			w.straggler(handHint, 3, 0, old)
			w.readAnswered(0, 1, 0, 3)
		}},
		{"a write beside a confirmed one reaches a gainer that has not fetched yet", gainerWhole, func(w *world) {
			w.put(writing, 0, 0, nil, false, 1, 2)
			w.collect(0, 0, 0, 1, 2)
			w.chooseChange(scriptPlan(3, 1, 2), 0, true, everybody...)
			w.hearConfirmed(3, 0, 0, 1, 2)
			w.put(writing, 0, 1, nil, false, 0, 2, 3)
			w.sync(3)
			w.finish()
			w.read(0, 1, 3)
		}},
		{"a round while owners move confirms a delete that the gainer has missed", roundsRest, func(w *world) {
			first := w.put(writing, 0, 0, nil, false, 1, 2)
			w.chooseChange(scriptPlan(3, 1, 2), 0, true, everybody...)
			w.sync(3)
			w.put(writing, 0, 0, first, true, 1, 2)
			w.collect(0, 0, 0, 1, 2)
			w.finish()
			w.readAnswered(0, 1, 3)
		}},
		{"a round confirms what only a loser has that was away", cleanGate, func(w *world) {
			w.put(writingOne, 0, 0, nil, false)
			w.put(writing, 2, 0, nil, false, 1, 2)
			w.chooseChange(scriptPlan(3, 1, 2), 0, true, 1, 2, 3, 4, 5, 6)
			w.inform(true, 1, 2, 3, 4, 5, 6)
			for range 60 {
				w.fetch(w.nodes[3])
				w.flow(1, 2, 3)
			}
			w.finish()
			w.collect(0, 1, 1, 2, 3)
			w.heal()
		}},
		{"a read has a value before a round brings the delete, and nothing from an owner that hides it", refuseFound, func(w *world) {
			op := w.halfRead()
			w.listen(0, everybody...)
			w.beginRoundAt(0, 0)
			w.flow(0, 1, 2)
			w.endRead(op, 0)
		}},
		{"and is to be held by a third, which does not know that all owners have had the delete", refuseFound, func(w *world) {
			op := w.halfRead()
			w.listen(0, everybody...)
			w.beginRoundAt(0, 0)
			w.flowBut(func(m *message) bool { return m.kind == adopt && m.to == 1 }, 0, 1, 2)
			w.endRead(op, 1)
		}},
		{"a write that its minter took to the grave is sent once more, by its coordinator", refuseStripped, func(w *world) {
			n := w.nodes[0]
			lost := &operation{id: 99, u: 0, at: 6, actor: w.nodes[6].actor, kind: writing, version: n.known, sets: w.view(n).at[0], attempt: 1}
			w.ops = append(w.ops, lost)
			w.deliver(&message{kind: askMint, from: 6, to: 0, u: 0, pv: lost.sets.pv, op: lost, attempt: 1})
			w.flow(0, 6) // its other owners hear nothing
			lost.acks = 0
			w.put(writing, 2, 0, nil, false, 1, 2)
			w.crash(n)
			n.lost = true
			w.chooseChange(planWithout0(), bit(0), true, everybody[1:]...)
			w.sync(3)
			w.finish()
			w.clean(4, 5, 6)
			w.collect(0, 1, 1, 2, 3)
			w.run(w.nodes[6], lost)
			w.flow(1, 2, 3, 6)
			w.read(0, 1, 2)
		}},
	}
}

// readAnswered is read, and a violation if there is no answer: what some owner shows others
// refuse.
func (w *world) readAnswered(u, at int, who ...int) {
	before := w.count["reads"]
	if w.read(u, at, who...); w.count["reads"] == before {
		w.fail("a read is not answered", "others refuse what an owner showed")
	}
}

// halfRead deletes a value, which node 2 does not hear of, and has a read begin that hears
// of node 2.
func (w *world) halfRead() *operation {
	first := w.put(writing, 0, 0, nil, false, 1, 2)
	w.put(writing, 0, 0, first, true, 1)
	w.step++
	op := w.begin(w.nodes[6], 0, reading)
	w.deliverOnly(askRead, 2)
	w.deliverOnly(shown, 6)
	return op
}

// endRead has the read hear of node 0, too, and what it found be written back to one node.
func (w *world) endRead(op *operation, to int) {
	w.run(w.nodes[6], op)
	w.deliverOnly(askRead, 0)
	w.deliverOnly(shown, 6)
	w.deliverOnly(write, to)
	w.deliverOnly(written, 6)
	w.giveUp(op)
}
