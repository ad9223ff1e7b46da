package repair

import (
	"errors"
	"slices"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// How a span of a round may end.
const (
	endConfirmed = "confirmed"
	endPartial   = "partial"
	endVoid      = "void"
	endFailed    = "failed"
)

// job is one span of a round.
type job struct {
	Span
	pv ring.Version
	// owners are all there are; here says which of them take part, and self is this
	// node's place among them.
	owners []ring.NodeID
	here   []bool
	// damaged says of whom the copy is under quarantine; nil: of nobody.
	damaged []bool
	self    int
	// first and second are what those that take part said, in the order of owners.
	first, second []State
	// agreed is confirmed at all that take part, horizon what is expected of them
	// beyond that.
	agreed  causal.Confirmed
	horizon causal.Context
	// settled is what has been confirmed by this round, at all owners.
	settled causal.Confirmed
	// end is how it ended, empty while it is under way, and why it was not confirmed.
	end, why string
	// keys is how many differed, rows how many objects owners got, moved their bytes.
	keys, rows, moved int
	// dirty is why nothing may be confirmed though all take part: somebody else may hold
	// some of it.
	dirty string
	// need is how many of the others it takes that have all that was ever acknowledged,
	// for a span that is fetched. bucket is what it is paid from, nil for that of rounds.
	need   int
	bucket *bucket
	// order are the others that it is fetched from, the best first, if not all are.
	order []int
	// vouches is false for this node if its partition is under quarantine; nil: all do.
	vouches []bool
	// fixes is what is done about keys that differ; nil is repair.
	fix func(fb *fiber, c *comparison, all []fix) error
}

// fail ends a span, unless it has ended before.
func (j *job) fail(end, why string) {
	if j.end == "" {
		j.end, j.why = end, why
	}
}

// failWith ends a span with an error.
func (j *job) failWith(err error) {
	var e *askError
	switch {
	case errors.As(err, &e) && e.void, errors.Is(err, errMoved), errors.Is(err, errRestarted), errors.Is(err, errRing):
		j.fail(endVoid, err.Error())
	default:
		j.fail(endFailed, err.Error())
	}
}

// complete reports whether all owners take part.
func (j *job) complete() bool { return !slices.Contains(j.here, false) }

// some returns the states of those that take part.
func (j *job) some(states []State) (some []State) {
	for i := range states {
		if j.here[i] {
			some = append(some, states[i])
		}
	}
	return some
}
