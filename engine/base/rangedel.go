package base

import (
	"bytes"
	"fmt"
)

// RangeDel hides every version of the user keys in [Start, End) that is older
// than Seq. It is never mixed with point keys: memtables and tables keep
// range deletes apart, and whoever merges sources applies them.
type RangeDel struct {
	Start, End []byte
	Seq        SeqNum
}

// RangeDelSentinel is the trailer of the upper bound of a table whose last
// key space is a range delete. The bound (End, RangeDelSentinel) sorts before
// every stored version of End, so under Compare it is exclusive.
const RangeDelSentinel Trailer = Trailer(uint64(MaxSeqNum)<<8 | uint64(KindMax))

// Covers reports whether r hides the version seq of userKey.
func (r RangeDel) Covers(userKey []byte, seq SeqNum) bool {
	return seq < r.Seq && r.Contains(userKey)
}

// Contains reports whether userKey lies in [Start, End).
func (r RangeDel) Contains(userKey []byte) bool {
	return bytes.Compare(r.Start, userKey) <= 0 && bytes.Compare(userKey, r.End) < 0
}

// Empty reports whether r contains no key at all.
func (r RangeDel) Empty() bool { return bytes.Compare(r.Start, r.End) >= 0 }

// String formats r as [start,end)#seq for tests and tools.
func (r RangeDel) String() string { return fmt.Sprintf("[%q,%q)#%d", r.Start, r.End, r.Seq) }

// StartKey is the smallest internal key of r, for the bounds of a table.
func (r RangeDel) StartKey() InternalKey {
	return MakeInternalKey(r.Start, r.Seq, KindRangeDelete)
}

// EndKey is the exclusive upper bound of r as an internal key.
func (r RangeDel) EndKey() InternalKey {
	return InternalKey{UserKey: r.End, Trailer: RangeDelSentinel}
}

// CompareRangeDel orders by Start, then newest first, then End.
func CompareRangeDel(a, b RangeDel) int {
	if c := Compare(a.StartKey(), b.StartKey()); c != 0 {
		return c
	}
	return bytes.Compare(a.End, b.End)
}
