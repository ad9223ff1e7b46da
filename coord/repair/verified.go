package repair

import (
	"math/bits"
	"slices"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Unverified returns how many of this node's spans no round has found equal at all
// owners since one of them was away, this node included: as far as anybody knows a write
// is missing there. A round counts by when this node was told of its end, since clocks of
// nodes differ. One under way across an absence cannot end well: whoever was started
// anew is another session, and whoever does not answer takes no part.
func (m *Manager) Unverified() (n int) {
	v := m.opts.View()
	at := m.service.told()
	var room [ring.MaxRF]ring.NodeID
	m.mu.Lock()
	defer m.mu.Unlock()
	// Those of whom the next look will find that they are back.
	back := make(map[ring.NodeID]bool)
	for i := range v.Members {
		e := &v.Members[i]
		back[e.ID] = isBack(m.mu.members, e, m.healthy(v, e.ID))
	}
	for _, span := range m.spansOf(v) {
		told := at[span]
		sure := !told.IsZero() && !m.backLocked(v, span).After(told)
		for _, owner := range v.Layout.Owners(room[:0], span.Partition, v.Copies(span.Class).From) {
			sure = sure && !back[owner]
		}
		if !sure {
			n++
		}
	}
	return n
}

// backLocked returns when an owner of a span was last found to be there again.
func (m *Manager) backLocked(v *schema.Snapshot, span Span) (last time.Time) {
	var room [ring.MaxRF]ring.NodeID
	for _, owner := range v.Layout.Owners(room[:0], span.Partition, v.Copies(span.Class).From) {
		if back := m.mu.members[owner].back; back.After(last) {
			last = back
		}
	}
	return last
}

const (
	// doubtEach is after how many ticks spans in doubt are looked for again.
	doubtEach = 10
	// doubtSettles is how many times Settle whoever drives has for a round of its own.
	// For each further round it has twice as long, or its own pauses would count for
	// nothing where rounds cannot end well.
	doubtSettles = 4
)

// doubt has the drivers of spans told that no round has found them equal since an owner
// was away for a moment: that may have been seen here alone, and the driver then has no
// reason for a round until all are due. Nobody is told while an owner is away, for then no
// round can end well.
func (m *Manager) doubt(v *schema.Snapshot, now time.Time) {
	at, last := m.service.told(), m.doubted
	m.doubted = now
	var room [ring.MaxRF]ring.NodeID
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, span := range m.spansOf(v) {
		back := m.backLocked(v, span)
		if m.mu.spans[span] != nil || !back.After(at[span]) || !doubles(last.Sub(back), now.Sub(back), doubtSettles*m.opts.Settle) {
			continue
		}
		away := func(owner ring.NodeID) bool { return !m.mu.members[owner].alive }
		if owners := v.Layout.Owners(room[:0], span.Partition, v.Copies(span.Class).From); !slices.ContainsFunc(owners, away) {
			m.mu.told[span] = true // by the next look
		}
	}
}

// doubles reports whether one of first, 2*first, 4*first and so on lies behind before and
// not behind now.
func doubles(before, now, first time.Duration) bool {
	return bits.Len64(uint64(now/first)) > bits.Len64(uint64(max(0, before)/first))
}

// told returns when this node was last told of each span that it was repaired.
func (s *service) told() map[Span]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[Span]time.Time, len(s.mu.ledger))
	//seams:ordered a map is made of it
	for span, e := range s.mu.ledger {
		out[span] = e.toldAt
	}
	return out
}
