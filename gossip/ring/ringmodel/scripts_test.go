package ringmodel

import (
	"slices"

	"github.com/pairdb/pairdb/gossip/ring"
)

func scripts() []script {
	return slices.Concat(moveScripts(), otherScripts(), collectScripts(), factorScripts(), classScripts(), deleteScripts())
}

// moveScripts are about what moves when owners change.
func moveScripts() []script {
	move := scriptPlan(3, 4, 5)
	return []script{
		{"two old owners never hear of COMMIT and are read by one like them", finalizeGuard, func(w *world) {
			w.chooseChange(move, 0, true, everybody...)
			w.sync(3, 4, 5)
			w.chooseStep(ring.KindCommit, 3, 4, 5, 6)
			w.tryFinalize(3, 4, 5, 6)
			w.put(writing, 0, 3, nil, false, 4, 5)
			w.read(0, 0, 1, 2)
		}},
		{"old owners know of COMMIT and not of FINALIZE, and one like them reads", ruleCount, func(w *world) {
			w.chooseChange(move, 0, true, everybody...)
			w.sync(3, 4, 5)
			w.chooseStep(ring.KindCommit, everybody...)
			w.listen(0, everybody...)
			w.tryFinalize(3, 4, 5, 6)
			w.put(writing, 0, 3, nil, false, 4, 5)
			w.read(0, 0, 1, 2)
		}},
		{"old owners acknowledge COMMIT, lose power, and are at the version before", durableAck, func(w *world) {
			w.chooseChange(move, 0, true, 3, 4, 5, 6)
			w.inform(false, 0, 1, 2)
			w.sync(3, 4, 5)
			w.chooseStep(ring.KindCommit, 3, 4, 5, 6)
			w.inform(false, 0, 1, 2)
			w.listen(6, everybody...)
			for i := range 3 {
				w.crash(w.nodes[i])
				w.restart(w.nodes[i])
			}
			if ok, _ := w.view(w.nodes[6]).state.MayFinalize(w.nodes[6].reported); ok {
				w.chooseStep(ring.KindFinalize, 3, 4, 5, 6)
			}
			w.put(writing, 0, 0, nil, false, 1, 2)
			w.read(0, 6, 3, 4, 5)
		}},
		{"gainers fetch from owners that know nothing, which then take one more write", fencedSources, func(w *world) {
			w.chooseChange(move, 0, true, 3, 4, 5, 6)
			w.sync(3, 4, 5)
			w.put(writing, 0, 0, nil, false, 1, 2)
			w.finish()
			w.read(0, 6, 3, 4, 5)
		}},
		{"COMMIT when one of three gainers is synced", commitGuard, func(w *world) {
			w.put(writing, 0, 0, nil, false, 1, 2)
			w.chooseChange(move, 0, true, everybody...)
			w.sync(3)
			if w.tryCommit(everybody...) {
				w.chooseStep(ring.KindFinalize, everybody...)
			}
			w.read(0, 4, 5)
		}},
		{"two of three voters to be are lost before they hear of it", newVoters, func(w *world) {
			next := scriptPlan(5, 1, 2)
			next.voters = bit(3) | bit(4) | bit(5)
			for _, i := range []int{3, 4} {
				w.crash(w.nodes[i])
				w.nodes[i].lost = true
			}
			w.chooseChange(next, 0, true, 0, 1, 2, 5, 6)
			w.sync(5)
			if w.tryCommit(0, 1, 2, 5, 6) {
				w.chooseStep(ring.KindFinalize, 0, 1, 2, 5, 6)
			} else {
				w.chooseStep(ring.KindAbort, 0, 1, 2, 5, 6)
			}
			w.heal()
		}},
		{"five owners become three, and those that stay missed a write", shrinkSync, func(w *world) {
			w.rf = 5
			before := plan{nodes: 1<<5 - 1, voters: bit(0), rows: [partitions][]int{{0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}}}
			w.foundCluster(before)
			w.put(writing, 2, 2, nil, false, 3, 4)
			after := plan{nodes: 1<<3 - 1, voters: bit(0), rows: [partitions][]int{{0, 1, 2}, {0, 1, 2}}}
			w.chooseChange(after, 0, true, everybody...)
			w.sync(0, 1, 2)
			if w.tryCommit(everybody...) {
				w.chooseStep(ring.KindFinalize, everybody...)
			}
			w.read(2, 0, 1)
		}},
		{"half a write is read at the old owners, and then at the new ones", jointReads, func(w *world) {
			w.chooseChange(move, 0, true, everybody...)
			w.sync(3, 4, 5)
			w.put(writing, 0, 0, nil, false, 1, 2) // it reaches old owners only
			w.read(0, 0, 1, 2)
			w.finish()
			w.read(0, 6, 3, 4, 5)
		}},
		{"a write reaches old owners only and is acknowledged", writeBoth, func(w *world) {
			w.chooseChange(move, 0, true, everybody...)
			w.sync(3, 4, 5)
			w.put(writing, 0, 0, nil, false, 1, 2)
			w.finish()
			w.read(0, 6, 3, 4, 5)
		}},
		{"who has the only copy of a write loses the range, gains it again, and that is aborted", abortPush, func(w *world) {
			w.put(writingOne, 0, 0, nil, false)
			w.chooseChange(scriptPlan(3, 1, 2), 0, true, everybody...)
			for range 60 {
				w.fetch(w.nodes[3])
				w.flow(1, 2, 3)
			}
			w.finish()
			w.chooseChange(scriptPlan(0, 1, 2), 0, true, everybody...)
			for u := range units {
				w.nodes[0].gains[u] = gain{change: w.last().state.Version()}
			}
			w.chooseStep(ring.KindAbort, everybody...)
			w.cleanUp(w.nodes[0])
			w.flow(everybody...)
			w.heal()
		}},
		{"a loser drops the only copy of a write", pushFirst, func(w *world) {
			w.put(writingOne, 0, 0, nil, false)
			w.chooseChange(scriptPlan(3, 1, 2), 0, true, everybody...)
			for range 60 {
				w.fetch(w.nodes[3])
				w.flow(1, 2, 3)
			}
			w.finish()
			w.heal()
		}},
		{"a leaver with the only copy of a write is retired", retireGuard, func(w *world) {
			w.put(writingOne, 0, 0, nil, false)
			w.chooseChange(planWithout0(), 0, true, everybody...)
			for range 60 {
				w.fetch(w.nodes[3])
				w.flow(1, 2, 3)
			}
			w.finish()
			w.listen(6, everybody...)
			if i := w.retirable(w.nodes[6], w.last()); i >= 0 {
				s := w.last().state
				e := w.entry(ring.KindRetire, s.Version()+1, s)
				e.Retire = &ring.Retire{Node: idOf(i)}
				w.choose(e, true, everybody...)
			}
			w.heal()
		}},
		{"a node counts its dots from 1 again when it gains a range that it had lost", seqSurvives, func(w *world) {
			w.put(writing, 0, 0, nil, false, 1, 2)
			w.chooseChange(scriptPlan(3, 1, 2), 0, true, everybody...)
			w.sync(3)
			w.finish()
			w.cleanUp(w.nodes[0])
			w.flow(everybody...)
			w.chooseChange(scriptPlan(0, 1, 2), 0, true, everybody...)
			w.sync(0)
			w.finish()
			w.put(writing, 0, 0, nil, false, 1, 2)
			w.read(0, 1, 2)
		}},
		{"a range is dropped that has been gained again since that was decided", recheckDrop, func(w *world) {
			w.put(writing, 0, 0, nil, false, 1, 2)
			w.chooseChange(scriptPlan(3, 1, 2), 0, true, everybody...)
			w.sync(3)
			w.finish()
			w.cleanUp(w.nodes[0])
			w.flow(everybody...)
			w.chooseChange(scriptPlan(0, 4, 5), 0, true, everybody...)
			w.sync(0, 4, 5)
			w.finish()
			w.put(writing, 0, 0, nil, false, 4)
			w.healing = true // the job runs now
			w.cleanUp(w.nodes[0])
			w.healing = false
			w.read(0, 5, 0)
		}},
	}
}

// otherScripts are about votes, and about clocks.
func otherScripts() []script {
	return []script{
		{"a proposer forgets which ballot it has used", uniqueBallots, func(w *world) {
			p := scriptPlan(0, 1, 2)
			p.voters = 1<<5 - 1
			w.foundCluster(p)
			n, s := w.nodes[6], w.last().state
			w.propose(n, w.proposal(&p, 0, s.Version()+1, s))
			w.deliverOnly(askPromise, 0, 1, 2)
			w.deliverOnly(vote, 6)
			w.deliverOnly(askVote, 0, 1, 2)
			w.msgs = nil // nobody tells it that this was chosen
			for _, i := range []int{0, 1, 2} {
				w.gossip(w.nodes[i], w.nodes[5], true)
			}
			w.crash(n)
			w.restart(n)
			w.propose(n, w.proposal(&p, 0, s.Version()+1, s))
			for range 3 {
				w.drive(n)
				w.flow(0, 1, 2, 6)
			}
			for _, i := range []int{0, 1, 2} {
				w.gossip(w.nodes[i], w.nodes[4], true)
			}
		}},
		{"a blind write at a node that has missed one with a clock ahead", restamp, func(w *world) {
			w.nodes[0].skew = 400
			w.put(writing, 3, 0, nil, false, 1)
			w.put(writing, 3, 2, nil, false, 1)
			w.read(3, 1, 2)
		}},
	}
}
