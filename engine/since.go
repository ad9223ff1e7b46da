package engine

import (
	"errors"
	"fmt"

	"github.com/pairdb/pairdb/engine/base"
)

// KeepDeletesAfter makes compactions keep what says that a key was deleted by a
// write above seq, so that KeysSince of seq or more tells of every key. 0 ends
// that. A compaction under way goes by what it was told when it began: what it
// merges was written before this call.
func (db *DB) KeepDeletesAfter(seq base.SeqNum) { db.keepDeletes.Store(uint64(seq)) }

// floorLocked is the sequence number above which no tombstone can be dropped.
func (db *DB) floorLocked() base.SeqNum {
	floor := db.snapshots.oldest()
	if keep := base.SeqNum(db.keepDeletes.Load()); keep != 0 {
		floor = min(floor, keep)
	}
	return floor
}

// KeysSince calls keys with each key that a table has a version or a delete of
// above seq, ascending within a table, a key perhaps several times, and ranges with
// each range delete above seq of tables and memtables. The keys of memtables are not
// told: after Open that are those of Options.OnRecovered. Tables without anything
// above seq are not read. What was deleted above seq is only told of if
// KeepDeletesAfter was as low ever since. The slices are valid during the call.
// stop is asked now and then and ends it early, without an error.
func (db *DB) KeysSince(seq base.SeqNum, keys func(key []byte), ranges func(start, end []byte), stop func() bool) error {
	if db.closing.Load() {
		return ErrClosed
	}
	rs := db.acquireState()
	defer rs.release()
	deleted := func(rds []base.RangeDel) {
		for _, rd := range rds {
			if rd.Seq > seq {
				ranges(rd.Start, rd.End)
			}
		}
	}
	for _, m := range append([]*memTable{rs.mem}, rs.imm...) {
		deleted(m.Table.RangeDels())
	}
	for _, level := range rs.v.levels {
		for _, t := range level {
			if t.LargestSeq <= seq {
				continue
			}
			if err := t.since(seq, keys, deleted, func() bool { return stop() || db.closing.Load() }); err != nil {
				return fmt.Errorf("keys since %d in table %d: %w", seq, t.Num, err)
			}
		}
	}
	if db.closing.Load() {
		return ErrClosed
	}
	return nil
}

// since does KeysSince for one table.
func (t *table) since(seq base.SeqNum, keys func([]byte), deleted func([]base.RangeDel), stop func() bool) (err error) {
	o, err := t.acquire()
	if err != nil {
		return err
	}
	defer o.release()
	deleted(o.RangeDels())
	it, err := o.NewCompactionIter()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if k := it.Key(); k.SeqNum() > seq {
			keys(k.UserKey)
		}
		if n++; n%checkEvery == 0 && stop() {
			return nil
		}
	}
	return it.Error()
}
