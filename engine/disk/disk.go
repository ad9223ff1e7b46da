// Package disk decides what a DB does about the space of its file system: how
// full it calls the disk, which writes it lets through, what the jobs in the
// background may take, and when what failed is tried again. It is pure: who
// asks the disk, and when, is the DB's business.
package disk

import "github.com/pairdb/pairdb/engine/vfs"

// State is how full a disk is.
type State uint8

// The states, each of which includes what holds for the ones before.
const (
	OK       State = iota
	Warn           // somebody should look after it
	Throttle       // large writes are refused
	Full           // all writes are refused but those that free space
)

// States lists all states in order.
func States() []State { return []State{OK, Warn, Throttle, Full} }

// String names the state as it stands in metrics and logs.
func (s State) String() string {
	switch s {
	case OK:
		return "ok"
	case Warn:
		return "warn"
	case Throttle:
		return "throttle"
	default:
		return "full"
	}
}

const (
	// hysteresis is by how many percent of the disk less than what began a
	// state has to be in use before it ends, so that a disk at a border does
	// not change its mind with every file.
	hysteresis = 2
	// largeWrite is the size in bytes of the largest value taken where
	// Throttle begins, smallWrite of one taken just before Full.
	largeWrite = 1 << 20
	smallWrite = 4 << 10
)

// Limits say where the states begin.
type Limits struct {
	// Warn, Throttle and Stop are percents of the file system in use.
	Warn, Throttle, Stop int
	// Reserve is how many bytes of free space are kept for what was accepted
	// already: the flushes of all memtables, the next log segment, the
	// manifest. With less, the disk is Full whatever its percentage.
	Reserve int64
}

// percent returns how much of a file system is in use.
func percent(u vfs.Usage) float64 {
	if u.Total <= 0 {
		return 100
	}
	return 100 * float64(u.Total-u.Free) / float64(u.Total)
}

// Next returns the state that follows cur at a usage. It goes up at once and
// down once the usage is well below where the state began.
func (l Limits) Next(cur State, u vfs.Usage) State {
	used := percent(u)
	var next State
	for s, begin := range []int{Warn: l.Warn, Throttle: l.Throttle, Full: l.Stop} {
		if State(s) == OK {
			continue
		}
		enter, stay := float64(begin), float64(begin-hysteresis)
		if used >= enter || State(s) <= cur && used > stay {
			next = State(s)
		}
	}
	if u.Free < l.Reserve || cur == Full && u.Free < l.Reserve+u.Total/100*hysteresis {
		next = Full
	}
	return next
}

// Write is a batch that asks to be let through.
type Write struct {
	// Bytes is its size, Largest that of its largest single operation.
	Bytes, Largest int64
	// Frees says that it takes the place of more than it brings, as a delete
	// does: space comes back once it is compacted.
	Frees bool
}

// Verdict is the answer to a write.
type Verdict uint8

// The verdicts.
const (
	Admit     Verdict = iota // it is let through
	TooFull                  // the disk is full
	Throttled                // too large for a disk that is nearly full
	NoSpace                  // larger than what is left
	Verdicts                 // how many there are
)

// Admit decides about a write. What is accepted takes its size twice before
// anything goes: in the log, and in a table while the log still has it.
//
// At Full, writes that free space are let through as long as they leave half of
// what the breaker keeps, and the reserve: the reserve so that they can be
// flushed, the half so that the compaction that makes them free anything has
// room to work in.
func (l Limits) Admit(s State, u vfs.Usage, w Write) Verdict {
	left := u.Free - 2*w.Bytes
	switch {
	case s == Full && !w.Frees:
		return TooFull
	case s == Full:
		if left < max(l.Reserve, u.Total/200*int64(100-l.Stop)) {
			return TooFull
		}
	case left < l.Reserve:
		return NoSpace
	case s == Throttle && !w.Frees && w.Largest > l.large(u):
		return Throttled
	}
	return Admit
}

// large returns the size of the largest value taken at Throttle. It falls with
// the square of what is left until Full, so that there is no cliff.
func (l Limits) large(u vfs.Usage) int64 {
	x := (float64(l.Stop) - percent(u)) / float64(l.Stop-l.Throttle)
	x = min(1, max(0, x))
	return max(smallWrite, int64(largeWrite*x*x))
}

// Unasked returns the size of the largest batch that Admit need not be asked
// about, -1 if it has to be for all: where writes are refused, and where it
// matters which ones free space.
func (l Limits) Unasked(s State, u vfs.Usage) int64 {
	if s >= Throttle {
		return -1
	}
	return max(-1, (u.Free-l.Reserve)/2)
}
