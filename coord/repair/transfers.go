package repair

import (
	"cmp"
	"slices"
	"strings"

	"github.com/pairdb/pairdb/gossip/ring"
)

// The kinds of a Transfer.
const (
	// TransferGain is of a span that this node is about to own.
	TransferGain = "gain"
	// TransferCleanup is of one that this node owns no more: it hands over what the
	// owners lack, and drops its copy.
	TransferCleanup = "cleanup"
)

// The states of a Transfer.
const (
	TransferWaiting = "waiting"
	TransferRunning = "running"
	TransferDone    = "done"
)

// Transfer is the data of one span on its way because the ring changes.
type Transfer struct {
	Kind string
	Span Span
	// At is the version of the ring that made it necessary.
	At ring.Version
	// From and To are the nodes that have it and that get it. What is cleaned up goes
	// to all owners, and To is zero.
	From []ring.NodeID
	To   ring.NodeID
	// KeysDone and BytesDone are what was brought; BytesTotal is an estimate of all, 0
	// as long as there is none.
	KeysDone, BytesDone, BytesTotal int64
	State                           string
	// Error is why it is waiting, empty if nothing failed.
	Error string
}

// Transfers returns those of this node that the present change of the ring needs, and
// those of what is left of earlier ones, in the order of their spans. What it gains is
// among them from the moment that the ring says so, and not only once it has been looked at:
// who counts what is left of a change would take it for done.
func (m *Manager) Transfers() []Transfer {
	change, gained := m.gaining(m.opts.View())
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Transfer
	add := func(t *Transfer) {
		c := *t
		if c.From = slices.Clone(t.From); c.State == TransferDone {
			c.BytesTotal, c.Error = c.BytesDone, ""
		}
		all = append(all, c)
	}
	if change != nil && m.mu.gains.at != change.ProposedAt {
		for _, span := range gained {
			add(&Transfer{Kind: TransferGain, Span: span, At: change.ProposedAt, To: m.opts.Self, State: TransferWaiting})
		}
	} else {
		for _, span := range gained {
			m.gainLocked(span)
		}
		//seams:ordered they are sorted
		for _, g := range m.mu.gains.spans {
			add(&g.Transfer)
		}
	}
	//seams:ordered they are sorted
	for _, c := range m.mu.clean.spans {
		add(c)
	}
	slices.SortFunc(all, func(a, b Transfer) int {
		// What is gained first.
		return cmp.Or(strings.Compare(b.Kind, a.Kind), a.Span.Compare(b.Span))
	})
	return all
}
