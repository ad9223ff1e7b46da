package engine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"syscall"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/compaction"
	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/vfs"
)

// QuarantineDir is the folder, in a DB's directory, of tables that were taken out
// of the DB because they are damaged. The engine never reads or removes them.
const QuarantineDir = "quarantine"

// ErrNoTable says that a DB has no table of a number, or has it no more.
var ErrNoTable = errors.New("engine: no such table")

// Damage is a table that cannot be read, or not all of it.
type Damage struct {
	File  uint64 // its number
	Level int
	// Smallest and Largest bound the user keys of all that is in it, range deletes
	// included. They must not be changed.
	Smallest, Largest []byte
	// Err says what is wrong; it matches ErrCorrupt.
	Err error
}

func damageOf(level int, f *manifest.FileMeta, err error) Damage {
	return Damage{File: f.Num, Level: level, Smallest: f.Smallest.UserKey, Largest: f.Largest.UserKey, Err: err}
}

// DamageOf returns the table of the DB whose damage err tells of. ok is false if
// err, which may be nil, tells of none, or of one that the DB has no more.
func (db *DB) DamageOf(err error) (d Damage, ok bool) {
	var c *base.CorruptError
	if !errors.As(err, &c) || path.Dir(c.File) != db.dir {
		return Damage{}, false
	}
	num, ok := fileNumber(path.Base(c.File))
	if !ok || path.Base(c.File) != tableName(num) {
		return Damage{}, false
	}
	rs := db.acquireState()
	defer rs.release()
	level := levelOf(rs.v.Version, num)
	if level < 0 {
		return Damage{}, false
	}
	f, _ := findFile(rs.v.Version, level, num)
	return damageOf(level, f, err), true
}

// levelOf returns the level that lists a table, -1 if none does.
func levelOf(v *manifest.Version, num uint64) int {
	for level := range v.Levels {
		if _, ok := findFile(v, level, num); ok {
			return level
		}
	}
	return -1
}

// Quarantine takes the table num out of the DB, durably, and moves its file, as far
// as there is one, to QuarantineDir. It waits for compactions of what the table
// covers. Reads, iterators and snapshots that have begun go on to see the table;
// those that begin later see the DB without it, so older values of its keys, and
// keys that were deleted: the caller has noted durably before that the DB is not to
// be believed about them. After an error all is as before, but for ErrReadOnly.
// ErrNoTable says that the table is gone already.
func (db *DB) Quarantine(num uint64) error {
	db.mu.Lock()
	for {
		if err := db.usableLocked(); err != nil {
			db.mu.Unlock()
			return err
		}
		level := levelOf(db.version.Version, num)
		if level < 0 {
			db.busy.Unavoid(num)
			db.mu.Unlock()
			return fmt.Errorf("quarantine table %d: %w", num, ErrNoTable)
		}
		f, _ := findFile(db.version.Version, level, num)
		job := &compaction.Job{Level: level, Output: level, Inputs: []*manifest.FileMeta{f}, Drop: true}
		job.Start, job.End, job.Excl = compaction.Bounds(job.Inputs)
		db.busy.Unavoid(num)
		if !db.busy.Conflicts(job) {
			rs := db.claimLocked(job)
			db.mu.Unlock()
			return db.quarantine(rs, job)
		}
		db.busy.Avoid(num) // nobody is to begin anything with it meanwhile
		db.progress.Wait()
	}
}

// quarantine does a claimed job of Quarantine.
func (db *DB) quarantine(rs *readState, job *compaction.Job) error {
	f := job.Inputs[0]
	err := db.protect(poolCompact, func() error {
		if err := setAside(db.fs, db.dir, tableName(f.Num)); err != nil {
			return err
		}
		return db.edit(&manifest.Edit{Deleted: []manifest.DeletedFile{{Level: job.Level, Num: f.Num}}}, nil, nil)
	})
	rs.release()
	db.end(&db.compact, poolCompact, err, func() {
		db.busy.Remove(job)
		if err != nil {
			db.busy.Avoid(f.Num)
		}
	})
	db.schedule() // what had to wait for it may go on
	if err != nil {
		return fmt.Errorf("quarantine table %d: %w", f.Num, err)
	}
	db.stats.quarantined.Add(1)
	db.opts.Logger.Error("a damaged table was taken out of the engine; its file is kept", "dir", db.dir,
		"table", f.Num, "level", job.Level, "bytes", f.Size, "kept_in", db.dir+"/"+QuarantineDir)
	return nil
}

// salvage goes on without tables that are not what they should be. Until begin
// makes the new manifest, nothing has changed but for second names of their files.
func (r *recovery) salvage(lost []Damage) error {
	db := r.db
	if err := db.opts.Salvage(lost); err != nil {
		return fmt.Errorf("go on without %d tables: %w", len(lost), err)
	}
	e := &manifest.Edit{}
	for _, d := range lost {
		e.Deleted = append(e.Deleted, manifest.DeletedFile{Level: d.Level, Num: d.File})
		if err := setAside(db.fs, db.dir, tableName(d.File)); err != nil {
			return fmt.Errorf("quarantine table %d: %w", d.File, err)
		}
		db.opts.Logger.Error("the engine opens without a damaged table", "dir", db.dir,
			"table", d.File, "level", d.Level, "error", d.Err, "kept_in", db.dir+"/"+QuarantineDir)
	}
	db.stats.quarantined.Add(int64(len(lost)))
	var err error
	r.state, err = r.state.Apply(e)
	return err
}

// RewriteManifest goes on with a new manifest, and a new CURRENT, that say what is in
// memory: a verification has found the old one damaged on the disk, where the next
// Open would need it. What is there of the old file is kept in QuarantineDir. After
// an error all is as before, but for ErrReadOnly.
func (db *DB) RewriteManifest() error {
	v, err := db.ownManifest(nil)
	if err != nil {
		return err
	}
	old := db.manifest.Num()
	if err = setAside(db.fs, db.dir, manifest.Name(old)); err == nil {
		err = db.manifest.Rewrite(db.newFileNum())
	}
	stale := db.manifest.TakeStale()
	db.obsolete.addManifests(stale)
	db.stats.manifestSwitches.Add(int64(len(stale)))
	db.stats.manifestBytes.Store(db.manifest.Size())
	err = db.disownManifest(v, err, nil)
	db.schedule() // the old file is to be removed
	if err != nil {
		return fmt.Errorf("rewrite manifest %d: %w", old, err)
	}
	db.opts.Logger.Error("the manifest was damaged on the disk and has been written anew; the old one is kept", "dir", db.dir,
		"manifest", old, "kept_in", db.dir+"/"+QuarantineDir)
	return nil
}

// setAside gives a file a second name in QuarantineDir, durably. That there is no file,
// or that it has the name, is no error.
func setAside(fsys vfs.FS, dir, file string) error {
	to := dir + "/" + QuarantineDir
	if err := fsys.MkdirAll(to); err != nil {
		return err
	}
	if err := fsys.SyncDir(dir); err != nil {
		return err
	}
	from, name := dir+"/"+file, to+"/"+file
	switch err := fsys.Link(from, name); {
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist):
	case noLinks(err):
		if err := copyAside(fsys, from, name); err != nil {
			return err
		}
	default:
		return fmt.Errorf("link: %w", err)
	}
	return fsys.SyncDir(to)
}

// noLinks reports whether err says that a file system makes no hard links.
func noLinks(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EMLINK) || errors.Is(err, syscall.EOPNOTSUPP)
}

// copyAside copies what can be read of a file.
func copyAside(fsys vfs.FS, from, to string) (err error) {
	src, err := fsys.Open(from)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	defer src.Close() // only read
	temp := to + tempSuffix
	if err := fsys.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("copy: %w", err)
	}
	dst, err := fsys.Create(temp)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	buf := make([]byte, 256<<10)
	for off := int64(0); ; {
		n, rerr := src.ReadAt(buf, off)
		if _, err := dst.Write(buf[:n]); err != nil {
			return errors.Join(fmt.Errorf("copy: %w", err), dst.Close())
		}
		off += int64(n)
		if n == 0 || errors.Is(rerr, io.EOF) {
			break // or a part that the disk does not give back
		}
	}
	if err := errors.Join(dst.Sync(), dst.Close()); err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	return fsys.Rename(temp, to)
}
