package check

import (
	"slices"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// Idempotency finds retries that were more than one write. Attempts with the
// same tenant, key, idempotency key and payload, all at QUORUM or ALL, are one:
//
//   - all acknowledgements have one dot;
//   - at most one is no duplicate, none that began after another was given; if
//     all are duplicates, an attempt whose fate is open did the work;
//   - no read returns two versions of it, and one that begins after an
//     acknowledgement returns it under no other dot. Where a write is never
//     minted twice, it is seen under one dot from the start.
//
// Of several payloads under one idempotency key at most one ever happens. The
// history must be shorter than the time for which records are kept.
func Idempotency(h History) []Violation {
	rep := report{checker: "idempotency"}
	for _, k := range h.keys() {
		happened := make(map[string]*write)
		for _, w := range k.writes {
			key := w.first().IdempotencyKey
			if key == "" || slices.ContainsFunc(w.ops, func(o *Op) bool { return o.Level < quorum.Quorum }) {
				continue
			}
			k.attempts(&rep, w)
			k.versions(&rep, w)
			if len(w.dots) == 0 {
				continue
			}
			if other := happened[key]; other != nil {
				rep.add(k.Key, append(slices.Clone(other.ops), w.ops...), "two payloads under the idempotency key %q both happened", key)
			}
			happened[key] = w
		}
	}
	return rep.done()
}

// attempts looks at the answers to the attempts at one write.
func (k *keyed) attempts(rep *report, w *write) {
	var original *Op
	open := false
	for _, o := range w.ops {
		switch {
		case !o.ok():
			open = open || !o.never()
			continue
		case o.Answer.Dot != w.acked.Answer.Dot:
			rep.add(k.Key, []*Op{w.acked, o}, "attempts at one write are acknowledged as %s and %s", dotString(w.acked.Answer.Dot), dotString(o.Answer.Dot))
		}
		if o.Answer.Duplicate {
			if !slices.ContainsFunc(w.ops, func(p *Op) bool { return p != o && !p.never() && p.At < o.Answer.At }) {
				rep.add(k.Key, []*Op{o}, "#%d is called a duplicate, of nothing", o.ID)
			}
			continue
		}
		if w.end < o.At {
			rep.add(k.Key, []*Op{w.acked, o}, "#%d is no duplicate of #%d, which was acknowledged before", o.ID, w.acked.ID)
		} else if original != nil {
			rep.add(k.Key, []*Op{original, o}, "both attempts say that they are no duplicate")
		}
		original = o
	}
	if w.acked != nil && original == nil && !open && len(w.ops) > 1 {
		rep.add(k.Key, w.ops, "all attempts are called duplicates, and none is left that did the work")
	}
}

// versions looks at what reads return of one write.
func (k *keyed) versions(rep *report, w *write) {
	var first causal.Dot // under which it was returned or acknowledged
	var firstOp *Op
	once := func(d causal.Dot, o *Op) bool {
		if firstOp == nil {
			first, firstOp = d, o
		}
		return first == d
	}
	if w.acked != nil {
		once(w.acked.Answer.Dot, w.acked)
	}
	for _, r := range k.reads {
		if r.Level < quorum.Quorum {
			continue
		}
		var returned []causal.Dot
		for _, v := range r.Answer.Siblings {
			if !v.Tombstone && k.byValue[v.Value] == w {
				returned = append(returned, v.Dot)
			}
		}
		switch {
		case len(returned) > 1:
			rep.add(k.Key, append(slices.Clone(w.ops), r), "#%d returns %d versions of one write", r.ID, len(returned))
		case len(returned) == 1 && (w.end < r.At || !k.mintedTwice(w)) && !once(returned[0], r):
			rep.add(k.Key, append(slices.Clone(w.ops), firstOp, r), "#%d returns %q as %s, which was %s in #%d",
				r.ID, w.first().Value, dotString(returned[0]), dotString(first), firstOp.ID)
		}
	}
}
