package repair

import (
	"errors"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
)

const (
	// gainTimeout bounds a question about a span that is gained, as long as others can
	// stand in for whoever is asked.
	gainTimeout = 5 * time.Second
	// asideFirst is how long a node that did not answer is left out then; it is twice as
	// long each time it does not answer soon after that, up to asideMost.
	asideFirst = 10 * time.Second
	asideMost  = 80 * time.Second
)

// aside is a source that did not answer. The others are asked first until then.
type aside struct {
	until time.Time
	pause time.Duration
}

// asideLocked reports whether a node is left out for now.
func (m *Manager) asideLocked(id ring.NodeID) bool {
	return m.opts.Clock.Now().Before(m.mu.gains.aside[id].until)
}

func (m *Manager) isAside(id ring.NodeID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asideLocked(id)
}

// quiet notes that a node did not answer what was asked for a gain: other spans need not
// find that out each for itself. Gossip may take it for alive for long: it may hear others.
func (m *Manager) quiet(id ring.NodeID, err error) {
	var e *askError
	if !errors.As(err, &e) || !e.silent {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now, a := m.opts.Clock.Now(), m.mu.gains.aside[id]
	if m.mu.gains.aside == nil || now.Before(a.until) {
		return
	}
	if a.pause = min(2*a.pause, asideMost); a.pause == 0 || now.Sub(a.until) > asideMost {
		a.pause = asideFirst
	}
	a.until = now.Add(a.pause)
	m.mu.gains.aside[id] = a
}

// spare reports whether a span that is gained could do without a node: there are enough
// others that are not left out.
func (m *Manager) spare(j *job, id ring.NodeID) bool {
	if j == nil || len(j.order) == 0 {
		return false
	}
	v, others := m.opts.View(), 0
	for i, o := range j.owners {
		if i != j.self && o != id && m.healthy(v, o) && !m.isAside(o) {
			others++
		}
	}
	return others >= j.need
}

// patience is how long an answer to a question about a span is waited for.
func (m *Manager) patience(j *job, id ring.NodeID) time.Duration {
	if m.spare(j, id) {
		return gainTimeout
	}
	return askTimeout
}

// turnFrom reports whether a span is worth another try at once: one of its sources has
// been put aside, and there are enough others.
func (m *Manager) turnFrom(j *job) bool {
	for _, i := range j.order {
		if m.isAside(j.owners[i]) && m.spare(j, j.owners[i]) {
			return true
		}
	}
	return false
}
