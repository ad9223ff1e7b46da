package compaction

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/rangedel"
)

// sliceIter is an InternalIterator over sorted entries; only what Iter calls
// does something.
type sliceIter struct {
	base.InternalIterator
	keys []base.InternalKey
	at   int
}

func (s *sliceIter) First() bool           { s.at = 0; return s.Valid() }
func (s *sliceIter) Next() bool            { s.at++; return s.Valid() }
func (s *sliceIter) Valid() bool           { return s.at < len(s.keys) }
func (s *sliceIter) Key() base.InternalKey { return s.keys[s.at] }
func (s *sliceIter) Value() []byte         { return fmt.Append(nil, s.keys[s.at].SeqNum()) }
func (s *sliceIter) Error() error          { return nil }

// read returns the sequence number of the set that a reader at snap sees, 0 if
// the key has no value.
func read(keys []base.InternalKey, dels []base.RangeDel, key string, snap base.SeqNum) base.SeqNum {
	del := rangedel.Build(dels).Newest([]byte(key), snap)
	for _, k := range keys { // newest first within a key
		if string(k.UserKey) == key && k.SeqNum() <= snap {
			if k.Kind() == base.KindDelete || k.SeqNum() < del {
				return 0
			}
			return k.SeqNum()
		}
	}
	return 0
}

// TestIterKeepsMeaning checks Iter's invariant on random inputs, above random
// older entries: no snapshot and no present reader can tell.
func TestIterKeepsMeaning(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const nkeys, nseqs = 5, 24
		var keys, below []base.InternalKey
		var dels, belowDels []base.RangeDel
		hasBelow := map[byte]bool{}
		for seq := base.SeqNum(1); seq <= nseqs; seq++ {
			k := byte('a' + rapid.IntRange(0, nkeys-1).Draw(t, "key"))
			older := seq <= nseqs/3
			kind := rapid.SampledFrom([]base.Kind{base.KindSet, base.KindSet, base.KindDelete, base.KindRangeDelete}).Draw(t, "kind")
			if kind == base.KindRangeDelete {
				end := k + byte(rapid.IntRange(1, 3).Draw(t, "len"))
				rd := base.RangeDel{Start: []byte{k}, End: []byte{end}, Seq: seq}
				if older {
					belowDels = append(belowDels, rd)
				} else {
					dels = append(dels, rd)
				}
				continue
			}
			ik := base.MakeInternalKey([]byte{k}, seq, kind)
			if older {
				below = append(below, ik)
				hasBelow[k] = true
			} else {
				keys = append(keys, ik)
			}
		}
		slices.SortFunc(keys, base.Compare)
		slices.SortFunc(below, base.Compare)
		var snaps []base.SeqNum
		for seq := base.SeqNum(nseqs / 3); seq < nseqs; seq++ {
			if rapid.IntRange(0, 5).Draw(t, "snapshot") == 0 {
				snaps = append(snaps, seq)
			}
		}
		it := NewIter(IterOptions{
			In: &sliceIter{keys: keys}, RangeDels: dels, Snapshots: snaps,
			NothingBelow: func(start, end []byte) bool {
				for k := start[0]; k == start[0] || k < end[0]; k++ {
					if hasBelow[k] {
						return false
					}
				}
				return true
			},
		})
		var out []base.InternalKey
		for it.Next() {
			out = append(out, it.Key())
		}
		outDels := it.RangeDels()
		for _, snap := range append(snaps, nseqs) {
			for k := range nkeys {
				key := string(rune('a' + k))
				want := read(slices.Concat(keys, below), slices.Concat(dels, belowDels), key, snap)
				got := read(slices.Concat(out, below), slices.Concat(outDels, belowDels), key, snap)
				if got != want {
					t.Fatalf("key %s at %d: %d, want %d\nin %v %v\nout %v %v", key, snap, got, want, keys, dels, out, outDels)
				}
			}
		}
		if len(snaps) == 0 && len(hasBelow) == 0 {
			for _, k := range out {
				if k.Kind() == base.KindDelete {
					t.Fatalf("tombstone %s kept at the bottom", k)
				}
			}
			if len(outDels) > 0 {
				t.Fatalf("range deletes %v kept at the bottom", outDels)
			}
		}
	})
}

func TestClip(t *testing.T) {
	rds := []base.RangeDel{{Start: []byte("b"), End: []byte("f"), Seq: 1}, {Start: []byte("h"), End: []byte("k"), Seq: 2}}
	for _, c := range []struct{ lo, hi, want string }{
		{"", "", "b-f h-k"}, {"c", "", "c-f h-k"}, {"", "i", "b-f h-i"}, {"f", "h", ""}, {"d", "e", "d-e"},
	} {
		var lo, hi []byte
		if c.lo != "" {
			lo = []byte(c.lo)
		}
		if c.hi != "" {
			hi = []byte(c.hi)
		}
		got := ""
		for i, rd := range Clip(rds, lo, hi) {
			if i > 0 {
				got += " "
			}
			got += string(rd.Start) + "-" + string(rd.End)
		}
		if got != c.want {
			t.Errorf("[%s,%s): %q, want %q", c.lo, c.hi, got, c.want)
		}
	}
}
