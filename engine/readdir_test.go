package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"testing"

	"github.com/pairdb/pairdb/engine/vfs"
)

// dirContents is all that ReadDir shows of a range.
func dirContents(t *testing.T, fsys vfs.FS, start, end []byte) (out []string, err error) {
	t.Helper()
	err = ReadDir(t.Context(), fsys, "db", start, end, func(key, value []byte) error {
		out = append(out, fmt.Sprintf("%x=%x", key, value))
		return nil
	})
	return out, err
}

// iterated is the same of an open DB.
func iterated(t *testing.T, db *DB, start, end []byte) (out []string) {
	t.Helper()
	it, err := db.NewIter(start, end)
	if err != nil {
		t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		out = append(out, fmt.Sprintf("%x=%x", it.Key(), it.Value()))
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		t.Fatal(err)
	}
	return out
}

// ReadDir shows what Open would, of tables and of a log, and changes nothing.
func TestReadDir(t *testing.T) {
	mem := closedDB(t)
	db, err := Open("db", tiny(mem, 3))
	if err != nil {
		t.Fatal(err)
	}
	var b Batch
	b.Set([]byte("a new key"), []byte("in the log"))
	b.DeleteRange([]byte("k2"), []byte("k4"))
	commit, err := db.Apply(&b, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := commit.Wait(); err != nil {
		t.Fatal(err)
	}
	whole, part := iterated(t, db, nil, nil), iterated(t, db, []byte("k"), []byte("k5"))
	if _, err := dirContents(t, mem, nil, nil); !errors.Is(err, ErrInUse) {
		t.Errorf("of an open DB: %v", err)
	}
	crashed := mem.Crash(vfs.CrashDropUnsynced, nil)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]*vfs.MemFS{"closed": mem, "crashed": crashed} {
		before := filesIn(t, m, "db")
		readOnly := vfs.Inject(m, func(o vfs.Op) error {
			if o.Mutates() || o.Kind == vfs.OpCreate {
				t.Errorf("%s: %s of %s", name, o.Kind, o.Path)
			}
			return nil
		})
		got, err := dirContents(t, readOnly, nil, nil)
		if err != nil || !slices.Equal(got, whole) || len(whole) < 10 {
			t.Errorf("%s: %d keys and not %d, %v", name, len(got), len(whole), err)
		}
		if got, err = dirContents(t, readOnly, []byte("k"), []byte("k5")); err != nil || !slices.Equal(got, part) || len(part) == len(whole) {
			t.Errorf("%s: %d keys of the range and not %d, %v", name, len(got), len(part), err)
		}
		if after := filesIn(t, m, "db"); !maps.Equal(before, after) {
			t.Errorf("%s: the directory has changed", name)
		}
	}
}

func TestReadDirRefuses(t *testing.T) {
	mem := closedDB(t)
	stop := errors.New("enough")
	seen := 0
	if err := ReadDir(t.Context(), mem, "db", nil, nil, func(_, _ []byte) error { seen++; return stop }); !errors.Is(err, stop) || seen != 1 {
		t.Errorf("%v after %d keys", err, seen)
	}
	ctx, cancel := context.WithCancel(t.Context())
	seen = 0
	err := ReadDir(ctx, mem, "db", nil, nil, func(_, _ []byte) error { seen++; cancel(); return nil })
	if !errors.Is(err, context.Canceled) || seen != 1 {
		t.Errorf("cancelled: %v after %d keys", err, seen)
	}
	if err := mem.MkdirAll("empty"); err != nil {
		t.Fatal(err)
	}
	if err := ReadDir(t.Context(), mem, "empty", nil, nil, nil); !errors.Is(err, ErrNoDB) {
		t.Errorf("empty: %v", err)
	}
	for what, spoil := range map[string]func(name string) bool{
		"table": func(name string) bool { return name == "db" },
		"log":   func(name string) bool { return name == "db/"+walDir },
	} {
		m := mem.Crash(vfs.CrashKeepAll, nil)
		for _, dir := range []string{"db", "db/" + walDir} {
			names, err := m.List(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				if _, table := fileNumber(name); spoil(dir) && (table && name[0] != 'M' || dir != "db") {
					if err := m.Remove(dir + "/" + name); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if _, err := dirContents(t, m, nil, nil); !errors.Is(err, ErrCorrupt) && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("no %s: %v", what, err)
		}
	}
}
