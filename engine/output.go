package engine

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/compaction"
	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/sstable"
	"github.com/pairdb/pairdb/engine/vfs"
)

// checkEvery and checkBytes are after how many entries and bytes a long job
// looks whether the DB is being closed, and waits if it is too fast.
const (
	checkEvery = 1024
	checkBytes = 256 << 10
)

// outputOptions say where tables go. The zero value is a flush to level 0.
type outputOptions struct {
	level  int
	cold   bool               // see Options.tableOptions
	cutter *compaction.Cutter // nil cuts by size alone
	// stop, if not nil, is asked now and then; its error ends the writing.
	stop func() error
	// wrote, if not nil, is told now and then how many more bytes were
	// written; it may wait,
	// looking now and then whether it is stopped.
	wrote func(n int64, stopped func() error) error
}

// output writes the tables of one flush or of a piece of a compaction. The
// tables count only once a manifest edit lists them.
type output struct {
	outputOptions
	db    *DB
	dels  []base.RangeDel // in key order, not overlapping across starts
	marks [][]byte        // where a table may end for their sake, not passed yet
	at    int             // index in dels of the first that ends behind lo
	files []*manifest.FileMeta

	f    vfs.File
	w    *sstable.Writer
	num  uint64
	last []byte // newest user key of the table in work
	lo   []byte // where the table in work begins; nil for the first
	told int64  // bytes of the table in work that wrote knows of
}

// writeTables writes what it yields as tables of a level and makes them
// durable, names included. After an error nothing of them is left, as far as
// it can be removed.
func (db *DB) writeTables(it *compaction.Iter, opts outputOptions) ([]*manifest.FileMeta, error) {
	files, err := db.writePiece(it, opts)
	if err == nil {
		err = db.syncTables(files)
	}
	return files, err
}

// syncTables makes the names of tables durable. After an error they are removed.
func (db *DB) syncTables(files []*manifest.FileMeta) error {
	if len(files) == 0 {
		return nil
	}
	err := db.fs.SyncDir(db.dir)
	if err != nil {
		db.discard(files)
		return diskFull(fmt.Errorf("write tables: %w", err))
	}
	return nil
}

// writePiece is writeTables without making the names durable.
func (db *DB) writePiece(it *compaction.Iter, opts outputOptions) ([]*manifest.FileMeta, error) {
	o := &output{db: db, outputOptions: opts, dels: it.RangeDels()}
	o.marks = o.cutter.Marks(o.dels)
	done := false
	defer func() {
		if !done {
			o.discard()
		}
	}()
	if err := o.run(it); err != nil {
		return nil, diskFull(fmt.Errorf("write tables of level %d: %w", opts.level, err))
	}
	done = true
	return o.files, nil
}

// diskFull marks errors that mean a lack of space.
func diskFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return err
}

func (o *output) run(it *compaction.Iter) error {
	entries, size := 0, 0
	for it.Next() {
		k := it.Key()
		if entries%checkEvery == 0 || size >= checkBytes {
			if err := o.check(); err != nil {
				return err
			}
			size = 0
		}
		entries++
		size += len(k.UserKey) + len(it.Value())
		// All versions of a user key go into one table, so that tables of a
		// level are disjoint by user key.
		if !bytes.Equal(k.UserKey, o.last) {
			if err := o.cutDels(k.UserKey); err != nil {
				return err
			}
			cut := o.cutter.Cut(k.UserKey, o.w != nil)
			if o.w != nil && (cut || o.w.EstimatedSize() >= o.db.opts.TargetFileSize) {
				if err := o.finish(bytes.Clone(k.UserKey)); err != nil {
					return err
				}
			}
		}
		if o.w == nil {
			if err := o.start(); err != nil {
				return err
			}
		}
		o.last = append(o.last[:0], k.UserKey...)
		if err := o.w.Add(k, it.Value()); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	if err := o.cutDels(nil); err != nil {
		return err
	}
	if o.w == nil && len(compaction.Clip(o.dels, o.lo, nil)) > 0 {
		if err := o.start(); err != nil {
			return err
		}
	}
	if o.w == nil {
		return nil
	}
	return o.finish(nil)
}

// cutDels ends tables at marks up to key, nil for all that are left, where the
// cutter says so.
func (o *output) cutDels(key []byte) error {
	for len(o.marks) > 0 && (key == nil || bytes.Compare(o.marks[0], key) <= 0) {
		m := o.marks[0]
		o.marks = o.marks[1:]
		for o.at < len(o.dels) && o.lo != nil && bytes.Compare(o.dels[o.at].End, o.lo) <= 0 {
			o.at++
		}
		begun := o.w != nil || o.at < len(o.dels) && bytes.Compare(o.dels[o.at].Start, m) < 0
		if !o.cutter.Cut(m, begun) || o.lo != nil && bytes.Compare(m, o.lo) <= 0 {
			continue
		}
		if o.w == nil {
			if err := o.start(); err != nil {
				return err
			}
		}
		if err := o.finish(bytes.Clone(m)); err != nil {
			return err
		}
	}
	return nil
}

// check looks whether to go on, and at what speed.
func (o *output) check() error {
	if err := o.stopped(); err != nil || o.wrote == nil || o.w == nil {
		return err
	}
	n := o.w.EstimatedSize()
	d := n - o.told
	o.told = n
	return o.wrote(d, o.stopped)
}

// stopped returns why not to go on, nil if there is no reason.
func (o *output) stopped() error {
	if o.db.closing.Load() {
		return ErrClosed
	}
	if o.stop != nil {
		return o.stop()
	}
	return nil
}

func (o *output) temp() string { return o.db.dir + "/" + tableName(o.num) + tempSuffix }

func (o *output) start() error {
	o.num = o.db.newFileNum()
	f, err := o.db.fs.Create(o.temp())
	if err != nil {
		return fmt.Errorf("create table: %w", err)
	}
	opts := o.db.opts.tableOptions(o.cold)
	opts.Nonce = o.db.opts.Rand() | 1
	o.f, o.w = f, sstable.NewWriter(f, opts)
	return nil
}

// finish ends the table in work, which holds the keys below hi, with the part
// of the range deletes that lies there.
func (o *output) finish(hi []byte) error {
	for _, rd := range compaction.Clip(o.dels, o.lo, hi) {
		if err := o.w.AddRangeDel(rd); err != nil {
			return err
		}
	}
	meta, err := o.w.Finish()
	if err == nil {
		err = o.f.Sync()
	}
	if cerr := o.f.Close(); err == nil {
		err = cerr
	}
	o.f = nil
	path := o.db.dir + "/" + tableName(o.num)
	if err == nil {
		err = o.db.fs.Rename(o.temp(), path)
	}
	if err != nil {
		return fmt.Errorf("write table %d: %w", o.num, err)
	}
	o.files = append(o.files, &manifest.FileMeta{
		Num: o.num, Size: meta.Size, Nonce: meta.Nonce,
		Smallest: meta.Smallest, Largest: meta.Largest,
		SmallestSeq: meta.SmallestSeq, LargestSeq: meta.LargestSeq,
		Entries: meta.Entries, Deletes: meta.Deletes, RangeDels: meta.RangeDels,
	})
	rest := max(0, meta.Size-o.told)
	o.w, o.lo, o.told = nil, hi, 0
	o.cutter.Reset()
	if o.wrote != nil {
		return o.wrote(rest, o.stopped)
	}
	return nil
}

// discard removes what was written. What cannot be removed is an orphan until
// the next open.
func (o *output) discard() {
	if o.f != nil {
		_ = o.f.Close() // it is of no use any more
	}
	if o.w != nil {
		_ = o.db.fs.Remove(o.temp())
	}
	o.db.discard(o.files)
}

// discard removes tables that no edit will list.
func (db *DB) discard(files []*manifest.FileMeta) {
	for _, f := range files {
		_ = db.fs.Remove(db.dir + "/" + tableName(f.Num)) // else an orphan
	}
}
