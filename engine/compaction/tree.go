package compaction

import (
	"math"

	"github.com/pairdb/pairdb/engine/manifest"
)

// Options shape the tree.
type Options struct {
	// L0Trigger is the depth of level 0, in tables that lie over one another,
	// at which it is merged into the base level.
	L0Trigger int
	// L0Patience bounds how many times deeper or larger than that it may get over
	// a much larger base level, at least 1. Default 2.
	L0Patience float64
	// BaseBytes is the target size of the base level, and the size of level 0
	// at which it is merged whatever its depth.
	BaseBytes int64
	// Multiplier bounds the ratio of the targets of neighbouring levels.
	Multiplier int
	// TargetFileSize bounds the tables written, in bytes.
	TargetFileSize int64
}

// singleLevel is how many times BaseBytes one level below level 0 may hold
// before another one is put above it. One batch of level 0, merged into a level
// of r times its size, costs 1 + r writes a byte. A level between, itself as
// large as BaseBytes, costs about two and then the ratio to the last one: below
// three times BaseBytes it is no gain and one more level to read.
const singleLevel = 3

// Tree is a version with what picking has to know of it. It is immutable.
type Tree struct {
	V *manifest.Version
	// Base is the level that level 0 is merged into. Levels between are empty.
	Base int
	// Depth is that of level 0.
	Depth int

	opts    Options
	wanted  int     // the base level for this much data
	bytes   []int64 // of each level
	targets []int64
	groups  [][]*manifest.FileMeta // of level 0, each newest first
	dense   []candidate            // tables with many tombstones, below level 0
}

// candidate is a table of a level.
type candidate struct {
	level int
	f     *manifest.FileMeta
}

// NewTree measures v.
func NewTree(o Options, v *manifest.Version) *Tree {
	t := &Tree{V: v, opts: o, bytes: make([]int64, len(v.Levels)), targets: make([]int64, len(v.Levels))}
	for level := range v.Levels {
		t.bytes[level] = v.LevelBytes(level)
		for _, f := range v.Levels[level] {
			if level > 0 && Dense(f) {
				t.dense = append(t.dense, candidate{level, f})
			}
		}
	}
	t.groups = groups(v.Levels[0])
	for _, g := range t.groups {
		t.Depth = max(t.Depth, depth(g))
	}
	t.size()
	return t
}

// size chooses the base level and the targets from the amount of data: the tree
// has as few levels as the multiplier allows, and equal ratios between them.
func (t *Tree) size() {
	last := len(t.bytes) - 1
	first, total := last, int64(0)
	for level := last; level > 0; level-- {
		total += t.bytes[level]
		if t.bytes[level] > 0 {
			first = level
		}
	}
	n := 1 // levels in use below level 0
	for ; n < last; n++ {
		limit := t.limit(n)
		if first <= last-n {
			limit /= 2 // the level is there: do not give it up at once
		}
		if float64(total) <= limit {
			break
		}
	}
	t.wanted = last - n + 1
	t.Base = min(t.wanted, first)
	ratio := 1.0
	if n > 1 {
		ratio = max(1, math.Pow(float64(total)/float64(t.opts.BaseBytes), 1/float64(n-1)))
	}
	target := float64(t.opts.BaseBytes)
	for level := t.wanted; level <= last; level++ {
		t.targets[level] = int64(target)
		target *= ratio
	}
}

// limit is how much data n levels are good for.
func (t *Tree) limit(n int) float64 {
	base, mult := float64(t.opts.BaseBytes), float64(t.opts.Multiplier)
	if n == 1 {
		return base * min(singleLevel, (1+mult)/2)
	}
	return base * math.Pow(mult, float64(n-1))
}

// Bytes returns the bytes of a level.
func (t *Tree) Bytes(level int) int64 { return t.bytes[level] }

// Target returns the target size of a level in bytes: 0 for levels that are not
// to hold anything, and for level 0.
func (t *Tree) Target(level int) int64 { return t.targets[level] }

// Cold reports whether tables of a level are worth more effort to make small:
// the last level of a tree that has others above it.
func (t *Tree) Cold(level int) bool {
	last := len(t.bytes) - 1
	return level == last && t.wanted < last-1
}

// Score says how much a level needs to be merged into the next one: 1 and above
// means that it should be. The last level scores 0.
func (t *Tree) Score(level int) float64 { return t.score(level, nil) }

// score is Score for what a level holds besides busy tables.
func (t *Tree) score(level int, busy *Busy) float64 {
	base := float64(t.opts.BaseBytes)
	bytes := t.bytes[level] - busy.bytesIn(level)
	switch {
	case level == len(t.bytes)-1 || bytes <= 0:
		return 0
	case level == 0:
		return max(t.scoreGroups(busy), float64(bytes)/base/t.patience(bytes, t.bytes[t.Base]))
	case level < t.wanted:
		return 1 + float64(bytes)/base // to be emptied
	default:
		return float64(bytes) / float64(t.targets[level])
	}
}

// Debt estimates the bytes that have to be written before no level scores 1.
func (t *Tree) Debt() int64 {
	last := len(t.bytes) - 1
	var debt float64
	carry := 0.0 // what the level above is going to add
	if t.Score(0) >= 1 {
		carry = float64(t.bytes[0])
		debt = carry + float64(t.bytes[t.Base])
	}
	for level := t.Base; level < last; level++ {
		size := float64(t.bytes[level]) + carry
		carry = max(0, size-float64(t.targets[level]))
		if carry > 0 {
			debt += carry * (1 + float64(t.bytes[level+1])/size)
		}
	}
	return int64(debt)
}

// SpaceAmp estimates how many bytes of tables there are for each byte of live
// data, taking the last level with tables for live. It is 0 without tables.
func (t *Tree) SpaceAmp() float64 {
	var total int64
	for _, n := range t.bytes {
		total += n
	}
	for level := len(t.bytes) - 1; level > 0; level-- {
		if t.bytes[level] > 0 {
			return float64(total) / float64(t.bytes[level])
		}
	}
	return min(1, float64(total))
}

// Dense reports whether a table holds so many tombstones that it is worth
// merging for them alone.
func Dense(f *manifest.FileMeta) bool {
	return tombstones(f) > 0 && 2*tombstones(f) >= f.Entries+f.RangeDels
}

func tombstones(f *manifest.FileMeta) uint64 { return f.Deletes + f.RangeDels }
