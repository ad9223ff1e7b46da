package engine

import (
	"errors"
	"maps"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/sstable"
	"github.com/pairdb/pairdb/engine/vfs"
)

// FuzzIngest gives files of any contents to a DB: they are refused with a typed
// error and leave no trace, or the DB is sound with them, before and after they
// are merged with what was there. Unless the first byte is 0, the rest is a list
// of entries that a writer makes a table of.
func FuzzIngest(f *testing.F) {
	mem := vfs.NewMem()
	for name, ops := range map[string][]op{
		"points": {set("a", "1"), set("b", "2"), del("c")},
		"ranges": {delRange("a", "c"), delRange("x", "y"), set("b", "1")},
		"none":   {},
	} {
		b, err := readWhole(mem, mustTable(f, mem, name, ops...))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append([]byte{0}, b...))
		f.Add(append([]byte{0}, b[:len(b)-1]...))
	}
	f.Add([]byte("\x01\x11\x21a12\x21\x12bb2\x12\x11cd"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		mem := vfs.NewMem()
		opts := tiny(mem, 1)
		db, err := Open("db", opts)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		mustSet(t, db, "b", "old")
		mustSet(t, db, "m", "old")
		old := map[string]string{"b": "old", "m": "old"}
		if err := fuzzFile(mem, b); err != nil {
			t.Fatal(err)
		}
		if err := db.Ingest([]string{"in"}); err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrIngest) {
				t.Fatalf("untyped: %v", err)
			}
			if err := errors.Join(compare(db, old), checkDir(db)); err != nil {
				t.Fatal(err)
			}
			return
		}
		state, err := contents(db)
		if err := errors.Join(err, compare(db, state), db.Verify(), db.Compact(nil, nil), compare(db, state), db.Verify()); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := Open("db", tiny(mem, 2))
		if err != nil {
			t.Fatal(err)
		}
		got, err := contents(again)
		if err := errors.Join(err, again.Close()); err != nil || !maps.Equal(got, state) {
			t.Fatalf("%d keys after reopening, %d before: %v", len(got), len(state), err)
		}
	})
}

// fuzzFile writes the file in.
func fuzzFile(fs vfs.FS, b []byte) error {
	f, err := fs.Create("in")
	if err != nil {
		return err
	}
	if b[0] == 0 {
		_, err := f.Write(b[1:])
		return errors.Join(err, f.Close())
	}
	w := sstable.NewWriter(f, sstable.WriterOptions{Nonce: 7, BlockSize: 64})
	for rest := b[1:]; len(rest) > 1; {
		// A kind, a number, and the lengths of a key and a value or end. What
		// the writer refuses is left out.
		kind, seq := base.Kind(1+rest[0]%3), base.SeqNum(rest[0]>>4)
		n, m := int(rest[1]&15), int(rest[1]>>4)
		rest = rest[2:]
		key := rest[:min(n, len(rest))]
		rest = rest[len(key):]
		val := rest[:min(m, len(rest))]
		rest = rest[len(val):]
		if kind == base.KindRangeDelete {
			err = w.AddRangeDel(base.RangeDel{Start: key, End: val, Seq: seq})
		} else {
			_ = w.Add(base.MakeInternalKey(key, seq, kind), val) // refused if out of order
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
	}
	_, err = w.Finish()
	return errors.Join(err, f.Close())
}

func contents(db *DB) (map[string]string, error) {
	it, err := db.NewIter(nil, nil)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for ok := it.First(); ok; ok = it.Next() {
		out[string(it.Key())] = string(it.Value())
	}
	return out, it.Close()
}
