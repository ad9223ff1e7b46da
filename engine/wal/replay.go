package wal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// ReplayStats says what a Replay read.
type ReplayStats struct {
	Segments int
	Records  int64
	Bytes    int64 // payload bytes of the records
	// TornBytes is the length of the unacknowledged tail that was cut: from
	// the end of the log to the end of the last bytes recognised as written
	// behind it, 0 when the log ends cleanly or its tail left no trace.
	TornBytes int64
	// End is where the log ends; it belongs into Options.Prev of the Writer
	// that goes on.
	End End
}

// Replay calls fn for every intact record of the given segments, which are in
// ascending order and without gaps, in the order they were appended. payload is
// valid until fn returns. An error from fn ends the replay and is returned as
// it is.
//
// Before the last segment's records are delivered the segment is synced, so
// that nothing is ever read that a later power cut takes away; a failure of
// that sync is an error. The tail of the last segment that was never known to
// be durable is cut at the first damage. Any other damage is a
// *base.CorruptError, a segment of a newer program matches base.ErrFormat.
// Records before the damage have then been delivered.
//
// Go on by Create with a higher number and Options.Prev set to the returned
// End; a segment that was replayed is never appended to. Memory is bounded by
// the largest group.
func Replay(fs vfs.FS, dir string, segs []uint64, fn func(seg uint64, payload []byte) error) (ReplayStats, error) {
	return replay(fs, dir, segs, true, fn)
}

// Read is Replay for those who change nothing: the last segment is not synced, so
// what it reads may be less durable than it looks.
func Read(fs vfs.FS, dir string, segs []uint64, fn func(seg uint64, payload []byte) error) (ReplayStats, error) {
	return replay(fs, dir, segs, false, fn)
}

// Verify is Read for those who only want to know whether it can be done.
func Verify(fs vfs.FS, dir string, segs []uint64) (ReplayStats, error) {
	return Read(fs, dir, segs, func(uint64, []byte) error { return nil })
}

func replay(fs vfs.FS, dir string, segs []uint64, sync bool, fn func(uint64, []byte) error) (ReplayStats, error) {
	var stats ReplayStats
	if len(segs) == 0 {
		return stats, nil
	}
	cur, err := openSegment(fs, dir, segs[0])
	if err != nil {
		return stats, err
	}
	for _, num := range segs[1:] {
		next, err := openSegment(fs, dir, num)
		if err == nil && next.header.prev.Segment != cur.header.number {
			err = base.Corruptf(next.path, 0, "segment continues segment %d and not %d",
				next.header.prev.Segment, cur.header.number)
		}
		if err == nil {
			err = cur.readTo(next.header.prev.Length, &stats, fn)
		}
		err = errors.Join(err, cur.close())
		cur = next
		if err != nil {
			if cur != nil {
				err = errors.Join(err, cur.close())
			}
			return stats, unjoin(err)
		}
	}
	if sync {
		err = syncSegment(fs, cur.path)
	}
	if err == nil {
		err = cur.readTail(&stats, fn)
	}
	return stats, unjoin(errors.Join(err, cur.close()))
}

// unjoin returns the only error of a join as it is.
func unjoin(err error) error {
	if j, ok := err.(interface{ Unwrap() []error }); ok && len(j.Unwrap()) == 1 {
		return j.Unwrap()[0]
	}
	return err
}

func syncSegment(fs vfs.FS, path string) error {
	f, err := fs.OpenAppend(path)
	if err != nil {
		return fmt.Errorf("sync log segment before replay: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync log segment before replay: %w", err)
	}
	return nil
}

// segmentReader reads one segment front to back.
type segmentReader struct {
	path   string
	file   vfs.File
	size   int64
	header segmentHeader
	win    *vfs.Window
}

// scanStep is how much of a file is looked at at once for what was written
// behind the end of the log.
const scanStep = 256 << 10

func openSegment(fs vfs.FS, dir string, num uint64) (*segmentReader, error) {
	return openSegmentFile(fs, segmentPath(dir, num), num)
}

// openSegmentFile opens the segment at path, which must be number num, or any if
// num is 0.
func openSegmentFile(fs vfs.FS, path string, num uint64) (*segmentReader, error) {
	r := &segmentReader{path: path}
	f, err := fs.Open(r.path)
	if err != nil {
		return nil, fmt.Errorf("open log segment: %w", err)
	}
	r.file = f
	if err := r.readHeader(num); err != nil {
		return nil, unjoin(errors.Join(err, r.close()))
	}
	return r, nil
}

func (r *segmentReader) close() error {
	if err := r.file.Close(); err != nil {
		return fmt.Errorf("close log segment: %w", err)
	}
	return nil
}

func (r *segmentReader) readHeader(num uint64) error {
	size, err := r.file.Size()
	if err != nil {
		return fmt.Errorf("read log segment %s: %w", r.path, err)
	}
	r.size, r.win = size, vfs.NewWindow(r.file, size)
	b, err := r.bytes(0, segmentHeaderLen)
	if err != nil {
		return err
	}
	if b == nil {
		return base.Corruptf(r.path, 0, "%d bytes are too few for a segment", size)
	}
	r.header, err = decodeSegmentHeader(b)
	switch {
	case errors.Is(err, base.ErrFormat):
		return fmt.Errorf("read log segment %s: %w", r.path, err)
	case err != nil:
		return &base.CorruptError{File: r.path, Offset: 0, Err: err}
	case num != 0 && r.header.number != num:
		return base.Corruptf(r.path, 0, "file holds segment %d", r.header.number)
	case size < r.header.allocated:
		return base.Corruptf(r.path, size, "segment of %d bytes is truncated", r.header.allocated)
	}
	return nil
}

// bytes returns file[off:off+n], valid until the next call, or nil when the
// file ends before that.
func (r *segmentReader) bytes(off int64, n int) ([]byte, error) {
	b, err := r.win.Bytes(off, n)
	if err != nil {
		return nil, fmt.Errorf("read log segment %s: %w", r.path, err)
	}
	return b, nil
}

// groupAt returns the header, if there is a valid one at off, and the body, nil
// if that is damaged.
func (r *segmentReader) groupAt(off int64) (h groupHeader, body []byte, ok bool, err error) {
	b, err := r.bytes(off, groupHeaderLen)
	if b == nil || err != nil {
		return h, nil, false, err
	}
	h, ok = decodeGroupHeader(b, r.header.nonce, off)
	if !ok {
		return h, nil, false, nil
	}
	b, err = r.bytes(off, align(groupHeaderLen+h.bodyLen))
	if b == nil || err != nil {
		return h, nil, true, err
	}
	body = b[groupHeaderLen:]
	if bodyChecksum(b[:8], body) != h.bodyCRC {
		return h, nil, true, nil
	}
	return h, body[:h.bodyLen:h.bodyLen], true, nil
}

// nextGroup is groupAt for the group that follows what ends at off. That is the
// one at off or, if none was written there, one at the next page that says how
// much was left free before it; at is where it is. A group that follows something
// that was lost says something else.
func (r *segmentReader) nextGroup(off int64) (at int64, h groupHeader, body []byte, ok bool, err error) {
	h, body, ok, err = r.groupAt(off)
	if ok || err != nil {
		return off, h, body, ok && h.gap == 0, err
	}
	gap := -off & (pageSize - 1)
	if gap == 0 || gap > maxGap {
		return off, h, nil, false, nil
	}
	h, body, ok, err = r.groupAt(off + gap)
	if !ok || h.gap != gap || err != nil {
		return off, h, nil, false, err
	}
	return off + gap, h, body, true, nil
}

// deliver hands the records of one group to fn.
func (r *segmentReader) deliver(off int64, body []byte, stats *ReplayStats, fn func(uint64, []byte) error) error {
	for len(body) > 0 {
		payload, rest, err := nextRecord(body)
		if err != nil {
			return &base.CorruptError{File: r.path, Offset: off, Err: err}
		}
		stats.Records++
		stats.Bytes += int64(len(payload))
		if err := fn(r.header.number, payload); err != nil {
			return err
		}
		body = rest
	}
	return nil
}

// readTo replays a segment that is known to be durable up to end: any damage
// before it is corruption, all after it is no part of the log.
func (r *segmentReader) readTo(end int64, stats *ReplayStats, fn func(uint64, []byte) error) error {
	off := int64(segmentHeaderLen)
	for off < end {
		at, h, body, ok, err := r.nextGroup(off)
		switch {
		case err != nil:
			return err
		case !ok || body == nil:
			return base.Corruptf(r.path, at, "damaged group in a segment durable up to %d", end)
		}
		if err := r.deliver(at, body, stats, fn); err != nil {
			return err
		}
		off = at + align(groupHeaderLen+int64(h.bodyLen))
	}
	if off != end {
		return base.Corruptf(r.path, off, "segment ends inside a group at %d", end)
	}
	stats.Segments++
	stats.End = End{Segment: r.header.number, Length: off}
	return nil
}

// readTail replays the last segment: it ends at the first place without a
// group, unless a header behind that place says that it was durable.
func (r *segmentReader) readTail(stats *ReplayStats, fn func(uint64, []byte) error) error {
	off := int64(segmentHeaderLen)
	for {
		at, h, body, ok, err := r.nextGroup(off)
		if err != nil {
			return err
		}
		if !ok || body == nil {
			break
		}
		if err := r.deliver(at, body, stats, fn); err != nil {
			return err
		}
		off = at + align(groupHeaderLen+int64(h.bodyLen))
	}
	durable, last, err := r.scan(off)
	if err != nil {
		return err
	}
	if durable > off {
		return base.Corruptf(r.path, off, "damaged group in a segment durable up to %d", durable)
	}
	stats.Segments++
	stats.TornBytes = last - off
	stats.End = End{Segment: r.header.number, Length: off}
	return nil
}

// scan looks for valid group headers from off to the end of the file. It returns
// the highest durable offset they tell of and the end of the last group, both
// off if there is none.
func (r *segmentReader) scan(off int64) (durable, last int64, err error) {
	durable, last = off, off
	for off+groupHeaderLen <= r.size {
		b, err := r.bytes(off, int(min(scanStep, r.size-off)))
		if err != nil {
			return 0, 0, err
		}
		i := 0
		for ; i+groupHeaderLen <= len(b); i += groupAlign {
			at := off + int64(i)
			if binary.LittleEndian.Uint64(b[i:]) != mark(r.header.nonce, at) {
				continue // nearly always
			}
			h, ok := decodeGroupHeader(b[i:], r.header.nonce, at)
			if !ok {
				continue
			}
			durable = max(durable, h.durable)
			last = max(last, min(r.size, at+align(groupHeaderLen+int64(h.bodyLen))))
		}
		off += int64(i)
	}
	return durable, last, nil
}
