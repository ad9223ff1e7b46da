package sstable

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/cache"
)

var layouts = map[string]WriterOptions{
	"default":   {},
	"two-level": {BlockSize: 256, IndexBlockSize: 200},
	"s2":        {BlockSize: 1024, Codec: CodecS2},
	"zstd":      {BlockSize: 4096, IndexBlockSize: 512, Codec: CodecZstd, RestartInterval: 3},
	"no filter": {BitsPerKey: -1, BlockSize: 64, RestartInterval: 1},
}

func TestRoundTrip(t *testing.T) {
	for name, opts := range layouts {
		for _, n := range []int{0, 1, 2, 50, 3000} {
			t.Run(fmt.Sprintf("%s/%d", name, n), func(t *testing.T) {
				entries := numbered(n, 40)
				f, m := build(t, opts, entries)
				r := open(t, f, cache.New(1<<20))
				defer r.Close()
				if err := equal(dump(t, r), entries); err != nil {
					t.Fatal(err)
				}
				if err := r.VerifyChecksums(); err != nil {
					t.Fatal(err)
				}
				if fmt.Sprint(r.Meta()) != fmt.Sprint(m) {
					t.Fatalf("Meta %+v, Finish said %+v", r.Meta(), m)
				}
				if m.Entries != uint64(n) || n > 0 && (m.SmallestSeq != 1 || m.LargestSeq != base.SeqNum(n) ||
					base.Compare(m.Smallest, entries[0].key) != 0 || base.Compare(m.Largest, entries[n-1].key) != 0) {
					t.Fatalf("Meta %+v", m)
				}
				for range 2 { // the second time from the cache
					for _, e := range entries {
						v, kind, at, ok, err := r.Get([]byte("pre"), e.key.UserKey, base.MaxSeqNum)
						if err != nil || !ok || kind != e.key.Kind() || at != e.key.SeqNum() || string(v) != "pre"+string(e.value) {
							t.Fatalf("Get %s: %q %s %d %v %v", e.key, v, kind, at, ok, err)
						}
					}
				}
			})
		}
	}
	f, m := build(t, layouts["two-level"], numbered(3000, 40))
	if open(t, f, nil).foot.levels != 2 || m.IndexBlocks < 3 {
		t.Fatal("the two-level layout has no second level")
	}
}

func TestBigEntries(t *testing.T) {
	entries := []kv{
		{ik("a", 1, base.KindSet), nil},
		{ik("b", 2, base.KindSet), bytes.Repeat([]byte("x"), 16<<20)},
		{ik(strings.Repeat("c", 70000), 3, base.KindSet), []byte("long key")},
	}
	for _, codec := range []Codec{CodecNone, CodecS2, CodecZstd} {
		f, _ := build(t, WriterOptions{Codec: codec}, entries)
		r := open(t, f, nil)
		if err := equal(dump(t, r), entries); err != nil {
			t.Fatal(codec, err)
		}
		if v, _, _, ok, err := r.Get(nil, []byte("b"), 5); err != nil || !ok || !bytes.Equal(v, entries[1].value) {
			t.Fatal(codec, ok, err)
		}
		if codec != CodecNone && len(f.b) > 2<<20 {
			t.Fatalf("%s left %d bytes", codec, len(f.b))
		}
	}
}

// Data that does not compress is stored as it is.
func TestIncompressibleStaysRaw(t *testing.T) {
	rnd := rand.NewChaCha8([32]byte{1})
	entries := numbered(200, 0)
	for i := range entries {
		entries[i].value = make([]byte, 400)
		rnd.Read(entries[i].value)
	}
	raw, _ := build(t, WriterOptions{}, entries)
	for _, codec := range []Codec{CodecS2, CodecZstd} {
		f, _ := build(t, WriterOptions{Codec: codec}, entries)
		r := open(t, f, nil)
		h, ok, err := r.lookup(&r.index, r.foot.index, entries[0].key.UserKey, entries[0].key.Trailer)
		if !ok || err != nil || f.b[h.offset+h.length] != byte(CodecNone) {
			t.Fatalf("%s: first block is not raw: %v %v", codec, ok, err)
		}
		if len(f.b) > len(raw.b) {
			t.Fatalf("%s: %d bytes, raw %d", codec, len(f.b), len(raw.b))
		}
	}
}

func TestWriterRefusals(t *testing.T) {
	w := NewWriter(&byteFile{}, WriterOptions{Nonce: 1})
	if err := w.Add(ik("b", 5, base.KindSet), nil); err != nil {
		t.Fatal(err)
	}
	for _, k := range []base.InternalKey{
		ik("b", 5, base.KindSet), ik("b", 6, base.KindSet), ik("b", 5, base.KindSet), ik("a", 9, base.KindSet), ik("", 9, base.KindSet),
	} {
		if err := w.Add(k, nil); !errors.Is(err, errOrder) {
			t.Errorf("Add %s: %v", k, err)
		}
	}
	if err := w.Add(ik("c", 1, base.KindRangeDelete), nil); err == nil {
		t.Error("a range delete was taken as a point key")
	}
	if err := w.Add(ik("c", 1, base.KindSet), make([]byte, MaxEntryBytes)); !errors.Is(err, errTooLarge) {
		t.Errorf("huge entry: %v", err)
	}
	// Refusals leave the writer as it was.
	for _, k := range []base.InternalKey{ik("b", 5, base.KindDelete), ik("b", 4, base.KindSet), ik("ba", 1, base.KindSet)} {
		if err := w.Add(k, nil); err != nil {
			t.Errorf("Add %s: %v", k, err)
		}
	}
	if m, err := w.Finish(); err != nil || m.Entries != 4 {
		t.Fatal(m, err)
	}
	if _, err := w.Finish(); !errors.Is(err, errFinished) {
		t.Fatal(err)
	}
	if err := w.Add(ik("z", 1, base.KindSet), nil); !errors.Is(err, errFinished) {
		t.Fatal(err)
	}
	for _, o := range []WriterOptions{{}, {Nonce: 1, Codec: 9}, {Nonce: 1, BlockSize: 3}, {Nonce: 1, RestartInterval: -1}, {Nonce: 1, BitsPerKey: 65}, {Nonce: 1, IndexBlockSize: 1 << 30}} {
		if err := NewWriter(&byteFile{}, o).Add(ik("a", 1, base.KindSet), nil); err == nil {
			t.Errorf("options %+v were taken", o)
		}
	}
}

// A failed write is final, and output goes out in few large writes.
func TestWriterOutput(t *testing.T) {
	f, m := build(t, WriterOptions{}, numbered(20000, 60))
	if most := int(m.Size/writeSize) + 1; f.writes > most {
		t.Fatalf("%d writes for %d bytes", f.writes, m.Size)
	}
	boom := errors.New("boom")
	bad := &byteFile{fail: boom}
	w := NewWriter(bad, WriterOptions{Nonce: 1})
	var err error
	for i := 0; err == nil && i < 1<<20; i++ {
		err = w.Add(ik(fmt.Sprintf("%08d", i), 1, base.KindSet), make([]byte, 100))
	}
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	bad.fail = nil
	if _, err := w.Finish(); !errors.Is(err, boom) {
		t.Fatalf("Finish after a failed write: %v", err)
	}
}

func TestEstimatedSize(t *testing.T) {
	f := &byteFile{}
	w := NewWriter(f, WriterOptions{Nonce: 1})
	for _, e := range numbered(5000, 100) {
		if err := w.Add(e.key, e.value); err != nil {
			t.Fatal(err)
		}
	}
	est := w.EstimatedSize()
	m, err := w.Finish()
	if err != nil || est < m.Size*9/10 || est > m.Size*11/10 {
		t.Fatalf("estimated %d, is %d, %v", est, m.Size, err)
	}
}

func TestRangeDelBounds(t *testing.T) {
	rd := func(start, end string, seq base.SeqNum) base.RangeDel {
		return base.RangeDel{Start: []byte(start), End: []byte(end), Seq: seq}
	}
	for _, c := range []struct {
		points            []kv
		rds               []base.RangeDel
		smallest, largest string
		seqs              string
	}{
		{nil, []base.RangeDel{rd("b", "d", 5)}, `"b"#5,RANGEDEL`, `"d"#72057594037927935,RANGEDEL`, "5-5"},
		{[]kv{{ik("a", 9, base.KindSet), nil}, {ik("x", 2, base.KindDelete), nil}}, []base.RangeDel{rd("b", "d", 5)}, `"a"#9,SET`, `"x"#2,DEL`, "2-9"},
		{[]kv{{ik("c", 9, base.KindSet), nil}}, []base.RangeDel{rd("c", "cc", 10), rd("a", "c", 3)}, `"a"#3,RANGEDEL`, `"cc"#72057594037927935,RANGEDEL`, "3-10"},
		{[]kv{{ik("d", 9, base.KindSet), nil}}, []base.RangeDel{rd("a", "d", 3), rd("q", "q", 1)}, `"a"#3,RANGEDEL`, `"d"#9,SET`, "3-9"},
	} {
		f, m := build(t, WriterOptions{}, c.points, c.rds...)
		r := open(t, f, nil)
		p := r.Properties()
		if got := fmt.Sprint(p.Smallest); got != c.smallest {
			t.Errorf("smallest %s, want %s", got, c.smallest)
		}
		if got := fmt.Sprint(p.Largest); got != c.largest {
			t.Errorf("largest %s, want %s", got, c.largest)
		}
		if got := fmt.Sprintf("%d-%d", p.SmallestSeq, p.LargestSeq); got != c.seqs {
			t.Errorf("sequence numbers %s, want %s", got, c.seqs)
		}
		if !slices.IsSortedFunc(r.RangeDels(), base.CompareRangeDel) || uint64(len(r.RangeDels())) != m.RangeDels {
			t.Errorf("range deletes %v", r.RangeDels())
		}
		if err := r.VerifyChecksums(); err != nil {
			t.Error(err)
		}
	}
}

func TestClosed(t *testing.T) {
	f, _ := build(t, WriterOptions{}, numbered(10, 10))
	r := open(t, f, nil)
	for range 2 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, _, _, err := r.Get(nil, []byte("k"), 1); !errors.Is(err, base.ErrClosed) {
		t.Fatal(err)
	}
	if _, err := r.NewIter(); !errors.Is(err, base.ErrClosed) {
		t.Fatal(err)
	}
	if err := r.VerifyChecksums(); !errors.Is(err, base.ErrClosed) {
		t.Fatal(err)
	}
}
