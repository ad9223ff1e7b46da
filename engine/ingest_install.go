package engine

import (
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/compaction"
	"github.com/pairdb/pairdb/engine/manifest"
)

// install makes the files part of the DB.
//
// They take one sequence number that no log record has. So everything numbered
// before it is flushed, the edit that lists them says that all up to it is in
// tables, and nobody gets a number meanwhile: whatever of this a crash leaves,
// the log goes on where the tables end.
func (in *ingest) install() error {
	db := in.db
	// Once while writers go on, so that they wait for little.
	if err := db.Flush(); err != nil {
		return err
	}
	if err := db.stopWriters(); err != nil {
		return err
	}
	defer db.resumeWriters()
	if err := db.Flush(); err != nil {
		return err
	}
	e := &manifest.Edit{}
	// Until they are listed nobody may begin to put a table in their way.
	var claims []*compaction.Job
	defer func() {
		db.mu.Lock()
		defer db.mu.Unlock()
		for _, j := range claims {
			db.busy.Remove(j)
		}
	}()
	return db.edit(e, func() {
		seq := db.commit.last + 1
		e.FlushedSeq = seq
		for _, f := range in.files {
			setNumber(f, seq)
			level := db.version.tree.IngestLevel(f, &db.busy)
			e.Added = append(e.Added, manifest.NewFile{Level: level, FileMeta: f})
			if level > 0 {
				j := &compaction.Job{Level: level, Output: level, Start: f.Smallest.UserKey, End: f.Largest.UserKey, Excl: f.ExclusiveEnd()}
				db.busy.Add(j)
				claims = append(claims, j)
			}
		}
	}, func() {
		// Readers who took the state before this see nothing of what is written
		// after it either: that goes into another memtable.
		db.mem = newMemTable(db.opts.MemTableSize, db.segs[len(db.segs)-1])
		db.commit.last, db.flushedSeq = e.FlushedSeq, e.FlushedSeq
		db.raiseDurableLocked(e.FlushedSeq)
		db.commit.wakeAll()
	})
}

// stopWriters makes Apply wait until resumeWriters. It waits itself for whoever
// else did so, and for level 0 like a writer.
func (db *DB) stopWriters() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	for {
		if err := db.usableLocked(); err != nil {
			return err
		}
		switch {
		case db.writersStopped:
			db.progress.Wait()
		case db.version.depth >= db.opts.L0StopTrigger:
			if err := db.stallLocked(StallLevel0); err != nil {
				return err
			}
		default:
			db.writersStopped = true
			return nil
		}
	}
}

func (db *DB) resumeWriters() {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.writersStopped = false
	db.progress.Broadcast()
}

// setNumber makes everything in f, which no version lists yet, count as written
// at seq.
func setNumber(f *manifest.FileMeta, seq base.SeqNum) {
	f.SmallestSeq, f.LargestSeq = seq, seq
	f.Smallest.Trailer = base.MakeTrailer(seq, f.Smallest.Kind())
	if !f.ExclusiveEnd() {
		f.Largest.Trailer = base.MakeTrailer(seq, f.Largest.Kind())
	}
}
