// Package compaction decides which tables are to be merged and how their
// entries are merged. It does no I/O: picking is a function of a Tree, which is
// a measured manifest.Version, and of the jobs under way; merging one of the
// iterators it is given.
package compaction

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/manifest"
)

// Reason says why a job was picked, as it stands in metrics and logs.
type Reason string

// The reasons.
const (
	ReasonDepth      Reason = "level0"     // level 0 is too deep or too large
	ReasonIntra      Reason = "intra0"     // level 0 is deep and cannot go down
	ReasonSize       Reason = "size"       // the level is over its target
	ReasonTombstones Reason = "tombstones" // many of them
	ReasonManual     Reason = "manual"
	ReasonCovered    Reason = "covered" // range deletes hide all of the tables
	ReasonSpace      Reason = "space"   // the disk is nearly full and it may free some
)

// Job is a set of tables to be merged into a level.
type Job struct {
	// Level is that of Inputs, Output where the result goes: below Level, or
	// Level itself when tables are merged with one another (level 0) or
	// rewritten (the last level).
	Level, Output int
	// Inputs are the tables of Level, newest first if it is level 0, else in
	// key order; Below those of Output, in key order.
	Inputs, Below []*manifest.FileMeta
	// Start and End bound the user keys of all of them; End is excluded if
	// Excl.
	Start, End []byte
	Excl       bool
	// Move says that the inputs can change level as they are, Drop that they
	// hold nothing that anybody sees and go without being read.
	Move, Drop bool
	Reason     Reason
}

// Files returns all tables of the job.
func (j *Job) Files() []*manifest.FileMeta { return slices.Concat(j.Inputs, j.Below) }

// Need returns how many bytes the job writes at most before it frees any.
func (j *Job) Need() int64 {
	if j.Move || j.Drop {
		return 0
	}
	return manifest.Bytes(j.Inputs) + manifest.Bytes(j.Below)
}

// Context is what picking depends on besides the tree.
type Context struct {
	Busy *Busy
	// Cursors hold, for each level, the largest key compacted there last.
	Cursors [][]byte
	// Floor is the oldest sequence number that a snapshot holds or above which deletes
	// are kept, MaxSeqNum if there is none: tombstones above it cannot be dropped yet.
	Floor base.SeqNum
	// Room is how many bytes a job may write, 0 for no bound. With little of
	// it smaller jobs come first.
	Room int64
	// Since, if not 0, says that the disk is nearly full, and that what was
	// written from then on frees space: it is carried down to the last level
	// whatever the sizes of the levels, when nothing more urgent is due.
	Since base.SeqNum
}

// fits reports whether there is room for a job.
func (c *Context) fits(j *Job) bool { return c.Room == 0 || j.Need() <= c.Room }

// Pick returns the most urgent job that is in the way of none under way, nil if
// there is none. Levels come by their score without the tables that are busy;
// then tables full of tombstones, whatever the size of their level.
func (t *Tree) Pick(c Context) *Job {
	type scored struct {
		level int
		score float64
	}
	var due []scored
	for level := range len(t.bytes) - 1 {
		if s := t.score(level, c.Busy); s >= 1 {
			due = append(due, scored{level, s})
		}
	}
	slices.SortStableFunc(due, func(a, b scored) int { return cmp.Compare(b.score, a.score) })
	for _, d := range due {
		var j *Job
		if d.level == 0 {
			j = t.pickL0(c)
		} else {
			j = t.pickFile(d.level, c)
		}
		if j != nil {
			return j
		}
	}
	if j := t.pickDense(c); j != nil {
		return j
	}
	return t.pickSpace(c)
}

// pickFile returns the job of the table with the least overlap below in
// relation to its size, tombstones counting for what they may free; among
// equals the first behind the cursor.
func (t *Tree) pickFile(level int, c Context) *Job {
	files, below := t.V.Levels[level], t.V.Levels[level+1]
	costs := make([]float64, len(files))
	at := 0
	for i, f := range files {
		for at < len(below) && below[at].EndsBefore(f.Smallest.UserKey) {
			at++
		}
		size := int64(0)
		for k := at; k < len(below) && !f.EndsBefore(below[k].Smallest.UserKey); k++ {
			size += below[k].Size
		}
		share := float64(tombstones(f)) / float64(max(1, f.Entries+f.RangeDels))
		costs[i] = float64(size) / float64(f.Size) * (1 - share/2)
	}
	start := 0
	if cursor := c.Cursors[level]; cursor != nil {
		start = manifest.Find(files, cursor)
		if start < len(files) && !files[start].StartsAfter(cursor) {
			start++
		}
	}
	var best *Job
	var bestCost float64
	for i := range files {
		i = (start + i) % len(files)
		if best != nil && costs[i] >= bestCost || c.Busy.has(files[i]) {
			continue
		}
		if j := t.setup(level, level+1, files[i:i+1:i+1]); c.fits(j) && !c.Busy.conflicts(j) {
			j.Reason = ReasonSize
			best, bestCost = j, costs[i]
		}
	}
	return best
}

// pickDense returns a job for the sake of tombstones: a table of a level that
// is full of them, one of the last level that can be rewritten without, or a
// group of level 0 whose tombstones are many beside what they lie over.
func (t *Tree) pickDense(c Context) *Job {
	last := len(t.bytes) - 1
	for _, d := range t.dense {
		if c.Busy.has(d.f) {
			continue
		}
		output := min(d.level+1, last)
		if d.level == last && d.f.LargestSeq > c.Floor {
			continue // they could not be dropped
		}
		j := t.setup(d.level, output, []*manifest.FileMeta{d.f})
		if c.fits(j) && !c.Busy.conflicts(j) {
			j.Reason = ReasonTombstones
			return j
		}
	}
	for _, g := range t.groups {
		_, older := c.Busy.free(g)
		if len(older) == 0 {
			continue
		}
		var dead uint64
		for _, f := range older {
			dead += tombstones(f)
		}
		if dead == 0 {
			continue
		}
		j := t.setup(0, t.Base, older)
		var entries uint64
		for _, f := range j.Below {
			entries += f.Entries
		}
		if dead*4 >= entries && entries > 0 && c.fits(j) && !c.Busy.conflicts(j) {
			j.Reason = ReasonTombstones
			return j
		}
	}
	return nil
}

// pickSpace returns the smallest job that carries something written from
// c.Since on to a lower level, nil if all of it has arrived. Each job takes it
// further down, so they come to an end.
func (t *Tree) pickSpace(c Context) *Job {
	if c.Since == 0 {
		return nil
	}
	since := func(f *manifest.FileMeta) bool { return f.LargestSeq >= c.Since }
	var best *Job
	offer := func(j *Job) bool {
		if !c.fits(j) || c.Busy.conflicts(j) {
			return false
		}
		if best == nil || j.Need() < best.Need() {
			j.Reason = ReasonSpace
			best = j
		}
		return true
	}
	for _, g := range t.groups {
		_, older := c.Busy.free(g)
		if !slices.ContainsFunc(older, since) {
			continue
		}
		// The newest ones lie over the others, which have to go first.
		for len(older) > 0 && !offer(t.setup(0, t.Base, older)) {
			older = older[1:]
		}
	}
	for level := t.Base; level < len(t.bytes)-1; level++ {
		for i, f := range t.V.Levels[level] {
			if since(f) && !c.Busy.has(f) {
				offer(t.setup(level, level+1, t.V.Levels[level][i:i+1:i+1]))
			}
		}
	}
	return best
}

// PickRange returns the job that merges what a level holds of [start, end]
// into the next one in use, nil if there is nothing. nil bounds are open. It
// may conflict with jobs under way.
func (t *Tree) PickRange(level int, start, end []byte) *Job {
	inputs := t.V.Overlapping(level, start, end, false)
	if len(inputs) == 0 {
		return nil
	}
	output := level + 1
	if level == 0 {
		inputs, output = t.expandL0(inputs), t.Base
	}
	j := t.setup(level, output, inputs)
	j.Reason = ReasonManual
	if Tombstones(j.Inputs) {
		j.Move = false // merging may drop them
	}
	return j
}

// setup completes a job with the tables below the inputs.
func (t *Tree) setup(level, output int, inputs []*manifest.FileMeta) *Job {
	j := &Job{Level: level, Output: output, Inputs: inputs}
	j.Start, j.End, j.Excl = Bounds(inputs)
	if level == output {
		return j
	}
	j.Below = t.V.Overlapping(output, j.Start, j.End, j.Excl)
	if len(j.Below) > 0 {
		j.Start, j.End, j.Excl = Bounds(j.Files())
		return j
	}
	j.Move = level > 0 || disjoint(inputs)
	if j.Move && slices.ContainsFunc(inputs, Dense) && !HasBelow(t.V, output, j.Start, j.End, j.Excl) {
		j.Move = false // a merge drops them here and now
	}
	return j
}

// Bounds returns the range of user keys of files; end is excluded if excl.
func Bounds(files []*manifest.FileMeta) (start, end []byte, excl bool) {
	for i, f := range files {
		if i == 0 || bytes.Compare(f.Smallest.UserKey, start) < 0 {
			start = f.Smallest.UserKey
		}
		c := 1
		if i > 0 {
			c = bytes.Compare(f.Largest.UserKey, end)
		}
		if c > 0 {
			end, excl = f.Largest.UserKey, f.ExclusiveEnd()
		} else if c == 0 {
			excl = excl && f.ExclusiveEnd()
		}
	}
	return start, end, excl
}

// disjoint reports whether no two of files overlap.
func disjoint(files []*manifest.FileMeta) bool { return len(groups(files)) == len(files) }

// Tombstones reports whether any of files holds one.
func Tombstones(files []*manifest.FileMeta) bool {
	return slices.ContainsFunc(files, func(f *manifest.FileMeta) bool { return tombstones(f) > 0 })
}

// HasBelow reports whether any level below level may hold a key in
// [start, end], end excluded if excl.
func HasBelow(v *manifest.Version, level int, start, end []byte, excl bool) bool {
	for l := level + 1; l < len(v.Levels); l++ {
		files := v.Levels[l]
		i := 0
		if start != nil {
			i = manifest.Find(files, start)
		}
		if i == len(files) {
			continue
		}
		if end == nil {
			return true
		}
		if c := bytes.Compare(files[i].Smallest.UserKey, end); c < 0 || c == 0 && !excl {
			return true
		}
	}
	return false
}
