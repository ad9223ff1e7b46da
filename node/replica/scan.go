package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/gossip/ring"
)

const (
	// maxScans is how many scans run at once: they take the time of cores and
	// disks from reads of single keys. Those behind wait, up to maxWaitingScans.
	maxScans        = 4
	maxWaitingScans = 4096
	// entryOverhead is what an entry counts beside key and object, in bytes.
	entryOverhead = 32
)

// scanQueue holds the scans that wait for one of the jobs that run them.
type scanQueue struct {
	mu struct {
		sync.Mutex
		running int
		waiting []func()
	}
}

// Scan implements coord.Replica.
func (s *Store) Scan(r *coord.ScanRange, done func(p coord.ScanPiece, err error)) {
	q := &s.scans
	q.mu.Lock()
	if len(q.mu.waiting) >= maxWaitingScans {
		q.mu.Unlock()
		done(coord.ScanPiece{}, &coord.Error{
			Code: errcode.ResourceExhausted, Outcome: errcode.NotApplied, Message: "too many scans wait at this replica",
		})
		return
	}
	q.mu.waiting = append(q.mu.waiting, func() { s.scan(r, done) })
	start := q.mu.running < maxScans
	if start {
		q.mu.running++
	}
	q.mu.Unlock()
	if start {
		s.opts.Scheduler.Go("replica scan", s.scanOnce)
	}
}

// scanOnce is a job: it runs one scan that waits and, if there are more, has
// itself run again.
func (s *Store) scanOnce() {
	q := &s.scans
	q.mu.Lock()
	run := q.mu.waiting[0]
	q.mu.waiting[0] = nil
	q.mu.waiting = q.mu.waiting[1:]
	q.mu.Unlock()
	run()
	q.mu.Lock()
	// Every other job under way will take one, too.
	again := len(q.mu.waiting) >= q.mu.running
	if !again {
		q.mu.running--
	}
	q.mu.Unlock()
	if again {
		s.opts.Scheduler.Go("replica scan", s.scanOnce)
	}
}

func (s *Store) scan(r *coord.ScanRange, done func(coord.ScanPiece, error)) {
	if err := s.takesReads(); err != nil {
		done(coord.ScanPiece{}, err)
		return
	}
	p, seq, err := s.collect(r)
	if err != nil {
		done(coord.ScanPiece{}, err)
		return
	}
	s.whenDurable(seq, func(err error) {
		if err != nil {
			p = coord.ScanPiece{}
		}
		done(p, err)
	})
}

// collect returns the piece, and the newest write that it shows.
func (s *Store) collect(r *coord.ScanRange) (p coord.ScanPiece, seq base.SeqNum, err error) {
	// The iterator sees what the engine has when it is made, and marks come before
	// the engine changes: so what is marked then says whether to believe it. What is
	// marked later is damage that this iterator meets as an error.
	lower, upper := scanBounds(r)
	it, err := s.opts.Engine.NewIter(lower, upper)
	if err != nil {
		return p, 0, s.readError(r.Partition, err)
	}
	if err := s.sound(r.Partition); err != nil {
		return p, 0, errors.Join(err, it.Close())
	}
	budget := max(r.Budget, 2)
	it.SetBudget(budget)
	size := 0
	c := s.confirmed(r.Partition, r.Class)
	for ok := it.First(); ok; ok = it.Next() {
		key := it.Key()[keyHead:]
		if !r.Wants(key) {
			continue
		}
		// What the rest of the piece is to be, the entry that does not fit says.
		full := len(p.Entries) >= r.MaxKeys
		var e coord.ScanEntry
		if !full {
			var shown bool
			if e, shown, err = s.scanEntry(it.Key(), it.Value(), r, c); err != nil {
				break
			}
			if !shown {
				continue
			}
			n := entryOverhead + len(e.Key) + len(e.Object)
			full = (r.Strict || len(p.Entries) > 0) && size+n > r.MaxBytes
			size += n
		}
		if full {
			p.Next = positionOf(it.Key())
			break
		}
		p.Entries = append(p.Entries, e)
		seq = max(seq, it.Seq())
	}
	if errors.Is(it.Error(), engine.ErrBudget) {
		p.Next = positionOf(it.ResumeKey())
	}
	p.Scanned = budget - it.BudgetLeft()
	if cerr := it.Close(); err == nil && cerr != nil && !errors.Is(cerr, engine.ErrBudget) {
		err = s.readError(r.Partition, cerr)
	}
	return p, seq, err
}

// scanEntry makes the entry of a storage key, without aliases to the arguments; shown
// is false if readers are shown nothing of it under c.
func (s *Store) scanEntry(key, value []byte, r *coord.ScanRange, c *causal.Confirmed) (e coord.ScanEntry, shown bool, err error) {
	value, err = s.settle(key, bytes.Clone(value), c, r.LWW)
	if err != nil || value == nil {
		return e, false, err
	}
	e = coord.ScanEntry{Key: bytes.Clone(key[keyHead:]), Size: len(value)}
	if r.Mode == coord.ScanValues {
		e.Object = value
		return e, true, nil
	}
	o, err := causal.Decode(value)
	switch {
	case err != nil:
		return e, false, s.undecodable(key, "the stored object", err)
	case r.Mode == coord.ScanDigests:
		e.Digest = o.Digest()
	default:
		for i := range o.Siblings {
			o.Siblings[i].Value = nil
		}
		e.Object = o.Append(nil)
	}
	return e, true, nil
}

// scanBounds returns the storage keys that a scan goes between.
func scanBounds(r *coord.ScanRange) (lower, upper []byte) {
	at := coord.Address{Partition: r.Partition, Tenant: r.Tenant, Token: r.From.Token, Key: r.From.Key}
	lower = appendKey(nil, &at)
	head := lower[:keyHead:keyHead]
	upper = coord.Successor(head[:keyHead-8])
	if r.Group {
		upper = coord.Successor(head)
		if len(r.End) > 0 {
			upper = append(bytes.Clone(head), r.End...)
		}
		if first := append(bytes.Clone(head), r.Start...); bytes.Compare(first, lower) > 0 {
			lower = first
		}
	}
	if r.Until != nil {
		at.Token, at.Key = r.Until.Token, r.Until.Key
		if end := appendKey(nil, &at); bytes.Compare(end, upper) < 0 {
			upper = end
		}
	}
	return lower, upper
}

// positionOf is a storage key's place in a scan.
func positionOf(b []byte) *coord.Position {
	return &coord.Position{Token: ring.Token(binary.BigEndian.Uint64(b[keyHead-8:])), Key: bytes.Clone(b[keyHead:])}
}
