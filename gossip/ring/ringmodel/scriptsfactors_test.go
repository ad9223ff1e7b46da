package ringmodel

import "github.com/pairdb/pairdb/gossip/ring"

// second is the number of the second tenant, whose unit in the first partition is 2.
const second = ring.DefaultTenant + 1

// chooseFactor has a change proposed that gives a tenant another replication factor, and
// nothing else.
func (w *world) chooseFactor(t ring.TenantNumber, rf uint8, who ...int) {
	s := w.last().state
	p := planOf(s.Layout())
	w.choose(w.proposal(&p, 0, s.Version()+1, s, ring.Factor{Tenant: t, RF: rf}), true, who...)
}

// refactor changes a replication factor from beginning to end; gainers fetch what they gain.
func (w *world) refactor(t ring.TenantNumber, rf uint8, gainers ...int) {
	w.chooseFactor(t, rf, everybody...)
	w.sync(gainers...)
	if w.tryCommit(everybody...) {
		w.chooseStep(ring.KindFinalize, everybody...)
	}
}

// factorScripts are about who has what when a replication factor is changed.
func factorScripts() []script {
	return []script{
		{"a tenant gets two copies instead of five, and both have missed a write", shrinkSync, func(w *world) {
			w.refactor(second, 5, 3, 4)
			w.put(writing, 2, 2, nil, false, 3, 4)
			w.refactor(second, 2, 0, 1)
			w.read(2, 0, 1)
		}},
		{"a tenant gets one copy instead of three, which has missed a write", shrinkSync, func(w *world) {
			w.put(writing, 2, 1, nil, false, 2)
			w.refactor(second, 1, 0)
			w.read(2, 0)
		}},
		{"a tenant gets one copy instead of three, and those that lose it have the only copy of a write", pushFirst, func(w *world) {
			w.put(writingOne, 2, 1, nil, false)
			w.chooseFactor(second, 1, everybody...)
			for range 60 {
				w.fetch(w.nodes[0])
				w.flow(0, 2)
			}
			w.finish()
			w.heal()
		}},
		{"a tenant gets five copies instead of three, and nobody fetches the new ones", gainCopies, func(w *world) {
			w.put(writing, 2, 0, nil, false, 1)
			w.refactor(second, 5, 3, 4)
			w.read(2, 2, 3, 4)
		}},
		{"while a tenant gets five copies a write reaches the three old ones", writeBoth, func(w *world) {
			w.chooseFactor(second, 5, everybody...)
			w.sync(3, 4)
			w.put(writing, 2, 0, nil, false, 1)
			w.finish()
			w.read(2, 2, 3, 4)
		}},
		{"two of three owners never hear that a tenant has one copy, and are read by one like them", finalizeGuard, func(w *world) {
			w.chooseFactor(second, 1, everybody...)
			w.sync(0)
			w.chooseStep(ring.KindCommit, 0, 6)
			w.tryFinalize(0, 6)
			w.put(writing, 2, 0, nil, false)
			w.read(2, 1, 2)
		}},
		{"a replication factor goes up, and that is aborted, twice", ruleCount, func(w *world) {
			first := w.put(writing, 2, 0, nil, false, 1, 2)
			for range 2 {
				w.chooseFactor(second, 5, everybody...)
				w.sync(3, 4)
				first = w.put(writing, 2, 0, first, false, 1, 2, 3, 4)
				w.chooseStep(ring.KindAbort, everybody...)
				w.put(writing, 2, 0, first, true, 1, 2)
				w.clean(3)
				w.flow(everybody...)
				w.clean(5, 6)
			}
			w.heal()
		}},
	}
}

// classScripts are about what is known of a tenant that has left the others.
func classScripts() []script {
	return []script{
		{"a tenant leaves the others after a delete was collected, and what was deleted arrives", fallBack, func(w *world) {
			first := w.put(writing, 2, 0, nil, false, 1, 2)
			w.put(writing, 2, 0, first, true, 1, 2)
			w.collect(2, 0, 0, 1, 2)
			w.refactor(second, 5, 3, 4)
			w.straggler(handHint, 1, 2, first.object)
			w.read(2, 1, 2, 3)
		}},
		{"a tenant has left the others, and what is confirmed of them covers a write that an owner of it has missed", copyOnWrite, func(w *world) {
			w.refactor(second, 4, 3)
			w.put(writing, 2, 0, nil, false, 1, 2)
			w.clean(everybody...)
			w.collect(0, 0, 0, 1, 2)
			w.collect(2, 0, 0, 1, 2, 3)
			w.read(2, 1, 2, 3)
		}},
		{"who still owns the others drops a tenant, and gains it again", staysParted, func(w *world) {
			w.rf = 5
			w.foundCluster(scriptPlan(0, 1, 2))
			w.choose(w.tenantEntry(w.last().state.Version()+1, thirdTenant, 5), true, everybody...)
			w.put(writing, 2, 0, nil, false, 1, 2, 3, 4)
			w.refactor(second, 3, 0, 1, 2)
			w.put(writing, 2, 0, nil, false, 1)
			w.clean(5, 6)
			w.collect(4, 0, 0, 1, 2, 3, 4)
			w.clean(3, 4)
			w.flow(everybody...)
			w.refactor(second, 4, 3)
			for range 2 {
				w.clean(everybody...)
				w.flow(everybody...)
			}
			w.collect(2, 0, 0, 1, 2, 3)
			w.read(2, 2, 1, 3)
		}},
		{"an owner does not know that a tenant has left the others, and takes part in a round of theirs", classFenced, func(w *world) {
			w.foundCluster(plan{nodes: 1<<3 - 1, voters: bit(0), rows: [partitions][]int{{0, 1, 2}, {0, 1, 2}}})
			w.put(writing, 2, 0, nil, false, 1)
			w.chooseFactor(second, 5, 0, 1)
			w.chooseStep(ring.KindCommit, 0, 1)
			w.chooseStep(ring.KindFinalize, 0, 1)
			w.collect(0, 0, 0, 1, 2)
			w.inform(true, 2)
			w.collect(2, 0, 0, 1, 2)
			w.read(2, 1, 2)
		}},
		{"a tenant leaves the others when two owners adopt a delete, which the third then collects", adoptStands, func(w *world) {
			first := w.put(writing, 2, 0, nil, false, 1, 2)
			w.put(writing, 2, 0, first, true, 1, 2)
			w.chooseFactor(second, 5, 6)
			w.listen(2, everybody...)
			w.beginRoundAt(2, 2)
			w.flowBut(func(m *message) bool {
				overtaken := m.kind == adopt && m.to != 2
				if overtaken {
					w.inform(true, m.to)
					w.takePart(w.nodes[m.to], m)
				}
				return overtaken
			}, 0, 1, 2)
			w.sweep(w.nodes[2])
			w.inform(true, everybody...)
			w.sync(3, 4)
			w.readAnswered(2, 0, 2, 3, 4) // 1 is away
		}},
		{"all have left a class, and a tenant is made in it", ruleCount, func(w *world) {
			first := w.put(writing, 0, 0, nil, false, 1, 2)
			w.put(writing, 0, 0, first, true, 1, 2)
			w.collect(0, 0, 0, 1, 2)
			w.refactor(ring.DefaultTenant, 4, 3)
			w.refactor(second, 2, 0, 1)
			w.choose(w.tenantEntry(w.last().state.Version()+1, thirdTenant, 3), true, everybody...)
			w.put(writing, 4, 0, nil, false, 1)
			for range 2 {
				w.clean(everybody...)
				w.flow(everybody...)
			}
			w.collect(4, 0, 0, 1, 2)
			w.read(4, 2, 1)
			w.heal()
		}},
	}
}

// deleteScripts are about tenants that are deleted.
func deleteScripts() []script {
	remove := func(w *world, who ...int) {
		w.choose(w.deleteTenant(second, w.last().state.Version()+1), true, who...)
	}
	return []script{
		{"a write arrives when the tenant's data is dropped", forgetDeleted, func(w *world) {
			op := w.put(writing, 2, 0, nil, false, 1, 2)
			remove(w, everybody...)
			w.clean(everybody...)
			w.straggler(handHint, 1, 2, op.object)
			w.heal()
		}},
		{"a tenant is made again, and an owner has not heard that the one before was deleted", freshNumbers, func(w *world) {
			w.put(writing, 2, 0, nil, false, 1, 2)
			remove(w, 0, 1, 3, 4, 5, 6)
			w.clean(0, 1)
			s := w.last().state
			w.choose(w.tenantEntry(s.Version()+1, secondTenant, 3), true, 0, 1, 3, 4, 5, 6)
			made, _ := w.last().state.Tenant(secondTenant)
			w.read(w.slot(made.Number)*partitions, 0, 0, 2)
		}},
		{"a tenant is deleted while its replication factor is being changed", ruleCount, func(w *world) {
			w.put(writing, 2, 0, nil, false, 1, 2)
			w.chooseFactor(second, 5, everybody...)
			w.sync(3)
			remove(w, 0, 1, 3, 4, 5, 6)
			w.put(writing, 2, 2, nil, false, 0, 1)
			w.heal()
		}},
	}
}
