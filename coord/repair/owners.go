package repair

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// forOwners calls f for each node that takes part in any of the jobs, several at
// once, with the jobs it takes part in.
func (r *round) forOwners(fb *fiber, jobs []*job, f func(fb *fiber, id ring.NodeID, its []*job)) {
	var ids []ring.NodeID
	of := make(map[ring.NodeID][]*job)
	for _, j := range jobs {
		if j.end != "" {
			continue
		}
		for i, id := range j.owners {
			if !j.here[i] {
				continue
			}
			if of[id] == nil {
				ids = append(ids, id)
			}
			of[id] = append(of[id], j)
		}
	}
	slices.SortFunc(ids, ring.NodeID.Compare)
	fb.each(len(ids), 16, func(fb *fiber, i int) { f(fb, ids[i], of[ids[i]]) })
}

// hand asks all owners the same about all jobs. items returns what is asked of an
// owner about a job, false for nothing; done gets the answer. Owners are asked at the
// same time, so done touches only what is that owner's.
func (r *round) hand(fb *fiber, jobs []*job, k kind, item func(j *job, i int) (spanItem, bool), done func(j *job, i int, a *stateReply)) {
	r.forOwners(fb, jobs, func(fb *fiber, id ring.NodeID, its []*job) {
		var items []spanItem
		var about []*job
		for _, j := range its {
			if it, ok := item(j, slices.Index(j.owners, id)); ok {
				it.Span, it.pv = j.Span, j.pv
				items, about = append(items, it), append(about, j)
			}
		}
		if len(items) == 0 {
			return
		}
		// A span that is gained is alone in its round.
		answers := r.m.askMany(fb, about[0], id, k, items)
		for k, j := range about {
			done(j, slices.Index(j.owners, id), &answers[k])
		}
	})
}

// states asks all owners for their states. Those that do not answer do not take part.
func (r *round) states(fb *fiber, jobs []*job, into func(*job) []State) {
	plain := func(*job, int) (spanItem, bool) { return spanItem{}, true }
	why := make(map[*job][]string, len(jobs))
	for _, j := range jobs {
		why[j] = make([]string, len(j.owners))
	}
	r.hand(fb, jobs, kindState, plain, func(j *job, i int, a *stateReply) {
		into(j)[i], why[j][i] = a.state, a.why
	})
	for _, j := range jobs {
		for i, w := range why[j] {
			if w == "" || j.end != "" {
				continue
			}
			if j.why == "" {
				j.why = fmt.Sprintf("node %s: %s", r.name(j.owners[i]), w)
			}
			if i == j.self {
				j.fail(endFailed, j.why)
			}
			j.here[i] = false
			if w == errQuarantined.Error() {
				if j.damaged == nil {
					j.damaged = make([]bool, len(j.owners))
				}
				j.damaged[i] = true
			}
		}
	}
}

// away says why not all owners take part.
func (r *round) away(j *job) string {
	if j.why != "" {
		return j.why
	}
	var names []string
	for i, id := range j.owners {
		if !j.here[i] {
			names = append(names, r.name(id))
		}
	}
	return "not there: " + strings.Join(names, ", ")
}

// name is what people call a node.
func (r *round) name(id ring.NodeID) string { return nameOf(r.view, id) }

func nameOf(v *schema.Snapshot, id ring.NodeID) string {
	if m, ok := v.Member(id); ok && m.Name != "" {
		return m.Name
	}
	return id.Short()
}

// level makes all owners know what any of them knows to be confirmed: what they tell
// is settled by that, so it has to be the same.
func (r *round) level(fb *fiber) {
	for _, j := range r.jobs {
		first := j.some(j.first)
		j.agreed, j.horizon = levelled(first), horizonOf(first)
	}
	r.adopt(fb, r.jobs, func(j *job) *causal.Confirmed { return &j.agreed }, 0)
}

// adopt hands what is confirmed to the owners that do not know it. Those that fail do
// not take part any more.
func (r *round) adopt(fb *fiber, jobs []*job, of func(*job) *causal.Confirmed, repairedAt int64) {
	failed := make(map[*job][]string, len(jobs))
	for _, j := range jobs {
		failed[j] = make([]string, len(j.owners))
	}
	r.hand(fb, jobs, kindAdopt, func(j *job, i int) (spanItem, bool) {
		c := of(j)
		return spanItem{session: j.first[i].Session, confirmed: *c, repairedAt: repairedAt}, !j.first[i].Confirmed.Equal(c)
	}, func(j *job, i int, a *stateReply) {
		if failed[j][i] = a.why; a.why == "" {
			j.first[i].Confirmed = of(j).Join(&j.first[i].Confirmed)
		}
	})
	for _, j := range jobs {
		for i, w := range failed[j] {
			if w == "" || j.end != "" {
				continue
			}
			if j.why = fmt.Sprintf("node %s: %s", r.name(j.owners[i]), w); i == j.self {
				j.fail(endFailed, j.why)
			}
			j.here[i] = false
		}
	}
}

// restarted ends spans of which an owner is another one than when the round began.
func (r *round) restarted(j *job) {
	if j.end != "" {
		return
	}
	for i := range j.owners {
		if j.here[i] && j.first[i].Session != j.second[i].Session {
			j.fail(endVoid, fmt.Sprintf("node %s: %v", r.name(j.owners[i]), errRestarted))
		}
	}
}
