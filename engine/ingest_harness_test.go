package engine

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// makeTable writes a file for Ingest: ops in any order, of which the last one of
// each key counts, range deletes being applied before all others.
func makeTable(fs vfs.FS, name string, seed uint64, ops []op) error {
	opts := tiny(fs, seed)
	w, err := NewTableWriter(name, opts)
	if err != nil {
		return err
	}
	last := map[string]op{}
	var ranges []op
	for _, o := range ops {
		if o.kind == base.KindRangeDelete {
			ranges = append(ranges, o)
		} else {
			last[o.key] = o
		}
	}
	slices.SortFunc(ranges, func(a, b op) int { return strings.Compare(a.key, b.key) })
	end := ""
	for _, o := range ranges {
		if o.key = max(o.key, end); o.key < o.val {
			err = errors.Join(err, w.DeleteRange([]byte(o.key), []byte(o.val)))
			end = o.val
		}
	}
	for _, key := range slices.Sorted(maps.Keys(last)) {
		if o := last[key]; o.kind == base.KindSet {
			err = errors.Join(err, w.Set([]byte(key), []byte(o.val)))
		} else {
			err = errors.Join(err, w.Delete([]byte(key)))
		}
	}
	if err != nil {
		return errors.Join(err, w.Abort())
	}
	_, err = w.Finish()
	return err
}

// rangesFirst returns ops in the order in which they count in a table.
func rangesFirst(ops []op) []op {
	out := slices.Clone(ops)
	slices.SortStableFunc(out, func(a, b op) int {
		return int(b.kind/base.KindRangeDelete) - int(a.kind/base.KindRangeDelete)
	})
	return out
}

// randomTables writes up to three files for Ingest that share no key and returns
// their names, which count on from n, and the operations they stand for.
func randomTables(fs vfs.FS, rng *rand.Rand, n *int) (paths []string, ops []op, err error) {
	const window = modelKeys / 3
	first := rng.IntN(3)
	for i := range 1 + rng.IntN(3) {
		*n++
		lo := (first + i) % 3 * window
		var file []op
		for range 1 + rng.IntN(8) {
			k := lo + rng.IntN(window)
			switch r := rng.IntN(10); {
			case r < 6:
				file = append(file, set(modelKey(k), strings.Repeat("i", rng.IntN(60))))
			case r < 8:
				file = append(file, del(modelKey(k)))
			default:
				file = append(file, delRange(modelKey(k), modelKey(min(k+1+rng.IntN(10), lo+window))))
			}
		}
		path := fmt.Sprintf("in%d%s", *n, tableSuffix)
		paths = append(paths, path)
		ops = append(ops, rangesFirst(file)...)
		err = errors.Join(err, makeTable(fs, path, rng.Uint64(), file))
		if rng.IntN(2) == 0 && err == nil {
			err = unsync(fs, path)
		}
	}
	return paths, ops, err
}

// unsync replaces a file by a copy that no power cut survives, as some other
// program may leave it.
func unsync(fs vfs.FS, name string) error {
	b, err := readWhole(fs, name)
	if err == nil {
		err = fs.Remove(name)
	}
	if err != nil {
		return err
	}
	f, err := fs.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

func removeAll(fs vfs.FS, paths []string) (err error) {
	for _, p := range paths {
		err = errors.Join(err, fs.RemoveAll(p))
	}
	return err
}

func set(key, val string) op    { return op{base.KindSet, key, val} }
func del(key string) op         { return op{kind: base.KindDelete, key: key} }
func delRange(lo, hi string) op { return op{base.KindRangeDelete, lo, hi} }

func mustTable(t testing.TB, fs vfs.FS, name string, ops ...op) string {
	t.Helper()
	if err := makeTable(fs, name, uint64(len(name)), ops); err != nil {
		t.Fatal(err)
	}
	return name
}
