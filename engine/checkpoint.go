package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

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
