package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustOpen(t testing.TB, opts Options) *DB {
	t.Helper()
	db, err := Open("db", opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func mustSet(t testing.TB, db *DB, key, value string) Commit {
	t.Helper()
	b := NewBatch()
	b.Set([]byte(key), []byte(value))
	c, err := db.Apply(b, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSecondOpenIsRefused(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"mem": vfs.NewMem(), "os": vfs.OS()} {
		dir := "db"
		if name == "os" {
			dir = t.TempDir() + "/db"
		}
		db, err := Open(dir, Options{FS: fs, CacheSize: -1, MemTableSize: 1 << 20, WALSegmentSize: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		mustSet(t, db, "k", "v")
		if _, err := Open(dir, Options{FS: fs}); err == nil || !strings.Contains(err.Error(), "is it open already?") {
			t.Errorf("%s: second open: %v", name, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if db, err = Open(dir, Options{FS: fs}); err != nil {
			t.Fatalf("%s: after close: %v", name, err)
		}
		if v, err := db.Get(nil, []byte("k")); string(v) != "v" {
			t.Errorf("%s: got %q, %v", name, v, err)
		}
		db.Close()
	}
}

func TestClosed(t *testing.T) {
	db := mustOpen(t, tiny(vfs.NewMem(), 1))
	c := mustSet(t, db, "k", "v")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("Close did not make the batch durable: %v", err)
	}
	b := NewBatch()
	b.Set([]byte("k"), nil)
	_, aerr := db.Apply(b, WriteOptions{})
	_, gerr := db.Get(nil, []byte("k"))
	_, ierr := db.NewIter(nil, nil)
	for i, err := range []error{aerr, gerr, ierr, db.Flush(), db.Compact(nil, nil), db.Verify(), db.Checkpoint("x")} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

func TestBatchLimits(t *testing.T) {
	db := mustOpen(t, tiny(vfs.NewMem(), 1))
	long := make([]byte, MaxKeySize+1)
	for name, c := range map[string]struct {
		fill func(*Batch)
		want error
	}{
		"empty key":   {func(b *Batch) { b.Set(nil, []byte("v")) }, ErrEmptyKey},
		"empty start": {func(b *Batch) { b.DeleteRange(nil, []byte("v")) }, ErrEmptyKey},
		"long key":    {func(b *Batch) { b.Delete(long) }, ErrTooLarge},
		"long end":    {func(b *Batch) { b.DeleteRange([]byte("a"), bytes.Repeat([]byte("b"), MaxKeySize+1)) }, ErrTooLarge},
		"long value":  {func(b *Batch) { b.Set([]byte("k"), make([]byte, MaxValueSize+1)) }, ErrTooLarge},
		"many ranges": {func(b *Batch) {
			for range MaxBatchRangeDeletes + 1 {
				b.DeleteRange([]byte("a"), []byte("b"))
			}
		}, ErrTooLarge},
	} {
		b := NewBatch()
		b.Set([]byte("before"), []byte("x"))
		c.fill(b)
		if _, err := db.Apply(b, WriteOptions{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := db.Get(nil, []byte("before")); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: part of the batch was applied: %v", name, err)
		}
	}
	var empty Batch
	empty.DeleteRange([]byte("b"), []byte("a"))
	if c, err := db.Apply(&empty, WriteOptions{Sync: true}); err != nil || c.Wait() != nil {
		t.Errorf("empty batch: %v", err)
	}
}

// TestDurableIsNotVisible applies a batch while the one before it is being
// synced: that sync must not count for it.
func TestDurableIsNotVisible(t *testing.T) {
	mem := vfs.NewMem()
	var db *DB
	var second Commit
	armed := false
	fs := vfs.Inject(mem, func(o vfs.Op) error {
		if armed && o.Kind == vfs.OpSync {
			armed = false
			second = mustSet(t, db, "second", "2")
		}
		return nil
	})
	db = mustOpen(t, tiny(fs, 1))
	first := mustSet(t, db, "first", "1")
	armed = true
	if err := first.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := db.DurableSeq(); got < first.Seq() || got >= second.Seq() {
		t.Errorf("durable %d after the sync of %d, with %d applied during it", got, first.Seq(), second.Seq())
	}
	_, at, err := db.GetSeq(nil, []byte("second"))
	if err != nil || at != second.Seq() {
		t.Errorf("second is at %d, want %d: %v", at, second.Seq(), err)
	}
	if err := second.Wait(); err != nil || db.DurableSeq() != second.Seq() {
		t.Errorf("durable %d: %v", db.DurableSeq(), err)
	}
}

func TestGetSeqOfTombstones(t *testing.T) {
	db := mustOpen(t, tiny(vfs.NewMem(), 1))
	mustSet(t, db, "a", "1")
	mustSet(t, db, "b", "1")
	b := NewBatch()
	b.Delete([]byte("a"))
	b.DeleteRange([]byte("b"), []byte("c"))
	c, err := db.Apply(b, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for key, want := range map[string]base.SeqNum{"a": c.Seq() - 1, "b": c.Seq(), "never": 0} {
			if _, at, err := db.GetSeq(nil, []byte(key)); !errors.Is(err, ErrNotFound) || at != want {
				t.Errorf("%s: at %d, want %d: %v", key, at, want, err)
			}
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOnRecovered(t *testing.T) {
	mem := vfs.NewMem()
	db := mustOpen(t, tiny(mem, 1))
	mustSet(t, db, "flushed", "1")
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	mustSet(t, db, "logged", "1")
	b := NewBatch()
	b.Set([]byte("twice"), nil)
	b.Delete([]byte("twice"))
	if _, err := db.Apply(b, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	db.Close()
	opts := tiny(mem, 2)
	var got []string
	opts.OnRecovered = func(key []byte, seq base.SeqNum) { got = append(got, fmt.Sprint(string(key), seq)) }
	mustOpen(t, opts)
	if !slices.Equal(got, []string{"logged2", "twice3", "twice4"}) {
		t.Errorf("recovered %v", got)
	}
}

// TestMissingFilesAreCorruption takes files away that the manifest needs: the
// DB must say so and leave the others alone.
func TestMissingFilesAreCorruption(t *testing.T) {
	build := func() *vfs.MemFS {
		mem := vfs.NewMem()
		db := mustOpen(t, tiny(mem, 1))
		for i := range 40 {
			mustSet(t, db, fmt.Sprint("k", i), strings.Repeat("v", 200))
		}
		if db.Metrics().TableBytes == 0 {
			t.Fatal("no table was written")
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		return mem
	}
	names := func(mem *vfs.MemFS) (all []string) {
		for _, dir := range []string{"db", "db/wal"} {
			list, err := mem.List(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range list {
				all = append(all, dir+"/"+n)
			}
		}
		return all
	}
	removed := 0
	for _, name := range names(build()) {
		if strings.HasSuffix(name, "LOCK") || strings.HasSuffix(name, ".free") || name == "db/wal" {
			continue
		}
		mem := build()
		if err := mem.Remove(name); err != nil {
			t.Fatal(err)
		}
		before := names(mem)
		if _, err := Open("db", tiny(mem, 1)); !errors.Is(err, ErrCorrupt) && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("without %s: %v", name, err)
		}
		after := names(mem)
		for _, n := range before {
			if !strings.Contains(strings.Join(after, "\n"), n) {
				t.Errorf("without %s: open removed %s", name, n)
			}
		}
		removed++
	}
	if removed < 4 {
		t.Errorf("only %d files to remove", removed)
	}
}

func TestAllocations(t *testing.T) {
	db := mustOpen(t, Options{FS: vfs.NewMem(), MemTableSize: 8 << 20, WALSegmentSize: 64 << 20, Scheduler: inline{}})
	b := NewBatch()
	key, val := make([]byte, 16), make([]byte, 100)
	write := func() {
		b.Reset()
		binary.BigEndian.PutUint64(key, binary.BigEndian.Uint64(key)+1)
		b.Set(key, val)
		if _, err := db.Apply(b, WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 5000 {
		write()
	}
	if n := testing.AllocsPerRun(2000, write); n >= 1 {
		t.Errorf("Apply allocates %v times", n)
	}
	dst := make([]byte, 0, 256)
	get := func() {
		var err error
		if dst, err = db.Get(dst[:0], key); err != nil || len(dst) != len(val) {
			t.Fatal(err)
		}
	}
	binary.BigEndian.PutUint64(key, 1234)
	if n := testing.AllocsPerRun(1000, get); n >= 1 {
		t.Errorf("Get from the memtable allocates %v times", n)
	}
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	get()
	if n := testing.AllocsPerRun(1000, get); n >= 1 {
		t.Errorf("Get from a cached table allocates %v times", n)
	}
	var v Values
	keys := [][]byte{binary.BigEndian.AppendUint64(nil, 9), append([]byte(nil), key...), append([]byte(nil), key...)}
	binary.BigEndian.PutUint64(keys[2], 1300)
	if n := testing.AllocsPerRun(1000, func() {
		if err := db.MultiGet(&v, keys); err != nil {
			t.Fatal(err)
		}
		if got, ok := v.Get(2); !ok || len(got) != len(val) {
			t.Fatal(got, ok)
		}
	}); n >= 1 {
		t.Errorf("MultiGet from a cached table allocates %v times", n)
	}
	key[0] = 0xff
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := db.Get(dst[:0], key); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	}); n >= 1 {
		t.Errorf("Get of an absent key allocates %v times", n)
	}
}

func FuzzBatch(f *testing.F) {
	b := NewBatch()
	fillBatch(b, []op{{base.KindSet, "k", "v"}, {kind: base.KindDelete, key: "d"}, {base.KindRangeDelete, "a", "b"}})
	b.number(7)
	f.Add(bytes.Clone(b.data))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		need, err := batchNeed(data, func([]byte, base.SeqNum) {})
		if err != nil {
			return
		}
		r, err := newBatchReader(data)
		if err != nil {
			t.Fatal(err)
		}
		// What is read can be written again, to the same effect.
		again := NewBatch()
		for {
			kind, key, value, ok := r.next()
			if !ok {
				break
			}
			again.add(kind, key, value)
		}
		if again.err == nil && (again.count != r.count || again.memSize != need) {
			t.Fatalf("%d operations of %d, need %d of %d", again.count, r.count, again.memSize, need)
		}
	})
}
