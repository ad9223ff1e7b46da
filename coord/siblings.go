package coord

import (
	"fmt"
	"slices"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Limits of what clients may let the siblings of a key grow to. Merges know
// none of them: what owners hold can always be joined.
const (
	// warnSiblings is how many siblings a write leaves from which on it is
	// counted as a warning.
	warnSiblings = 16
	// maxSiblings is how many siblings a key has from which on a write that
	// supersedes none of them is refused.
	maxSiblings = 64
	// maxJoinedValues is what the values of a key may have together once all
	// owners have joined what each of them minted, in bytes: an object is one
	// value of the engine, which takes 31 MiB.
	maxJoinedValues = 30 << 20
)

// keepsSiblings reports whether the tenant keeps every value that no write has
// superseded.
func (u *unit) keepsSiblings() bool { return u.tenant.Policy == schema.PolicySiblings }

// valueShare bounds the values beside one another that one owner mints for a
// key of a tenant that keeps siblings, in bytes. Owners that do not hear of each
// other in time each mint up to it.
func (u *unit) valueShare() int { return maxJoinedValues / u.minters() }

// minters is how many owners may mint beside one another: while a change is open that
// changes how many there are, the larger number.
func (u *unit) minters() int { n := u.tenant.Copies(); return max(n.From, n.To, 1) }

// admit refuses a client's write that would let the siblings of a key grow too
// far; nil for one that is welcome. seen is what the write supersedes.
func (u *unit) admit(j *job, held *causal.Object, seen causal.Context) *Error {
	kept, before, after := 0, 0, len(j.value)
	for i := range held.Siblings {
		s := &held.Siblings[i]
		before += len(s.Value)
		if !seen.Covers(s.Dot) {
			kept++
			after += len(s.Value)
		}
	}
	share := u.valueShare()
	e := &Error{Code: errcode.PreconditionFailed, Outcome: errcode.NotApplied}
	switch {
	case len(j.value) > share:
		e.Code = errcode.ValueTooLarge
		e.Message = fmt.Sprintf("the value has %d bytes; a tenant that keeps siblings takes at most %d with a replication factor of %d", len(j.value), share, u.minters())
		return e
	case kept >= maxSiblings && kept == len(held.Siblings):
		e.Message = fmt.Sprintf("the key has %d siblings, and a write that supersedes none of them is refused from %d on", kept, maxSiblings)
	case after > share && after > before:
		e.Message = fmt.Sprintf("with this write the key's siblings would have %d bytes, at most %d are allowed", after, share)
	default:
		return nil
	}
	e.Message += "; read them and write with the context of that answer"
	e.Token = seal(u.snap, u.tenant.Number, u.Key, held.Context, held.Winner().HLC)
	return e
}

// claim returns what the answer to a write may say that it has seen, nil if no
// context says it: one that covered a value the client has not been shown would
// let its next write supersede that unseen. o is the object the write made and
// dot the write, which superseded what seen covers.
func claim(o *causal.Object, seen causal.Context, dot causal.Dot) causal.Context {
	own := causal.JoinContext(seen, causal.Context{dot})
	alone, exact := true, true
	for i := range o.Siblings {
		if s := &o.Siblings[i]; s.Dot != dot && !s.Tombstone() {
			alone = false
			// An entry for this write's actor claims its earlier writes, too.
			exact = exact && !own.Covers(s.Dot)
		}
	}
	switch {
	case alone:
		return o.Context
	case exact:
		return own
	default:
		return nil
	}
}

// shown returns what a client gets to see of an object: the winner if it is a
// live value, or for a tenant that keeps siblings all live values, the one that
// wins first and the others by dot.
func (u *unit) shown(o *causal.Object, now time.Time) []causal.Sibling {
	if w := o.Winner(); !u.keepsSiblings() {
		if w == nil || !w.Live(now) {
			return nil
		}
		return []causal.Sibling{*w}
	}
	live := causal.Object{Siblings: make([]causal.Sibling, 0, len(o.Siblings))}
	for i := range o.Siblings {
		if s := &o.Siblings[i]; s.Live(now) {
			live.Siblings = append(live.Siblings, *s)
		}
	}
	return winnerFirst(&live)
}

// unexpired returns an object without the values that have expired, for a write to
// be minted over: its context covers them still, so the write supersedes them,
// whatever else it does. Otherwise they would count against the limits though nobody
// can read them for a context. The floor of the write's HLC rises above theirs.
func unexpired(o *causal.Object, floor uint64, now time.Time) (*causal.Object, uint64) {
	left := &causal.Object{Context: o.Context, Siblings: make([]causal.Sibling, 0, len(o.Siblings))}
	for i := range o.Siblings {
		if s := &o.Siblings[i]; s.Tombstone() || s.Live(now) {
			left.Siblings = append(left.Siblings, *s)
		} else {
			floor = max(floor, s.HLC)
		}
	}
	return left, floor
}

// winnerFirst returns o's siblings, the winner first and the others by dot. It
// reorders them in place.
func winnerFirst(o *causal.Object) []causal.Sibling {
	s := o.Siblings
	w := o.Winner()
	for i := range s {
		if &s[i] == w {
			first := s[i]
			copy(s[1:i+1], s[:i])
			s[0] = first
			break
		}
	}
	return s
}

// sortedByDot returns the siblings in the order an object has them.
func sortedByDot(s []causal.Sibling) []causal.Sibling {
	if len(s) < 2 {
		return s
	}
	return slices.SortedFunc(slices.Values(s), func(a, b causal.Sibling) int { return a.Dot.Compare(b.Dot) })
}
