package compaction

import (
	"bytes"
	"slices"

	"github.com/pairdb/pairdb/engine/manifest"
)

// Busy is the set of jobs under way. The zero value is empty; nil is, too. It
// is not safe for concurrent use.
//
// Invariant: no table is in two jobs, and no two jobs that change a level below
// level 0 overlap in keys within the levels they span, those between the inputs
// and the output included.
type Busy struct {
	jobs    []*Job
	files   map[uint64]struct{}
	avoided map[uint64]struct{}
}

func (b *Busy) empty() bool { return b == nil || len(b.jobs) == 0 && len(b.avoided) == 0 }

// Avoid has no job pick the table num until Unavoid: it cannot be read. What lies
// under it in level 0 goes on without it, what lies over it waits.
func (b *Busy) Avoid(num uint64) {
	if b.avoided == nil {
		b.avoided = make(map[uint64]struct{})
	}
	b.avoided[num] = struct{}{}
}

// Unavoid ends Avoid; again is no error.
func (b *Busy) Unavoid(num uint64) { delete(b.avoided, num) }

// Avoids reports whether a table of files is avoided, or of nil, any at all.
func (b *Busy) Avoids(files []*manifest.FileMeta) bool {
	if files == nil {
		return len(b.avoided) > 0
	}
	return slices.ContainsFunc(files, func(f *manifest.FileMeta) bool {
		_, ok := b.avoided[f.Num]
		return ok
	})
}

// Len returns the number of jobs.
func (b *Busy) Len() int {
	if b == nil {
		return 0
	}
	return len(b.jobs)
}

// Add marks j's tables and range as taken.
func (b *Busy) Add(j *Job) {
	if b.files == nil {
		b.files = make(map[uint64]struct{})
	}
	b.jobs = append(b.jobs, j)
	for _, f := range j.Files() {
		b.files[f.Num] = struct{}{}
	}
}

// Remove takes j, which was added, out.
func (b *Busy) Remove(j *Job) {
	b.jobs = slices.DeleteFunc(b.jobs, func(k *Job) bool { return k == j })
	for _, f := range j.Files() {
		delete(b.files, f.Num)
	}
}

// Bytes returns the bytes of the tables that are being merged: what the jobs
// may write before they free anything.
func (b *Busy) Bytes() int64 {
	if b == nil {
		return 0
	}
	var n int64
	for _, j := range b.jobs {
		if !j.Move && !j.Drop {
			n += manifest.Bytes(j.Inputs) + manifest.Bytes(j.Below)
		}
	}
	return n
}

func (b *Busy) has(f *manifest.FileMeta) bool {
	if b == nil {
		return false
	}
	if _, ok := b.files[f.Num]; ok {
		return true
	}
	_, ok := b.avoided[f.Num]
	return ok
}

// bytesIn returns the bytes that jobs take out of a level.
func (b *Busy) bytesIn(level int) int64 {
	if b == nil {
		return 0
	}
	var n int64
	for _, j := range b.jobs {
		if j.Level == level && j.Output > level {
			n += manifest.Bytes(j.Inputs)
		}
	}
	return n
}

// Conflicts reports whether j must wait for a job under way.
func (b *Busy) Conflicts(j *Job) bool { return b.conflicts(j) }

func (b *Busy) conflicts(j *Job) bool {
	if b.empty() {
		return false
	}
	if slices.ContainsFunc(j.Inputs, b.has) || slices.ContainsFunc(j.Below, b.has) {
		return true
	}
	return b.Spans(max(1, j.Level), j.Output, j.Start, j.End, j.Excl)
}

// Spans reports whether a job under way spans a level in [top, bottom] and a key
// in [start, end], end excluded if excl: whoever puts tables there must wait.
// Level 0 does not count.
func (b *Busy) Spans(top, bottom int, start, end []byte, excl bool) bool {
	if b.empty() {
		return false
	}
	for _, k := range b.jobs {
		if k.Output == 0 || k.Output < top || max(1, k.Level) > bottom {
			continue
		}
		if before(end, excl, k.Start) || before(k.End, k.Excl, start) {
			continue
		}
		return true
	}
	return false
}

// before reports whether a range that ends at end lies before one from start.
func before(end []byte, excl bool, start []byte) bool {
	c := bytes.Compare(end, start)
	return c < 0 || c == 0 && excl
}
