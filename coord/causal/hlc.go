package causal

import (
	"math"
	"time"
)

// hlcLogicalBits is the width of the logical counter below the milliseconds.
const hlcLogicalBits = 16

// HLCAt returns the smallest HLC of an instant. Instants before 1970 give 0.
func HLCAt(t time.Time) uint64 {
	ms := t.UnixMilli()
	if ms < 0 {
		return 0
	}
	return uint64(ms) << hlcLogicalBits
}

// NextHLC returns an HLC for a write made at now that is above every one of
// floor. A floor far ahead of now is never refused: the result follows it. At
// the end of the range it stays there, and actors decide.
func NextHLC(now time.Time, floor ...uint64) uint64 {
	h := HLCAt(now)
	for _, f := range floor {
		if f >= h {
			h = f
			if h < math.MaxUint64 {
				h++
			}
		}
	}
	return h
}
