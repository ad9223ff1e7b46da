package check

import (
	"fmt"
	"slices"

	"github.com/pairdb/pairdb/coord/causal"
)

// Causal finds answers that no history of seen and superseded writes explains:
//
//   - a dot that names two writes of a partition;
//   - a value that nobody wrote, that was not applied, or that was written
//     after it was read;
//   - siblings of which one had seen the other, a sibling beside a write that
//     had seen it and that the read met, or several where the last writer wins;
//   - a context that does not cover what was returned with it, or what the
//     write had seen;
//   - a write that the context covers and that is not there, though no write
//     can have replaced it.
//
// It looks at reads of every level: each returns what one replica or several
// together hold.
func Causal(h History) []Violation {
	rep := report{checker: "causal"}
	names := make(map[space]map[causal.Dot]named)
	for _, k := range h.keys() {
		for _, w := range k.writes {
			for _, o := range w.ops {
				if o.ok() {
					checkName(&rep, names, k.Key, o, o.Answer.Dot, Version{Value: o.Value, Tombstone: o.Kind == Delete})
					k.wroteContext(&rep, o)
				}
			}
		}
		gone := make(map[*write]bool)
		for _, r := range k.reads {
			for _, v := range r.Answer.Siblings {
				checkName(&rep, names, k.Key, r, v.Dot, v)
			}
			k.phantoms(&rep, r)
			k.siblings(&rep, r)
			k.vanished(&rep, r, gone)
		}
	}
	return rep.done()
}

// space is where a dot is unique: a partition of all tenants, or a key.
type space struct {
	Key
	partition string
}

// named is the first that was heard of a dot.
type named struct {
	Key
	version Version
	op      *Op
}

func checkName(rep *report, names map[space]map[causal.Dot]named, k Key, o *Op, d causal.Dot, v Version) {
	at := space{partition: o.Partition}
	if o.Partition == "" {
		at.Key = k
	}
	if names[at] == nil {
		names[at] = make(map[causal.Dot]named)
	}
	was, ok := names[at][d]
	if !ok {
		names[at][d] = named{k, v, o}
		return
	}
	if was.Key != k || was.version.Value != v.Value || was.version.Tombstone != v.Tombstone {
		rep.add(k, []*Op{was.op, o}, "the dot %s names %s of %s and %s of %s", dotString(d), was.version.what(), was.Key, v.what(), k)
	}
}

// wroteContext looks at the context of an acknowledgement.
func (k *keyed) wroteContext(rep *report, o *Op) {
	if c := o.Answer.Context; len(c) > 0 && (!c.Covers(o.Answer.Dot) || !c.CoversAll(o.Seen)) {
		rep.add(k.Key, []*Op{o}, "the context that #%d returns does not cover its own dot and what it had seen", o.ID)
	}
}

// phantoms looks for values that cannot have been read.
func (k *keyed) phantoms(rep *report, r *Op) {
	for _, v := range r.Answer.Siblings {
		if v.Tombstone {
			if !slices.ContainsFunc(k.writes, func(w *write) bool { return w.isDelete() && !w.never && w.start <= r.Answer.At }) {
				rep.add(k.Key, []*Op{r}, "#%d returns a delete that nobody made", r.ID)
			}
			continue
		}
		switch w := k.byValue[v.Value]; {
		case w == nil:
			rep.add(k.Key, []*Op{r}, "#%d returns %q, which nobody wrote", r.ID, v.Value)
		case w.never:
			rep.add(k.Key, append(slices.Clone(w.ops), r), "#%d returns %q, which was not applied", r.ID, v.Value)
		case w.start > r.Answer.At:
			rep.add(k.Key, append(slices.Clone(w.ops), r), "#%d returns %q, which was written later", r.ID, v.Value)
		}
	}
}

// siblings looks at what a read returned side by side.
func (k *keyed) siblings(rep *report, r *Op) {
	vs := r.Answer.Siblings
	live := 0
	for i, v := range vs {
		if !v.Tombstone {
			live++
		}
		if !r.Answer.Context.Covers(v.Dot) {
			rep.add(k.Key, []*Op{r}, "#%d returns %s, which its context does not cover", r.ID, dotString(v.Dot))
		}
		if slices.ContainsFunc(vs[:i], func(u Version) bool { return u.Dot == v.Dot }) {
			rep.add(k.Key, []*Op{r}, "#%d returns %s twice", r.ID, dotString(v.Dot))
		}
		for _, w := range k.writes {
			if w.start > r.Answer.At {
				break // and so do all that follow
			}
			if w.past.Covers(v.Dot) && k.covers(r.Answer.Context, w) && r.holds(w) {
				rep.add(k.Key, append(slices.Clone(w.ops), r), "#%d returns %s=%s although it has seen #%d, which superseded it",
					r.ID, dotString(v.Dot), v.what(), w.first().ID)
			}
		}
	}
	if k.lww && live > 1 {
		rep.add(k.Key, []*Op{r}, "#%d returns %d values where the last writer wins", r.ID, live)
	}
}

// holds reports whether a read whose context covers a write certainly met it: it
// returns it, or began after it was acknowledged and met an owner that has it. A
// context may come to an owner before the write does, in the token of the write's
// acknowledgement, which does not cover what the write had seen; and what other
// owners answered to the read may be older than that.
func (o *Op) holds(w *write) bool {
	return w.acked != nil && w.end < o.At && meets(w.acked.Level, o.Level) ||
		slices.ContainsFunc(o.Answer.Siblings, func(v Version) bool { return slices.Contains(w.dots, v.Dot) })
}

// vanished looks for writes that a read has seen and does not return, each
// reported once.
func (k *keyed) vanished(rep *report, r *Op, gone map[*write]bool) {
	if len(r.Answer.Context) == 0 {
		return
	}
	for _, w := range k.writes {
		if w.start > r.Answer.At {
			break // and so do all that follow
		}
		if w.isDelete() || w.never || !k.covers(r.Answer.Context, w) || k.explained(w, r) || gone[w] {
			continue
		}
		gone[w] = true
		rep.add(k.Key, append(k.around(w), r), "#%d has seen %s and does not return it, and no write that had seen it can have replaced it",
			r.ID, fmt.Sprintf("%s=%q", dotString(w.dots[0]), w.first().Value))
	}
}
