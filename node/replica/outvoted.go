package replica

import (
	"bytes"
	"slices"
	"time"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/gossip/ring"
)

// OpenVotes implements repair.Replica.
func (s *Store) OpenVotes(of repair.Span) (rows []repair.RecordRow, err error) {
	if err := s.takesReads(); err != nil {
		return nil, err
	}
	if _, err := s.find(of); err != nil {
		return nil, err
	}
	var keys [][]byte
	if _, err = s.eachVote(of.Partition, func(record []byte, _ causal.Dot) { keys = append(keys, record) }); err != nil {
		return nil, err
	}
	slices.SortFunc(keys, bytes.Compare)
	for _, key := range keys {
		if s.isOf(of, tenantOf(key)) {
			rows = append(rows, recordRow(key, nil))
		}
	}
	return rows, nil
}

// isOf reports whether a tenant's data is in a span's class, as far as is known.
func (s *Store) isOf(of repair.Span, tenant ring.TenantNumber) bool {
	if s.opts.Tenant == nil {
		return false
	}
	t, ok := s.opts.Tenant(tenant)
	return ok && t.Class == of.Class
}

// Applied implements repair.Replica.
func (s *Store) Applied(of repair.Span, rows []repair.RecordRow) (applied []repair.RecordRow, err error) {
	if err := s.takesReads(); err != nil {
		return nil, err
	}
	buf := s.buffer()
	defer s.release(buf)
	now := s.opts.Records.now()
	size := 0
	var newest base.SeqNum
	for i := range rows {
		if !s.isOf(of, rows[i].Tenant) {
			continue
		}
		key := recordKey(of.Partition, &rows[i])
		r, seq, err := s.loadRecord(buf, key)
		if err != nil {
			return nil, err
		}
		if r == nil || !r.Applied || !s.opts.Records.holds(rows[i].Tenant, r, now) {
			continue
		}
		newest = max(newest, seq)
		applied = append(applied, recordRow(key, *buf))
		if size += len(key) + len(*buf); size >= maxRecordBytes {
			break
		}
	}
	return applied, s.awaitDurable(newest)
}

// Outvoted implements repair.Replica. An applied record says that the object beside it has
// seen its write, and counts as an acknowledgement. So a vote stays where the object has
// not, until a round or a hint has brought that.
func (s *Store) Outvoted(of repair.Span, pv ring.Version, rows []repair.RecordRow) error {
	if err := s.takesWrites(); err != nil {
		return err
	}
	w := s.scratch()
	defer s.putBack(w)
	return s.restoreAll(of, pv, rows, func(key []byte, tenant ring.TenantNumber, old, r *causal.Record, now time.Time) (bool, error) {
		holds := s.opts.Records.holds
		if old == nil || old.Applied || !holds(tenant, old, now) || !r.Applied || !holds(tenant, r, now) {
			return false, nil
		}
		if s.settled(key, r.Dot) {
			return true, nil
		}
		object, err := s.objectOf(key)
		if err != nil {
			return false, err
		}
		w.key = append(w.key[:0], object...)
		h, err := s.load(w)
		return h.object.Context.Covers(r.Dot), err
	})
}
