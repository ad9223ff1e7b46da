package engine

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/compaction"
	"github.com/pairdb/pairdb/engine/manifest"
)

func isReadOnly(err error) bool { return errors.Is(err, ErrReadOnly) }

// runCompaction does the most urgent compaction, if there is one.
func (db *DB) runCompaction() error {
	if err := db.begin(&db.compact); err != nil {
		return err
	}
	rs := db.acquireState()
	err := db.compactTables(rs, db.shape.Pick(rs.v.Version, db.cursors))
	rs.release()
	db.end(&db.compact, "compaction", err)
	return err
}

// Compact merges everything in [start, end] down to the lowest level that holds
// any of it, which drops what is overwritten or deleted there. nil bounds are
// open. Memtables are flushed first.
func (db *DB) Compact(start, end []byte) error {
	if err := db.Flush(); err != nil {
		return err
	}
	for level := range db.opts.Levels - 1 {
		if err := db.compactLevel(level, start, end); err != nil {
			return fmt.Errorf("compact level %d: %w", level, err)
		}
	}
	return nil
}

// compactLevel merges what a level holds of [start, end] into the next one,
// unless there is nothing below and nothing to drop.
func (db *DB) compactLevel(level int, start, end []byte) error {
	rs := db.acquireState()
	todo := rs.v.Overlapping(level, start, end, false)
	below := level == 0 || compaction.HasBelow(rs.v.Version, level, start, end, false)
	rs.release()
	if !below {
		return nil
	}
	for _, f := range todo {
		if err := db.compactFile(level, f, start, end); err != nil {
			return err
		}
	}
	return nil
}

// compactFile merges f, if it is still in level, into the next one; from level
// 0, all of [start, end] goes with it.
func (db *DB) compactFile(level int, f *manifest.FileMeta, start, end []byte) error {
	for {
		err := db.begin(&db.compact)
		if err == nil {
			break
		}
		if err != errJobRunning {
			return err
		}
		db.mu.Lock()
		for db.compact.running && !db.closed {
			db.progress.Wait()
		}
		db.mu.Unlock()
	}
	rs := db.acquireState()
	var job *compaction.Job
	if _, ok := findFile(rs.v.Version, level, f.Num); ok {
		if level > 0 {
			start, end = f.Smallest.UserKey, f.Smallest.UserKey
		}
		job = db.shape.PickRange(rs.v.Version, level, start, end)
	}
	if job != nil && job.Move && hasTombstones(job.Inputs) {
		job.Move = false // merging may drop them
	}
	err := db.compactTables(rs, job)
	rs.release()
	db.end(&db.compact, "compaction", err)
	if err == nil {
		db.schedule()
	}
	return err
}

func hasTombstones(files []*manifest.FileMeta) bool {
	for _, f := range files {
		if f.Deletes > 0 || f.RangeDels > 0 {
			return true
		}
	}
	return false
}

func findFile(v *manifest.Version, level int, num uint64) (*manifest.FileMeta, bool) {
	for _, f := range v.Levels[level] {
		if f.Num == num {
			return f, true
		}
	}
	return nil, false
}

// compactTables does a job on the version of rs; nil is no job. The caller owns
// the compaction, so that nobody else takes tables from the version or adds any
// below level 0.
func (db *DB) compactTables(rs *readState, job *compaction.Job) error {
	if job == nil {
		return nil
	}
	e := &manifest.Edit{}
	for _, f := range job.Inputs {
		e.Deleted = append(e.Deleted, manifest.DeletedFile{Level: job.Level, Num: f.Num})
	}
	files := job.Inputs
	if !job.Move {
		for _, f := range job.Below {
			e.Deleted = append(e.Deleted, manifest.DeletedFile{Level: job.Output, Num: f.Num})
		}
		var err error
		if files, err = db.mergeTables(rs, job); err != nil {
			return err
		}
	}
	for _, f := range files {
		e.Added = append(e.Added, manifest.NewFile{Level: job.Output, FileMeta: f})
	}
	_, end, _ := compaction.Bounds(job.Inputs)
	err := db.edit(e, nil, func() { db.cursors[job.Level] = bytes.Clone(end) })
	if err != nil {
		if !job.Move {
			db.dropUnlisted(files, err)
		}
		return err
	}
	in, out := manifest.Bytes(job.Files()), manifest.Bytes(files)
	db.stats.compacted(job.Move, in, out)
	if f := db.opts.Events.Compacted; f != nil {
		f(job.Level, job.Output, in, out)
	}
	return nil
}

// mergeTables writes the merged tables of a job.
func (db *DB) mergeTables(rs *readState, job *compaction.Job) ([]*manifest.FileMeta, error) {
	db.mu.Lock()
	snapshots := db.snapshots.list()
	db.mu.Unlock()
	its, dels, err := openInputs(rs.v, job)
	m := newMergeIter(its)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	files, err := db.writeTables(compaction.NewIter(compaction.IterOptions{
		In: m, RangeDels: dels, Snapshots: snapshots,
		NothingBelow: func(start, end []byte) bool {
			return !compaction.HasBelow(rs.v.Version, job.Output, start, end, !bytes.Equal(start, end))
		},
	}), job.Output)
	if cerr := m.Close(); err == nil && cerr != nil {
		err = cerr
	}
	return files, err
}

// openInputs returns iterators over the inputs of a job and all their range
// deletes. The iterators are to be closed after an error, too.
func openInputs(v *version, job *compaction.Job) (its []base.InternalIterator, dels []base.RangeDel, err error) {
	inputs := pickTables(v.levels[job.Level], job.Inputs)
	below := pickTables(v.levels[job.Output], job.Below)
	if job.Level == 0 {
		for _, t := range inputs {
			its = append(its, &levelIter{tables: []*table{t}, compaction: true})
		}
	} else {
		its = append(its, &levelIter{tables: inputs, compaction: true})
	}
	its = append(its, &levelIter{tables: below, compaction: true})
	for _, t := range append(inputs, below...) {
		if t.RangeDels == 0 {
			continue
		}
		o, err := t.acquire()
		if err != nil {
			return its, nil, err
		}
		dels = append(dels, o.RangeDels()...)
		o.release()
	}
	return its, dels, nil
}

// pickTables returns the tables of a level that files names, in its order.
func pickTables(level []*table, files []*manifest.FileMeta) []*table {
	byNum := make(map[uint64]*table, len(level))
	for _, t := range level {
		byNum[t.Num] = t
	}
	out := make([]*table, len(files))
	for i, f := range files {
		out[i] = byNum[f.Num]
	}
	return out
}
