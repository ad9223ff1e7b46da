package repair

import "github.com/pairdb/pairdb/coord/causal"

// horizonOf returns the dots that all owners have to have once a round is over: what
// each of them had drawn when it began, and of all other actors what anybody had
// seen. A dot above it may be of a write that is under way.
func horizonOf(first []State) causal.Context {
	var all causal.Context
	for i := range first {
		all = causal.JoinContext(all, first[i].Seen)
	}
	out := make(causal.Context, 0, len(all)+len(first))
	for _, d := range all {
		if !mints(first, d.Actor) {
			out = append(out, d)
		}
	}
	for i := range first {
		// A dot is only ever what it is at its owner's: others may have seen one that
		// was drawn after this owner was asked.
		out = out.With(causal.Dot{Actor: first[i].Actor, Counter: first[i].Drawn})
	}
	return out
}

func mints(states []State, actor uint64) bool {
	for i := range states {
		if states[i].Actor == actor {
			return true
		}
	}
	return false
}

// levelled returns what all owners know to be confirmed, together.
func levelled(states []State) (c causal.Confirmed) {
	for i := range states {
		c = c.Join(&states[i].Confirmed)
	}
	return c
}

// confirm returns what follows from a round that ended with all owners equal: first
// and second are what they said when it began and when the writes of then were over,
// agreed is what was confirmed before. why is why nothing follows.
func confirm(first, second []State, agreed *causal.Confirmed) (c causal.Confirmed, why string) {
	c.Seen = horizonOf(first)
	for i := range first {
		if i == 0 || first[i].Now < c.Expired {
			c.Expired = first[i].Now
		}
	}
	for i := range second {
		if second[i].VotesUnknown {
			return causal.Confirmed{}, "an owner does not know its open votes yet"
		}
		c.Seen = below(below(c.Seen, first[i].Votes), second[i].Votes)
	}
	c.Expired = max(c.Expired, 0)
	return c.Join(agreed), ""
}

// below returns seen with no counter above those of the votes.
func below(seen, votes causal.Context) causal.Context {
	out := make(causal.Context, 0, len(seen))
	for _, d := range seen {
		for _, vote := range votes { // which may have counters of 0
			if vote.Actor == d.Actor {
				d.Counter = min(d.Counter, vote.Counter)
			}
		}
		if d.Counter > 0 {
			out = append(out, d)
		}
	}
	return out
}
