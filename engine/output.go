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

// checkEvery is after how many entries a long job looks whether the DB is
// being closed.
const checkEvery = 1024

// output writes the tables of one flush or compaction. The tables count only
// once a manifest edit lists them.
type output struct {
	db    *DB
	level int
	dels  []base.RangeDel // in key order, not overlapping across starts
	files []*manifest.FileMeta

	f    vfs.File
	w    *sstable.Writer
	num  uint64
	last []byte // newest user key of the table in work
	lo   []byte // where the table in work begins; nil for the first
}

// writeTables writes what it yields as tables of a level and makes them
// durable, names included. After an error nothing of them is left, as far as
// it can be removed.
func (db *DB) writeTables(it *compaction.Iter, level int) ([]*manifest.FileMeta, error) {
	o := &output{db: db, level: level, dels: it.RangeDels()}
	err := o.run(it)
	if err == nil && len(o.files) > 0 {
		err = db.fs.SyncDir(db.dir)
	}
	if err != nil {
		o.discard()
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			err = fmt.Errorf("%w: %w", ErrDiskFull, err)
		}
		return nil, fmt.Errorf("write tables of level %d: %w", level, err)
	}
	return o.files, nil
}

func (o *output) run(it *compaction.Iter) error {
	for n := 0; it.Next(); n++ {
		if n%checkEvery == 0 && o.db.closing.Load() {
			return ErrClosed
		}
		k := it.Key()
		// All versions of a user key go into one table, so that tables of a
		// level are disjoint by user key.
		if o.w != nil && o.w.EstimatedSize() >= o.db.opts.TargetFileSize && !bytes.Equal(k.UserKey, o.last) {
			if err := o.finish(bytes.Clone(k.UserKey)); err != nil {
				return err
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

func (o *output) temp() string { return o.db.dir + "/" + tableName(o.num) + tempSuffix }

func (o *output) start() error {
	o.num = o.db.newFileNum()
	f, err := o.db.fs.Create(o.temp())
	if err != nil {
		return fmt.Errorf("create table: %w", err)
	}
	opts := o.db.opts.tableOptions(o.level)
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
	o.w, o.lo = nil, hi
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
	for _, f := range o.files {
		_ = o.db.fs.Remove(o.db.dir + "/" + tableName(f.Num))
	}
}
