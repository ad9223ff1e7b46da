package engine

import (
	"github.com/pairdb/pairdb/engine/compaction"
	"github.com/pairdb/pairdb/engine/manifest"
)

// Flush writes everything applied before the call to tables. After an error,
// such as ErrDiskFull, everything is as readable as before and the flush will
// be tried again.
func (db *DB) Flush() error {
	db.mu.Lock()
	if err := db.usableLocked(); err != nil {
		db.mu.Unlock()
		return err
	}
	last := db.commit.last
	if !db.mem.Empty() {
		db.rotateMemLocked(0)
	}
	db.mu.Unlock()
	for {
		err := db.runFlush()
		if err != nil && err != errJobRunning {
			return err
		}
		db.schedule()
		db.mu.Lock()
		for err == errJobRunning && db.flush.running > 0 {
			db.progress.Wait()
		}
		done := len(db.imm) == 0 || db.imm[0].last > last
		uerr := db.usableLocked()
		db.mu.Unlock()
		if done || uerr != nil {
			return uerr
		}
	}
}

// runFlush writes the oldest immutable memtable to tables, if there is one.
func (db *DB) runFlush() error {
	if err := db.begin(&db.flush); err != nil {
		return err
	}
	err := db.protect(poolFlush, db.flushOldest)
	db.end(&db.flush, poolFlush, err, nil)
	return err
}

func (db *DB) flushOldest() error {
	db.mu.Lock()
	if len(db.imm) == 0 {
		db.mu.Unlock()
		return nil
	}
	m := db.imm[0]
	snapshots := db.snapshots.list()
	rs := db.acquireState() // keeps m
	db.mu.Unlock()
	defer rs.release()

	// Older versions of the keys may lie anywhere below, so no tombstone goes.
	files, err := db.writeTables(compaction.NewIter(compaction.IterOptions{
		In: m.NewIter(), RangeDels: m.Table.RangeDels(), Snapshots: snapshots,
	}), outputOptions{})
	if err != nil {
		return err
	}
	e := &manifest.Edit{FlushedSeq: m.last}
	for _, f := range files {
		e.Added = append(e.Added, manifest.NewFile{Level: 0, FileMeta: f})
	}
	var trimmed []uint64
	err = db.edit(e, func() {
		e.LogNumber = db.neededLogLocked()
	}, func() {
		db.imm = db.imm[1:]
		db.flushedSeq = m.last
		// What is in a durable table is durable, whatever became of its log
		// records: a memtable is flushed whole and the older ones before it.
		db.raiseDurableLocked(m.last)
		db.commit.wakeAll()
		for len(db.segs) > 1 && db.segs[0] < e.LogNumber {
			trimmed = append(trimmed, db.segs[0])
			db.segs = db.segs[1:]
		}
	})
	if err != nil {
		db.dropUnlisted(files, err)
		return err
	}
	for _, num := range trimmed {
		if err := db.log.Recycle(num); err != nil {
			db.opts.Logger.Warn("cannot recycle log segment", "dir", db.dir, "segment", num, "error", err)
		}
	}
	bytes := manifest.Bytes(files)
	db.stats.flushed(len(files), bytes)
	if f := db.opts.Events.Flushed; f != nil {
		f(len(files), bytes)
	}
	return nil
}

// neededLogLocked returns the oldest log segment that is needed once the oldest
// memtable is flushed.
func (db *DB) neededLogLocked() uint64 {
	switch {
	case len(db.imm) > 1:
		return db.imm[1].firstSeg
	case db.mem.Empty():
		return db.segs[len(db.segs)-1]
	default:
		return db.mem.firstSeg
	}
}

// dropUnlisted removes tables whose edit was refused. If the manifest failed it
// is unknown whether they are listed, and they stay.
func (db *DB) dropUnlisted(files []*manifest.FileMeta, err error) {
	if isReadOnly(err) {
		return
	}
	for _, f := range files {
		db.removeFile(tableName(f.Num))
	}
}
