package compaction

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/pairdb/pairdb/engine/manifest"
)

// groups parts the tables of level 0 into those that overlap, directly or
// through others, in key order. Each group is newest first.
func groups(files []*manifest.FileMeta) [][]*manifest.FileMeta {
	sorted := slices.Clone(files)
	slices.SortStableFunc(sorted, func(a, b *manifest.FileMeta) int {
		return bytes.Compare(a.Smallest.UserKey, b.Smallest.UserKey)
	})
	var out [][]*manifest.FileMeta
	var reach *manifest.FileMeta // the one that ends last
	for _, f := range sorted {
		if reach == nil || reach.EndsBefore(f.Smallest.UserKey) {
			out = append(out, nil)
			reach = f
		} else if endsLater(f, reach) {
			reach = f
		}
		out[len(out)-1] = append(out[len(out)-1], f)
	}
	for _, g := range out {
		slices.SortFunc(g, manifest.CompareL0)
	}
	return out
}

func endsLater(f, g *manifest.FileMeta) bool {
	c := bytes.Compare(f.Largest.UserKey, g.Largest.UserKey)
	return c > 0 || c == 0 && g.ExclusiveEnd() && !f.ExclusiveEnd()
}

// depth returns how many of files, newest first, lie over one another at most.
func depth(files []*manifest.FileMeta) int {
	d := make([]int, len(files))
	most := 0
	for i := len(files) - 1; i >= 0; i-- {
		for k := i + 1; k < len(files); k++ {
			if d[k] > d[i] && files[i].Overlaps(files[k]) {
				d[i] = d[k]
			}
		}
		d[i]++
		most = max(most, d[i])
	}
	return most
}

// maxPatience is Options.L0Patience by default.
const maxPatience = 2

// patience says how many times deeper or larger than usual tables of level 0 may
// get before they are merged. That rewrites what lies below, so the more they have
// gathered in comparison, the fewer bytes are written for each of their own; and
// filters spare the read of a key the tables that do not have it.
func (t *Tree) patience(bytes, below int64) float64 {
	return min(max(1, float64(below)/float64(2*bytes)), cmp.Or(t.opts.L0Patience, maxPatience))
}

// scoreGroup is the score of tables of level 0 that overlap.
func (t *Tree) scoreGroup(files []*manifest.FileMeta) float64 {
	if len(files) == 0 {
		return 0
	}
	bytes := manifest.Bytes(files)
	start, end, excl := Bounds(files)
	below := manifest.Bytes(t.V.Overlapping(t.Base, start, end, excl))
	s := max(float64(depth(files))/float64(t.opts.L0Trigger), float64(bytes)/float64(t.opts.BaseBytes))
	return s / t.patience(bytes, below)
}

// scoreGroups returns the highest score of a group without its busy tables.
func (t *Tree) scoreGroups(b *Busy) float64 {
	most := 0.0
	for _, g := range t.groups {
		if !b.empty() {
			g = slices.DeleteFunc(slices.Clone(g), b.has)
		}
		most = max(most, t.scoreGroup(g))
	}
	return most
}

// free splits a group at its busy tables: those newer than all of them and
// those older than all of them. Without any, all are older.
func (b *Busy) free(group []*manifest.FileMeta) (newer, older []*manifest.FileMeta) {
	first, last := -1, -1
	for i, f := range group {
		if b.has(f) {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	if first < 0 {
		return nil, group
	}
	return group[:first], group[last+1:]
}

// pickL0 returns a job that makes level 0 shallower. Of a group, the tables
// older than all busy ones may go down: whatever they hide is older still and
// goes with them. If other jobs stand in the way, the newest tables of a group
// that has grown tall are merged with one another. Where there is no room for
// all of them, the oldest ones go.
func (t *Tree) pickL0(c Context) *Job {
	b := c.Busy
	if j := t.moveL0(b); j != nil {
		return j
	}
	type option struct {
		files []*manifest.FileMeta
		depth int
	}
	var best option
	var job *Job
	large := float64(t.bytes[0])/float64(t.opts.BaseBytes) >= t.patience(t.bytes[0], t.bytes[t.Base])
	short := false
	for _, g := range t.groups {
		_, older := b.free(g)
		o := option{older, depth(older)}
		if len(older) == 0 || o.depth <= best.depth {
			continue
		}
		if t.scoreGroup(older) < 1 && !large {
			continue
		}
		for len(older) > 0 {
			j := t.setup(0, t.Base, older)
			if c.fits(j) && !b.conflicts(j) {
				best, job = o, j
				j.Reason = ReasonDepth
				break
			}
			if c.fits(j) {
				break
			}
			short = true
			older = older[1:]
		}
	}
	if job != nil {
		return job
	}
	if short {
		return nil // one table of them all would need even more room
	}
	if j := t.mergeL0(b); j != nil && c.fits(j) {
		return j
	}
	return nil
}

// moveL0 returns the tables that overlap nothing in level 0 and nothing in the
// base level, once level 0 has too many bytes of them.
func (t *Tree) moveL0(b *Busy) *Job {
	if t.bytes[0] < t.opts.BaseBytes {
		return nil
	}
	var files []*manifest.FileMeta
	for _, g := range t.groups {
		if len(g) > 1 || b.has(g[0]) {
			continue
		}
		if j := t.setup(0, t.Base, g); j.Move && !b.conflicts(j) {
			files = append(files, g[0])
		}
	}
	if len(files) == 0 {
		return nil
	}
	slices.SortFunc(files, manifest.CompareL0)
	j := &Job{Level: 0, Output: t.Base, Inputs: files, Move: true, Reason: ReasonDepth}
	j.Start, j.End, j.Excl = Bounds(files)
	if b.conflicts(j) {
		return nil
	}
	return j
}

// intraTrigger is the depth of what is newer than the busy tables at which
// level 0 is merged within itself.
func (t *Tree) intraTrigger() int { return t.opts.L0Trigger + max(1, t.opts.L0Trigger/2) }

// mergeL0 returns a job within level 0. It takes the newest tables of a group
// up to one that is larger than all before it together, so that no byte is
// merged often, and only as long as the older ones cannot go down.
func (t *Tree) mergeL0(b *Busy) *Job {
	for _, g := range t.groups {
		newer, older := b.free(g)
		if len(newer) == 0 {
			newer = older // blocked in the base level
		}
		if depth(newer) < t.intraTrigger() {
			continue
		}
		n, size := 0, int64(0)
		for n < len(newer) && (n < 2 || newer[n].Size <= size) {
			size += newer[n].Size
			n++
		}
		if depth(newer[:n]) <= t.opts.L0Trigger {
			continue
		}
		j := &Job{Level: 0, Output: 0, Inputs: newer[:n], Reason: ReasonIntra}
		j.Start, j.End, j.Excl = Bounds(j.Inputs)
		return j
	}
	return nil
}

// expandL0 returns all tables of the groups that files are of, newest first.
func (t *Tree) expandL0(files []*manifest.FileMeta) []*manifest.FileMeta {
	var out []*manifest.FileMeta
	for _, g := range t.groups {
		if slices.ContainsFunc(g, func(f *manifest.FileMeta) bool { return slices.Contains(files, f) }) {
			out = append(out, g...)
		}
	}
	slices.SortFunc(out, manifest.CompareL0)
	return out
}
