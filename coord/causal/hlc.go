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

// NextHLC returns an HLC for a write made at now that is above floor. A floor
// far ahead of now is never refused: the result follows it.
func NextHLC(now time.Time, floor uint64) uint64 { return above(HLCAt(now), floor) }

// above returns h, or the next HLC after floor if h is not higher. At the end
// of the range it stays there, and actors decide.
func above(h, floor uint64) uint64 {
	if h > floor || floor == math.MaxUint64 {
		return max(h, floor)
	}
	return floor + 1
}
