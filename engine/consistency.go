package engine

import (
	"errors"
	"io/fs"
	"slices"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/engine/wal"
)

// What has to hold between the files of a directory, for Open and VerifyDir
// alike.

// checkTableFile makes sure that the table of a manifest is there.
func checkTableFile(fsys vfs.FS, dir string, f *manifest.FileMeta) error {
	path := dir + "/" + tableName(f.Num)
	info, err := fsys.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return base.Corruptf(path, -1, "table is missing")
	}
	if err != nil {
		return err
	}
	if info.Size != f.Size {
		return base.Corruptf(path, -1, "table has %d bytes, the manifest says %d", info.Size, f.Size)
	}
	return nil
}

// checkFirstSegment makes sure that the log begins where the manifest says.
func checkFirstSegment(dir string, state manifest.State, segs []uint64) error {
	if n := state.LogNumber; n != 0 && !slices.Contains(segs, n) {
		// The segment was made before the edit that names it, so either it
		// or a later edit, which named another, is lost.
		return base.Corruptf(segmentPath(dir, n), -1, "log segment is missing")
	}
	return nil
}

func segmentPath(dir string, num uint64) string {
	return dir + "/" + walDir + "/" + wal.NumberedName(num)
}

// neededSegments returns those of segs, which ascend, that hold what is in no
// table.
func neededSegments(state manifest.State, segs []uint64) []uint64 {
	i, _ := slices.BinarySearch(segs, state.LogNumber)
	return segs[i:]
}

// checkLogEnd makes sure that the log reaches as far as it did when the DB was
// closed.
func checkLogEnd(dir string, state manifest.State, got wal.End) error {
	// A DB that was closed in good order has no torn tail to cut.
	switch end := state.LogEnd; {
	case end.Segment > got.Segment:
		return base.Corruptf(segmentPath(dir, end.Segment), -1,
			"log segment is missing, in which the log was closed at offset %d", end.Length)
	case end.Segment == got.Segment && end.Length > got.Length:
		return base.Corruptf(segmentPath(dir, got.Segment), got.Length, "log ends before offset %d, where it was closed", end.Length)
	}
	return nil
}

// logCursor follows the sequence numbers of the log's records.
type logCursor struct {
	dir string
	// flushed is the newest number in the tables, last that of the record
	// before or, at first, flushed.
	flushed, last base.SeqNum
}

func (c *logCursor) corrupt(seg uint64, format string, args ...any) error {
	return base.Corruptf(segmentPath(c.dir, seg), -1, format, args...)
}

// next reads the header of the next record. needed is false if all of it is in
// the tables.
func (c *logCursor) next(seg uint64, payload []byte) (needed bool, err error) {
	b, err := newBatchReader(payload)
	if err != nil {
		return false, c.corrupt(seg, "%w", err)
	}
	if b.last() <= c.flushed {
		return false, nil
	}
	if b.first != c.last+1 {
		return false, c.corrupt(seg, "batch %d follows %d: some are missing", b.first, c.last)
	}
	c.last = b.last()
	return true, nil
}
