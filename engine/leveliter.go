package engine

import (
	"bytes"
	"sort"

	"github.com/pairdb/pairdb/engine/base"
)

// levelIter walks the point entries of tables that are sorted and do not
// overlap, of which it holds one at a time open.
type levelIter struct {
	tables []*table
	// compaction says that the tables are read once and whole.
	compaction bool

	at  int // index of cur
	o   *openTable
	cur base.InternalIterator // nil: not on an entry
	err error
}

var _ base.InternalIterator = (*levelIter)(nil)

// open makes the table at index i the current one.
func (l *levelIter) open(i int) bool {
	if l.cur != nil && l.at == i {
		return true
	}
	l.closeCur()
	o, err := l.tables[i].acquire()
	if err != nil {
		l.err = err
		return false
	}
	var it base.InternalIterator
	if l.compaction {
		it, err = o.NewCompactionIter()
	} else {
		it, err = o.NewIter()
	}
	if err != nil {
		o.release()
		l.err = err
		return false
	}
	l.at, l.o, l.cur = i, o, it
	return true
}

func (l *levelIter) closeCur() {
	if l.cur == nil {
		return
	}
	if err := l.cur.Close(); err != nil && l.err == nil {
		l.err = err
	}
	l.o.release()
	l.cur, l.o = nil, nil
}

// forward positions in table i by pos, or at the first entry behind it.
func (l *levelIter) forward(i int, pos func() bool) bool {
	for ; i < len(l.tables) && l.err == nil; i++ {
		if !l.open(i) {
			return false
		}
		if pos == nil {
			pos = l.cur.First
		}
		if pos() {
			return true
		}
		if l.err = l.cur.Error(); l.err != nil {
			break
		}
		pos = nil
	}
	l.closeCur()
	return false
}

// backward positions in table i by pos, or at the last entry before it.
func (l *levelIter) backward(i int, pos func() bool) bool {
	for ; i >= 0 && l.err == nil; i-- {
		if !l.open(i) {
			return false
		}
		if pos == nil {
			pos = l.cur.Last
		}
		if pos() {
			return true
		}
		if l.err = l.cur.Error(); l.err != nil {
			break
		}
		pos = nil
	}
	l.closeCur()
	return false
}

func (l *levelIter) First() bool { return l.forward(0, nil) }
func (l *levelIter) Last() bool  { return l.backward(len(l.tables)-1, nil) }

func (l *levelIter) SeekGE(key base.InternalKey) bool {
	i := sort.Search(len(l.tables), func(i int) bool { return !l.tables[i].EndsBefore(key.UserKey) })
	return l.forward(i, func() bool { return l.cur.SeekGE(key) })
}

func (l *levelIter) SeekLT(key base.InternalKey) bool {
	// The last table that may hold something at or before the user key.
	i := sort.Search(len(l.tables), func(i int) bool {
		return bytes.Compare(l.tables[i].Smallest.UserKey, key.UserKey) > 0
	}) - 1
	return l.backward(i, func() bool { return l.cur.SeekLT(key) })
}

// Next and Prev stay in a table as long as they can.
func (l *levelIter) Next() bool { return l.cur.Next() || l.leave() && l.forward(l.at+1, nil) }
func (l *levelIter) Prev() bool { return l.cur.Prev() || l.leave() && l.backward(l.at-1, nil) }

// leave closes the current table and reports whether it just had no more entries.
func (l *levelIter) leave() bool {
	l.err = l.cur.Error()
	l.closeCur()
	return l.err == nil
}

func (l *levelIter) Valid() bool           { return l.cur != nil && l.err == nil && l.cur.Valid() }
func (l *levelIter) Key() base.InternalKey { return l.cur.Key() }
func (l *levelIter) Value() []byte         { return l.cur.Value() }
func (l *levelIter) Error() error          { return l.err }

func (l *levelIter) Close() error {
	l.closeCur()
	return l.err
}
