// Package engine is PairDB's storage engine: a durable, ordered map from keys
// to values for one process, built as a log-structured merge tree. It knows
// nothing of the rest of PairDB and is usable as a library.
//
// A mutation is visible when Apply returns and durable when its Commit's Wait
// does. Reads take no lock and never wait for writers. After a failed write or
// sync of the log or the manifest the DB only reads (ErrReadOnly); a full disk
// refuses writes for as long as it is full (ErrDiskFull). DESIGN.md says how
// and why.
package engine

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/cache"
	"github.com/pairdb/pairdb/engine/compaction"
	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/engine/wal"
)

// Errors of package base under the names users of the engine know.
var (
	ErrNotFound = base.ErrNotFound
	ErrClosed   = base.ErrClosed
	ErrReadOnly = base.ErrReadOnly
	ErrDiskFull = base.ErrDiskFull
	ErrCorrupt  = base.ErrCorrupt
	ErrFormat   = base.ErrFormat

	ErrDiskThrottled = base.ErrDiskThrottled
	ErrStalled       = base.ErrStalled
	ErrNoSpace       = base.ErrNoSpace
)

// DB is an open engine. It is safe for concurrent use, but for Close, after
// which every call returns ErrClosed.
//
// Locking: mu guards the fields below it and is never held across a file
// operation. What is written to disk has an owner instead, marked by a flag
// under mu: the leader writes the log, whoever set manifestBusy the manifest,
// the flush and the compaction job their tables.
type DB struct {
	opts   Options
	shape  compaction.Options
	dir    string
	fs     vfs.FS
	lock   io.Closer
	cache  *cache.Cache
	own    bool // cache is closed by Close
	tables *tableSet
	sched  Scheduler
	pool   *pools // nil with a Scheduler from Options

	state    atomic.Pointer[readState]
	visible  atomic.Uint64 // newest sequence number readers see
	durable  atomic.Uint64 // all up to it survive a power cut
	nextFile atomic.Uint64
	closing  atomic.Bool // tells long jobs to stop
	// keepDeletes is what KeepDeletesAfter was told.
	keepDeletes atomic.Uint64
	obsolete    obsoleteList
	stats       counters
	disk        diskManager
	stalls      stallState
	pacing      pacing
	watchers    watchers

	segSize int64

	mu       sync.Mutex
	closed   bool
	failed   error     // matches ErrReadOnly; set once
	progress sync.Cond // a background job, a leader or the manifest's owner is done

	commit commitQueue
	log    *wal.Writer // used by the leader
	segs   []uint64    // log segments not yet recycled, ascending; the last is live

	mem     *memTable
	imm     []*memTable // oldest first
	version *version

	manifest     *manifest.Log // used by the owner of manifestBusy
	manifestBusy bool
	flushedSeq   base.SeqNum // everything up to it is in tables

	snapshots snapshotList
	cursors   [][]byte // per level, where compaction goes on

	flush, compact, clean job
	busy                  compaction.Busy // tables and ranges of the compactions under way
	helpers               int             // workers that do pieces of compactions of others
	ingests               int             // calls of Ingest under way
	writersStopped        bool            // Apply waits for an Ingest
	slow                  slowdown
	freeing               freeing
}

// failLocked makes the DB read-only for good. It reports whether it was not before,
// so that the caller is to tell with reportFailure.
func (db *DB) failLocked(err error) (first bool) {
	if db.failed != nil {
		return false
	}
	if !errors.Is(err, ErrReadOnly) {
		err = fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	db.failed = err
	db.wakeAllLocked()
	return true
}

// reportFailure tells the operator of a failure that failLocked recorded; it is
// called without mu.
func (db *DB) reportFailure(err error) {
	db.opts.Logger.Error("engine is read-only", "dir", db.dir, "error", err)
	if db.opts.Events.ReadOnly != nil {
		db.opts.Events.ReadOnly(err)
	}
}

func (db *DB) wakeAllLocked() {
	db.progress.Broadcast()
	db.commit.wakeAll()
}

// usableLocked returns why nothing can be written, nil if it can.
func (db *DB) usableLocked() error {
	if db.closed {
		return ErrClosed
	}
	return db.failed
}

func (db *DB) newFileNum() uint64 { return db.nextFile.Add(1) - 1 }

// Close makes durable what was applied, ends the background jobs and closes
// the files. Iterators and snapshots that are still open may be used on but for
// tables that are not open yet. It is idempotent.
func (db *DB) Close() error {
	db.mu.Lock()
	closed := db.closed
	db.mu.Unlock()
	if closed {
		return nil
	}
	// Before the log is closed, so that whoever waits for a commit gets it.
	err := db.wait(db.VisibleSeq())
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return nil
	}
	db.closed = true
	db.closing.Store(true)
	db.wakeAllLocked()
	for db.commit.leading || db.manifestBusy ||
		db.flush.running+db.compact.running+db.clean.running+db.helpers+db.ingests > 0 {
		db.progress.Wait()
	}
	if db.commit.timer != nil {
		db.commit.timer.Stop()
	}
	db.mu.Unlock()
	db.stopWatchers()
	if db.pool != nil {
		db.pool.wait()
	}
	if errors.Is(err, ErrReadOnly) {
		err = nil // told before; there is nothing to save any more
	}
	return errors.Join(err, db.closeFiles())
}

func (db *DB) closeFiles() error {
	var errs []error
	db.mu.Lock()
	failed := db.failed != nil
	db.mu.Unlock()
	end := manifest.LogEnd{Segment: db.log.Segment(), Length: db.log.Size()}
	err := db.log.Close()
	if !failed {
		errs = append(errs, err)
		if err == nil {
			db.writeLogEnd(end)
		}
	}
	errs = append(errs, db.manifest.Close())
	// The state stays, for iterators; what they hold is an orphan until the
	// next open.
	db.removeObsolete()
	db.tables.close()
	if db.own {
		errs = append(errs, db.cache.Close())
	}
	if err := db.lock.Close(); err != nil {
		errs = append(errs, fmt.Errorf("unlock %s: %w", db.dir, err))
	}
	return errors.Join(errs...)
}

// writeLogEnd notes in the manifest how far the closed log reaches, so that
// damage to its end is not taken for what a crash leaves. Without the note, if
// it cannot be written, all is as after a crash.
func (db *DB) writeLogEnd(end manifest.LogEnd) {
	e := &manifest.Edit{NextFile: db.nextFile.Load(), LogEnd: end}
	_, err := db.manifest.Append(e, db.newFileNum)
	if err != nil {
		db.opts.Logger.Warn("cannot note the end of the log", "dir", db.dir, "error", err)
	}
	db.obsolete.addManifests(db.manifest.TakeStale())
}
