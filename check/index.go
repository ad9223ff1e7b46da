package check

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// keyed is what happened to one key.
type keyed struct {
	Key
	lww bool
	// writes are in the order of their starts, reads are the Gets that
	// succeeded in the order of their calls.
	writes []*write
	reads  []*Op
	// byValue finds a Put by what it wrote, byDot any write by a name that an
	// answer gave it.
	byValue map[string]*write
	byDot   map[causal.Dot]*write
}

// write is a write as its client means it: one operation, or several attempts
// under one idempotency key.
type write struct {
	// ops are the attempts in the order of their calls.
	ops []*Op
	// The write takes effect between start and end; end is forever unless it
	// was acknowledged.
	start, end time.Duration
	// acked is the attempt that was acknowledged first, nil if none was.
	acked *Op
	// never says that no attempt took effect.
	never bool
	// from and to are when it expires, forever if it does not; see Fading. Of several
	// attempts each may have been the one that took effect.
	from, to time.Duration
	// dots are its names: those of its acknowledgements, and those under which
	// reads returned its value. See mintedTwice.
	dots []causal.Dot
	// past is what it is known to have superseded when it was minted.
	past causal.Context
	// at is its place among the key's writes.
	at int
	// hider is a write that was why a read did not return it, to be tried first.
	hider *write
}

func (w *write) first() *Op { return w.ops[0] }

func (w *write) seen() causal.Context { return w.ops[0].Seen }

func (w *write) blind() bool { return len(w.ops[0].Seen) == 0 }

func (w *write) isDelete() bool { return w.ops[0].Kind == Delete }

func byCall(a, b *Op) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.ID, b.ID)) }

// keys sorts the history by key.
func (h History) keys() []*keyed {
	type attempt struct {
		Key
		kind                  Kind
		value, idempotencyKey string
	}
	keys := make(map[Key]*keyed)
	attempts := make(map[attempt]*write)
	for i := range h {
		o := &h[i]
		k := keys[o.key()]
		if k == nil {
			k = &keyed{Key: o.key(), lww: o.LWW, byValue: map[string]*write{}, byDot: map[causal.Dot]*write{}}
			keys[k.Key] = k
		}
		if o.Kind == Get {
			if o.ok() {
				k.reads = append(k.reads, o)
			}
			continue
		}
		a := attempt{o.key(), o.Kind, o.Value, o.IdempotencyKey}
		w := attempts[a]
		if w == nil || o.IdempotencyKey == "" {
			w = &write{}
			attempts[a] = w
			k.writes = append(k.writes, w)
		}
		w.ops = append(w.ops, o)
	}
	out := slices.SortedFunc(maps.Values(keys), func(a, b *keyed) int { return a.Key.compare(b.Key) })
	for _, k := range out {
		k.settle()
	}
	return out
}

// settle derives what follows from the operations.
func (k *keyed) settle() {
	for _, w := range k.writes {
		w.settle()
		if !w.isDelete() {
			k.byValue[w.first().Value] = w
		}
		for _, o := range w.ops {
			if o.ok() {
				k.name(o.Answer.Dot, w)
			}
		}
	}
	slices.SortFunc(k.writes, func(a, b *write) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.first().ID, b.first().ID))
	})
	for i, w := range k.writes {
		w.at, w.past = i, k.past(w)
	}
	slices.SortFunc(k.reads, byCall)
	for _, r := range k.reads {
		for i := range r.Answer.Siblings {
			if v := &r.Answer.Siblings[i]; !v.Tombstone && k.byValue[v.Value] != nil {
				k.name(v.Dot, k.byValue[v.Value])
			}
		}
	}
}

func (k *keyed) name(d causal.Dot, w *write) {
	if !slices.Contains(w.dots, d) {
		w.dots = append(w.dots, d)
	}
	if k.byDot[d] == nil {
		k.byDot[d] = w
	}
}

func (w *write) settle() {
	slices.SortFunc(w.ops, byCall)
	w.start, w.end, w.never = forever, forever, true
	w.from, w.to = forever, 0
	for _, o := range w.ops {
		if o.Fades == nil {
			w.to = forever
		} else {
			w.from, w.to = min(w.from, o.Fades.From), max(w.to, o.Fades.To)
		}
		if o.never() {
			continue
		}
		w.never = false
		w.start = min(w.start, o.At)
		if o.ok() && o.Answer.At < w.end {
			w.end, w.acked = o.Answer.At, o
		}
	}
	if w.never {
		w.start = w.first().At
	}
}

// acks returns the writes that were acknowledged, by the time of it.
func (k *keyed) acks() []*write {
	var out []*write
	for _, w := range k.writes {
		if w.acked != nil {
			out = append(out, w)
		}
	}
	slices.SortStableFunc(out, func(a, b *write) int { return cmp.Compare(a.end, b.end) })
	return out
}

// meets reports whether any owners that answered at level a have one in common
// with any that answered at level b.
func meets(a, b quorum.Level) bool {
	return a == quorum.All || b == quorum.All || a == quorum.Quorum && b == quorum.Quorum
}

// learnt joins contexts by the level at which they were learnt.
type learnt [quorum.All + 1]causal.Context

func (l *learnt) add(at quorum.Level, c causal.Context) { l[at] = causal.JoinContext(l[at], c) }

// coveredBy reports whether a read's context covers all that its level lets it
// meet.
func (l *learnt) coveredBy(r *Op) bool {
	for at := quorum.One; at <= quorum.All; at++ {
		if meets(at, r.Level) && !r.Answer.Context.CoversAll(l[at]) && !r.knows().CoversAll(l[at]) {
			return false
		}
	}
	return true
}

func coversAny(c causal.Context, dots []causal.Dot) bool { return slices.ContainsFunc(dots, c.Covers) }

// mintedTwice reports whether the write may have a second dot: where the last
// writer wins, a blind write of a minter that was behind is minted again.
func (k *keyed) mintedTwice(w *write) bool { return k.lww && w.blind() }

// covers reports whether whoever has seen c certainly has seen the last mint of
// w.
func (k *keyed) covers(c causal.Context, w *write) bool {
	if k.mintedTwice(w) {
		return w.acked != nil && c.Covers(w.acked.Answer.Dot)
	}
	return coversAny(c, w.dots)
}

// above reports whether s certainly supersedes w: it had seen w, or it is a
// blind write of a tenant where the last writer wins that was acknowledged and
// began after w was.
func (k *keyed) above(s, w *write) bool {
	switch {
	case s == w || s.never:
		return false
	case k.covers(s.seen(), w):
		return true
	default:
		return k.lww && s.blind() && s.acked != nil && w.acked != nil && w.end < s.start &&
			meets(s.acked.Level, w.acked.Level)
	}
}

// couldHide reports whether s can be why read r does not return w.
func (k *keyed) couldHide(s, w *write, r *Op) bool {
	if s == w || s.never || s.start > r.Answer.At {
		return false
	}
	// Until a blind write was acknowledged its first mint may be what was read,
	// which may lose to what the write is to be above.
	settled := !k.mintedTwice(w) || w.acked != nil && w.end < r.At && meets(w.acked.Level, r.Level)
	if settled && k.above(w, s) {
		return false
	}
	// A write that may be minted twice may have been read under the name of its
	// first mint, which nobody was told.
	firstMint := k.mintedTwice(s) && !(s.acked != nil && s.end < r.At && meets(s.acked.Level, r.Level))
	if len(r.Answer.Context) > 0 && len(s.dots) > 0 && !firstMint && !coversAny(r.knows(), s.dots) {
		return false
	}
	return k.lww || s.isDelete() && s.blind() || coversAny(s.seen(), w.dots)
}

// explained reports whether read r returns w, or some write can be why it does
// not: if r returns no value at all, a delete or one that has expired. Or w itself has.
func (k *keyed) explained(w *write, r *Op) bool {
	for i := range r.Answer.Siblings {
		v := &r.Answer.Siblings[i]
		if !v.Tombstone && k.byValue[v.Value] == w {
			return true
		}
	}
	if w.from <= r.Answer.At {
		return true
	}
	absent := r.absent()
	hides := func(s *write) bool {
		return (!absent || s.isDelete() || s.from <= r.Answer.At) && k.couldHide(s, w, r)
	}
	if w.hider != nil && hides(w.hider) {
		return true
	}
	// It is mostly one that began soon after w.
	for i := range k.writes {
		if s := k.writes[(w.at+i)%len(k.writes)]; hides(s) {
			w.hider = s
			return true
		}
	}
	return false
}

// past returns what the write is known to have superseded when it was minted.
func (k *keyed) past(w *write) causal.Context {
	if !w.blind() {
		return w.seen()
	}
	if !k.lww || w.acked == nil || w.acked.Answer.Duplicate {
		return nil
	}
	// A blind write supersedes all that its minter knew: the answer's context
	// but for the write itself.
	own := w.acked.Answer.Dot
	var c causal.Context
	for _, d := range w.acked.Answer.Context {
		if d == own {
			d.Counter--
		}
		c = c.With(d)
	}
	return c
}
