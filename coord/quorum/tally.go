package quorum

import (
	"iter"
	"math/bits"
)

// MaxOwners is the largest number of owners a Tally can count: two sets of the
// largest replication factor, and some room.
const MaxOwners = 16

// Verdict is what a Tally says.
type Verdict uint8

const (
	// Pending: the answers so far decide nothing.
	Pending Verdict = iota
	// Reached: enough owners have acknowledged.
	Reached
	// Lost: so many owners have failed that the level cannot be reached.
	Lost
)

// String returns "pending", "reached" or "lost".
func (v Verdict) String() string {
	return [...]string{"pending", "reached", "lost"}[v]
}

// Tally counts the answers of the owners of one key, which it knows by their
// index, 0..n-1. The verdict depends on the set of answers, never on their
// order; an owner that both failed and acknowledged has acknowledged. It is a
// plain value for one goroutine at a time.
type Tally struct {
	goal        Goal
	acks, fails uint16
	reasons     [MaxOwners]string
}

// Tally returns an empty tally of what g needs.
func (g Goal) Tally() Tally { return Tally{goal: g} }

// counts reports whether owner i is a member of a set.
func (t *Tally) counts(i int) bool {
	return i >= 0 && i < MaxOwners && (t.goal.First.Members|t.goal.Second.Members)>>i&1 == 1
}

// Ack notes that owner i acknowledged.
func (t *Tally) Ack(i int) {
	if t.counts(i) {
		t.acks |= 1 << i
	}
}

// Fail notes why owner i will not acknowledge. The first reason is kept.
func (t *Tally) Fail(i int, reason string) {
	if t.counts(i) && t.fails>>i&1 == 0 {
		t.fails |= 1 << i
		t.reasons[i] = reason
	}
}

// Acks returns how many owners have acknowledged, and Need how many must. With two
// sets both are about the one that has too few, or else about the first.
func (t *Tally) Acks() int { return bits.OnesCount16(t.acks & t.goal.Narrow(t.acks).Members) }

// Need returns how many must; see Acks.
func (t *Tally) Need() int { return t.goal.Narrow(t.acks).Need }

// Answered returns a bit for each owner that has acknowledged, and for each that has
// failed and has not.
func (t *Tally) Answered() (acks, fails uint16) { return t.acks, t.fails &^ t.acks }

// Acked reports whether owner i has acknowledged.
func (t *Tally) Acked(i int) bool { return i >= 0 && i < MaxOwners && t.acks>>i&1 == 1 }

// Verdict says whether the level is reached, lost or still open. With two sets it is
// reached when both are, and lost when one is.
func (t *Tally) Verdict() Verdict {
	switch {
	case t.goal.Met(t.acks):
		return Reached
	case !t.goal.Met(^t.fails | t.acks):
		return Lost
	default:
		return Pending
	}
}

// Causes yields the owners that failed and did not acknowledge, in order, and
// why.
func (t *Tally) Causes() iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		for i := range MaxOwners {
			if (t.fails&^t.acks)>>i&1 == 1 && !yield(i, t.reasons[i]) {
				return
			}
		}
	}
}
