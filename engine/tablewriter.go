package engine

import (
	"bytes"
	"errors"
	"fmt"
	"path"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/sstable"
	"github.com/pairdb/pairdb/engine/vfs"
)

// ErrOrder says that a key did not come in ascending order.
var ErrOrder = errors.New("engine: keys out of order")

// errWriterDone is what calls after Finish or Abort get.
var errWriterDone = errors.New("engine: table writer is finished")

// fileSeq is the sequence number of everything in a file made for Ingest, which
// gives it another one.
const fileSeq base.SeqNum = 1

// TableWriter writes a table file for DB.Ingest, for which no DB is needed. One
// goroutine uses it. After an error but ErrOrder, ErrEmptyKey and ErrTooLarge,
// which refuse an operation and change nothing, it can only be aborted.
type TableWriter struct {
	fs   vfs.FS
	name string
	f    vfs.File // nil once it is closed
	w    *sstable.Writer

	started bool
	last    []byte // key
	ranges  int
	end     []byte // of the last range delete
}

// NewTableWriter makes the file name, which must not exist. Of the options it
// uses FS, Rand, BlockSize and BloomBitsPerKey. End it with Finish or Abort.
func NewTableWriter(name string, opts Options) (*TableWriter, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	f, err := opts.FS.Create(name)
	if err != nil {
		return nil, diskFull(fmt.Errorf("create table %s: %w", name, err))
	}
	o := opts.tableOptions(false)
	o.Nonce = opts.Rand() | 1
	return &TableWriter{fs: opts.FS, name: name, f: f, w: sstable.NewWriter(f, o)}, nil
}

// Set gives key a value. The keys of Set and Delete come in ascending order,
// each once. Both are copied.
func (t *TableWriter) Set(key, value []byte) error {
	if len(value) > MaxValueSize {
		return fmt.Errorf("%w: value of %d bytes, limit is %d", ErrTooLarge, len(value), MaxValueSize)
	}
	return t.add(base.KindSet, key, value)
}

// Delete takes the value of key away from what is older than the file.
func (t *TableWriter) Delete(key []byte) error { return t.add(base.KindDelete, key, nil) }

func (t *TableWriter) add(kind base.Kind, key, value []byte) error {
	switch {
	case t.f == nil:
		return errWriterDone
	case len(key) == 0:
		return ErrEmptyKey
	case len(key) > MaxKeySize:
		return fmt.Errorf("%w: key of %d bytes, limit is %d", ErrTooLarge, len(key), MaxKeySize)
	case t.started && bytes.Compare(key, t.last) <= 0:
		return fmt.Errorf("%w: %.64q after %.64q", ErrOrder, key, t.last)
	}
	if err := t.w.Add(base.MakeInternalKey(key, fileSeq, kind), value); err != nil {
		return t.failed(err)
	}
	t.started, t.last = true, append(t.last[:0], key...)
	return nil
}

// DeleteRange takes the values of all keys in [start, end) away from what is
// older than the file; the file's own keys stay, whichever came first. Range
// deletes come in ascending order and do not overlap; they need no place among
// the keys. An empty range is dropped.
func (t *TableWriter) DeleteRange(start, end []byte) error {
	rd := base.RangeDel{Start: start, End: end, Seq: fileSeq}
	switch {
	case t.f == nil:
		return errWriterDone
	case rd.Empty():
		return nil
	case len(start) == 0:
		return ErrEmptyKey
	case len(start) > MaxKeySize || len(end) > MaxKeySize:
		return fmt.Errorf("%w: range bounds of %d and %d bytes, limit is %d", ErrTooLarge, len(start), len(end), MaxKeySize)
	case t.ranges == MaxTableRangeDeletes:
		return fmt.Errorf("%w: more than %d range deletes in a table", ErrTooLarge, MaxTableRangeDeletes)
	case t.ranges > 0 && bytes.Compare(start, t.end) < 0:
		return fmt.Errorf("%w: range from %.64q after one to %.64q", ErrOrder, start, t.end)
	}
	if err := t.w.AddRangeDel(rd); err != nil {
		return t.failed(err)
	}
	t.ranges++
	t.end = append(t.end[:0], end...)
	return nil
}

func (t *TableWriter) failed(err error) error {
	return diskFull(fmt.Errorf("write table %s: %w", t.name, err))
}

// Size returns about how many bytes the file would have if it were finished now.
func (t *TableWriter) Size() int64 {
	if t.f == nil {
		return 0
	}
	return t.w.EstimatedSize()
}

// Finish completes the file, makes it durable with its name and returns its size
// in bytes. After an error the file is removed. A table without contents is
// allowed; Ingest passes over it.
func (t *TableWriter) Finish() (size int64, err error) {
	if t.f == nil {
		return 0, errWriterDone
	}
	meta, err := t.w.Finish()
	if err == nil {
		err = t.f.Sync()
	}
	f := t.f
	t.f = nil
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = t.fs.SyncDir(path.Dir(t.name))
	}
	if err != nil {
		return 0, errors.Join(t.failed(err), t.fs.Remove(t.name))
	}
	return meta.Size, nil
}

// Abort closes and removes the file unless it is finished. It is idempotent.
func (t *TableWriter) Abort() error {
	if t.f == nil {
		return nil
	}
	f := t.f
	t.f = nil
	return errors.Join(f.Close(), t.fs.Remove(t.name))
}
