package memtable_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/memtable"
	"pgregory.net/rapid"
)

type kv struct {
	key   base.InternalKey
	value []byte
}

func ik(user string, seq base.SeqNum, kind base.Kind) base.InternalKey {
	return base.MakeInternalKey([]byte(user), seq, kind)
}

func TestGet(t *testing.T) {
	tab := memtable.New(64 << 10)
	if !tab.Empty() {
		t.Fatal("new table is not empty")
	}
	for _, e := range []kv{
		{ik("b", 3, base.KindSet), []byte("b3")},
		{ik("b", 9, base.KindSet), []byte("b9")},
		{ik("b", 6, base.KindDelete), nil},
		{ik("", 1, base.KindSet), []byte("empty key")},
		{ik("ba", 4, base.KindSet), nil},
	} {
		if err := tab.Add(e.key, e.value); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		key  string
		seq  base.SeqNum
		want string
	}{
		{"b", 2, "none"},
		{"b", 3, `SET 3 "b3"`},
		{"b", 5, `SET 3 "b3"`},
		{"b", 6, `DEL 6 ""`},
		{"b", 8, `DEL 6 ""`},
		{"b", 9, `SET 9 "b9"`},
		{"b", base.MaxSeqNum, `SET 9 "b9"`},
		{"", 5, `SET 1 "empty key"`},
		{"ba", 5, `SET 4 ""`},
		{"a", 5, "none"},
		{"c", 5, "none"},
		{"bb", 99, "none"},
	} {
		got := "none"
		if v, kind, at, ok := tab.Get([]byte(c.key), c.seq); ok {
			got = fmt.Sprintf("%s %d %q", kind, at, v)
		}
		if got != c.want {
			t.Errorf("Get(%q, %d) = %s, want %s", c.key, c.seq, got, c.want)
		}
	}
	if tab.Len() != 5 || tab.Empty() {
		t.Fatalf("Len = %d", tab.Len())
	}
}

func TestAddRefusals(t *testing.T) {
	tab := memtable.New(64 << 10)
	if err := tab.Add(ik("a", 1, base.KindRangeDelete), nil); err == nil {
		t.Fatal("a range delete was taken as a point key")
	}
	if err := tab.Add(ik("a", 1, base.KindSet), []byte("x")); err != nil {
		t.Fatal(err)
	}
	used := tab.Bytes()
	if err := tab.Add(ik("a", 1, base.KindSet), []byte("y")); !errors.Is(err, memtable.ErrDuplicate) {
		t.Fatalf("duplicate: %v", err)
	}
	if err := tab.Add(ik("b", 1, base.KindSet), make([]byte, 1<<20)); !errors.Is(err, memtable.ErrFull) {
		t.Fatalf("too large: %v", err)
	}
	if tab.Bytes() != used || tab.Len() != 1 {
		t.Fatalf("a refused Add left %d bytes (%d before), %d entries", tab.Bytes(), used, tab.Len())
	}
	if err := tab.Add(ik("b", 1, base.KindSet), []byte("z")); err != nil {
		t.Fatalf("a small entry after a refused large one: %v", err)
	}
}

// Need must be an upper bound, so that a batch that fits by it is taken whole.
func TestNeedIsEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(0, 3000), 1, 200).Draw(t, "value sizes")
		total := memtable.Need(0, 0)
		for i, n := range sizes {
			total += memtable.Need(len(fmt.Sprint(i)), n)
		}
		tab := memtable.New(total)
		for i, n := range sizes {
			free := tab.Free()
			if err := tab.Add(ik(fmt.Sprint(i), 1, base.KindSet), make([]byte, n)); err != nil {
				t.Fatalf("entry %d of %d bytes: %v", i, n, err)
			}
			if took := free - tab.Free(); took > memtable.Need(len(fmt.Sprint(i)), n) {
				t.Fatalf("entry %d took %d bytes, Need says %d", i, took, memtable.Need(len(fmt.Sprint(i)), n))
			}
		}
	})
}

func TestFillsUp(t *testing.T) {
	for round := range 3 {
		tab := memtable.New(32 << 10)
		n := 0
		for ; ; n++ {
			err := tab.Add(ik(fmt.Sprintf("%06d", n*7919%100000), base.SeqNum(n+1), base.KindSet), bytes.Repeat([]byte{byte(round)}, 50))
			if errors.Is(err, memtable.ErrFull) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if n < 200 || tab.Len() != n || tab.Bytes() > int64(tab.Cap()) {
			t.Fatalf("round %d: %d entries, Len %d, %d of %d bytes", round, n, tab.Len(), tab.Bytes(), tab.Cap())
		}
		seen := 0
		it := tab.NewIter()
		for ok := it.First(); ok; ok = it.Next() {
			if it.Value()[0] != byte(round) {
				t.Fatal("entry of an earlier round")
			}
			seen++
		}
		if seen != n {
			t.Fatalf("%d of %d entries seen", seen, n)
		}
		tab.Close()
		tab.Close()
	}
}

func TestBigValue(t *testing.T) {
	value := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB
	tab := memtable.New(memtable.Need(0, 0) + memtable.Need(3, len(value)))
	if err := tab.Add(ik("big", 1, base.KindSet), value); err != nil {
		t.Fatal(err)
	}
	if v, _, _, ok := tab.Get([]byte("big"), 1); !ok || !bytes.Equal(v, value) {
		t.Fatal("big value lost")
	}
}

func TestRangeDels(t *testing.T) {
	tab := memtable.New(4 << 10)
	start, end := []byte("a"), []byte("c")
	if err := tab.AddRangeDel(start, end, 7); err != nil {
		t.Fatal(err)
	}
	early := tab.RangeDels()
	start[0], end[0] = 'x', 'x' // must have been copied
	if err := tab.AddRangeDel([]byte("c"), []byte("c"), 8); err != nil {
		t.Fatal(err)
	}
	if err := tab.AddRangeDel([]byte("b"), []byte("d"), 9); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(early, tab.RangeDels()); got != `[["a","c")#7] [["a","c")#7 ["b","d")#9]` {
		t.Fatal(got)
	}
	if tab.Empty() {
		t.Fatal("a table with a range delete is not empty")
	}
	var err error
	for range 1000 {
		if err = tab.AddRangeDel([]byte("start"), []byte("stop"), 1); err != nil {
			break
		}
	}
	if !errors.Is(err, memtable.ErrFull) {
		t.Fatalf("range deletes are not bounded: %v", err)
	}
}

// drawEntries draws entries with distinct internal keys over few user keys.
func drawEntries(t *rapid.T) []kv {
	keys := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) base.InternalKey {
		return ik(rapid.StringMatching(`[ab]{0,3}`).Draw(t, "user"),
			base.SeqNum(rapid.IntRange(1, 40).Draw(t, "seq")),
			rapid.SampledFrom([]base.Kind{base.KindSet, base.KindDelete}).Draw(t, "kind"))
	}), 0, 60, func(k base.InternalKey) string { return k.String() }).Draw(t, "keys")
	out := make([]kv, len(keys))
	for i, k := range keys {
		out[i] = kv{k, []byte(k.String())}
	}
	return out
}

// The table and its iterator against a sorted slice.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := drawEntries(t)
		tab := memtable.New(64 << 10)
		for _, e := range entries {
			if err := tab.Add(e.key, e.value); err != nil {
				t.Fatal(err)
			}
		}
		model := slices.Clone(entries)
		slices.SortFunc(model, func(a, b kv) int { return base.Compare(a.key, b.key) })
		it, pos := tab.NewIter(), -1
		check := func(ok bool) {
			want := pos >= 0 && pos < len(model)
			if ok != want || it.Valid() != want {
				t.Fatalf("ok %v, valid %v, want %v at %d", ok, it.Valid(), want, pos)
			}
			if want && (base.Compare(it.Key(), model[pos].key) != 0 || !bytes.Equal(it.Value(), model[pos].value)) {
				t.Fatalf("at %s, want %s", it.Key(), model[pos].key)
			}
		}
		target := rapid.Custom(func(t *rapid.T) base.InternalKey {
			return base.SearchKey([]byte(rapid.StringMatching(`[ab]{0,4}`).Draw(t, "target")),
				base.SeqNum(rapid.IntRange(0, 41).Draw(t, "at")))
		})
		t.Repeat(map[string]func(*rapid.T){
			"first": func(t *rapid.T) { pos = 0; check(it.First()) },
			"last":  func(t *rapid.T) { pos = len(model) - 1; check(it.Last()) },
			"seekGE": func(t *rapid.T) {
				k := target.Draw(t, "key")
				pos, _ = slices.BinarySearchFunc(model, k, func(e kv, k base.InternalKey) int { return base.Compare(e.key, k) })
				check(it.SeekGE(k))
			},
			"seekLT": func(t *rapid.T) {
				k := target.Draw(t, "key")
				pos, _ = slices.BinarySearchFunc(model, k, func(e kv, k base.InternalKey) int { return base.Compare(e.key, k) })
				pos--
				check(it.SeekLT(k))
			},
			"next": func(t *rapid.T) {
				if it.Valid() {
					pos++
					check(it.Next())
				}
			},
			"prev": func(t *rapid.T) {
				if it.Valid() {
					pos--
					check(it.Prev())
				}
			},
			"get": func(t *rapid.T) {
				k := target.Draw(t, "key")
				i, _ := slices.BinarySearchFunc(model, k, func(e kv, k base.InternalKey) int { return base.Compare(e.key, k) })
				want := i < len(model) && bytes.Equal(model[i].key.UserKey, k.UserKey)
				v, _, at, ok := tab.Get(k.UserKey, k.SeqNum())
				if ok != want || ok && (at != model[i].key.SeqNum() || !bytes.Equal(v, model[i].value)) {
					t.Fatalf("Get %s: %q at %d, %v", k, v, at, ok)
				}
			},
		})
		if err := errors.Join(it.Error(), it.Close()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestReadsDoNotAllocate(t *testing.T) {
	tab := memtable.New(1 << 20)
	for i := range 1000 {
		if err := tab.Add(ik(fmt.Sprintf("%04d", i), 1, base.KindSet), []byte("value")); err != nil {
			t.Fatal(err)
		}
	}
	key := []byte("0500")
	var it memtable.Iter
	if n := testing.AllocsPerRun(1000, func() {
		tab.Get(key, 5)
		it.Init(tab)
		it.SeekGE(base.SearchKey(key, 5))
		it.Next()
		it.Prev()
		_, _ = it.Key(), it.Value()
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
