// Package compaction decides which tables are to be merged and how their
// entries are merged. It does no I/O and keeps no state: picking is a function
// of a manifest.Version, merging one of the iterators it is given.
package compaction

import (
	"bytes"
	"slices"

	"github.com/pairdb/pairdb/engine/manifest"
)

// Options shape the tree.
type Options struct {
	// L0Trigger is the depth of level 0, in tables that lie over one another,
	// at which it is merged into level 1.
	L0Trigger int
	// BaseBytes is the target size of level 1, and the size of level 0 at
	// which it is merged whatever its depth.
	BaseBytes int64
	// Multiplier is the ratio of the targets of neighbouring levels.
	Multiplier int
	// TargetFileSize bounds the tables written, in bytes.
	TargetFileSize int64
}

// Job is a set of tables to be merged into a level.
type Job struct {
	Level, Output int
	// Inputs are the tables of Level, newest first if it is level 0, else in
	// key order; Below those of Output, in key order.
	Inputs, Below []*manifest.FileMeta
	// Move says that the inputs can change level as they are.
	Move bool
}

// Files returns all tables of the job.
func (j *Job) Files() []*manifest.FileMeta { return slices.Concat(j.Inputs, j.Below) }

// L0Depth returns how many tables of level 0 lie over one another at most.
func L0Depth(v *manifest.Version) int {
	files := v.Levels[0]
	depth := make([]int, len(files))
	most := 0
	for i := len(files) - 1; i >= 0; i-- {
		for k := i + 1; k < len(files); k++ {
			if depth[k] > depth[i] && files[i].Overlaps(files[k]) {
				depth[i] = depth[k]
			}
		}
		depth[i]++
		most = max(most, depth[i])
	}
	return most
}

// Target returns the target size of a level in bytes, from level 1 on.
func (o *Options) Target(level int) int64 {
	target := o.BaseBytes
	for range level - 1 {
		target *= int64(o.Multiplier)
	}
	return target
}

// Score says how much a level needs to be merged into the next: 1 and above
// means it should be. The last level scores 0.
func (o *Options) Score(v *manifest.Version, level int) float64 {
	switch {
	case level >= len(v.Levels)-1:
		return 0
	case level == 0:
		return max(float64(L0Depth(v))/float64(o.L0Trigger), float64(v.LevelBytes(0))/float64(o.BaseBytes))
	default:
		return float64(v.LevelBytes(level)) / float64(o.Target(level))
	}
}

// Debt returns the bytes by which the levels exceed their targets.
func (o *Options) Debt(v *manifest.Version) int64 {
	var debt int64
	for level := range len(v.Levels) - 1 {
		if level == 0 {
			if o.Score(v, 0) >= 1 {
				debt += v.LevelBytes(0)
			}
			continue
		}
		debt += max(0, v.LevelBytes(level)-o.Target(level))
	}
	return debt
}

// Needed reports whether Pick would return a job.
func (o *Options) Needed(v *manifest.Version) bool {
	for level := range len(v.Levels) - 1 {
		if len(v.Levels[level]) > 0 && o.Score(v, level) >= 1 {
			return true
		}
	}
	return false
}

// Pick returns the most urgent job, nil if there is none. In a level below 0
// it takes the table that makes the least work per byte, and among equals the
// first behind the level's cursor, the largest key compacted there last.
func (o *Options) Pick(v *manifest.Version, cursors [][]byte) *Job {
	best, bestScore := -1, 1.0
	for level := range len(v.Levels) - 1 {
		if s := o.Score(v, level); s >= bestScore && len(v.Levels[level]) > 0 {
			if best < 0 || s > bestScore {
				best, bestScore = level, s
			}
		}
	}
	switch {
	case best < 0:
		return nil
	case best == 0:
		return o.setup(v, 0, slices.Clone(v.Levels[0]))
	default:
		return o.setup(v, best, []*manifest.FileMeta{pickFile(v, best, cursors[best])})
	}
}

// pickFile returns the table of a level with the least overlap below in
// relation to its size.
func pickFile(v *manifest.Version, level int, cursor []byte) *manifest.FileMeta {
	files := v.Levels[level]
	start := 0
	if cursor != nil {
		start = manifest.Find(files, cursor)
		if start < len(files) && !files[start].StartsAfter(cursor) {
			start++
		}
	}
	var best *manifest.FileMeta
	var bestCost float64
	for i := range files {
		f := files[(start+i)%len(files)]
		below := v.Overlapping(level+1, f.Smallest.UserKey, f.Largest.UserKey, f.ExclusiveEnd())
		cost := float64(manifest.Bytes(below)) / float64(f.Size)
		if best == nil || cost < bestCost {
			best, bestCost = f, cost
		}
	}
	return best
}

// PickRange returns the job that merges what a level holds of [start, end]
// into the next one, nil if there is nothing. nil bounds are open.
func (o *Options) PickRange(v *manifest.Version, level int, start, end []byte) *Job {
	inputs := v.Overlapping(level, start, end, false)
	if len(inputs) == 0 {
		return nil
	}
	if level == 0 {
		inputs = expandL0(v, inputs)
	}
	return o.setup(v, level, inputs)
}

// expandL0 adds the tables of level 0 that overlap those given or one another,
// so that no older version stays above a newer one.
func expandL0(v *manifest.Version, inputs []*manifest.FileMeta) []*manifest.FileMeta {
	in := make(map[uint64]bool, len(inputs))
	for _, f := range inputs {
		in[f.Num] = true
	}
	for grown := true; grown; {
		grown = false
		for _, f := range v.Levels[0] {
			if in[f.Num] {
				continue
			}
			for _, g := range v.Levels[0] {
				if in[g.Num] && f.Overlaps(g) {
					in[f.Num], grown = true, true
					break
				}
			}
		}
	}
	var out []*manifest.FileMeta
	for _, f := range v.Levels[0] {
		if in[f.Num] {
			out = append(out, f)
		}
	}
	return out
}

// setup completes a job with the tables below the inputs. Level 0 is merged
// into level 1 and so on: a table never jumps over one.
func (o *Options) setup(v *manifest.Version, level int, inputs []*manifest.FileMeta) *Job {
	j := &Job{Level: level, Output: level + 1, Inputs: inputs}
	start, end, excl := Bounds(inputs)
	j.Below = v.Overlapping(j.Output, start, end, excl)
	j.Move = len(j.Below) == 0 && (level > 0 || disjoint(inputs))
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

func disjoint(files []*manifest.FileMeta) bool {
	for i, f := range files {
		for _, g := range files[:i] {
			if f.Overlaps(g) {
				return false
			}
		}
	}
	return true
}

// HasBelow reports whether any level below level may hold a key in
// [start, end], end excluded if excl.
func HasBelow(v *manifest.Version, level int, start, end []byte, excl bool) bool {
	for l := level + 1; l < len(v.Levels); l++ {
		if len(v.Overlapping(l, start, end, excl)) > 0 {
			return true
		}
	}
	return false
}
