package wal

// Reserve makes sure that the next n bytes of the live segment are allocated,
// extending it if it has to, so that a group of that size cannot fail for lack
// of space once its records were shown to readers. The group's overhead is
// included by GroupBytes. When there is no room the error matches
// base.ErrDiskFull and the Writer stays usable.
func (w *Writer) Reserve(n int64) error {
	if err := w.usable(); err != nil {
		return err
	}
	return w.reserve(n)
}

// GroupBytes returns the most bytes of a segment that a record with a payload
// of n bytes takes: alone in its group, with its length, header and padding, and
// the gap before it, which is shorter than the group.
func GroupBytes(n int) int64 {
	group := groupHeaderLen + 10 + int64(n) + groupAlign
	return group + min(group, maxGap)
}

// SegmentOverhead is the part of a segment that holds no groups, in bytes.
const SegmentOverhead = segmentHeaderLen
