package compaction

import "github.com/pairdb/pairdb/engine/manifest"

// IngestLevel returns the level for a table that is newer than all that is
// there: the lowest one in use down to which nothing shares a key with it, and
// no job under way puts anything. Level 0 takes everything.
func (t *Tree) IngestLevel(f *manifest.FileMeta, b *Busy) int {
	start, end, excl := f.Smallest.UserKey, f.Largest.UserKey, f.ExclusiveEnd()
	level := 0
	for l := range t.V.Levels {
		if len(t.V.Overlapping(l, start, end, excl)) > 0 || l > 0 && b.Spans(1, l, start, end, excl) {
			break
		}
		// Levels above the one wanted are to be empty.
		if l >= t.wanted {
			level = l
		}
	}
	return level
}
