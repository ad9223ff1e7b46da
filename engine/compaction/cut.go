package compaction

import (
	"bytes"
	"slices"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/manifest"
)

// overlapFactor is how many times TargetFileSize a table may overlap in the
// level below the one it is written to: so much, besides itself, has to be
// rewritten when it goes down.
const overlapFactor = 10

// Cutter tells where an output table ends so that it does not overlap too much
// of the level below. It is asked for each user key in order.
type Cutter struct {
	below []*manifest.FileMeta // not passed yet
	limit int64
	size  int64 // passed since the table began
}

// NewCutter returns one for tables of output with keys from start on, nil if
// nothing lies below them.
func (t *Tree) NewCutter(output int, start []byte) *Cutter {
	if output == 0 || output+1 >= len(t.V.Levels) || len(t.V.Levels[output+1]) == 0 {
		return nil
	}
	files := t.V.Levels[output+1]
	if start != nil {
		files = files[manifest.Find(files, start):]
	}
	return &Cutter{below: files, limit: overlapFactor * t.opts.TargetFileSize}
}

// Cut reports whether a table should end before key. started says that the
// table has an entry already.
func (c *Cutter) Cut(key []byte, started bool) bool {
	if c == nil {
		return false
	}
	for len(c.below) > 0 && c.below[0].EndsBefore(key) {
		if started {
			c.size += c.below[0].Size
		}
		c.below = c.below[1:]
	}
	if started && c.size > c.limit {
		c.size = 0
		return true
	}
	return false
}

// Marks returns keys, ascending, at which a table may end though no entry is
// there: where dels, in key order, begin, and where tables below begin within
// them. Without such ends a range delete, or a row of them, would make a table
// that lies over much of the level below.
func (c *Cutter) Marks(dels []base.RangeDel) (marks [][]byte) {
	if c == nil {
		return nil
	}
	below := c.below
	for _, rd := range dels {
		if n := len(marks); n == 0 || bytes.Compare(marks[n-1], rd.Start) < 0 {
			marks = append(marks, rd.Start)
		}
		for len(below) > 0 && bytes.Compare(below[0].Smallest.UserKey, rd.End) < 0 {
			if bytes.Compare(below[0].Smallest.UserKey, rd.Start) > 0 {
				marks = append(marks, below[0].Smallest.UserKey)
			}
			below = below[1:]
		}
	}
	return marks
}

// Reset says that a table ended for another reason.
func (c *Cutter) Reset() {
	if c != nil {
		c.size = 0
	}
}

// Covered reports whether one of dels hides all that f holds from everybody: it
// covers f's bounds, is newer than all of it, and no snapshot lies between.
func Covered(f *manifest.FileMeta, dels []base.RangeDel, snapshots []base.SeqNum) bool {
	for _, rd := range dels {
		if f.LargestSeq >= rd.Seq || bytes.Compare(f.Smallest.UserKey, rd.Start) < 0 {
			continue
		}
		if c := bytes.Compare(f.Largest.UserKey, rd.End); c > 0 || c == 0 && !f.ExclusiveEnd() {
			continue
		}
		between := false
		for _, s := range snapshots {
			between = between || s >= f.SmallestSeq && s < rd.Seq
		}
		if !between {
			return true
		}
	}
	return false
}

// Split returns up to n-1 keys that part a job into pieces of about equal size,
// ascending and within its range. Each boundary is the start of a table of the
// output level, or one of keys, which are samples of the inputs in any order.
func (j *Job) Split(n int, keys [][]byte) [][]byte {
	type weight struct {
		key  []byte
		size int64
	}
	var points []weight
	var total int64
	for _, f := range j.Below {
		points = append(points, weight{f.Smallest.UserKey, f.Size})
		total += f.Size
	}
	if j.Level > 0 {
		for _, f := range j.Inputs {
			points = append(points, weight{f.Smallest.UserKey, f.Size})
			total += f.Size
		}
	} else if len(keys) > 0 {
		share := manifest.Bytes(j.Inputs) / int64(len(keys))
		for _, k := range keys {
			points = append(points, weight{k, share})
			total += share
		}
	}
	if n < 2 || total == 0 {
		return nil
	}
	slices.SortFunc(points, func(a, b weight) int { return bytes.Compare(a.key, b.key) })
	var out [][]byte
	var sum int64
	for _, p := range points {
		due := int64(len(out)+1) * total / int64(n)
		if len(out) < n-1 && sum >= due && bytes.Compare(p.key, j.Start) > 0 &&
			(len(out) == 0 || bytes.Compare(p.key, out[len(out)-1]) > 0) {
			out = append(out, p.key)
		}
		sum += p.size
	}
	return out
}
