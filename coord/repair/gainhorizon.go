package repair

import (
	"slices"
	"sync"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

const (
	// horizonTimeout bounds a question for horizons: writes wait for the answers, and
	// others may have them.
	horizonTimeout = 2 * time.Second
	// horizonPause is how long those wait that are not known after all were asked.
	horizonPause = 200 * time.Millisecond
	// maxAsked bounds the messages of that kind under way, and inherited the horizons
	// that are stored at once: they share syncs.
	maxAsked  = 64
	inherited = 64
)

// askAtOnce begins to ask the old owners for horizons, unless that is under way.
func (m *Manager) askAtOnce(at ring.Version) {
	v := m.opts.View()
	m.mu.Lock()
	g := &m.mu.gains
	begin := g.at == at && !g.asking && len(m.unknownLocked(v)) > 0
	g.asking = g.asking || begin
	m.mu.Unlock()
	if begin && !m.fibers.spawn("horizon", func(fb *fiber) { m.horizons(fb, at) }) {
		m.mu.Lock()
		m.mu.gains.asking = false
		m.mu.Unlock()
	}
}

// unknownLocked returns the spans whose horizons are not known.
func (m *Manager) unknownLocked(v *schema.Snapshot) (unknown []Span) {
	_, spans := m.gaining(v)
	for _, span := range spans {
		if !m.owns(v, span) && !m.mu.gains.known[span] {
			unknown = append(unknown, span)
		}
	}
	return unknown
}

// horizon is what old owners have said of a span.
type horizon struct {
	from []ring.NodeID
	all  stateReply // of all of them together
}

// horizons asks until the horizons of all spans are known, or the change is over.
func (m *Manager) horizons(fb *fiber, at ring.Version) {
	defer func() {
		m.mu.Lock()
		m.mu.gains.asking = false
		m.mu.Unlock()
	}()
	heard := make(map[Span]*horizon)
	for !m.fibers.isClosed() && m.under(at) == nil {
		v := m.opts.View()
		m.mu.Lock()
		unknown := m.unknownLocked(v)
		m.mu.Unlock()
		if len(unknown) == 0 {
			return
		}
		m.askHorizons(fb, at, v, unknown, heard)
		m.mu.Lock()
		left := len(m.unknownLocked(v))
		m.mu.Unlock()
		if left > 0 && !fb.sleep(horizonPause) {
			return
		}
	}
}

// horizonAsk is one message.
type horizonAsk struct {
	to    ring.NodeID
	spans []spanItem
}

// askHorizons asks all old owners at once about spans that they have not answered for.
// Each answer is used when it comes, so that nobody waits for those that are dead.
func (m *Manager) askHorizons(fb *fiber, at ring.Version, v *schema.Snapshot, unknown []Span, heard map[Span]*horizon) {
	items := make(map[ring.NodeID][]spanItem)
	var ids []ring.NodeID
	var room [ring.MaxRF]ring.NodeID
	var ready []Span // of those that are left all have answered before
	for _, span := range unknown {
		h := heard[span]
		if h == nil {
			h = new(horizon)
			heard[span] = h
		}
		owners := v.Layout.Owners(room[:0], span.Partition, v.Copies(span.Class).From)
		if len(h.from) >= v.Sources(owners) {
			ready = append(ready, span)
			continue
		}
		for _, id := range owners {
			if !m.healthy(v, id) || v.Retired(id) || h.has(id) {
				continue
			}
			if items[id] == nil {
				ids = append(ids, id)
			}
			items[id] = append(items[id], spanItem{Span: span, pv: v.Layout.PV(span.Partition)})
		}
	}
	var asks []horizonAsk
	for more := true; more; {
		more = false
		for _, id := range ids { // the first spans of all owners before the next ones
			if rest := items[id]; len(rest) > 0 {
				some := chunk(rest)
				items[id] = rest[len(some):]
				asks = append(asks, horizonAsk{id, some})
				more = true
			}
		}
	}
	var mu sync.Mutex // of heard
	know := func(fb *fiber, ready []Span) {
		fb.each(len(ready), inherited, func(_ *fiber, k int) {
			mu.Lock()
			known := heard[ready[k]].all
			mu.Unlock()
			if err := m.service.inherit(ready[k], v.Layout.PV(ready[k].Partition), &known); err != nil {
				m.opts.Logger.Warn("what the old owners of a partition have confirmed could not be stored", "partition", ready[k].Partition, "err", err)
				mu.Lock()
				*heard[ready[k]] = horizon{} // once more
				mu.Unlock()
				return
			}
			m.nowKnown(at, ready[k])
		})
	}
	know(fb, ready)
	fb.each(len(asks), maxAsked, func(fb *fiber, i int) {
		q := &request{kind: kindKnown, spans: asks[i].spans}
		body, err := m.askWithin(fb, asks[i].to, q, horizonTimeout)
		if err != nil {
			m.quiet(asks[i].to, err)
			return
		}
		all, err := decodeStates(kindKnown, body)
		if err != nil || len(all) != len(q.spans) {
			return
		}
		var ready []Span
		mu.Lock()
		for k := range all {
			if all[k].why != "" {
				continue
			}
			span := q.spans[k].Span
			need := v.Sources(v.Layout.Owners(nil, span.Partition, v.Copies(span.Class).From))
			if h := heard[span]; h.add(asks[i].to, &all[k]) == need {
				ready = append(ready, span)
			}
		}
		mu.Unlock()
		know(fb, ready)
	})
}

func (h *horizon) has(id ring.NodeID) bool {
	for _, f := range h.from {
		if f == id {
			return true
		}
	}
	return false
}

// add takes in an answer and returns how many there are.
func (h *horizon) add(id ring.NodeID, a *stateReply) int {
	if !h.has(id) {
		h.from = append(h.from, id)
		h.all.state.Confirmed = h.all.state.Confirmed.Join(&a.state.Confirmed)
		h.all.state.Released = h.all.state.Released.Join(&a.state.Released)
		h.all.floor = max(h.all.floor, a.floor)
	}
	return len(h.from)
}

// nowKnown notes that the horizon of a span is known, and lets go on what has waited for
// the last one of its partition.
func (m *Manager) nowKnown(at ring.Version, span Span) {
	v := m.opts.View()
	m.mu.Lock()
	g := &m.mu.gains
	var over []func()
	if g.at == at {
		g.known[span] = true
		if v.Change != nil && m.knownLocked(v, span.Partition) {
			over = g.takeLocked(span.Partition)
		}
	}
	m.mu.Unlock()
	m.run(over)
}

// takeLocked takes out what waits for a partition.
func (g *gains) takeLocked(p ring.Partition) []func() {
	some := g.waiters[p]
	delete(g.waiters, p)
	g.waiting -= len(some)
	return some
}

// idleLocked takes out what waits for partitions of which all is known by now, in order: a
// tenant that nobody could tell of may have been deleted.
func (m *Manager) idleLocked(v *schema.Snapshot) (all []func()) {
	g := &m.mu.gains
	var known []ring.Partition
	//seams:ordered they are sorted
	for p := range g.waiters {
		if m.knownLocked(v, p) {
			known = append(known, p)
		}
	}
	slices.Sort(known)
	for _, p := range known {
		all = append(all, g.takeLocked(p)...)
	}
	return all
}
