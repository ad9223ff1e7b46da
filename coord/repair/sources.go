package repair

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
)

// refetchPasses is how often the owners are compared: each pass brings what was
// written since the one before.
const refetchPasses = 3

// trust says that all others vouch for what they hold, and whether this node does.
func (j *job) trust(self bool) {
	j.vouches = make([]bool, len(j.owners))
	for i := range j.vouches {
		j.vouches[i] = self || i != j.self
	}
}

// meet asks the others what they know to be confirmed, levels that, and fails unless as
// many take part as it takes.
func (r *round) meet(fb *fiber, j *job) error {
	r.states(fb, r.jobs, func(j *job) []State { return j.first })
	r.level(fb)
	return r.enough(j)
}

// bring compares this node with the others, and brings it what they have. told, unless it
// is nil, is called when it has been told all that they held, and all are compared at
// least once after that.
func (r *round) bring(fb *fiber, j *job, told func() error, count *traffic, note func(keys, size int)) error {
	m := r.m
	for left := refetchPasses; left > 0; left-- {
		r.states(fb, r.jobs, func(j *job) []State { return j.second })
		r.restarted(j)
		if err := r.enough(j); err != nil {
			return err
		}
		// Everything the others have by now is to be had, and what is confirmed all have.
		j.horizon = causal.JoinContext(horizonOf(j.some(j.second)), j.agreed.Seen)
		fetched := 0
		j.fix = func(fb *fiber, c *comparison, all []fix) error {
			some := c.lacking(all)
			fetched += len(some)
			return c.refetch(fb, some, count, note)
		}
		c := &comparison{m: m, view: r.view, job: j}
		if err := c.run(fb); err != nil {
			return err
		}
		switch {
		case told != nil && !c.missed:
			if err := told(); err != nil {
				return err
			}
			told, left = nil, refetchPasses
		case told == nil && fetched == 0:
			return nil
		}
	}
	if told != nil {
		return fmt.Errorf("keys changed while they were compared: %w", errMoved)
	}
	return nil
}

// enough fails unless this node and so many others take part that they have all that
// was ever acknowledged.
func (r *round) enough(j *job) error {
	if j.end != "" {
		return errors.New(j.why)
	}
	var away, damaged []string
	there := 0
	for i, id := range j.owners {
		switch {
		case i == j.self:
		case j.here[i]:
			there++
		case j.damaged != nil && j.damaged[i]:
			damaged = append(damaged, r.name(id))
		default:
			away = append(away, r.name(id))
		}
	}
	if there >= j.need {
		return nil
	}
	if len(away) == 0 {
		return fmt.Errorf("it takes %d sound owners beside this one to fetch it, and there are %d: the copy of %s is damaged, too. Writes that only the damaged copies had are lost; the others have what is left, and it can be read there at consistency one",
			j.need, there, strings.Join(damaged, ", "))
	}
	why := ""
	if j.why != "" {
		why = " (" + j.why + ")"
	}
	return fmt.Errorf("it takes %d of its other owners to fetch it; waiting for %s%s", j.need, strings.Join(append(away, damaged...), ", "), why)
}

// fetchRecords brings what the other owners remember of idempotency keys, and with votes
// what they have voted for.
func (m *Manager) fetchRecords(fb *fiber, j *job, votes bool) error {
	for i := range j.owners {
		if i == j.self || !j.here[i] {
			continue
		}
		var after *RecordRow
		for {
			q := &request{kind: kindRecords, spans: []spanItem{{Span: j.Span, pv: j.pv}}, after: after, votes: votes}
			body, err := m.askAgain(fb, j, j.owners[i], q)
			if err != nil {
				return err
			}
			a, err := decodeRecords(body)
			if err == nil && a.session != j.first[i].Session {
				err = errRestarted
			}
			if err == nil && len(a.rows) > 0 {
				err = m.opts.Replica.Restore(j.Span, j.pv, a.rows)
			}
			if err != nil {
				return err
			}
			if err := m.paid(fb, j.bucket, len(body)); err != nil {
				return err
			}
			if !a.more || len(a.rows) == 0 {
				break
			}
			after = &a.rows[len(a.rows)-1]
		}
	}
	return nil
}

// lacking returns what this node is to fetch, from the others alone.
func (c *comparison) lacking(all []fix) (some []fix) {
	for _, f := range all {
		self := false
		for _, w := range f.want {
			self = self || f.here[w] == c.job.self
		}
		if !self {
			continue
		}
		var from, others []int
		for i := range f.here {
			if f.here[i] != c.job.self {
				others = append(others, i)
			}
		}
		for _, i := range f.from {
			if f.here[i] != c.job.self {
				from = append(from, i)
			}
		}
		if len(from) == 0 && !f.absent {
			from = others
		}
		f.from = from
		some = append(some, f)
	}
	return some
}

// refetch joins what others hold into this node's copy, where it replaces whatever all
// of them had.
func (c *comparison) refetch(fb *fiber, all []fix, count *traffic, note func(keys, size int)) (failed error) {
	m := c.m
	err := c.batches(fb, all, func(fb *fiber, some []fix) error {
		objects, err := c.fetch(fb, some)
		if err != nil && !errors.Is(err, errMoved) && failed == nil {
			failed = err
		}
		if err == errClosed {
			return err
		}
		var items []coord.MergeItem
		size := 0
		for i := range some {
			if len(objects[i]) == 0 {
				if !some[i].absent || len(some[i].from) > 0 {
					c.missed = true
					continue // it was had by nobody any more, or could not be had
				}
				objects[i] = nothing
			}
			it := c.item(&some[i], objects[i])
			it.Refetch = &c.job.agreed
			items = append(items, it)
			size += len(objects[i])
		}
		if err := c.paid(fb, size); err != nil {
			return err
		}
		errs, ok := m.mergeHere(fb, items)
		if !ok {
			return errClosed
		}
		m.brought(count, note, len(items), size)
		if failed == nil {
			failed = first(errs)
		}
		return nil
	})
	return errors.Join(err, failed)
}

// mergeHere joins objects into this node's copy; ok is false if the node is stopping.
func (m *Manager) mergeHere(fb *fiber, items []coord.MergeItem) (errs []error, ok bool) {
	errs = make([]error, len(items))
	ok = fb.await(func(done func()) {
		left := newCountdown(len(items), done)
		if len(items) > 0 {
			m.opts.Objects.Merge(items, func(i int, _ []byte, err error) {
				errs[i] = err
				left()
			})
		}
	})
	return errs, ok
}

// brought counts objects that were brought here.
func (m *Manager) brought(count *traffic, note func(keys, size int), keys, size int) {
	count.add(keys, size)
	if note != nil {
		note(keys, size)
	}
}
