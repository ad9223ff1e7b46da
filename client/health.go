package client

import (
	"math/bits"
	"time"
)

// Calls to a node are judged in classes, whose usual times have little in common
// and of which one can hang by itself: a node whose disk has stalled may read on
// and write nothing.
type class int

const (
	// noClass are calls that say nothing of a node, since they may take any time.
	noClass class = iota
	getClass
	multiGetClass
	writeClass
	batchClass
	classes
)

const (
	// A node is silent once calls have waited for its answers and none came, of any
	// age, for silenceTimes the latency that 99 % of its calls do not exceed, and
	// at least minSilence, which a busy machine does not reach, at most maxSilence.
	silenceTimes           = 4
	minSilence, maxSilence = 750 * time.Millisecond, 5 * time.Second
	// A node hesitates once calls have waited so long without any answer, or twice
	// what 99 % of its calls do not exceed: others are preferred until it answers one.
	// To be wrong about that costs nothing, since any owner can do a call, and what is
	// sent to a node that has stopped, and may not be repeated, is lost to its caller.
	minHesitation  = 50 * time.Millisecond
	hesitationTime = 2
	// forgetQuiet is how long nothing has to be asked of a node until an unanswered
	// call before that is forgotten.
	forgetQuiet = 10 * time.Second

	// A node is slow if half of its calls take slowTimes as long as at the others,
	// and longer by slowMargin, and no longer after goodTrials that do not.
	slowTimes  = 4
	slowMargin = 20 * time.Millisecond
	goodTrials = 3

	// A node is failing after troublesInRow answers, one behind the other, that say
	// that it cannot serve.
	troublesInRow = 5

	// trialEach is how often a node that is slow or failing gets a call to see
	// whether it still is.
	trialEach = 500 * time.Millisecond
	// A node that answers probes and leaves trials unanswered is tried after pauses
	// that double up to maxHold.
	firstHold, maxHold = 250 * time.Millisecond, 2 * time.Second
)

// standing is how a node does with the calls of a class.
type standing uint32

const (
	fine    standing = iota
	silent           // it answers nothing
	slow             // it answers far later than the others
	failing          // it answers that it cannot serve
)

func (s standing) String() string {
	return [...]string{"fine", "silent", "slow", "failing"}[s]
}

// signs are what is seen of a node and a class at one look.
type signs struct {
	outstanding int64         // calls without an answer
	answers     uint64        // so far
	troubles    uint32        // answers in a row that say that it cannot serve
	latest      time.Duration // what the last answer took
	median      time.Duration // what half of the calls do not exceed; 0: not known
	high        time.Duration // what 99 % do not exceed; 0: not known
	others      time.Duration // the median at the other nodes; 0: not known
	probed      bool          // it has answered a probe since it went silent, or a trial failed
}

// vigil judges a node and a class by looks at it. It is a pure state machine:
// times are what the one who looks says has passed, which leaves out times when
// this process itself did not run.
type vigil struct {
	standing standing
	answers  uint64
	quiet    time.Duration // how long calls have waited without any answer
	idle     time.Duration // how long there has been none
	mute     time.Duration // since the last answer
	// with says that it is silent because the node's other classes are.
	with   bool
	since  time.Duration // in this standing, or since the last trial
	hold   time.Duration // before the next trial of a silent node
	trying bool          // a trial of a silent node is allowed and not answered
	good   int           // trials in a row of a slow node that were not slow
}

// look takes a look, passed after the one before. trial says that the next call
// may go to the node though it is not fine.
func (v *vigil) look(s signs, passed time.Duration) (trial bool) {
	answered := s.answers != v.answers
	v.answers = s.answers
	if v.mute += passed; answered {
		v.mute = 0
	}
	switch {
	case answered:
		v.quiet, v.idle = 0, 0
	case s.outstanding > 0:
		v.quiet += passed
		v.idle = 0
	default:
		if v.idle += passed; v.idle >= forgetQuiet {
			v.quiet = 0
		}
	}
	v.since += passed
	switch v.standing {
	case silent:
		return v.lookSilent(s, answered)
	case slow:
		return v.lookSlow(s, answered)
	case failing:
		if answered && s.troubles == 0 {
			v.turn(fine)
			return false
		}
		return v.every(trialEach)
	}
	switch {
	case v.quiet > silence(s.high):
		v.turn(silent)
	case s.troubles >= troublesInRow:
		v.turn(failing)
	case isSlow(s.median, s.others):
		v.turn(slow)
	}
	return false
}

// hesitates says that a node that is fine so far keeps its calls waiting.
func (v *vigil) hesitates(s signs) bool {
	return v.standing == fine && s.outstanding > 0 && v.quiet >= max(hesitationTime*s.high, minHesitation)
}

// lookSilent looks at a silent node: any answer makes it fine. One to a probe
// allows a trial, of which a second one waits for the first.
func (v *vigil) lookSilent(s signs, answered bool) (trial bool) {
	switch {
	case answered:
		v.turn(fine)
	case !v.trying && s.probed && v.since >= v.hold:
		v.trying, v.since = true, 0
		return true
	case v.trying && v.since > silence(s.high):
		// It hangs, or was given up by its caller: there will be another.
		v.trying, v.since = false, 0
		v.hold = min(2*v.hold, maxHold)
	}
	return false
}

// lookSlow looks at a slow node.
func (v *vigil) lookSlow(s signs, answered bool) (trial bool) {
	if v.quiet > silence(s.high) {
		v.turn(silent)
		return false
	}
	if answered {
		v.good++
		if isSlow(s.latest, s.others) {
			v.good = 0
		}
		if v.good >= goodTrials {
			v.turn(fine)
			return false
		}
	}
	return v.every(trialEach)
}

// every says true after each d.
func (v *vigil) every(d time.Duration) bool {
	if v.since < d {
		return false
	}
	v.since = 0
	return true
}

func (v *vigil) turn(to standing) {
	*v = vigil{standing: to, answers: v.answers, quiet: v.quiet, mute: v.mute, hold: firstHold}
}

// together makes the classes of a node that has become silent in one of them
// silent too, if they have no more recent answer to show, and fine again with any
// answer.
func together(all []*vigil) {
	heard, longest := false, time.Duration(0)
	for _, v := range all {
		heard = heard || v.mute == 0
		if v.standing == silent && !v.with && v.since == 0 && !v.trying {
			longest = max(longest, v.quiet) // just now
		}
	}
	for _, v := range all {
		switch {
		case heard && v.with:
			v.turn(fine)
		case !heard && longest > 0 && v.standing == fine && v.mute >= longest:
			v.turn(silent)
			v.with = true
		}
	}
}

// silence is how long a node of a usual latency may not answer.
func silence(high time.Duration) time.Duration {
	return min(max(silenceTimes*high, minSilence), maxSilence)
}

// isSlow says that a latency is far above that of others, 0 if they have none.
func isSlow(d, others time.Duration) bool {
	return others > 0 && d > slowTimes*others && d-others > slowMargin
}

// Latencies are counted in buckets of a quarter of a power of two, in
// microseconds up to a minute: a quantile is at most a quarter too high.
const (
	latencySubBits = 2
	latencyBuckets = (27 - latencySubBits) << latencySubBits
)

func latencyBucket(d time.Duration) int {
	us := uint64(max(d, 0) / time.Microsecond)
	shift := max(bits.Len64(us)-latencySubBits-1, 0)
	return min(shift<<latencySubBits+int(us>>shift), latencyBuckets-1)
}

// bucketLatency is the largest latency that is counted in a bucket.
func bucketLatency(i int) time.Duration {
	shift := max(i>>latencySubBits-1, 0)
	return time.Duration(int64(i-shift<<latencySubBits+1)<<shift-1) * time.Microsecond
}

const (
	// keepEach is the share of the counts that is kept each time that new ones are
	// added, once a second: after two seconds new ones are half.
	keepEach = 0.7
	// enoughCounts is how many calls it takes to know a median, and manyCounts to
	// know what 99 % do not exceed.
	enoughCounts, manyCounts = 10, 50
)

// recent has counts of latencies, the recent ones more than the others.
type recent [latencyBuckets]float64

// add takes in new counts, of which there has to be one.
func (r *recent) add(counts *[latencyBuckets]uint32) {
	for i := range r {
		r[i] = r[i]*keepEach + float64(counts[i])
	}
}

// quantiles returns the median and what 99 % do not exceed, 0 for what too few
// counts tell.
func (r *recent) quantiles() (median, high time.Duration) {
	var all, seen float64
	for _, n := range r {
		all += n
	}
	for i, n := range r {
		if seen += n; n == 0 {
			continue
		}
		if median == 0 && all >= enoughCounts && seen >= all/2 {
			median = bucketLatency(i)
		}
		if high == 0 && all >= manyCounts && seen >= all*0.99 {
			high = bucketLatency(i)
		}
	}
	return median, high
}
