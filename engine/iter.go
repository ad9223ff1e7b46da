package engine

import (
	"bytes"
	"errors"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/rangedel"
)

// ErrBudget says that an iterator stopped at its work budget. See SetBudget.
var ErrBudget = errors.New("engine: iterator stopped at its work budget")

// Iterator walks the keys of a consistent view in order, both ways. One
// goroutine uses it. Positioning methods return whether it now stands on a key;
// after false, Error says whether it ended or failed. Close it: until then the
// files it reads are kept.
type Iterator struct {
	rs           *readState
	m            *mergeIter
	seq          base.SeqNum
	lower, upper []byte
	dels         []*rangedel.List

	// key is the current user key, or that last looked at. Going forward m
	// stands on its entry; going back m stands before all its versions and
	// val holds the value.
	key, val []byte
	at       base.SeqNum // of the version it stands on
	back     bool
	valid    bool
	err      error

	limited bool
	budget  int
	resume  []byte
}

// NewIter returns an iterator over the keys in [lower, upper), nil bounds being
// open, as they are now. It is not positioned.
func (db *DB) NewIter(lower, upper []byte) (*Iterator, error) {
	return db.newIter(lower, upper, base.MaxSeqNum)
}

func (db *DB) newIter(lower, upper []byte, snap base.SeqNum) (*Iterator, error) {
	if db.closing.Load() {
		return nil, ErrClosed
	}
	rs := db.acquireState()
	it := &Iterator{
		rs: rs, seq: min(snap, base.SeqNum(db.visible.Load())),
		lower: bytes.Clone(lower), upper: bytes.Clone(upper),
	}
	its := []base.InternalIterator{rs.mem.NewIter()}
	it.addDels(rs.mem.rangeDels())
	for _, m := range rs.imm {
		its = append(its, m.NewIter())
		it.addDels(m.rangeDels())
	}
	for level, tables := range rs.v.levels {
		tables = tablesIn(tables, level > 0, lower, upper)
		if level > 0 && len(tables) > 0 {
			its = append(its, &levelIter{tables: tables})
		}
		for i, t := range tables {
			if level == 0 {
				its = append(its, &levelIter{tables: tables[i : i+1]})
			}
			if t.RangeDels == 0 {
				continue
			}
			o, err := t.acquire()
			if err != nil {
				rs.release()
				return nil, err
			}
			it.addDels(o.dels)
			o.release()
		}
	}
	it.m = newMergeIter(its)
	return it, nil
}

func (it *Iterator) addDels(l *rangedel.List) {
	if l != nil {
		it.dels = append(it.dels, l)
	}
}

// SetBudget makes the iterator stop after looking at about n entries, versions
// and tombstones included, from now on: positioning then returns false, Error
// returns ErrBudget and ResumeKey tells where to go on. n must be at least 2;
// 0 lifts the limit. It clears an ErrBudget.
func (it *Iterator) SetBudget(n int) {
	it.limited, it.budget = n > 0, n
	if errors.Is(it.err, ErrBudget) {
		it.err = nil
	}
}

// ResumeKey returns, after ErrBudget, the key to SeekGE to, or to SeekLT if the
// iterator went back, to go on without missing or repeating a key. It is valid
// until the next call.
func (it *Iterator) ResumeKey() []byte { return it.resume }

// BudgetLeft returns how many entries the budget still has.
func (it *Iterator) BudgetLeft() int { return max(it.budget, 0) }

// spend takes one entry from the budget.
func (it *Iterator) spend() bool {
	if !it.limited {
		return true
	}
	it.budget--
	return it.budget >= 0
}

// stop ends the positioning for lack of budget; the keys from k on, if
// inclusive, else those behind k, were not looked at.
func (it *Iterator) stop(k []byte, inclusive bool) bool {
	it.resume = append(it.resume[:0], k...)
	if !inclusive {
		it.resume = append(it.resume, 0) // the least key above k
	}
	it.err, it.valid = ErrBudget, false
	return false
}

// ready reports whether a positioning call may go ahead.
func (it *Iterator) ready() bool {
	it.valid = false
	if it.m == nil && it.err == nil {
		it.err = ErrClosed
	}
	return it.err == nil
}

// First moves to the first key.
func (it *Iterator) First() bool {
	if it.lower != nil {
		return it.SeekGE(it.lower)
	}
	if !it.ready() {
		return false
	}
	it.back = false
	it.m.First()
	return it.findNext(false)
}

// Last moves to the last key.
func (it *Iterator) Last() bool {
	if it.upper != nil {
		return it.SeekLT(it.upper)
	}
	if !it.ready() {
		return false
	}
	it.back = true
	it.m.Last()
	return it.findPrev()
}

// SeekGE moves to the first key at or after key.
func (it *Iterator) SeekGE(key []byte) bool {
	if !it.ready() {
		return false
	}
	if it.lower != nil && bytes.Compare(key, it.lower) < 0 {
		key = it.lower
	}
	it.back = false
	it.m.SeekGE(base.SearchKey(key, it.seq))
	return it.findNext(false)
}

// SeekLT moves to the last key before key.
func (it *Iterator) SeekLT(key []byte) bool {
	if !it.ready() {
		return false
	}
	if it.upper != nil && bytes.Compare(key, it.upper) > 0 {
		key = it.upper
	}
	it.back = true
	it.m.SeekLT(base.SearchKey(key, base.MaxSeqNum))
	return it.findPrev()
}

// Next moves to the next key. It does nothing when the iterator is not valid.
func (it *Iterator) Next() bool {
	if !it.valid || !it.ready() {
		return false
	}
	if it.back {
		it.back = false
		it.m.SeekGE(base.InternalKey{UserKey: it.key}) // behind all versions
	} else {
		it.m.Next()
	}
	return it.findNext(true)
}

// Prev moves to the key before. It does nothing when the iterator is not valid.
func (it *Iterator) Prev() bool {
	if !it.valid || !it.ready() {
		return false
	}
	if !it.back {
		it.back = true
		it.m.SeekLT(base.SearchKey(it.key, base.MaxSeqNum))
	}
	return it.findPrev()
}

// findNext moves forward from where m stands to the first visible value. If
// skip, versions of it.key are passed over.
func (it *Iterator) findNext(skip bool) bool {
	for it.m.Valid() {
		k := it.m.Key()
		if it.upper != nil && bytes.Compare(k.UserKey, it.upper) >= 0 {
			return false
		}
		same := skip && bytes.Equal(k.UserKey, it.key)
		if !it.spend() {
			return it.stop(k.UserKey, !same)
		}
		if same || k.SeqNum() > it.seq {
			it.m.Next()
			continue
		}
		it.key = append(it.key[:0], k.UserKey...)
		if k.Kind() == base.KindSet && !it.covered(k) {
			it.valid, it.at = true, k.SeqNum()
			return true
		}
		skip = true
		it.m.Next()
	}
	it.err = it.m.Error()
	return false
}

// findPrev moves back from where m stands, which is behind all versions of some
// key, to the first key that has a visible value.
func (it *Iterator) findPrev() bool {
	looking, found := false, false // at it.key; it has a value
	for it.m.Valid() {
		k := it.m.Key()
		if it.lower != nil && bytes.Compare(k.UserKey, it.lower) < 0 {
			break
		}
		if looking && !bytes.Equal(k.UserKey, it.key) {
			if found {
				break
			}
			looking = false
		}
		if enough := !it.spend(); enough && !looking {
			return it.stop(k.UserKey, false)
		}
		if !looking {
			looking = true
			it.key = append(it.key[:0], k.UserKey...)
		}
		if k.SeqNum() <= it.seq {
			// Versions come oldest first, so the last one seen decides.
			found = k.Kind() == base.KindSet && !it.covered(k)
			if found {
				it.val, it.at = append(it.val[:0], it.m.Value()...), k.SeqNum()
			}
		}
		it.m.Prev()
	}
	if it.err = it.m.Error(); it.err != nil {
		return false
	}
	it.valid = found
	return found
}

// covered reports whether a range delete hides the version k.
func (it *Iterator) covered(k base.InternalKey) bool {
	for _, l := range it.dels {
		if l.Newest(k.UserKey, it.seq) > k.SeqNum() {
			return true
		}
	}
	return false
}

// Valid reports whether the iterator stands on a key.
func (it *Iterator) Valid() bool { return it.valid }

// Key returns the current key, valid until the next positioning call.
func (it *Iterator) Key() []byte { return it.key }

// Value returns the current value, valid until the next positioning call.
func (it *Iterator) Value() []byte {
	if it.back {
		return it.val
	}
	return it.m.Value()
}

// Seq returns the sequence number of the write that set the current value, so
// that the caller can tell whether it is durable yet (DurableSeq, WaitDurable).
func (it *Iterator) Seq() base.SeqNum { return it.at }

// Error returns what ended the iteration early, nil at a plain end.
func (it *Iterator) Error() error { return it.err }

// Close releases the iterator and returns Error, but for ErrBudget. It is
// idempotent.
func (it *Iterator) Close() error {
	if it.m == nil {
		return nil
	}
	err := it.m.Close()
	it.rs.release()
	it.m, it.rs, it.valid = nil, nil, false
	return err
}
