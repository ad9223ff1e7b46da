package replica

import (
	"bytes"
	"encoding/binary"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/gossip/ring"
)

var _ rounds = (*Store)(nil)

// rounds is what is here of repair.Replica.
type rounds interface {
	State(s repair.Span) (repair.State, error)
	Adopt(s repair.Span, c *causal.Confirmed) error
	Release(s repair.Span, c *causal.Confirmed) error
	Rows(r repair.Range, after *repair.Row, limit int) (rows []repair.Row, more bool, err error)
}

// State implements repair.Replica. What was minted up to Drawn is visible when it
// returns, or never will be.
func (s *Store) State(of repair.Span) (repair.State, error) {
	at, err := s.find(of)
	if err != nil {
		return repair.State{}, err
	}
	if err := s.takesReads(); err != nil {
		return repair.State{}, err
	}
	k, sp := at.told(of.Class), at.span(of.Class)
	st := repair.State{
		Session: s.opts.Actor, Actor: s.opts.Actor, Drawn: s.counters[of.Partition].Load(),
		Now:      s.opts.Records.now().UnixMilli(),
		Released: *k.released, Confirmed: *k.confirmed, Sweeping: sp != nil && sp.sweeping.Load(),
	}
	s.passLocks()
	var known bool
	if st.Votes, known, err = s.openVotes(of.Partition); err != nil {
		return repair.State{}, err
	}
	st.VotesUnknown = !known
	if st.Seen, err = s.Seen(of.Partition); err != nil {
		return repair.State{}, err
	}
	return st, nil
}

// maxRowBytes bounds the rows of one answer, in bytes of keys and objects.
const maxRowBytes = 1 << 20

// Rows implements repair.Replica.
func (s *Store) Rows(r repair.Range, after *repair.Row, limit int) (rows []repair.Row, more bool, err error) {
	if err := s.takesReads(); err != nil {
		return nil, false, err
	}
	at := coord.Address{Partition: r.Partition, Tenant: r.Tenant, Token: r.First}
	lower := appendHead(nil, kindObject, &at)
	at.Token = r.Last
	upper := coord.Successor(appendHead(nil, kindObject, &at))
	if after != nil {
		at.Token, at.Key = after.Token, after.Key
		lower = append(appendKey(nil, &at), 0) // the key behind it
	}
	c, lww := &nothing, false
	if s.opts.Tenant != nil {
		if t, ok := s.opts.Tenant(r.Tenant); ok {
			c, lww = s.confirmed(r.Partition, t.Class), t.LWW
		}
	}
	newest, err := s.rows(r.Partition, lower, upper, c, lww, func(row *repair.Row, size int) bool {
		more = len(rows) > 0 && (len(rows) >= limit || size > maxRowBytes)
		if !more {
			rows = append(rows, *row)
		}
		return !more
	})
	if err == nil {
		if err = s.opts.Engine.WaitDurable(newest); err != nil {
			err = writeError(err, false)
		}
	}
	if err != nil {
		return nil, false, err
	}
	return rows, more, nil
}

// rows calls take with each row and the bytes of all so far, and returns the newest
// write among them.
func (s *Store) rows(p ring.Partition, lower, upper []byte, c *causal.Confirmed, lww bool, take func(*repair.Row, int) bool) (newest base.SeqNum, err error) {
	it, err := s.opts.Engine.NewIter(lower, upper)
	if err != nil {
		return 0, s.readError(p, err)
	}
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			err = s.readError(p, cerr)
		}
	}()
	size := 0
	for ok := it.First(); ok; ok = it.Next() {
		o, err := causal.Decode(it.Value())
		if err != nil {
			return 0, s.undecodable(it.Key(), "the stored object", err)
		}
		newest = max(newest, it.Seq())
		o = o.Settled(c, lww)
		if o.IsZero() {
			continue
		}
		o.Floor = 0
		for i := range o.Siblings {
			t := &o.Siblings[i]
			t.Value, t.IdempotencyKey, t.Past = nil, bytes.Clone(t.IdempotencyKey), nil
		}
		row := repair.Row{
			Token: ring.Token(binary.BigEndian.Uint64(it.Key()[keyHead-8:])), Key: bytes.Clone(it.Key()[keyHead:]),
			Object: o, Size: len(it.Value()),
		}
		size += len(row.Key) + o.EncodedLen()
		if !take(&row, size) {
			break
		}
	}
	return newest, nil
}
