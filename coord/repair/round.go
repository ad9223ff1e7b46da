package repair

import (
	"fmt"
	"slices"
	"time"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

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
