package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/sstable"
	"github.com/pairdb/pairdb/engine/vfs"
)

// TestRenumberIter holds the iterator of an ingested table against a list.
func TestRenumberIter(t *testing.T) {
	mem := vfs.NewMem()
	opts := tiny(mem, 1)
	opts.Scheduler = &queued{}
	db := mustOpen(t, opts)
	mustSet(t, db, "zz", "")
	var ops []op
	for i := 0; i < 40; i += 2 {
		if i%6 == 0 {
			ops = append(ops, del(modelKey(i)))
		} else {
			ops = append(ops, set(modelKey(i), "v"))
		}
	}
	f, err := mem.Create("in")
	if err != nil {
		t.Fatal(err)
	}
	w := sstable.NewWriter(f, sstable.WriterOptions{Nonce: 5, BlockSize: 64})
	for i, o := range ops { // numbers above and below the one it gets
		err = errors.Join(err, w.Add(base.MakeInternalKey([]byte(o.key), base.SeqNum(1+i%2*1000), o.kind), []byte(o.val)))
	}
	_, ferr := w.Finish()
	if err := errors.Join(err, ferr, f.Close(), db.Ingest([]string{"in"})); err != nil {
		t.Fatal(err)
	}
	seq := db.VisibleSeq()
	var want []base.InternalKey
	for _, o := range ops {
		want = append(want, base.MakeInternalKey([]byte(o.key), seq, o.kind))
	}
	tables := db.version.levels[3]
	if len(tables) != 1 || !tables[0].Renumbered || seq < 2 {
		t.Fatalf("no ingested table in %s", db.version)
	}
	o, err := tables[0].acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		o.release()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, open := range []func() (base.InternalIterator, error){o.NewIter, o.NewCompactionIter} {
		it, err := open()
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		pos := -1
		for range 3000 {
			key := base.MakeInternalKey([]byte(modelKey(rng.IntN(42))), seq-1+base.SeqNum(rng.IntN(3)), base.Kind(1+rng.IntN(3)))
			at := 0 // of the first entry at or after key
			for at < len(want) && base.Compare(want[at], key) < 0 {
				at++
			}
			what := ""
			switch r := rng.IntN(6); {
			case r == 0:
				what, pos = "first", 0
				it.First()
			case r == 1:
				what, pos = "last", len(want)-1
				it.Last()
			case r == 2:
				what, pos = fmt.Sprintf("seekGE %s", key), at
				it.SeekGE(key)
			case r == 3:
				what, pos = fmt.Sprintf("seekLT %s", key), at-1
				it.SeekLT(key)
			case !it.Valid():
				continue
			case r == 4:
				what, pos = "next", pos+1
				it.Next()
			default:
				what, pos = "prev", pos-1
				it.Prev()
			}
			if valid := pos >= 0 && pos < len(want); it.Valid() != valid || valid && base.Compare(it.Key(), want[pos]) != 0 {
				t.Fatalf("%s: valid %v, want position %d of %d: %v", what, it.Valid(), pos, len(want), it.Error())
			}
		}
		if err := it.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestIngestBesideWriters writes in the middle of an Ingest's first flush: the
// write is older than the tables and is durable, whatever the log says.
func TestIngestBesideWriters(t *testing.T) {
	mem := vfs.NewMem()
	var db *DB
	armed := false
	fs := vfs.Inject(mem, func(o vfs.Op) error {
		if armed && o.Kind == vfs.OpCreate {
			armed = false
			b := NewBatch()
			b.Set([]byte("a"), []byte("before"))
			b.Set([]byte("b"), []byte("before"))
			if _, err := db.Apply(b, WriteOptions{}); err != nil {
				return err
			}
		}
		return nil
	})
	db = mustOpen(t, tiny(fs, 1))
	table := mustTable(t, mem, "in", set("a", "new"))
	mustSet(t, db, "c", "old")
	armed = true
	if err := db.Ingest([]string{table}); err != nil || armed {
		t.Fatalf("armed %v: %v", armed, err)
	}
	want := map[string]string{"a": "new", "b": "before", "c": "old"}
	if err := compare(db, want); err != nil {
		t.Fatal(err)
	}
	if err := mustSet(t, db, "c", "newer").Wait(); err != nil {
		t.Fatal(err)
	}
	want["c"] = "newer"
	crashed := mem.Crash(vfs.CrashKeepAll, rand.New(rand.NewPCG(1, 1)))
	after, err := Open("db", tiny(crashed, 2))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(compare(after, want), after.Verify(), after.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestIngestConcurrently has writers, readers, compactions and ingests side by
// side. Every ingest overwrites two keys together, as the writers do; a reader
// never sees one without the other, and a snapshot never changes.
func TestIngestConcurrently(t *testing.T) {
	mem := vfs.NewMem()
	opts := tiny(mem, 1)
	opts.Scheduler, opts.Rand, opts.MemTableSize = nil, nil, 16<<10
	db := mustOpen(t, opts)
	pair := func(r reader) (string, error) {
		x, xerr := r.Get(nil, []byte("x"))
		y, yerr := r.Get(nil, []byte("y"))
		if errors.Is(xerr, ErrNotFound) && errors.Is(yerr, ErrNotFound) {
			return "", nil
		}
		if xerr != nil || yerr != nil || string(x) != string(y) {
			return "", fmt.Errorf("x is %q, y is %q: %w", x, y, errors.Join(xerr, yerr))
		}
		return string(x), nil
	}
	const rounds = 40
	var wg sync.WaitGroup
	fail := make(chan error, 8)
	for w := range 2 {
		wg.Go(func() {
			b := NewBatch()
			for i := range 20 * rounds {
				b.Reset()
				v := fmt.Appendf(nil, "writer %d, %d", w, i)
				b.Set([]byte("x"), v)
				b.Set([]byte("y"), v)
				b.Set([]byte(modelKey(i%50)), v)
				if _, err := db.Apply(b, WriteOptions{Sync: i%7 == 0}); err != nil {
					fail <- err
					return
				}
			}
		})
	}
	wg.Go(func() {
		for i := range rounds {
			v := fmt.Sprint("ingest ", i)
			name := fmt.Sprint("in", i)
			err := makeTable(mem, name, uint64(i), []op{set("x", v), set("y", v)})
			if err == nil {
				err = db.Ingest([]string{name})
			}
			if err == nil && i%8 == 0 {
				err = db.Compact(nil, nil)
			}
			if err != nil {
				fail <- err
				return
			}
		}
	})
	done := make(chan struct{})
	var reads sync.WaitGroup
	reads.Go(func() {
		for {
			s := db.Snapshot()
			first, err := pair(s)
			if err == nil {
				var again string
				if again, err = pair(s); err == nil && again != first {
					err = fmt.Errorf("a snapshot changed from %q to %q", first, again)
				}
			}
			s.Close()
			if err != nil {
				fail <- err
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	wg.Wait()
	close(done)
	reads.Wait()
	select {
	case err := <-fail:
		t.Fatal(err)
	default:
	}
	last, err := pair(db)
	if err := errors.Join(err, db.Verify(), db.Close()); err != nil {
		t.Fatal(err)
	}
	again, err := Open("db", tiny(mem, 2))
	if err != nil {
		t.Fatal(err)
	}
	got, err := pair(again)
	if err := errors.Join(err, again.Close()); err != nil || got != last {
		t.Fatalf("%q after reopening, %q before: %v", got, last, err)
	}
}
