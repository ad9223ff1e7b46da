// Package quorum decides when enough owners have answered. It is pure: no
// clock, no I/O, no goroutines.
package quorum

import (
	"fmt"
	"strings"
)

// Level says how many of a key's owners must answer an operation. Values
// travel between nodes and never change meaning; zero is not a level.
type Level uint8

const (
	// One needs one owner.
	One Level = 1
	// Quorum needs floor(n/2)+1 of n owners.
	Quorum Level = 2
	// All needs every owner.
	All Level = 3
)

// Valid reports whether l is a level.
func (l Level) Valid() bool { return l >= One && l <= All }

// String returns "one", "quorum" or "all".
func (l Level) String() string {
	switch l {
	case One:
		return "one"
	case Quorum:
		return "quorum"
	case All:
		return "all"
	default:
		return fmt.Sprintf("level(%d)", uint8(l))
	}
}

// ParseLevel is the inverse of String; letter case does not matter.
func ParseLevel(s string) (Level, error) {
	for l := One; l <= All; l++ {
		if strings.EqualFold(s, l.String()) {
			return l, nil
		}
	}
	return 0, fmt.Errorf("parse level %q: it is one, quorum or all", s)
}

// Need returns how many of n owners must answer at level l: at least 1, even
// of none, so that no owners never suffice.
func Need(l Level, n int) int {
	switch {
	case n < 1 || l == One:
		return 1
	case l == All:
		return n
	default:
		return n/2 + 1
	}
}
