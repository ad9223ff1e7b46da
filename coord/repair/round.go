package repair

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// How a span of a round may end.
const (
	endConfirmed = "confirmed"
	endPartial   = "partial"
	endVoid      = "void"
	endFailed    = "failed"
)

// job is one span of a round.
type job struct {
	Span
	pv ring.Version
	// owners are all there are; here says which of them take part, and self is this
	// node's place among them.
	owners []ring.NodeID
	here   []bool
	// damaged says of whom the copy is under quarantine; nil: of nobody.
	damaged []bool
	self    int
	// first and second are what those that take part said, in the order of owners.
	first, second []State
	// agreed is confirmed at all that take part, horizon what is expected of them
	// beyond that.
	agreed  causal.Confirmed
	horizon causal.Context
	// settled is what has been confirmed by this round, at all owners.
	settled causal.Confirmed
	// end is how it ended, empty while it is under way, and why it was not confirmed.
	end, why string
	// keys is how many differed, rows how many objects owners got, moved their bytes.
	keys, rows, moved int
	// dirty is why nothing may be confirmed though all take part: somebody else may hold
	// some of it.
	dirty string
	// need is how many of the others it takes that have all that was ever acknowledged,
	// for a span that is fetched. bucket is what it is paid from, nil for that of rounds.
	need   int
	bucket *bucket
	// order are the others that it is fetched from, the best first, if not all are.
	order []int
	// vouches is false for this node if its partition is under quarantine; nil: all do.
	vouches []bool
	// fixes is what is done about keys that differ; nil is repair.
	fix func(fb *fiber, c *comparison, all []fix) error
}

// fail ends a span, unless it has ended before.
func (j *job) fail(end, why string) {
	if j.end == "" {
		j.end, j.why = end, why
	}
}

// failWith ends a span with an error.
func (j *job) failWith(err error) {
	var e *askError
	switch {
	case errors.As(err, &e) && e.void, errors.Is(err, errMoved), errors.Is(err, errRestarted), errors.Is(err, errRing):
		j.fail(endVoid, err.Error())
	default:
		j.fail(endFailed, err.Error())
	}
}

// complete reports whether all owners take part.
func (j *job) complete() bool { return !slices.Contains(j.here, false) }

// round is one comparison of many spans. They are asked about together, and wait
// once, together, for the writes to end that are under way.
type round struct {
	m     *Manager
	view  *schema.Snapshot
	began time.Time
	jobs  []*job
}

func (r *round) add(span Span) *job {
	j := r.guest(span)
	if !r.view.Clean(span.Partition, span.Class) {
		j.dirty = "nodes that owned it before, or were about to, have not said yet that they hold nothing of it any more"
	}
	return j
}

// guest adds a span to which this node need not belong: it takes part beside the owners.
func (r *round) guest(span Span) *job {
	j := &job{Span: span, pv: r.view.Layout.PV(span.Partition)}
	j.owners = r.view.Layout.Owners(make([]ring.NodeID, 0, ring.MaxRF+1), span.Partition, r.view.Copies(span.Class).From)
	j.need = r.view.Sources(j.owners)
	if j.self = slices.Index(j.owners, r.m.opts.Self); j.self < 0 {
		j.self = len(j.owners)
		j.owners = append(j.owners, r.m.opts.Self)
	}
	for i, id := range j.owners {
		j.here = append(j.here, i == j.self || r.m.healthy(r.view, id))
	}
	j.first, j.second = make([]State, len(j.owners)), make([]State, len(j.owners))
	r.jobs = append(r.jobs, j)
	return j
}

// run takes the round from beginning to end.
func (r *round) run(fb *fiber) {
	m := r.m
	r.states(fb, r.jobs, func(j *job) []State { return j.first })
	r.level(fb)
	if !fb.sleep(m.opts.Settle) {
		return
	}
	for rest := r.jobs; len(rest) > 0; {
		some := rest[:min(len(rest), maxSpans)]
		rest = rest[len(some):]
		r.states(fb, some, func(j *job) []State { return j.second })
		for _, j := range some {
			r.restarted(j)
		}
		fb.each(len(some), m.opts.Concurrency, func(fb *fiber, i int) { r.compare(fb, some[i]) })
		r.confirm(fb, some)
		for _, j := range some {
			r.note(j)
		}
	}
	r.release(fb)
}

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

// some returns the states of those that take part.
func (j *job) some(states []State) (some []State) {
	for i := range states {
		if j.here[i] {
			some = append(some, states[i])
		}
	}
	return some
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

// compare compares the owners of one span and brings each what it lacks.
func (r *round) compare(fb *fiber, j *job) {
	if j.end != "" {
		return
	}
	if now := r.m.opts.View(); now.Layout == nil || now.Layout.PV(j.Partition) != j.pv {
		j.fail(endVoid, errRing.Error())
		return
	}
	c := &comparison{m: r.m, view: r.view, job: j}
	err := c.run(fb)
	j.keys += c.keys
	if err != nil {
		j.failWith(err)
	}
}

// confirm hands what follows from the comparison to the owners, of spans that all of
// them took part in.
func (r *round) confirm(fb *fiber, jobs []*job) {
	var sure []*job
	for _, j := range jobs {
		switch {
		case j.end != "":
		case !j.complete():
			j.fail(endPartial, r.away(j))
		case j.dirty != "":
			j.fail(endPartial, j.dirty)
		default:
			c, why := confirm(j.first, j.second, &j.agreed)
			if why != "" {
				j.fail(endFailed, why)
				continue
			}
			j.settled = c
			sure = append(sure, j)
		}
	}
	r.adopt(fb, sure, func(j *job) *causal.Confirmed { return &j.settled }, r.began.UnixMilli())
	for _, j := range sure {
		if j.end == "" && !j.complete() {
			// Whoever has adopted it is right to; the next round levels the others.
			j.fail(endFailed, j.why)
		}
		if j.end == "" {
			j.end, j.why = endConfirmed, ""
		}
	}
}

// releaseTries is how often an owner is told, at the most, that it may collect.
const releaseTries = 3

// release tells all owners what all of them have adopted, once the writes are over
// that were minted by owners before they had: those may have a lower clock than a
// delete that may then be collected, and have to meet it everywhere.
func (r *round) release(fb *fiber) {
	done := make([]*job, 0, len(r.jobs))
	for _, j := range r.jobs {
		if j.end == endConfirmed {
			again := *j
			again.end = ""
			done = append(done, &again)
		}
	}
	if len(done) == 0 || !fb.sleep(r.m.opts.Settle) {
		return
	}
	type part struct {
		j     *job
		owner int
	}
	type refusal struct {
		node ring.NodeID
		why  string
	}
	var mu sync.Mutex                // owners answer at the same time
	refused := make(map[part]string) // and may be told again
	untold := make(map[refusal]int)
	for try := range releaseTries {
		// Whoever is not told keeps what it might collect until the next round, which may
		// be a day away. One that does not answer has been asked several times already.
		if try > 0 && (len(refused) == 0 || !fb.sleep(r.m.opts.Settle)) {
			break
		}
		r.hand(fb, done, kindRelease, func(j *job, i int) (spanItem, bool) {
			mu.Lock()
			defer mu.Unlock()
			_, again := refused[part{j, i}]
			return spanItem{session: j.first[i].Session, confirmed: j.settled}, try == 0 || again
		}, func(j *job, i int, a *stateReply) {
			mu.Lock()
			defer mu.Unlock()
			delete(refused, part{j, i})
			if a.lost {
				untold[refusal{j.owners[i], a.why}]++
			} else if a.why != "" {
				refused[part{j, i}] = a.why
			}
		})
	}
	if r.m.fibers.isClosed() {
		return // nobody was waited for
	}
	//seams:ordered they are counted
	for x, why := range refused {
		untold[refusal{x.j.owners[x.owner], why}]++
	}
	//seams:ordered lines of a log, for each node and reason one
	for x, n := range untold {
		r.m.opts.Logger.Info("an owner was not told that it may collect what is confirmed; the next round tells it", "node", r.name(x.node), "spans", n, "why", x.why)
	}
}

// note tells how a span ended.
func (r *round) note(j *job) {
	m := r.m
	if j.end == "" { // the node is stopping
		j.fail(endFailed, errClosed.Error())
		return
	}
	m.figures.change(func(f *Figures) {
		switch j.end {
		case endConfirmed:
			f.Confirmed++
		case endPartial:
			f.Partial++
		case endVoid:
			f.Void++
		default:
			f.Failed++
		}
	})
	if j.keys > 0 {
		m.opts.Note(Note{
			Text:    fmt.Sprintf("repair found %s that differed and mended them", countOf(j.keys, "key")),
			Details: []string{"partition", fmt.Sprint(j.Partition), "owners", fmt.Sprint(len(j.owners)), "moved", sizeOf(j.moved)},
		})
	}
}
