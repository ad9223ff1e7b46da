package repair

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// errSetAside puts off what this node gains of a partition.
var errSetAside = errors.New("it is under quarantine, and what this node owns of it is fetched first")

// gainPartition brings all that this node gains of a partition. One that came under
// quarantine meanwhile is fetched as any that is, and served again then; if this node owns
// more of it than that, it is fetched and served by refetchAll before.
func (m *Manager) gainPartition(fb *fiber, at ring.Version, spans []Span) error {
	p := spans[0].Partition
	damaged := m.opts.Quarantined(p)
	if damaged {
		if m.ownsBeside(m.opts.View(), p, spans) {
			return errSetAside
		}
		m.opts.Fetching(p)
	}
	for _, span := range spans {
		m.mu.Lock()
		g := m.gainLocked(span)
		g.State = TransferRunning
		m.mu.Unlock()
		err := m.gainSpan(fb, at, g)
		m.mu.Lock()
		if g.State = TransferDone; err != nil {
			g.State, g.Error = TransferWaiting, err.Error()
		}
		g.done = err == nil
		m.mu.Unlock()
		if err != nil {
			return err
		}
		m.figures.change(func(f *Figures) { f.GainedSpans++ })
	}
	if !damaged {
		return nil
	}
	err := m.opts.Fetched([]ring.Partition{p})
	if err == nil && m.opts.Quarantined(p) {
		err = errMetAgain
	}
	if err != nil {
		m.mu.Lock()
		for _, span := range spans {
			m.gainLocked(span).done = false
		}
		m.mu.Unlock()
	}
	return err
}

// ownsBeside reports whether this node owns spans of a partition besides some.
func (m *Manager) ownsBeside(v *schema.Snapshot, p ring.Partition, some []Span) bool {
	return slices.ContainsFunc(v.Classes(), func(c schema.ClassCopies) bool {
		span := Span{p, c.Class}
		return m.owns(v, span) && !slices.Contains(some, span)
	})
}

// gainSpan brings this node's copy of a span it gains all that so many old owners have
// that every acknowledged write is among it. What was brought before stands. If a source
// does not answer, it goes on at once with others.
func (m *Manager) gainSpan(fb *fiber, at ring.Version, g *gain) (err error) {
	again := true
	for n := 0; again && n < ring.MaxRF; n++ {
		again, err = m.gainOnce(fb, at, g)
	}
	return err
}

// gainOnce tries gainSpan with some sources. again says that others may do better.
func (m *Manager) gainOnce(fb *fiber, at ring.Version, g *gain) (again bool, err error) {
	r := &round{m: m, view: m.opts.View(), began: m.opts.Clock.Now()}
	if err := m.under(at); err != nil {
		return false, err
	}
	j := r.guest(g.Span)
	j.bucket = m.stream
	// An owner that stays has what it was told as of this version of the ring, and
	// before, unless that was damaged.
	sound := m.owns(r.view, g.Span) && !m.opts.Quarantined(g.Span.Partition)
	switch {
	case sound:
		j.need--
	case m.owns(r.view, g.Span):
		// What is damaged here and only lost nodes have besides is given up with them.
		j.need = min(j.need, m.left(r.view, j))
	}
	j.trust(sound)
	if err := m.choose(r, j, g); err != nil {
		return false, err
	}
	defer m.unchoose(j)
	err = m.gainFrom(fb, at, r, j, g)
	var e *askError
	if errors.As(err, &e) {
		m.mu.Lock()
		g.avoid[e.peer] = true
		m.mu.Unlock()
	}
	if err != nil {
		if moved := m.under(at); moved != nil {
			return false, moved
		}
	}
	return err != nil && m.turnFrom(j), err
}

// left is how many other owners of a span are not given up.
func (m *Manager) left(v *schema.Snapshot, j *job) (n int) {
	for i, id := range j.owners {
		if i != j.self && !v.Retired(id) {
			n++
		}
	}
	return n
}

// choose takes as many sources as are needed: those that answer and have not failed
// before, the least busy with this node first, and those that did not answer lately last.
func (m *Manager) choose(r *round, j *job, g *gain) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all, away []int
	fresh := 0
	for i, id := range j.owners {
		switch {
		case i == j.self, r.view.Retired(id):
			j.here[i] = i == j.self
		case !j.here[i]:
			away = append(away, i)
		default:
			all = append(all, i)
			if !g.avoid[id] {
				fresh++
			}
		}
	}
	if len(all) < j.need {
		var names []string
		for _, i := range away {
			names = append(names, r.name(j.owners[i]))
		}
		return fmt.Errorf("it takes %d of its owners; waiting for %s", j.need, strings.Join(names, ", "))
	}
	if fresh < j.need {
		clear(g.avoid)
	}
	first := int(j.Partition) % len(j.owners)
	rank := func(i int) int { return (i - first + len(j.owners)) % len(j.owners) }
	slices.SortFunc(all, func(a, b int) int {
		x, y := j.owners[a], j.owners[b]
		switch {
		case m.asideLocked(x) != m.asideLocked(y):
			if m.asideLocked(x) {
				return 1
			}
			return -1
		case g.avoid[x] != g.avoid[y]:
			if g.avoid[x] {
				return 1
			}
			return -1
		case m.mu.gains.load[x] != m.mu.gains.load[y]:
			return m.mu.gains.load[x] - m.mu.gains.load[y]
		}
		return rank(a) - rank(b)
	})
	g.From = nil
	for n, i := range all {
		if n >= j.need {
			j.here[i] = false
			continue
		}
		j.order = append(j.order, i)
		m.mu.gains.load[j.owners[i]]++
		g.From = append(g.From, j.owners[i])
	}
	return nil
}

// unchoose lets go of the sources.
func (m *Manager) unchoose(j *job) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range j.order {
		if load := m.mu.gains.load; load[j.owners[i]] > 0 {
			load[j.owners[i]]--
		}
	}
}

// gainFrom does the part of gainSpan that its sources are needed for.
func (m *Manager) gainFrom(fb *fiber, at ring.Version, r *round, j *job, g *gain) error {
	if err := r.meet(fb, j); err != nil {
		return m.blame(r, j, err)
	}
	if err := m.fetchRecords(fb, j, true); err != nil {
		return err
	}
	note := func(keys, size int) {
		m.mu.Lock()
		defer m.mu.Unlock()
		g.KeysDone, g.BytesDone = g.KeysDone+int64(keys), g.BytesDone+int64(size)
	}
	siblings, err := m.bulk(fb, at, r, j, g, note)
	if err != nil {
		return err
	}
	if siblings > smallSpan {
		// Of large spans many rows are in memory at once.
		if !fb.await(func(done func()) { m.large.enter(1, done) }) {
			return errClosed
		}
		defer m.large.leave(1)
	}
	var told func() error
	if !m.owns(r.view, j.Span) {
		told = func() error { return m.opts.Replica.Told(j.Span, at) }
	}
	err = r.bring(fb, j, told, &m.figures.gained, note)
	return m.blame(r, j, err)
}

// blame makes the error of a source that takes part no more one that says which.
func (m *Manager) blame(_ *round, j *job, err error) error {
	var e *askError
	if err == nil || errors.As(err, &e) {
		return err
	}
	for _, i := range j.order {
		if !j.here[i] {
			return fmt.Errorf("%w", &askError{peer: j.owners[i], why: err.Error()})
		}
	}
	return err
}
