package repair

import (
	"errors"
	"maps"
	"slices"

	"github.com/pairdb/pairdb/gossip/ring"
)

// voted notes that a round was told of votes that are open here: nothing above them is
// confirmed. Most are soon over. One may not be for as long as it counts, a day: the
// owners may have agreed on another attempt while this node was away, and what it missed
// was brought to it with no word of idempotency keys.
func (m *Manager) voted(span Span) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.votes[span] = true // there is an end to spans
}

// lookVotes begins to ask the others about votes that are open here.
func (m *Manager) lookVotes() {
	m.mu.Lock()
	begin := len(m.mu.votes) > 0 && !m.mu.asking
	m.mu.asking = m.mu.asking || begin
	m.mu.Unlock()
	if begin {
		m.fibers.spawn("votes", m.askVotes)
	}
}

// askVotes asks the other owners about votes that are still open when the operations
// are over that they were for.
func (m *Manager) askVotes(fb *fiber) {
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.mu.asking = false
	}()
	if !fb.sleep(m.opts.Settle) {
		return
	}
	m.mu.Lock()
	// With those of which the round has been told again by now.
	spans := slices.SortedFunc(maps.Keys(m.mu.votes), Span.Compare)
	clear(m.mu.votes)
	m.mu.Unlock()
	for _, span := range spans {
		if err := m.outvoted(fb, span); errors.Is(err, errClosed) {
			return
		} else if err != nil {
			m.opts.Logger.Info("what became of writes with idempotency keys could not be found out; the next round has it tried again", "span", span.String(), "err", err)
		}
	}
}

// outvoted replaces the votes of one span that are open here by what the other owners
// know to have been agreed on. One that is asked in vain leaves the others to be asked.
func (m *Manager) outvoted(fb *fiber, span Span) (failed error) {
	v := m.opts.View()
	if v.Layout == nil || !m.owns(v, span) || m.opts.Quarantined(span.Partition) {
		return nil
	}
	rows, err := m.opts.Replica.OpenVotes(span)
	if err != nil {
		return err
	}
	var room [ring.MaxRF]ring.NodeID
	for _, owner := range v.Layout.Owners(room[:0], span.Partition, v.Copies(span.Class).From) {
		if owner == m.opts.Self || !m.healthy(v, owner) {
			continue
		}
		var left []RecordRow
		for some := range slices.Chunk(rows, maxVotes) {
			found, err := m.applied(fb, owner, spanItem{Span: span, pv: v.Layout.PV(span.Partition)}, some)
			if errors.Is(err, errClosed) {
				return err
			}
			failed = errors.Join(failed, err)
			for i := range some {
				if !slices.ContainsFunc(found, some[i].same) {
					left = append(left, some[i])
				}
			}
		}
		rows = left
	}
	return failed
}

// applied asks an owner which of some votes are for writes that were made, and takes in
// what it says.
func (m *Manager) applied(fb *fiber, owner ring.NodeID, it spanItem, rows []RecordRow) ([]RecordRow, error) {
	body, err := m.askAgain(fb, nil, owner, &request{kind: kindApplied, spans: []spanItem{it}, rows: rows})
	if err != nil {
		return nil, err
	}
	if err := m.paid(fb, m.bucket, len(body)); err != nil {
		return nil, err
	}
	a, err := decodeRecords(body)
	if err != nil || len(a.rows) == 0 {
		return nil, err
	}
	return a.rows, m.opts.Replica.Outvoted(it.Span, it.pv, a.rows)
}

// same reports whether both are about the same idempotency key.
func (row *RecordRow) same(other RecordRow) bool {
	return row.Tenant == other.Tenant && row.Token == other.Token && row.KeyHash == other.KeyHash &&
		string(row.IdempotencyKey) == string(other.IdempotencyKey)
}
