package wal

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// Rotate makes segment num, which must be above the live one, and continues
// there. What CommitNoSync left is synced first; records appended and not
// committed stay for the next Commit.
//
// When the new segment cannot be made the old one stays live and usable and
// nothing of the new one counts; if that is for lack of space the error matches
// base.ErrDiskFull. A failure to sync the old segment, or to publish the new
// one once it was complete, is final.
func (w *Writer) Rotate(num uint64) error {
	if err := w.usable(); err != nil {
		return err
	}
	if num <= w.num {
		return fmt.Errorf("rotate log: segment %d is not above %d", num, w.num)
	}
	if err := w.sync(); err != nil {
		return err
	}
	old, oldNum := w.file, w.num
	if err := w.open(num, End{Segment: oldNum, Length: w.durable}); err != nil {
		return err
	}
	if err := old.Close(); err != nil {
		// All of it was synced, so nothing is lost; but a descriptor that
		// does not close is a fault of the disk worth stopping for.
		return w.fail(fmt.Sprintf("close segment %d before", oldNum), err)
	}
	return nil
}

// open makes segment num and installs it as the live one. Until the rename, an
// error leaves the Writer as it was.
func (w *Writer) open(num uint64, prev End) error {
	h := segmentHeader{number: num, nonce: w.nonceFor(num), prev: prev, allocated: w.opts.SegmentSize}
	temp := w.opts.Dir + "/" + fmt.Sprintf("%06d%s", num, tempSuffix)
	f, err := w.prepare(temp, &h)
	if err != nil {
		return w.abandon(temp, num, err)
	}
	// A name that ends in .wal belongs to a file whose header is durable, so
	// that a bad header is damage and never an unfinished creation.
	err = w.opts.FS.Rename(temp, segmentPath(w.opts.Dir, num))
	if isDiskFull(err) {
		// No room for the name: nothing was renamed.
		return w.abandon(temp, num, errors.Join(err, f.Close()))
	}
	if err == nil {
		err = w.opts.FS.SyncDir(w.opts.Dir)
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("publish log segment %d: %w", num, err), f.Close())
		if w.file == nil {
			return err
		}
		// The new name may or may not be there. Were the old segment
		// extended now, a reader that finds the new one would cut the old
		// at the length written there.
		return w.fail("replace", err)
	}
	w.file, w.num, w.nonce = f, num, h.nonce
	w.size, w.durable, w.allocated = segmentHeaderLen, segmentHeaderLen, h.allocated
	return nil
}

// nonceFor returns the nonce of segment num. The number, which no two segments
// of a log share, is mixed in so that a recycled file's former life stays
// invalid even if Rand repeats itself, as a seeded one does at each start. The
// top bit keeps a mark from ever being zero.
func (w *Writer) nonceFor(num uint64) uint64 {
	return (w.opts.Rand() + num*0x9e3779b97f4a7c15) | 1<<63
}

// abandon removes what there is of a new segment after cause, which left the
// live one as it was.
func (w *Writer) abandon(temp string, num uint64, cause error) error {
	// Best effort: a leftover is overwritten by the next attempt and removed
	// by the next Create.
	if err := w.opts.FS.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		cause = errors.Join(cause, err)
	}
	if isDiskFull(cause) {
		return fmt.Errorf("create log segment %d: %w: %w", num, base.ErrDiskFull, cause)
	}
	return fmt.Errorf("create log segment %d: %w", num, cause)
}

// prepare makes the file temp, from a recycled one if there is any, with the
// header written and synced and the position behind it.
func (w *Writer) prepare(temp string, h *segmentHeader) (vfs.File, error) {
	f, err := w.newFile(temp, h.allocated)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(h.append(nil)); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// newFile returns an empty or recycled file of the given size.
func (w *Writer) newFile(temp string, size int64) (vfs.File, error) {
	if num, ok := w.free.pop(); ok {
		// If this fails the file is lost for reuse until the next Create,
		// which finds it by its name.
		return w.opts.FS.Reuse(w.freePath(num), temp)
	}
	f, err := w.opts.FS.Create(temp)
	if errors.Is(err, fs.ErrExist) {
		// Left behind by an attempt that could not clean up.
		if err = w.opts.FS.Remove(temp); err == nil {
			f, err = w.opts.FS.Create(temp)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := f.Preallocate(0, size); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Recycle hands back segment num, whose records are durable elsewhere and whose
// obsolescence is itself durable: its bytes will be overwritten. It is kept for
// reuse or, when enough are kept or it was extended, removed. A segment that is
// hard-linked to a checkpoint must be given to Remove instead. It is safe for
// concurrent use with every other method. An error leaves the log usable; the
// file may then stay until the next open.
func (w *Writer) Recycle(num uint64) error {
	path := segmentPath(w.opts.Dir, num)
	info, err := w.opts.FS.Stat(path)
	if err != nil {
		return fmt.Errorf("recycle log segment %d: %w", num, err)
	}
	// A file of another size would have to be grown or cut before use; only
	// one that needs neither is a reserve for when the disk is full.
	if info.Size != w.opts.SegmentSize || !w.free.reserve(w.opts.Recycle) {
		return w.Remove(num)
	}
	err = w.opts.FS.Rename(path, w.freePath(num))
	w.free.push(num, err == nil)
	if err != nil {
		return fmt.Errorf("recycle log segment %d: %w", num, err)
	}
	return nil
}

// reserve takes a place among at most so many.
func (l *freeList) reserve(most int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.nums)+l.coming >= most {
		return false
	}
	l.coming++
	return true
}

// push gives a reserved place to num, or back if it did not come.
func (l *freeList) push(num uint64, came bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.coming--
	if came {
		l.nums = append(l.nums, num)
	}
}

// Remove deletes the obsolete segment num without keeping it for reuse. It is
// safe for concurrent use with every other method.
func (w *Writer) Remove(num uint64) error { return Remove(w.opts.FS, w.opts.Dir, num) }

func (w *Writer) freePath(num uint64) string {
	return w.opts.Dir + "/" + fmt.Sprintf("%06d%s", num, freeSuffix)
}

// Spare returns the number of recycled segments that wait to be used: that many
// rotations need no more space. It is safe for concurrent use.
func (w *Writer) Spare() int {
	w.free.mu.Lock()
	defer w.free.mu.Unlock()
	return len(w.free.nums)
}

// pop takes the oldest recycled segment.
func (l *freeList) pop() (uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.nums) == 0 {
		return 0, false
	}
	num := l.nums[0]
	l.nums = append(l.nums[:0], l.nums[1:]...)
	return num, true
}

// adopt takes over the recycled segments an earlier Writer left, removes what
// it did not finish and refuses to go on at or below a number that is taken:
// the rename would replace that segment.
func (w *Writer) adopt(next uint64) error {
	segs, err := ListSegments(w.opts.FS, w.opts.Dir)
	if err != nil {
		return err
	}
	if len(segs) > 0 && segs[len(segs)-1] >= next {
		return fmt.Errorf("create log segment %d: segment %d: %w", next, segs[len(segs)-1], fs.ErrExist)
	}
	temps, err := listNumbers(w.opts.FS, w.opts.Dir, tempSuffix)
	if err != nil {
		return err
	}
	for _, num := range temps {
		if err := w.opts.FS.Remove(w.opts.Dir + "/" + fmt.Sprintf("%06d%s", num, tempSuffix)); err != nil {
			return fmt.Errorf("remove unfinished log segment %d: %w", num, err)
		}
	}
	frees, err := listNumbers(w.opts.FS, w.opts.Dir, freeSuffix)
	if err != nil {
		return err
	}
	for _, num := range frees {
		info, err := w.opts.FS.Stat(w.freePath(num))
		if err != nil {
			return fmt.Errorf("adopt recycled log segment %d: %w", num, err)
		}
		if len(w.free.nums) < w.opts.Recycle && info.Size == w.opts.SegmentSize {
			w.free.nums = append(w.free.nums, num)
			continue
		}
		if err := w.opts.FS.Remove(w.freePath(num)); err != nil {
			return fmt.Errorf("remove recycled log segment %d: %w", num, err)
		}
	}
	return nil
}
