package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/pairdb/pairdb/engine/compaction"
	"github.com/pairdb/pairdb/engine/manifest"
)

// errAvoided says that a compaction would have to read a table that is known to
// be damaged.
var errAvoided = fmt.Errorf("%w: a table is damaged and has to be quarantined first", ErrCorrupt)

func isReadOnly(err error) bool { return errors.Is(err, ErrReadOnly) }

// pickLocked returns the compaction to do next, nil if there is none.
func (db *DB) pickLocked() *compaction.Job {
	return db.version.tree.Pick(compaction.Context{
		Busy: &db.busy, Cursors: db.cursors, Floor: db.floorLocked(),
		Room: db.roomLocked(), Since: db.sinceLocked(),
	})
}

// compactDueLocked reports whether another compaction should be handed to the
// scheduler. What a job does is chosen when it begins, so one that waits to
// begin is enough.
func (db *DB) compactDueLocked() bool {
	c := &db.compact
	return !c.failed && c.queued == 0 && c.running+db.helpers < db.opts.MaxBackgroundJobs &&
		(db.pickLocked() != nil || db.coverDueLocked())
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
	db.pollDisk()
	db.mu.Lock()
	if err := db.usableLocked(); err != nil {
		db.mu.Unlock()
		return err
	}
	job := db.pickLocked()
	if job == nil {
		busy, room := db.compact.running > 0, db.roomLocked()
		short := db.version.tree.Pick(compaction.Context{Busy: &db.busy, Cursors: db.cursors, Floor: db.floorLocked()})
		db.mu.Unlock()
		switch dropped, err := db.dropCovered(); {
		case dropped || err != nil:
			return err
		case busy:
			return errJobRunning
		case short != nil:
			return noRoom(ErrDiskFull, short, room)
		}
		return nil
	}
	rs := db.claimLocked(job)
	db.mu.Unlock()
	return db.doCompaction(rs, job, nil)
}

// noRoom says that a compaction has to wait for space, and what that means for
// whoever waits for it.
func noRoom(means error, job *compaction.Job, room int64) error {
	return fmt.Errorf("%w: a compaction from level %d needs %d bytes, %d are free for it", means, job.Level, job.Need(), room)
}

// claimLocked takes the tables and the range of a job for the caller, who does
// it with doCompaction. It returns the state whose version the job is of.
func (db *DB) claimLocked(job *compaction.Job) *readState {
	db.compact.running++
	db.busy.Add(job)
	return db.acquireState() // mu is held: it is that of db.version
}

// doCompaction does a claimed job and gives back its claim. stop, if not nil, is
// asked now and then, by several goroutines, and its error ends the job.
func (db *DB) doCompaction(rs *readState, job *compaction.Job, stop func() error) error {
	db.schedule() // others may go on beside it
	err := db.protect(poolCompact, func() error { return db.compactTables(rs, job, stop) })
	rs.release()
	db.end(&db.compact, poolCompact, err, func() { db.busy.Remove(job) })
	return err
}

// CompactOptions say what CompactWith merges. The zero value is everything.
type CompactOptions struct {
	// Start and End bound the keys, End included; nil bounds are open. A table
	// that holds any of them is merged whole.
	Start, End []byte
	// Progress, if set, is called after each merge by the goroutine that
	// compacts.
	Progress func(CompactProgress)
}

// CompactProgress says how far a CompactWith has come.
type CompactProgress struct {
	Level int // whose tables are being merged into the next one
	// Done of the Tables that Level held of the keys when its turn came are
	// merged, or were by others.
	Done, Tables int
	// Merges were done so far, in all levels; Bytes is what they read.
	Merges int
	Bytes  int64
}

// Compact merges everything in [start, end] down to the lowest level that holds
// any of it, which drops what is overwritten or deleted there. nil bounds are
// open. Memtables are flushed first.
func (db *DB) Compact(start, end []byte) error {
	_, err := db.CompactWith(context.Background(), CompactOptions{Start: start, End: end})
	return err
}

// CompactWith is Compact for a caller who wants to see how it goes and to be able
// to stop it: once ctx ends, the merge under way is dropped and the error is that
// of ctx. The flush at the beginning, and a compaction of the background that is
// in the way, are waited for all the same. The merges done before stay.
func (db *DB) CompactWith(ctx context.Context, opts CompactOptions) (CompactProgress, error) {
	c := &compactCall{db: db, ctx: ctx, opts: opts}
	if err := ctx.Err(); err != nil {
		return c.progress, fmt.Errorf("compact: %w", err)
	}
	if err := db.Flush(); err != nil {
		return c.progress, err
	}
	for level := range db.opts.Levels - 1 {
		if err := c.level(level); err != nil {
			return c.progress, fmt.Errorf("compact level %d: %w", level, err)
		}
	}
	return c.progress, nil
}

// compactCall is one CompactWith.
type compactCall struct {
	db       *DB
	ctx      context.Context
	opts     CompactOptions
	progress CompactProgress
}

// level merges what a level holds of the keys into the next one, unless there is
// nothing below and nothing to drop.
func (c *compactCall) level(level int) error {
	start, end := c.opts.Start, c.opts.End
	rs := c.db.acquireState()
	todo := rs.v.Overlapping(level, start, end, false)
	below := level == 0 || compaction.HasBelow(rs.v.Version, level, start, end, false)
	rs.release()
	if !below {
		return nil
	}
	c.progress.Level, c.progress.Done, c.progress.Tables = level, 0, len(todo)
	for i, f := range todo {
		if err := c.file(level, f); err != nil {
			return err
		}
		c.progress.Done = i + 1
		if c.opts.Progress != nil {
			c.opts.Progress(c.progress)
		}
	}
	return nil
}

// file merges f, if it is still in level, into the next one; from level 0, all of
// the keys go with it. It waits for jobs in its way.
func (c *compactCall) file(level int, f *manifest.FileMeta) error {
	db, start, end := c.db, c.opts.Start, c.opts.End
	db.mu.Lock()
	for {
		err := db.usableLocked()
		if err == nil {
			err = c.ctx.Err()
		}
		if err != nil {
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
		if db.busy.Avoids(job.Files()) {
			db.mu.Unlock()
			return errAvoided
		}
		if room := db.roomLocked(); room > 0 && job.Need() > room && db.busy.Len() == 0 {
			db.mu.Unlock()
			return noRoom(ErrNoSpace, job, room)
		} else if (room == 0 || job.Need() <= room) && !db.busy.Conflicts(job) {
			rs := db.claimLocked(job)
			db.mu.Unlock()
			err := db.doCompaction(rs, job, c.ctx.Err)
			if err == nil {
				c.progress.Merges++
				c.progress.Bytes += manifest.Bytes(job.Files())
			}
			db.schedule() // also after a stop: what was claimed is free again
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
func (db *DB) compactTables(rs *readState, job *compaction.Job, stop func() error) error {
	e := &manifest.Edit{}
	for _, f := range job.Inputs {
		e.Deleted = append(e.Deleted, manifest.DeletedFile{Level: job.Level, Num: f.Num})
	}
	files := job.Inputs
	switch {
	case job.Drop:
		files = nil
	case !job.Move:
		for _, f := range job.Below {
			e.Deleted = append(e.Deleted, manifest.DeletedFile{Level: job.Output, Num: f.Num})
		}
		var err error
		if files, err = db.mergeTables(rs, job, stop); err != nil {
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
