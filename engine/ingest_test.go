package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/sstable"
	"github.com/pairdb/pairdb/engine/vfs"
)

func TestIngest(t *testing.T) {
	mem := vfs.NewMem()
	db := mustOpen(t, tiny(mem, 1))
	for _, k := range []string{"a", "b", "c", "d", "e"} {
		mustSet(t, db, k, "old")
	}
	before := db.Snapshot()
	iter, err := db.NewIter(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	seq := db.VisibleSeq()
	paths := []string{
		mustTable(t, mem, "one.sst", set("bb", "new"), del("a"), delRange("b", "d"), set("c", "new")),
		mustTable(t, mem, "none.sst"),
		mustTable(t, mem, "two.sst", delRange("e", "f")),
	}
	if err := db.Ingest(paths); err != nil {
		t.Fatal(err)
	}
	if db.VisibleSeq() != seq+1 || db.DurableSeq() != seq+1 {
		t.Errorf("visible %d, durable %d, want %d", db.VisibleSeq(), db.DurableSeq(), seq+1)
	}
	want := map[string]string{"bb": "new", "c": "new", "d": "old"}
	old := map[string]string{"a": "old", "b": "old", "c": "old", "d": "old", "e": "old"}
	check := func(when string) {
		t.Helper()
		if err := errors.Join(compare(db, want), db.Verify(), checkDir(db)); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if before != nil {
			if err := compare(before, old); err != nil {
				t.Fatalf("%s, snapshot: %v", when, err)
			}
		}
	}
	check("ingested")
	if _, at, err := db.GetSeq(nil, []byte("c")); err != nil || at != seq+1 {
		t.Errorf("c is of %d: %v", at, err)
	}
	if _, at, err := db.GetSeq(nil, []byte("b")); !errors.Is(err, ErrNotFound) || at != seq+1 {
		t.Errorf("b was deleted at %d: %v", at, err)
	}
	n := 0
	for ok := iter.First(); ok; ok = iter.Next() {
		n++
	}
	if err := iter.Close(); err != nil || n != len(old) {
		t.Errorf("the iterator from before saw %d keys: %v", n, err)
	}
	// The files given may go.
	for _, p := range paths {
		if err := mem.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	mustSet(t, db, "c", "newer")
	want["c"] = "newer"
	check("overwritten")
	if err := db.Checkpoint("copy"); err != nil {
		t.Fatal(err)
	}
	if err := db.Compact(nil, nil); err != nil {
		t.Fatal(err)
	}
	check("compacted")
	before.Close()
	before = nil
	for _, dir := range []string{"db", "copy"} {
		if dir == "db" {
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
		opts := tiny(mem, 2)
		other, err := Open(dir, opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(compare(other, want), other.Verify(), other.Compact(nil, nil), compare(other, want), other.Close()); err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
	}
	if err := db.Ingest(nil); !errors.Is(err, ErrClosed) {
		t.Errorf("ingest after close: %v", err)
	}
}

// TestIngestRefuses what is damaged, foreign, ambiguous or too much, and changes
// nothing then.
func TestIngestRefuses(t *testing.T) {
	mem := vfs.NewMem()
	db := mustOpen(t, tiny(mem, 1))
	mustSet(t, db, "a", "old")
	raw := func(name string, b []byte) string {
		f, err := mem.Create(name)
		if err == nil {
			_, err = f.Write(b)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		return name
	}
	table := func(name string, f func(w *sstable.Writer) error) string {
		file, err := mem.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		w := sstable.NewWriter(file, sstable.WriterOptions{Nonce: 3})
		err = f(w)
		if err == nil {
			_, err = w.Finish()
		}
		if err = errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good := mustTable(t, mem, "good", set("a", "new"), set("c", "new"))
	whole, err := readWhole(mem, good)
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(whole)
	flipped[0] ^= 1
	key := func(k string, seq base.SeqNum) base.InternalKey {
		return base.MakeInternalKey([]byte(k), seq, base.KindSet)
	}
	for _, c := range []struct {
		name  string
		paths []string
		want  error
	}{
		{"missing", []string{good, "missing"}, fs.ErrNotExist},
		{"no table", []string{good, raw("text", []byte("hello"))}, ErrCorrupt},
		{"empty file", []string{raw("empty", nil)}, ErrCorrupt},
		{"cut", []string{raw("cut", whole[:len(whole)-1])}, ErrCorrupt},
		{"damaged", []string{raw("flipped", flipped)}, ErrCorrupt},
		{"overlap", []string{good, mustTable(t, mem, "b", set("b", "new"))}, ErrIngestOverlap},
		{"twice", []string{good, good}, ErrIngestOverlap},
		{"too many", make([]string, MaxIngestFiles+1), ErrIngest},
		{"versions", []string{table("versions", func(w *sstable.Writer) error {
			return errors.Join(w.Add(key("x", 2), nil), w.Add(key("x", 1), nil))
		})}, ErrIngest},
		{"hidden", []string{table("hidden", func(w *sstable.Writer) error {
			return errors.Join(w.Add(key("x", 2), nil), w.AddRangeDel(base.RangeDel{Start: []byte("w"), End: []byte("y"), Seq: 3}))
		})}, ErrIngest},
		{"empty key", []string{table("nokey", func(w *sstable.Writer) error { return w.Add(key("", 2), nil) })}, ErrIngest},
		{"long key", []string{table("longkey", func(w *sstable.Writer) error {
			return w.Add(key(strings.Repeat("k", MaxKeySize+1), 2), nil)
		})}, ErrIngest},
		{"overlapping range deletes", []string{table("ranges", func(w *sstable.Writer) error {
			return errors.Join(w.AddRangeDel(base.RangeDel{Start: []byte("p"), End: []byte("r"), Seq: 3}),
				w.AddRangeDel(base.RangeDel{Start: []byte("q"), End: []byte("s"), Seq: 3}))
		})}, ErrIngest},
	} {
		err := db.Ingest(c.paths)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if errors.Is(err, ErrCorrupt) && !strings.Contains(err.Error(), c.paths[len(c.paths)-1]) {
			t.Errorf("%s: the error does not name the file: %v", c.name, err)
		}
		if err := errors.Join(compare(db, map[string]string{"a": "old"}), checkDir(db)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	usage, err := mem.DiskUsage("db")
	if err != nil {
		t.Fatal(err)
	}
	mem.SetLimit(usage.Total - usage.Free)
	if err := db.Ingest([]string{good}); !errors.Is(err, ErrDiskFull) {
		t.Errorf("disk full: %v", err)
	}
	mem.SetLimit(0)
	if err := errors.Join(compare(db, map[string]string{"a": "old"}), checkDir(db)); err != nil {
		t.Error(err)
	}
	if err := errors.Join(db.Ingest([]string{good}), compare(db, map[string]string{"a": "new", "c": "new"}), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestIngestFromElsewhere copies what cannot be linked, and takes the tables of
// another DB, as long as no key is in one twice, even if its nonces are those of
// tables here.
func TestIngestFromElsewhere(t *testing.T) {
	mem := vfs.NewMem()
	opts := tiny(vfs.Inject(mem, func(o vfs.Op) error {
		if o.Kind == vfs.OpLink {
			return syscall.EXDEV
		}
		return nil
	}), 1)
	opts.CacheSize = 1 << 20
	db := mustOpen(t, opts)
	opts.FS, opts.Rand = mem, rand.New(rand.NewPCG(1, 1)).Uint64 // the same numbers again
	other, err := Open("other", opts)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for i := range 30 {
		k := modelKey(i)
		mustSet(t, db, k, "old")
		mustSet(t, other, k, "new")
		want[k] = "new"
	}
	if err := errors.Join(db.Flush(), db.Compact(nil, nil), other.Flush(), other.Compact(nil, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Get(nil, []byte(modelKey(3))); err != nil { // fills the cache
		t.Fatal(err)
	}
	var paths []string
	here := map[uint64]bool{}
	for _, level := range db.version.levels {
		for _, f := range level {
			here[f.Nonce] = true
		}
	}
	alike := 0
	for _, level := range other.version.levels {
		for _, f := range level {
			paths = append(paths, "other/"+tableName(f.Num))
			if here[f.Nonce] {
				alike++
			}
		}
	}
	if alike == 0 {
		t.Fatal("no two tables have a nonce in common")
	}
	if err := errors.Join(db.Ingest(paths), compare(db, want), compare(db, want), db.Verify(), db.Close()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(compare(other, want), other.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestIngestLevels puts tables as low as nothing lies in the way.
func TestIngestLevels(t *testing.T) {
	mem := vfs.NewMem()
	opts := tiny(mem, 1)
	opts.Scheduler = &queued{}
	db := mustOpen(t, opts)
	levels := func() (out []int) {
		for _, l := range db.version.levels {
			out = append(out, len(l))
		}
		return out
	}
	for i, c := range []struct {
		ops  []op
		want []int
	}{
		{[]op{set("b", ""), set("d", "")}, []int{0, 0, 0, 1}},
		{[]op{set("x", "")}, []int{0, 0, 0, 2}},
		{[]op{set("c", "")}, []int{1, 0, 0, 2}},
		{[]op{delRange("bb", "c")}, []int{2, 0, 0, 2}},
		{[]op{delRange("bb", "c")}, []int{3, 0, 0, 2}},
		{[]op{set("d1", "")}, []int{3, 0, 0, 3}},
	} {
		if err := db.Ingest([]string{mustTable(t, mem, fmt.Sprint("f", i), c.ops...)}); err != nil {
			t.Fatal(err)
		}
		if got := levels(); !slices.Equal(got, c.want) {
			t.Errorf("%d: tables lie at %v, want %v", i, got, c.want)
		}
	}
	m := db.Metrics()
	if m.Ingests != 6 || m.IngestTables != 6 || m.IngestBytes == 0 || m.ReadAmp != m.L0Depth+1 {
		t.Errorf("%+v", m)
	}
	if err := errors.Join(db.Verify(), db.Compact(nil, nil), db.Verify(), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestTableWriter(t *testing.T) {
	mem := vfs.NewMem()
	w, err := NewTableWriter("t", tiny(mem, 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewTableWriter("t", tiny(mem, 1)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second writer: %v", err)
	}
	long := bytes.Repeat([]byte("y"), MaxKeySize+1)
	for i, c := range []struct {
		err, want error
	}{
		{w.Set([]byte("b"), nil), nil},
		{w.Set([]byte("b"), nil), ErrOrder},
		{w.Delete([]byte("a")), ErrOrder},
		{w.Set(nil, nil), ErrEmptyKey},
		{w.Set(long, nil), ErrTooLarge},
		{w.Set([]byte("c"), make([]byte, MaxValueSize+1)), ErrTooLarge},
		{w.DeleteRange([]byte("a"), []byte("b")), nil},
		{w.DeleteRange([]byte("a1"), []byte("c")), ErrOrder},
		{w.DeleteRange([]byte("x"), []byte("x")), nil},
		{w.DeleteRange(nil, []byte("x")), ErrEmptyKey},
		{w.DeleteRange([]byte("x"), long), ErrTooLarge},
		{w.Delete([]byte("c")), nil},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%d: %v, want %v", i, c.err, c.want)
		}
	}
	size, err := w.Finish()
	info, serr := mem.Stat("t")
	if err != nil || serr != nil || size != info.Size || w.Size() != 0 {
		t.Fatalf("finished with %d of %d bytes: %v, %v", size, info.Size, err, serr)
	}
	if err := w.Set([]byte("d"), nil); err == nil {
		t.Error("set after finish")
	}
	if err := w.Abort(); err != nil {
		t.Error(err)
	}
	w, err = NewTableWriter("gone", tiny(mem, 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Set([]byte("a"), nil), w.Abort(), w.Abort()); err != nil {
		t.Fatal(err)
	}
	if _, err := mem.Stat("gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an aborted file is still there: %v", err)
	}
}
