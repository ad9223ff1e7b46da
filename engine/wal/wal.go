// Package wal is the engine's write-ahead log: numbered segment files that
// hold, in order, what was committed and is not yet in a table. A Writer frames
// the records appended since the last commit as one group, written with one
// Write and made durable with one Sync; Replay reads them back after a stop or
// a crash, cuts a torn tail that nobody was told was durable and refuses damage
// to anything below it. The bytes are described in docs/format/wal.md, the
// reasons in DESIGN.md.
package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sort"
	"strconv"
	"strings"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// Bounds and defaults of Options.
const (
	// DefaultSegmentSize is the size of a preallocated segment in bytes.
	DefaultSegmentSize = 64 << 20
	// MinSegmentSize is the smallest allowed SegmentSize in bytes.
	MinSegmentSize = 4 << 10
	// DefaultRecycle is the number of obsolete segments kept for reuse.
	DefaultRecycle = 2
	// MaxGroup bounds the bytes of one group. Append refuses a record that
	// does not fit.
	MaxGroup = 1 << 30
)

// Options configure a log. FS and Dir are required.
type Options struct {
	// FS holds the segments.
	FS vfs.FS
	// Dir is the directory of the segments; it must exist. It may be shared
	// with other files: only names ending in .wal, .wal.tmp and .wal.free
	// are touched.
	Dir string
	// SegmentSize is how many bytes are reserved for a segment when it is
	// made. Larger means fewer rotations, smaller means less disk held and
	// less to read at recovery. A group that does not fit extends its
	// segment. Default 64 MiB, at least 4 KiB.
	SegmentSize int64
	// Recycle is how many obsolete segments are kept to be overwritten,
	// which spares the allocation of new blocks and keeps room for the next
	// segment when the disk is full. Default 2; negative keeps none.
	Recycle int
	// Prev is where the log ended when it was replayed (ReplayStats.End);
	// zero for a log that had no segments. Create writes it into the new
	// segment so that the next Replay knows how much of the old one counts.
	Prev End
	// Rand yields the random 64-bit nonces that tell a segment's bytes from
	// those of the file's former life. Default math/rand/v2's generator,
	// which is seeded by the operating system.
	Rand func() uint64
}

// EnsureDefaults fills unset options.
func (o *Options) EnsureDefaults() {
	if o.SegmentSize == 0 {
		o.SegmentSize = DefaultSegmentSize
	}
	if o.Recycle == 0 {
		o.Recycle = DefaultRecycle
	}
	if o.Rand == nil {
		o.Rand = rand.Uint64
	}
}

// Validate reports the first option that is out of bounds.
func (o *Options) Validate() error {
	switch {
	case o.FS == nil:
		return errors.New("wal: no file system")
	case o.Dir == "":
		return errors.New("wal: no directory")
	case o.SegmentSize < MinSegmentSize:
		return fmt.Errorf("wal: segment size %d is below %d", o.SegmentSize, MinSegmentSize)
	}
	return nil
}

// End says where a log ends.
type End struct {
	// Segment is the last segment's number, 0 when there is none.
	Segment uint64
	// Length is the number of its bytes that count: what lies beyond is no
	// part of the log.
	Length int64
}

const (
	segmentSuffix = ".wal"
	tempSuffix    = ".wal.tmp"
	freeSuffix    = ".wal.free"
)

// NumberedName returns the file name of segment n: at least six digits and
// ".wal".
func NumberedName(n uint64) string { return fmt.Sprintf("%06d%s", n, segmentSuffix) }

// segmentPath returns the path of segment n in dir.
func segmentPath(dir string, n uint64) string { return dir + "/" + NumberedName(n) }

// parseName returns the number of a canonical name with the suffix.
func parseName(name, suffix string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || fmt.Sprintf("%06d", n) != digits {
		return 0, false
	}
	return n, true
}

// ListSegments returns the numbers of the segments in dir in ascending order.
// Files that are being made or wait to be recycled are not listed.
func ListSegments(fs vfs.FS, dir string) ([]uint64, error) {
	return listNumbers(fs, dir, segmentSuffix)
}

func listNumbers(fs vfs.FS, dir, suffix string) ([]uint64, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list log segments: %w", err)
	}
	var nums []uint64
	for _, name := range names {
		if n, ok := parseName(name, suffix); ok {
			nums = append(nums, n)
		}
	}
	sort.Slice(nums, func(i, j int) bool { return nums[i] < nums[j] })
	return nums, nil
}

// Remove deletes segment num of a log that has no Writer, such as one found
// obsolete at open. With a Writer use its Recycle or Remove.
func Remove(fs vfs.FS, dir string, num uint64) error {
	if err := fs.Remove(segmentPath(dir, num)); err != nil {
		return fmt.Errorf("remove log segment %d: %w", num, err)
	}
	return nil
}

// readOnly wraps the first failure of a live segment; it matches
// base.ErrReadOnly and the cause.
func readOnly(cause error) error { return fmt.Errorf("%w: %w", base.ErrReadOnly, cause) }
