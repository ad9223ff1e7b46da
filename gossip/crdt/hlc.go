package crdt

// HLC is a hybrid logical clock: Unix milliseconds << 16 | a counter. It follows
// the wall clock while that moves forward and never goes back or repeats. The
// caller reads the wall clock. It is not safe for concurrent use.
type HLC struct{ last uint64 }

const hlcLogicalBits = 16

// HLCAt gives the lowest value of a millisecond. Times before 1970 count as 1970.
func HLCAt(unixMs int64) uint64 { return uint64(max(unixMs, 0)) << hlcLogicalBits }

// Next gives a value above all given before, and not below the wall clock.
func (h *HLC) Next(unixMs int64) uint64 {
	h.last = max(HLCAt(unixMs), h.last+1)
	return h.last
}

// Above gives a value like Next that is above x, too.
func (h *HLC) Above(unixMs int64, x uint64) uint64 {
	h.last = max(h.last, x)
	return h.Next(unixMs)
}

// Last is the last value given, 0 if none.
func (h *HLC) Last() uint64 { return h.last }
