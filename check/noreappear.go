package check

import (
	"cmp"
	"slices"
	"time"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// NoReappearance finds values that come back: once an answer has shown that a
// write is deleted or overwritten, no read that begins after it, at a level that
// meets, returns that write again. An answer shows it by covering the write
// without returning it, by finding nothing after the write was acknowledged or
// returned, or by acknowledging a write that had superseded it. A value that has
// expired for every clock is gone at every level; while the clocks of the cluster
// differ about it, no read shows anything of it.
func NoReappearance(h History) []Violation {
	rep := report{checker: "noreappear"}
	for _, k := range h.keys() {
		g := graves{keyed: k, sources: k.sources(), known: map[grave]*source{}}
		g.appearances()
		for _, r := range k.reads {
			for _, v := range r.Answer.Siblings {
				if v.Tombstone {
					continue
				}
				if w := k.byValue[v.Value]; w != nil && w.to < r.At {
					rep.add(k.Key, append(slices.Clone(w.ops), r), "#%d returns %s=%q, which had expired at %v", r.ID, dotString(v.Dot), v.Value, w.to)
				}
				if s := g.of(v.Dot, r.Level); s != nil && s.at < r.At {
					rep.add(k.Key, append(g.origin(v.Dot), s.op, r), "#%d returns %s=%q, which #%d had shown to be gone",
						r.ID, dotString(v.Dot), v.Value, s.op.ID)
				}
			}
		}
	}
	return rep.done()
}

// source is an answer that can show that a write is gone.
type source struct {
	at time.Duration
	op *Op
	// covers are the writes it knows of, but for those it returns or is.
	covers causal.Context
	// absent says that it found nothing and was told no context.
	absent bool
}

// sources returns the answers that can show that a write is gone, by their
// time.
func (k *keyed) sources() []source {
	var out []source
	for _, r := range k.reads {
		out = append(out, source{
			at: r.Answer.At, op: r, covers: r.Answer.Context,
			absent: len(r.Answer.Context) == 0 && r.absent(),
		})
	}
	for _, w := range k.writes {
		if w.acked != nil && len(w.past) > 0 {
			out = append(out, source{at: w.end, op: w.acked, covers: w.past})
		}
	}
	slices.SortFunc(out, func(a, b source) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.op.ID, b.op.ID)) })
	return out
}

// graves remembers when dots were first shown to be gone.
type graves struct {
	*keyed
	sources []source
	// shown has when a dot was first returned or acknowledged, by level.
	shown map[causal.Dot]*[quorum.All + 1]time.Duration
	known map[grave]*source
}

// grave is a dot as the readers at one level must see it.
type grave struct {
	dot   causal.Dot
	level quorum.Level
}

// appearances fills shown.
func (g *graves) appearances() {
	g.shown = make(map[causal.Dot]*[quorum.All + 1]time.Duration)
	add := func(d causal.Dot, o *Op) {
		first := g.shown[d]
		if first == nil {
			first = &[quorum.All + 1]time.Duration{forever, forever, forever, forever}
			g.shown[d] = first
		}
		first[o.Level] = min(first[o.Level], o.Answer.At)
	}
	for _, r := range g.reads {
		for _, v := range r.Answer.Siblings {
			add(v.Dot, r)
		}
	}
	for _, w := range g.writes {
		for _, o := range w.ops {
			if o.ok() {
				add(o.Answer.Dot, o)
			}
		}
	}
}

// of returns the first answer that shows readers at a level that d is gone, nil
// if none does.
func (g *graves) of(d causal.Dot, level quorum.Level) *source {
	at := grave{d, level}
	if s, ok := g.known[at]; ok {
		return s
	}
	from := 0
	if w := g.byDot[d]; w != nil {
		from, _ = slices.BinarySearchFunc(g.sources, w.start, func(s source, t time.Duration) int { return cmp.Compare(s.at, t) })
	}
	// Its value may be hidden, and show again, while the clocks differ.
	fading := func(s *source) bool {
		w := g.byDot[d]
		return w != nil && s.op.Kind == Get && w.from <= s.at && s.op.At <= w.to
	}
	var found *source
	for i := from; i < len(g.sources) && found == nil; i++ {
		if s := &g.sources[i]; meets(s.op.Level, level) && !fading(s) && g.gone(s, d) {
			found = s
		}
	}
	g.known[at] = found
	return found
}

// gone reports whether s shows that d is gone.
func (g *graves) gone(s *source, d causal.Dot) bool {
	if s.absent {
		for l := quorum.One; l <= quorum.All; l++ {
			if meets(l, s.op.Level) && g.shown[d][l] < s.op.At {
				return true
			}
		}
		return false
	}
	return s.covers.Covers(d) &&
		!slices.ContainsFunc(s.op.Answer.Siblings, func(v Version) bool { return v.Dot == d })
}

// origin returns the operations that wrote d, if they are known.
func (g *graves) origin(d causal.Dot) []*Op {
	if w := g.byDot[d]; w != nil {
		return slices.Clone(w.ops)
	}
	return nil
}
