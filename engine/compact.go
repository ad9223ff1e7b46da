package engine

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/pairdb/pairdb/engine/compaction"
	"github.com/pairdb/pairdb/engine/manifest"
)

func isReadOnly(err error) bool { return errors.Is(err, ErrReadOnly) }

// pickLocked returns the compaction to do next, nil if there is none.
func (db *DB) pickLocked() *compaction.Job {
	return db.version.tree.Pick(compaction.Context{
		Busy: &db.busy, Cursors: db.cursors, Floor: db.snapshots.oldest(),
	})
}

// compactDueLocked reports whether another compaction should be handed to the
// scheduler. What a job does is chosen when it begins, so one that waits to
// begin is enough.
func (db *DB) compactDueLocked() bool {
	c := &db.compact
	return !c.failed && c.queued == 0 && c.running+db.helpers < db.opts.MaxBackgroundJobs && db.pickLocked() != nil
}

func (db *DB) compactJob() {
	db.begun(&db.compact)
	if err := db.runCompaction(); err == nil {
		db.schedule()
	}
}

// runCompaction does the most urgent compaction that is in the way of none under
// way. If there is only such, it returns errJobRunning; if there is nothing to
// do, nil.
func (db *DB) runCompaction() error {
	db.mu.Lock()
	if err := db.usableLocked(); err != nil {
		db.mu.Unlock()
		return err
	}
	job := db.pickLocked()
	if job == nil {
		busy := db.compact.running > 0
		db.mu.Unlock()
		if busy {
			return errJobRunning
		}
		return nil
	}
	rs := db.claimLocked(job)
	db.mu.Unlock()
	return db.doCompaction(rs, job)
}

// claimLocked takes the tables and the range of a job for the caller, who does
// it with doCompaction. It returns the state whose version the job is of.
func (db *DB) claimLocked(job *compaction.Job) *readState {
	db.compact.running++
	db.busy.Add(job)
	return db.acquireState() // mu is held: it is that of db.version
}

// doCompaction does a claimed job and gives back its claim.
func (db *DB) doCompaction(rs *readState, job *compaction.Job) error {
	db.schedule() // others may go on beside it
	err := db.protect(poolCompact, func() error { return db.compactTables(rs, job) })
	rs.release()
	db.end(&db.compact, poolCompact, err, func() { db.busy.Remove(job) })
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
// 0, all of [start, end] goes with it. It waits for jobs in its way.
func (db *DB) compactFile(level int, f *manifest.FileMeta, start, end []byte) error {
	db.mu.Lock()
	for {
		if err := db.usableLocked(); err != nil {
			db.mu.Unlock()
			return err
		}
		if _, ok := findFile(db.version.Version, level, f.Num); !ok {
			db.mu.Unlock()
			return nil
		}
		if level > 0 {
			start, end = f.Smallest.UserKey, f.Smallest.UserKey
		}
		job := db.version.tree.PickRange(level, start, end)
		if !db.busy.Conflicts(job) {
			rs := db.claimLocked(job)
			db.mu.Unlock()
			err := db.doCompaction(rs, job)
			if err == nil {
				db.schedule()
			}
			return err
		}
		db.progress.Wait()
	}
}

func findFile(v *manifest.Version, level int, num uint64) (*manifest.FileMeta, bool) {
	for _, f := range v.Levels[level] {
		if f.Num == num {
			return f, true
		}
	}
	return nil, false
}

// compactTables does a claimed job on the version of rs.
func (db *DB) compactTables(rs *readState, job *compaction.Job) error {
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
	db.stats.compacted(job, in, out)
	if f := db.opts.Events.Compacted; f != nil {
		f(job.Level, job.Output, in, out)
	}
	return nil
}
