package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

const (
	// keepBuffer is the largest group buffer kept from one commit to the next.
	keepBuffer = 4 << 20
	// extendBy is the least a full segment is extended by, unless segments
	// are smaller than that.
	extendBy = 1 << 20
)

// Writer appends to the live segment of a log. One goroutine at a time may use
// it, save for Recycle and Remove, which any goroutine may call at any time.
//
// The first failed Write or Sync of the live segment is final: from then on
// every call that would write returns an error that matches base.ErrReadOnly
// and that first failure. The segment is not written or synced again.
type Writer struct {
	opts Options

	file  vfs.File
	num   uint64
	nonce uint64
	// Invariant: durable <= size, and size is aligned. What lies between
	// was written by CommitNoSync. allocated bytes are reserved.
	size, durable, allocated int64

	// buf is the next group: room for its header, then records.
	buf []byte

	failed error // the first failure, wrapped by readOnly
	closed bool

	free freeList
}

// freeList holds the obsolete segments that wait to be overwritten.
type freeList struct {
	mu   sync.Mutex // never held across a file operation
	nums []uint64   // Invariant: len(nums) + coming <= opts.Recycle.
	// coming counts those that are about to be added.
	coming int
}

// Create makes segment num durable in opts.Dir and returns a Writer on it. num
// must be larger than that of any segment there, else the error matches
// fs.ErrExist. Files left behind by an
// interrupted Create or Rotate are removed, recycled segments taken over. An
// error that matches base.ErrDiskFull means that there is no room.
//
// After a Replay, opts.Prev must be its ReplayStats.End.
func Create(opts Options, num uint64) (*Writer, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	if num == 0 || num <= opts.Prev.Segment {
		return nil, fmt.Errorf("create log segment %d: number must be above %d", num, opts.Prev.Segment)
	}
	w := &Writer{opts: opts}
	if err := w.adopt(num); err != nil {
		return nil, err
	}
	if err := w.open(num, opts.Prev); err != nil {
		return nil, err
	}
	return w, nil
}

// Append copies payload, which may be empty, into the next group. Nothing is
// written before Commit. It fails if the group would exceed MaxGroup.
func (w *Writer) Append(payload []byte) error {
	if err := w.usable(); err != nil {
		return err
	}
	if len(w.buf) == 0 {
		var header [groupHeaderLen]byte
		w.buf = append(w.buf, header[:]...)
	}
	if !fits(len(w.buf), len(payload)) {
		return fmt.Errorf("append %d bytes to the log: group would exceed %d bytes", len(payload), MaxGroup)
	}
	w.buf = binary.AppendUvarint(w.buf, uint64(len(payload)))
	w.buf = append(w.buf, payload...)
	return nil
}

// fits reports whether a group of which buffered bytes are there has room for a
// record of n bytes.
func fits(buffered, n int) bool {
	return n <= MaxGroup && buffered-groupHeaderLen+binary.MaxVarintLen64+n <= MaxGroup
}

// Commit writes the appended records as one group and returns once the group
// and every one before it is durable. When the segment is full and cannot be
// extended the error matches base.ErrDiskFull, the records are dropped, nothing
// of them was written and the Writer stays usable. Any other error is final.
// With nothing appended it only syncs what CommitNoSync left.
func (w *Writer) Commit() error {
	if err := w.CommitNoSync(); err != nil {
		return err
	}
	return w.sync()
}

// CommitNoSync is Commit without the sync: the records survive the end of the
// process, and a power cut only after the next Commit or Rotate.
func (w *Writer) CommitNoSync() error {
	if err := w.usable(); err != nil {
		return err
	}
	if len(w.buf) == 0 {
		return nil
	}
	err := w.writeGroup(kindRecords)
	w.resetBuffer()
	return err
}

// writeGroup writes w.buf, header and records, at the end of the segment.
func (w *Writer) writeGroup(kind byte) error {
	bodyLen := len(w.buf) - groupHeaderLen
	for len(w.buf)%groupAlign != 0 {
		w.buf = append(w.buf, 0)
	}
	n := int64(len(w.buf))
	gap := gapBefore(w.size, n, w.allocated)
	if err := w.reserve(gap + n); err != nil {
		return err
	}
	if gap > 0 {
		if err := w.file.Skip(gap); err != nil {
			return w.fail("seek in", err)
		}
	}
	putGroup(w.buf, w.nonce, w.size+gap, groupHeader{durable: w.durable, bodyLen: bodyLen, kind: kind, gap: gap})
	if _, err := w.file.Write(w.buf); err != nil {
		return w.fail("write", err)
	}
	w.size += gap + n
	return nil
}

// reserve makes sure that the next n bytes are allocated, so that writing them
// cannot fail for lack of space.
func (w *Writer) reserve(n int64) error {
	need := w.size + n - w.allocated
	if need <= 0 {
		return nil
	}
	grow := max(need, min(extendBy, w.opts.SegmentSize))
	err := w.file.Preallocate(w.allocated, grow)
	if isDiskFull(err) && need < grow {
		// There may be room for the group itself.
		grow = need
		err = w.file.Preallocate(w.allocated, grow)
	}
	if isDiskFull(err) {
		return fmt.Errorf("extend log segment %d: %w: %w", w.num, base.ErrDiskFull, err)
	}
	if err != nil {
		return w.fail("extend", err)
	}
	w.allocated += grow
	return nil
}

func (w *Writer) resetBuffer() {
	if cap(w.buf) > keepBuffer {
		w.buf = nil
		return
	}
	w.buf = w.buf[:0]
}

// sync makes what was written durable; it does nothing if it already is.
func (w *Writer) sync() error {
	if w.durable == w.size {
		return nil
	}
	if err := w.file.Sync(); err != nil {
		return w.fail("sync", err)
	}
	w.durable = w.size
	return nil
}

// fail records the failure that ends all writing.
func (w *Writer) fail(verb string, cause error) error {
	w.failed = readOnly(fmt.Errorf("%s log segment %d: %w", verb, w.num, cause))
	return w.failed
}

func (w *Writer) usable() error {
	if w.failed == nil && w.closed {
		return fmt.Errorf("use log: %w", base.ErrClosed)
	}
	return w.failed
}

// Segment returns the number of the live segment.
func (w *Writer) Segment() uint64 { return w.num }

// Size returns the bytes of the live segment in use, those of its header
// included and those of records not yet committed not.
func (w *Writer) Size() int64 { return w.size }

// Buffered returns the bytes the next Commit will write, 0 when nothing was
// appended.
func (w *Writer) Buffered() int { return len(w.buf) }

// Close drops records that were not committed, makes durable what
// CommitNoSync left, seals the segment, so that the next Replay takes damage
// anywhere in it for corruption and not for a torn tail, and closes the file.
// It is idempotent. After a failure it only closes and returns that failure's
// error.
func (w *Writer) Close() error {
	if w.closed {
		return nil
	}
	err := w.failed
	if err == nil {
		err = w.seal()
	}
	w.closed = true
	w.buf = nil
	if cerr := w.file.Close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("close log segment %d: %w", w.num, cerr))
	}
	return err
}

// seal ends the segment with an empty group that vouches for all before it.
func (w *Writer) seal() error {
	w.resetBuffer()
	if err := w.sync(); err != nil {
		return err
	}
	if w.size+groupHeaderLen > w.allocated || w.size == segmentHeaderLen {
		// Not worth extending the segment for, or nothing to vouch for.
		return nil
	}
	var header [groupHeaderLen]byte
	w.buf = append(w.buf[:0], header[:]...)
	if err := w.writeGroup(kindSeal); err != nil {
		return err
	}
	return w.sync()
}

// isDiskFull reports whether err says that there is no room.
func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
