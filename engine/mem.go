package engine

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/memtable"
	"github.com/pairdb/pairdb/engine/rangedel"
)

// maxMemRangeDels bounds the range deletes of one memtable: their fragments may
// be as many as the square of it.
const maxMemRangeDels = 512

// memTable is a memtable with what the DB has to know about it.
type memTable struct {
	*memtable.Table
	// refs counts the states that list the table; at 0 its memory goes back.
	refs atomic.Int32
	// firstSeg is the oldest log segment that holds records of it.
	firstSeg uint64
	// last is the newest sequence number in it, set when it becomes immutable.
	last base.SeqNum
	// dels is built from the range deletes when it is first needed, and again
	// when there are more.
	dels atomic.Pointer[memDels]
}

type memDels struct {
	count int
	list  *rangedel.List
}

func newMemTable(size int64, firstSeg uint64) *memTable {
	return &memTable{Table: memtable.New(int(size)), firstSeg: firstSeg}
}

// unref says that a state no longer needs the table.
func (m *memTable) unref() {
	if m.refs.Add(-1) == 0 {
		m.Close()
	}
}

// fits reports whether a batch that needs n bytes can be added for sure.
func (m *memTable) fits(n int64) bool {
	return int64(m.Free()) >= n && len(m.Table.RangeDels()) < maxMemRangeDels
}

// rangeDels returns an index of the range deletes added before the call.
func (m *memTable) rangeDels() *rangedel.List {
	rds := m.Table.RangeDels()
	if len(rds) == 0 {
		return nil
	}
	if d := m.dels.Load(); d != nil && d.count >= len(rds) {
		return d.list
	}
	d := &memDels{count: len(rds), list: rangedel.Build(rds)}
	m.dels.Store(d)
	return d.list
}

// maxPlaces is how many operations of a batch have their places looked for before
// the lock is taken; a larger batch has enough to do under it to be worth waiting
// for.
const maxPlaces = 16

// places are where the operations of a batch go in a memtable.
type places struct {
	in    *memTable
	point []memtable.Place // of the sets and deletes, in order
}

// find looks for the places of a batch's operations in m, which the caller keeps
// alive meanwhile. For a batch that is too large it does nothing.
func (p *places) find(m *memTable, b *Batch) {
	p.in, p.point = nil, p.point[:0]
	if b.count > maxPlaces {
		return
	}
	r, err := newBatchReader(b.data)
	if err != nil {
		return
	}
	for {
		kind, key, _, ok := r.next()
		if !ok {
			break
		}
		if kind != base.KindRangeDelete {
			n := len(p.point)
			p.point = slices.Grow(p.point, 1)[:n+1]
			m.Find(key, &p.point[n])
		}
	}
	p.in = m
}

// apply adds an encoded batch whose header is filled in, at the places if they
// are in this table. The caller made sure that it fits.
func (m *memTable) apply(data []byte, p *places) error {
	var at []memtable.Place
	if p != nil && p.in == m {
		at = p.point
	}
	r, err := newBatchReader(data)
	if err != nil {
		return err
	}
	seq := r.first
	for {
		kind, key, value, ok := r.next()
		if !ok {
			break
		}
		if kind == base.KindRangeDelete {
			err = m.AddRangeDel(key, value, seq)
		} else if len(at) > 0 {
			err = m.AddAt(&at[0], base.MakeInternalKey(key, seq, kind), value)
			at = at[1:]
		} else {
			err = m.Add(base.MakeInternalKey(key, seq, kind), value)
		}
		if err != nil {
			return fmt.Errorf("apply batch to memtable: %w", err)
		}
		seq++
	}
	if r.bad {
		return errBatch
	}
	return nil
}

// batchNeed returns what an encoded batch takes in a memtable at most, and
// calls fn, if not nil, with the key of each set and delete and its number.
func batchNeed(data []byte, fn func(key []byte, seq base.SeqNum)) (int64, error) {
	r, err := newBatchReader(data)
	if err != nil {
		return 0, err
	}
	var need int64
	for {
		kind, key, value, ok := r.next()
		if !ok {
			break
		}
		need += int64(memtable.Need(len(key), len(value)))
		if fn != nil && kind != base.KindRangeDelete {
			fn(key, r.first+base.SeqNum(r.read)-1)
		}
	}
	if r.bad {
		return 0, errBatch
	}
	return need, nil
}
