package repair

import (
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
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
	for _, span := range m.spansOf(v) {
		told := at[span]
		sure := !told.IsZero()
		for _, owner := range v.Layout.Owners(room[:0], span.Partition, v.Copies(span.Class).From) {
			sure = sure && !m.mu.members[owner].back.After(told)
		}
		if !sure {
			n++
		}
	}
	return n
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
