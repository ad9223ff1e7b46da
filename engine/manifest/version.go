// Package manifest keeps the list of the engine's live tables: a log of edits
// whose sum is the current Version. The log begins with a snapshot, is
// continued edit by edit, each synced before the next, and replaced by a fresh
// snapshot in a new file when it has grown. The file named CURRENT says which
// log counts. The bytes are described in docs/format/manifest.md.
package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/pairdb/pairdb/engine/base"
)

// MaxLevels bounds the levels of a Version.
const MaxLevels = 8

// FileMeta describes a table. It is immutable once it is part of an Edit.
type FileMeta struct {
	Num   uint64 // names the file
	Size  int64  // bytes
	Nonce uint64 // seeds the file's checksums
	// Smallest and Largest bound everything in the table, range deletes
	// included. A Largest with the trailer base.RangeDelSentinel is
	// exclusive.
	Smallest, Largest base.InternalKey
	// SmallestSeq and LargestSeq bound the sequence numbers.
	SmallestSeq, LargestSeq base.SeqNum
	Entries                 uint64 // point entries, deletes included
	Deletes                 uint64 // point deletes
	RangeDels               uint64
	// Renumbered says that everything in the table counts as written at
	// SmallestSeq, which is LargestSeq too, whatever the file says: it was made
	// elsewhere. The trailers of Smallest and Largest are of that number.
	Renumbered bool
}

// ExclusiveEnd reports whether Largest.UserKey itself is not in the table.
func (f *FileMeta) ExclusiveEnd() bool { return f.Largest.Trailer == base.RangeDelSentinel }

// EndsBefore reports whether every key of the table is below key.
func (f *FileMeta) EndsBefore(key []byte) bool {
	c := bytes.Compare(f.Largest.UserKey, key)
	return c < 0 || c == 0 && f.ExclusiveEnd()
}

// StartsAfter reports whether every key of the table is above key.
func (f *FileMeta) StartsAfter(key []byte) bool {
	return bytes.Compare(f.Smallest.UserKey, key) > 0
}

// Contains reports whether key lies within the table's bounds.
func (f *FileMeta) Contains(key []byte) bool { return !f.StartsAfter(key) && !f.EndsBefore(key) }

// Overlaps reports whether the bounds of f and g share a user key.
func (f *FileMeta) Overlaps(g *FileMeta) bool {
	return !f.EndsBefore(g.Smallest.UserKey) && !g.EndsBefore(f.Smallest.UserKey)
}

// String formats the file for tests and tools.
func (f *FileMeta) String() string {
	end := "]"
	if f.ExclusiveEnd() {
		end = ")"
	}
	seqs := fmt.Sprintf("%d-%d", f.SmallestSeq, f.LargestSeq)
	if f.Renumbered {
		seqs = fmt.Sprintf("%d renumbered", f.LargestSeq)
	}
	return fmt.Sprintf("%06d:[%s,%s%s#%s %dB", f.Num, f.Smallest.UserKey, f.Largest.UserKey, end, seqs, f.Size)
}

var (
	errOverlap = errors.New("tables of one level overlap")
	errBounds  = errors.New("table bounds out of order")
)

func (f *FileMeta) check() error {
	switch {
	case f.Num == 0 || f.Size <= 0:
		return fmt.Errorf("table %d of %d bytes: %w", f.Num, f.Size, errBounds)
	case base.Compare(f.Smallest, f.Largest) > 0 || f.SmallestSeq > f.LargestSeq:
		return fmt.Errorf("table %d: %w", f.Num, errBounds)
	case f.Renumbered && (f.SmallestSeq != f.LargestSeq || f.LargestSeq == 0):
		return fmt.Errorf("table %d is renumbered to %d-%d: %w", f.Num, f.SmallestSeq, f.LargestSeq, errBounds)
	}
	return nil
}

// Version is the set of live tables at one point of the log. It is immutable.
type Version struct {
	// Levels holds the tables of each level: those of level 0 newest first,
	// those of the others in key order and without overlap of user keys.
	Levels [][]*FileMeta
}

// NewVersion returns an empty version of n levels.
func NewVersion(n int) *Version { return &Version{Levels: make([][]*FileMeta, n)} }

// Files returns the number of tables.
func (v *Version) Files() int {
	n := 0
	for _, l := range v.Levels {
		n += len(l)
	}
	return n
}

// LevelBytes returns the bytes of the tables of a level.
func (v *Version) LevelBytes(level int) int64 { return Bytes(v.Levels[level]) }

// Bytes sums the sizes of files.
func Bytes(files []*FileMeta) int64 {
	var n int64
	for _, f := range files {
		n += f.Size
	}
	return n
}

// Overlapping returns the tables of a level that may hold a key in
// [start, end], nil meaning unbounded; end is excluded if endExcl. The order is
// kept. Level 0 is not expanded: see package compaction.
func (v *Version) Overlapping(level int, start, end []byte, endExcl bool) []*FileMeta {
	var out []*FileMeta
	files := v.Levels[level]
	if level > 0 && start != nil {
		files = files[Find(files, start):]
	}
	for _, f := range files {
		if start != nil && f.EndsBefore(start) {
			continue
		}
		if end != nil {
			c := bytes.Compare(f.Smallest.UserKey, end)
			if c > 0 || c == 0 && endExcl {
				if level > 0 {
					break
				}
				continue
			}
		}
		out = append(out, f)
	}
	return out
}

// Find returns the index of the first of files, sorted and disjoint, that does
// not end before key; len(files) if there is none.
func Find(files []*FileMeta, key []byte) int {
	return sort.Search(len(files), func(i int) bool { return !files[i].EndsBefore(key) })
}

// CompareL0 orders tables of level 0 newest first.
func CompareL0(a, b *FileMeta) int {
	switch {
	case a.LargestSeq != b.LargestSeq:
		if a.LargestSeq > b.LargestSeq {
			return -1
		}
		return 1
	case a.Num > b.Num:
		return -1
	case a.Num < b.Num:
		return 1
	}
	return 0
}

func compareStart(a, b *FileMeta) int { return bytes.Compare(a.Smallest.UserKey, b.Smallest.UserKey) }

// Apply returns the version after e. It fails, and the edit must not be
// written, if e deletes what is not there, adds what is, or breaks the order of
// a level.
func (v *Version) Apply(e *Edit) (*Version, error) {
	out := &Version{Levels: slices.Clone(v.Levels)}
	touched := make([]bool, len(v.Levels))
	for _, d := range e.Deleted {
		if d.Level < 0 || d.Level >= len(out.Levels) {
			return nil, fmt.Errorf("delete table %d: no level %d", d.Num, d.Level)
		}
		i := slices.IndexFunc(out.Levels[d.Level], func(f *FileMeta) bool { return f.Num == d.Num })
		if i < 0 {
			return nil, fmt.Errorf("delete table %d: not in level %d", d.Num, d.Level)
		}
		if !touched[d.Level] {
			out.Levels[d.Level], touched[d.Level] = slices.Clone(out.Levels[d.Level]), true
		}
		out.Levels[d.Level] = slices.Delete(out.Levels[d.Level], i, i+1)
	}
	for _, a := range e.Added {
		if a.Level < 0 || a.Level >= len(out.Levels) {
			return nil, fmt.Errorf("add table %d: no level %d", a.Num, a.Level)
		}
		if err := a.check(); err != nil {
			return nil, err
		}
		if !touched[a.Level] {
			out.Levels[a.Level], touched[a.Level] = slices.Clone(out.Levels[a.Level]), true
		}
		out.Levels[a.Level] = append(out.Levels[a.Level], a.FileMeta)
	}
	if len(e.Added) == 0 {
		return out, nil
	}
	for level, t := range touched {
		if t && level == 0 {
			slices.SortFunc(out.Levels[0], CompareL0)
		} else if t {
			slices.SortFunc(out.Levels[level], compareStart)
		}
	}
	return out, out.Check()
}

// Check verifies the order within levels and that no table is listed twice.
func (v *Version) Check() error {
	seen := make(map[uint64]struct{}, v.Files())
	for level, files := range v.Levels {
		for i, f := range files {
			if _, dup := seen[f.Num]; dup {
				return fmt.Errorf("table %d is listed twice", f.Num)
			}
			seen[f.Num] = struct{}{}
			if i == 0 {
				continue
			}
			prev := files[i-1]
			if level == 0 && CompareL0(prev, f) >= 0 {
				return fmt.Errorf("level 0: tables %d and %d out of order", prev.Num, f.Num)
			}
			if level > 0 && !prev.EndsBefore(f.Smallest.UserKey) {
				return fmt.Errorf("level %d: %w: %s and %s", level, errOverlap, prev, f)
			}
		}
	}
	return nil
}

// String lists the tables, a line each, for tests and tools.
func (v *Version) String() string {
	var b bytes.Buffer
	for level, files := range v.Levels {
		if len(files) > 0 {
			fmt.Fprintf(&b, "L%d:\n", level)
		}
		for _, f := range files {
			fmt.Fprintf(&b, "  %s\n", f)
		}
	}
	return b.String()
}
