package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"
	"syscall"

	"github.com/pairdb/pairdb/engine/cache"
	"github.com/pairdb/pairdb/engine/sstable"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/engine/wal"
)

// readDirMemTable is the size of the memtables of ReadDir.
const readDirMemTable = 16 << 20

// ReadDir calls visit with each key in [start, end) of the DB in dir, nil bounds
// being open, and its value, in order; both are valid during the call. The DB must
// not be open, and is not opened: nothing is written, not even the lock file; while
// ReadDir runs, Open fails. The log is held in memory.
//
// The error is visit's or that of ctx, ErrInUse, ErrNoDB, or says what is damaged:
// what Open would refuse is ErrCorrupt before the first key, a damaged block where
// it is met.
func ReadDir(ctx context.Context, fsys vfs.FS, dir string, start, end []byte, visit func(key, value []byte) error) (err error) {
	dir = path.Clean(dir)
	defer func() {
		if err != nil {
			err = fmt.Errorf("read %s: %w", dir, err)
		}
	}()
	if _, err := fsys.Stat(dir + "/CURRENT"); errors.Is(err, fs.ErrNotExist) {
		return ErrNoDB
	} else if err != nil {
		return err
	}
	lock, err := lockReader(fsys, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	opts := Options{FS: fsys, Scheduler: idle{}, MemTableSize: readDirMemTable, MaxImmutable: math.MaxInt, CacheSize: -1}
	opts.EnsureDefaults()
	db := &DB{opts: opts, shape: opts.shape(), dir: dir, fs: fsys, sched: opts.Scheduler, cache: cache.New(opts.CacheSize)}
	db.progress.L = &db.mu
	db.tables = &tableSet{fs: fsys, dir: dir, cache: db.cache, dec: sstable.NewDecoder(), limit: opts.MaxOpenTables}
	defer func() {
		db.tables.close()
		err = errors.Join(err, db.cache.Close())
	}()
	r := &recovery{db: db}
	if err := r.load(); err != nil {
		return err
	}
	defer r.drop()
	if err := r.read(); err != nil {
		return err
	}
	n := len(r.tables) - 1
	db.installLocked(r.tables[n], r.tables[:n], db.newVersion(r.state.Version, nil))
	r.tables = nil
	defer func() { db.state.Load().unref() }()
	return db.walk(ctx, start, end, visit)
}

// idle is a Scheduler of a DB in which nothing is done.
type idle struct{}

func (idle) Go(string, func()) {}

// lockReader takes the lock of those who only read; a copy of a DB that was never
// opened has none to take.
func lockReader(fsys vfs.FS, dir string) (io.Closer, error) {
	lock, err := fsys.LockShared(dir + "/" + lockName)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, ErrInUse
	case errors.Is(err, fs.ErrNotExist):
		return io.NopCloser(nil), nil
	}
	return lock, err
}

// read is replay for those who change nothing.
func (r *recovery) read() error {
	db := r.db
	r.log = logCursor{dir: db.dir, flushed: r.state.FlushedSeq, last: r.state.FlushedSeq}
	if segs := neededSegments(r.state, r.segs); len(segs) > 0 {
		stats, err := wal.Read(db.fs, db.dir+"/"+walDir, segs, r.record)
		if err == nil {
			err = checkLogEnd(db.dir, r.state, stats.End)
		}
		if err != nil {
			return err
		}
	}
	if len(r.tables) == 0 {
		r.tables = append(r.tables, newMemTable(0, 0))
	}
	db.visible.Store(uint64(r.log.last))
	return nil
}

// drop gives memtables back that were not installed.
func (r *recovery) drop() {
	for _, m := range slices.Backward(r.tables) {
		m.Close()
	}
}

func (db *DB) walk(ctx context.Context, start, end []byte, visit func(key, value []byte) error) error {
	it, err := db.NewIter(start, end)
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		value := it.Value()
		if err = ctx.Err(); err == nil && it.Error() == nil {
			err = visit(it.Key(), value)
		}
	}
	return errors.Join(err, it.Error(), it.Close())
}
