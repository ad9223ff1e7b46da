package check

import (
	"slices"

	"github.com/pairdb/pairdb/coord/causal"
)

// LostAck finds acknowledged writes that a later read does not know of: a read
// that begins after the acknowledgement, at levels that meet, covers the
// write's dot, and either returns its value or some other write can be why it
// does not. A write that was not applied is never a reason, and neither is one
// that was acknowledged before the lost one began.
func LostAck(h History) []Violation {
	rep := report{checker: "lostack"}
	for _, k := range h.keys() {
		k.lostAck(&rep)
	}
	return rep.done()
}

func (k *keyed) lostAck(rep *report) {
	acks := k.acks()
	var acked learnt
	// live are the acknowledged writes that nothing has certainly superseded.
	var live []*write
	done := 0
	for _, r := range k.reads {
		for ; done < len(acks) && acks[done].end < r.At; done++ {
			w := acks[done]
			acked.add(w.acked.Level, causal.Context{w.acked.Answer.Dot})
			live = append(live, w)
		}
		if len(r.Answer.Context) > 0 && !acked.coveredBy(r) {
			for _, w := range acks[:done] {
				if meets(w.acked.Level, r.Level) && !r.knows().Covers(w.acked.Answer.Dot) {
					rep.add(k.Key, []*Op{w.acked, r}, "#%d has not seen %s, which #%d had acknowledged before", r.ID, dotString(w.acked.Answer.Dot), w.acked.ID)
					break
				}
			}
			continue
		}
		live = slices.DeleteFunc(live, func(w *write) bool {
			switch {
			case w.isDelete():
				return true // has no value to lose; its dot stays in acked
			case !meets(w.acked.Level, r.Level):
				return false
			case !k.explained(w, r):
				rep.add(k.Key, append(k.around(w), r), "#%d returns neither %q, which #%d had acknowledged before, nor what could have replaced it",
					r.ID, w.first().Value, w.acked.ID)
				return true
			}
			return k.buried(w, r)
		})
	}
}

// buried reports whether a write that was acknowledged before r certainly
// supersedes w, so that it is for that write to be found from r on.
func (k *keyed) buried(w *write, r *Op) bool {
	return slices.ContainsFunc(k.writes[w.at:], func(s *write) bool {
		return s.acked != nil && s.end < r.At && s.acked.Level >= w.acked.Level && k.above(s, w)
	})
}

// around returns the write's attempts and those of the writes next to it, for
// the reader of a violation.
func (k *keyed) around(w *write) []*Op {
	var ops []*Op
	for _, s := range k.writes[max(0, w.at-1):min(len(k.writes), w.at+3)] {
		ops = append(ops, s.ops...)
	}
	return ops[:min(len(ops), maxShown-1)]
}
