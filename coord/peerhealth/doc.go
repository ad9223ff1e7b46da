// Package peerhealth is what a node thinks of how its peers, its own disk and
// its own reads answer, and what follows from it: whom to ask first, whom not to
// ask, and after how long to ask one more.
//
// The decisions (latency, breaker, Budget) look at no clock and start nothing:
// they are told what came back and how much time has passed. Table is their edge:
// it is safe for concurrent use, and what every request does to it is an atomic
// addition or two. Whoever has a Table calls Tick every Interval while something
// is awaited.
//
// A breaker is the pattern of Nygard, Release It!, 2nd edition, chapter 5. Asking
// one more owner after a quantile of the latency, under a budget, is what Dean and
// Barroso call a hedged request in The Tail at Scale, CACM 56(2), 2013.
package peerhealth

import "time"

// State says how a peer is treated.
type State uint32

const (
	// Closed: it is asked like any other.
	Closed State = iota
	// Slow: it answers, far later than the others. It is asked last for reads and
	// for coordinating, and is sent writes like any other.
	Slow
	// HalfOpen: it did not answer, and a probe is out or about to be.
	HalfOpen
	// Open: it does not answer. Nothing is sent to it but a probe every
	// ProbeInterval, and those of operations that cannot do without it.
	Open
)

// String names the state as metrics and logs do.
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Slow:
		return "slow"
	case HalfOpen:
		return "half_open"
	default:
		return "open"
	}
}

// Kind is a kind of question. Each has latencies of its own.
type Kind uint8

const (
	// Read asks an owner for an object or its digest.
	Read Kind = iota
	// ForwardRead and ForwardWrite hand an operation to an owner.
	ForwardRead
	ForwardWrite
	// Scan asks for a piece of a range.
	Scan
	// Write is everything that waits for a disk. Its latencies are not learned:
	// no decision would use them.
	Write
	learned = Write
)

const (
	// Interval is how often Tick is to be called while something is awaited.
	Interval = 50 * time.Millisecond
	// ProbeInterval is the shortest time between two probes of one peer. A peer
	// that is back is found after this and one round trip.
	ProbeInterval = 500 * time.Millisecond
	// TrialInterval is how often operations that cannot do without a peer ask it,
	// before anything else is done, whether it answers by now, Trials of them, for
	// at most TrialTime: a verdict that is wrong keeps nobody from a level for longer
	// than the interval and one round trip.
	TrialInterval = 100 * time.Millisecond
	TrialTime     = 200 * time.Millisecond
	Trials        = 4

	// silentMany and silentFew are how long nothing whatever comes back, while
	// manyAwaited or fewer answers are awaited, until a breaker opens: much longer
	// than a sync or a collection of garbage takes, much shorter than the
	// deadlines of operations. unreached is the same where requests fail without
	// having got there. A peer under suspicion is given half of these.
	silentMany  = 750 * time.Millisecond
	silentFew   = 1500 * time.Millisecond
	unreached   = 500 * time.Millisecond
	manyAwaited = 4
	minFailures = 3

	// ownPause is a time between ticks after which this node was not running,
	// whatever the reason. What it awaits is then overdue by its own fault, and it
	// has grace to read what has arrived meanwhile.
	ownPause = 500 * time.Millisecond
	grace    = time.Second

	// farFactor says what far slower is: a multiple of the latency that the 95th
	// percentile of the others has, and no less than farFloor.
	farFactor = 4
	farFloor  = 5 * time.Millisecond
	// A peer is slow after slowWindows windows in a row, each of windowTime and
	// windowSamples at the least, in which a quarter of its answers or more came
	// far slower; nearRun answers in a row that did not end it. slowLife bounds
	// how long a verdict is kept without a sample of the kind that it was for.
	slowWindows   = 2
	windowTime    = 500 * time.Millisecond
	windowSamples = 8
	nearRun       = 3
	slowLife      = 10 * time.Second

	// minHedge is the shortest time until one more owner is asked.
	minHedge = time.Millisecond
	// sampledEach and sampledOne: of the requests between two ticks the first
	// sampledEach are timed, then one in sampledOne, a power of two.
	sampledEach = 16
	sampledOne  = 16
)
