package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/manifest"
)

// Checkpoint makes dir, which must not exist and lies on the same file system,
// a copy of the DB as it is now: hard links to its tables and a manifest of its
// own. It is durable when Checkpoint returns, and can be opened like any DB.
func (db *DB) Checkpoint(dir string) (err error) {
	dir = path.Clean(dir)
	if _, err := db.fs.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return fmt.Errorf("checkpoint to %s: %w", dir, err)
	}
	if err := db.Flush(); err != nil {
		return fmt.Errorf("checkpoint to %s: %w", dir, err)
	}
	db.mu.Lock()
	rs := db.acquireState()
	state := manifest.State{Version: rs.v.Version, FlushedSeq: db.flushedSeq, NextFile: db.nextFile.Load()}
	db.mu.Unlock()
	defer rs.release()
	if err := db.writeCheckpoint(dir, state); err != nil {
		// What is left would not open; the caller may want the name again.
		return errors.Join(fmt.Errorf("checkpoint to %s: %w", dir, err), db.fs.RemoveAll(dir))
	}
	return nil
}

func (db *DB) writeCheckpoint(dir string, state manifest.State) error {
	if err := db.fs.MkdirAll(dir + "/" + walDir); err != nil {
		return err
	}
	for _, level := range state.Version.Levels {
		for _, f := range level {
			name := tableName(f.Num)
			if err := db.fs.Link(db.dir+"/"+name, dir+"/"+name); err != nil {
				return err
			}
		}
	}
	num := state.NextFile
	state.NextFile++
	// It syncs dir before CURRENT appears, so the links are durable first.
	m, err := manifest.Create(manifest.Options{FS: db.fs, Dir: dir, Rand: db.opts.Rand}, num, state)
	if err != nil {
		return err
	}
	if err := m.Close(); err != nil {
		return err
	}
	return db.fs.SyncDir(path.Dir(dir))
}

// Verify reads every block of every table, holds the tables against the
// manifest and the manifest's file against what is in memory. Damage is
// ErrCorrupt. Reads and writes go on meanwhile.
func (db *DB) Verify() error {
	if db.closing.Load() {
		return ErrClosed
	}
	if err := db.verifyManifest(); err != nil {
		return fmt.Errorf("verify manifest: %w", err)
	}
	rs := db.acquireState()
	defer rs.release()
	if err := rs.v.Check(); err != nil {
		return fmt.Errorf("verify levels: %w: %w", ErrCorrupt, err)
	}
	for _, level := range rs.v.levels {
		for _, t := range level {
			if err := db.verifyTable(t); err != nil {
				return fmt.Errorf("verify table %d: %w", t.Num, err)
			}
		}
	}
	return nil
}

// verifyManifest reads the manifest while nobody writes it.
func (db *DB) verifyManifest() error {
	db.mu.Lock()
	for db.manifestBusy {
		db.progress.Wait()
	}
	if db.closed {
		db.mu.Unlock()
		return ErrClosed
	}
	db.manifestBusy = true
	failed := db.failed != nil
	db.mu.Unlock()
	defer func() {
		db.mu.Lock()
		db.manifestBusy = false
		db.progress.Broadcast()
		db.mu.Unlock()
	}()
	state, num, err := manifest.Load(db.fs, db.dir)
	if err != nil || failed {
		// After a failed write the file may be ahead of what is in memory.
		return err
	}
	want := db.manifest.State()
	if num != db.manifest.Num() || state.Version.String() != want.Version.String() ||
		state.FlushedSeq != want.FlushedSeq || state.LogNumber != want.LogNumber {
		return base.Corruptf(db.dir+"/"+manifest.Name(num), -1, "does not say what was written to it")
	}
	return nil
}

// verifyTable reads a table from the disk, past the cache.
func (db *DB) verifyTable(t *table) error {
	r, err := db.tables.newReader(t.FileMeta)
	if err != nil {
		return err
	}
	defer r.Close() // only read
	m := r.Meta()
	if t.Renumbered {
		// The file has numbers of its own, the manifest those that count.
		m.SmallestSeq, m.LargestSeq = t.SmallestSeq, t.LargestSeq
		m.Smallest.Trailer, m.Largest.Trailer = t.Smallest.Trailer, t.Largest.Trailer
	}
	if m.Entries != t.Entries || m.RangeDels != t.RangeDels || m.LargestSeq != t.LargestSeq ||
		base.Compare(m.Smallest, t.Smallest) != 0 || base.Compare(m.Largest, t.Largest) != 0 {
		return base.Corruptf(db.dir+"/"+tableName(t.Num), -1, "is not the table the manifest lists")
	}
	return r.VerifyChecksums()
}
