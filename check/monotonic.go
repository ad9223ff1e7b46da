package check

import (
	"cmp"
	"slices"
	"time"

	"github.com/pairdb/pairdb/coord/causal"
)

// told is a context that a client was told of, and when.
type told struct {
	at      time.Duration
	op      *Op
	context causal.Context
}

// MonotonicContexts finds reads that have seen less than an earlier answer: a
// read that begins after another read or a write was answered, at levels that
// meet, has a context that covers all of the earlier one's. Reads that found
// nothing and were told no context are left out; what they must not have missed
// is LostAck's.
func MonotonicContexts(h History) []Violation {
	rep := report{checker: "monotonic"}
	for _, k := range h.keys() {
		k.monotonic(&rep)
	}
	return rep.done()
}

func (k *keyed) monotonic(rep *report) {
	answers := k.told()
	var seen learnt
	done := 0
	for _, r := range k.reads {
		for ; done < len(answers) && answers[done].at < r.At; done++ {
			seen.add(answers[done].op.Level, answers[done].context)
		}
		if len(r.Answer.Context) == 0 || seen.coveredBy(r) {
			continue
		}
		at := slices.IndexFunc(answers[:done], func(t told) bool {
			return meets(t.op.Level, r.Level) && !r.knows().CoversAll(t.context)
		})
		rep.add(k.Key, []*Op{answers[at].op, r}, "#%d has seen less than #%d, which was answered before", r.ID, answers[at].op.ID)
	}
}

// told returns all contexts of answers, by the time of the answer.
func (k *keyed) told() []told {
	var out []told
	add := func(o *Op) {
		if o.ok() && len(o.Answer.Context) > 0 {
			out = append(out, told{o.Answer.At, o, o.Answer.Context})
		}
	}
	for _, r := range k.reads {
		add(r)
	}
	for _, w := range k.writes {
		for _, o := range w.ops {
			add(o)
		}
	}
	slices.SortFunc(out, func(a, b told) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.op.ID, b.op.ID)) })
	return out
}
