package compaction

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/rangedel"
)

// sliceIter is an InternalIterator over sorted entries; only what Iter calls
// does something.
type sliceIter struct {
	base.InternalIterator
	keys []base.InternalKey
	at   int
}

func (s *sliceIter) First() bool { s.at = 0; return s.Valid() }
func (s *sliceIter) SeekGE(key base.InternalKey) bool {
	s.at, _ = slices.BinarySearchFunc(s.keys, key, base.Compare)
	return s.Valid()
}
func (s *sliceIter) Next() bool            { s.at++; return s.Valid() }
func (s *sliceIter) Valid() bool           { return s.at < len(s.keys) }
func (s *sliceIter) Key() base.InternalKey { return s.keys[s.at] }
func (s *sliceIter) Value() []byte         { return []byte{byte(s.keys[s.at].SeqNum())} }
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
		// Some values are to be dropped by the filter, and the merge is done
		// in pieces.
		expired := func(seq base.SeqNum) bool { return false }
		if rapid.Bool().Draw(t, "filter") {
			expired = func(seq base.SeqNum) bool { return seq%3 == 0 }
		}
		bounds := [][]byte{nil}
		for k := range nkeys - 1 {
			if rapid.IntRange(0, 3).Draw(t, "border") == 0 {
				bounds = append(bounds, []byte{byte('b' + k)})
			}
		}
		bounds = append(bounds, nil)
		var out []base.InternalKey
		var outDels []base.RangeDel
		for i, lower := range bounds[:len(bounds)-1] {
			it := NewIter(IterOptions{
				In: &sliceIter{keys: keys}, RangeDels: Clip(dels, lower, bounds[i+1]), Snapshots: snaps,
				Lower: lower, Upper: bounds[i+1],
				NothingBelow: func(start, end []byte) bool {
					for k := start[0]; k == start[0] || k < end[0]; k++ {
						if hasBelow[k] {
							return false
						}
					}
					return true
				},
				Filter: func(_, value []byte) bool { return expired(base.SeqNum(value[0])) },
			})
			for it.Next() {
				out = append(out, it.Key())
			}
			outDels = append(outDels, it.RangeDels()...)
		}
		for _, snap := range append(snaps, nseqs) {
			for k := range nkeys {
				key := string(rune('a' + k))
				want := read(slices.Concat(keys, below), slices.Concat(dels, belowDels), key, snap)
				got := read(slices.Concat(out, below), slices.Concat(outDels, belowDels), key, snap)
				if got == 0 && snap == nseqs && expired(want) {
					continue
				}
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

// TestFilterLeavesATombstone drops the newest of three versions in places where
// the others would come to light.
func TestFilterLeavesATombstone(t *testing.T) {
	key := []byte("k")
	for _, c := range []struct {
		name  string
		snaps []base.SeqNum
		below bool
		want  string
	}{
		{"nothing else", nil, false, ""},
		{"older ones below", nil, true, `"k"#9,DEL`},
		{"an older one for a snapshot", []base.SeqNum{6}, false, `"k"#9,DEL "k"#5,SET`},
		{"a snapshot that sees it", []base.SeqNum{9}, false, `"k"#9,SET`},
	} {
		it := NewIter(IterOptions{
			In: &sliceIter{keys: []base.InternalKey{
				base.MakeInternalKey(key, 9, base.KindSet), base.MakeInternalKey(key, 5, base.KindSet),
				base.MakeInternalKey(key, 4, base.KindSet),
			}},
			Snapshots:    c.snaps,
			NothingBelow: func(_, _ []byte) bool { return !c.below },
			Filter:       func(_, value []byte) bool { return value[0] == 9 },
		})
		got := ""
		for it.Next() {
			if got != "" {
				got += " "
			}
			got += it.Key().String()
			if (it.Key().Kind() == base.KindDelete) != (len(it.Value()) == 0) {
				t.Errorf("%s: %s has the value %q", c.name, it.Key(), it.Value())
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestCovered holds the rule for dropping a table unread against its edges.
func TestCovered(t *testing.T) {
	f := &manifest.FileMeta{
		Smallest: base.MakeInternalKey([]byte("c"), 7, base.KindSet), SmallestSeq: 5,
		Largest: base.MakeInternalKey([]byte("m"), 5, base.KindSet), LargestSeq: 7,
	}
	for _, c := range []struct {
		start, end string
		seq        base.SeqNum
		snaps      []base.SeqNum
		want       bool
	}{
		{"c", "n", 8, nil, true},
		{"c", "m", 8, nil, false}, // m itself is not covered
		{"d", "n", 8, nil, false},
		{"c", "n", 7, nil, false}, // as new as some of it
		{"c", "n", 8, []base.SeqNum{4}, true},
		{"c", "n", 8, []base.SeqNum{5}, false},
		{"c", "n", 8, []base.SeqNum{7}, false},
		{"c", "n", 8, []base.SeqNum{4, 8, 9}, true},
	} {
		dels := []base.RangeDel{{Start: []byte(c.start), End: []byte(c.end), Seq: c.seq}}
		if got := Covered(f, dels, c.snaps); got != c.want {
			t.Errorf("[%s,%s)#%d with snapshots %v: %v", c.start, c.end, c.seq, c.snaps, got)
		}
	}
}

// TestCutter cuts a table once it has passed more than ten times its size.
func TestCutter(t *testing.T) {
	v := parseVersion(t, "L4 1:a-b:600 2:c-d:600 3:e-f:600 4:g-h:600")
	tree := NewTree(Options{L0Trigger: 4, BaseBytes: 10, Multiplier: 10, TargetFileSize: 100}, v)
	c := tree.NewCutter(3, nil)
	got := ""
	for k := byte('a'); k <= 'i'; k++ {
		if c.Cut([]byte{k}, k > 'a') {
			got += string(k)
		}
	}
	if got != "ei" {
		t.Errorf("cut before %q, want e and i", got)
	}
	if tree.NewCutter(4, nil).Cut([]byte("a"), true) {
		t.Error("nothing lies below the last level")
	}
}
