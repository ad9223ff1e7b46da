// Package rangedel answers which range delete hides a key. It cuts overlapping
// range deletes into fragments that do not overlap, so that a lookup is one
// binary search whatever was deleted before. It is pure.
package rangedel

import (
	"bytes"
	"slices"
	"sort"

	"github.com/pairdb/pairdb/engine/base"
)

// Fragment is a key range [Start, End) with the sequence numbers of all range
// deletes over it, newest first, each once.
type Fragment struct {
	Start, End []byte
	Seqs       []base.SeqNum
}

// List is a set of range deletes, immutable and safe for concurrent use. A nil
// List is empty.
type List struct {
	frags []Fragment
}

// Build returns the list of rds, nil if they delete nothing. It keeps the
// slices of keys it is given.
func Build(rds []base.RangeDel) *List {
	bounds := make([][]byte, 0, 2*len(rds))
	live := make([]base.RangeDel, 0, len(rds))
	for _, rd := range rds {
		if !rd.Empty() {
			bounds = append(bounds, rd.Start, rd.End)
			live = append(live, rd)
		}
	}
	if len(live) == 0 {
		return nil
	}
	slices.SortFunc(bounds, bytes.Compare)
	bounds = slices.CompactFunc(bounds, bytes.Equal)
	slices.SortFunc(live, base.CompareRangeDel)
	l := &List{}
	var active []base.RangeDel
	for i, start := range bounds[:len(bounds)-1] {
		active = slices.DeleteFunc(active, func(rd base.RangeDel) bool {
			return bytes.Compare(rd.End, start) <= 0
		})
		for len(live) > 0 && bytes.Equal(live[0].Start, start) {
			active, live = append(active, live[0]), live[1:]
		}
		if len(active) > 0 {
			l.frags = append(l.frags, Fragment{Start: start, End: bounds[i+1], Seqs: seqs(active)})
		}
	}
	return l
}

func seqs(rds []base.RangeDel) []base.SeqNum {
	out := make([]base.SeqNum, len(rds))
	for i, rd := range rds {
		out[i] = rd.Seq
	}
	slices.Sort(out)
	slices.Reverse(out)
	return slices.Compact(out)
}

// Fragments returns the fragments in key order. They must not be changed.
func (l *List) Fragments() []Fragment {
	if l == nil {
		return nil
	}
	return l.frags
}

// Newest returns the sequence number of the newest range delete over key among
// those at or below snap, 0 if there is none.
func (l *List) Newest(key []byte, snap base.SeqNum) base.SeqNum {
	f := l.find(key)
	if f == nil {
		return 0
	}
	for _, s := range f.Seqs {
		if s <= snap {
			return s
		}
	}
	return 0
}

// OldestAbove returns the sequence number of the oldest range delete over key
// that is newer than seq, 0 if there is none: the one that hides the version
// seq from the most readers.
func (l *List) OldestAbove(key []byte, seq base.SeqNum) base.SeqNum {
	f := l.find(key)
	if f == nil {
		return 0
	}
	var found base.SeqNum
	for _, s := range f.Seqs {
		if s <= seq {
			break
		}
		found = s
	}
	return found
}

func (l *List) find(key []byte) *Fragment {
	if l == nil {
		return nil
	}
	i := sort.Search(len(l.frags), func(i int) bool { return bytes.Compare(l.frags[i].End, key) > 0 })
	if i == len(l.frags) || bytes.Compare(l.frags[i].Start, key) > 0 {
		return nil
	}
	return &l.frags[i]
}
