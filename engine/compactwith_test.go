package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pairdb/pairdb/engine/vfs"
)

// manyKeys writes n keys twice over, in tables of level 0 that overlap.
func manyKeys(t *testing.T, db *DB, n int) map[string]string {
	t.Helper()
	want := map[string]string{}
	for round := range 2 {
		b := NewBatch()
		for i := range n {
			key, value := fmt.Sprintf("key%05d", i), fmt.Sprintf("%d of round %d", i, round)
			b.Set([]byte(key), []byte(value))
			want[key] = value
		}
		if _, err := db.Apply(b, WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	return want
}

// roomy are options under which nothing is compacted unless asked for.
func roomy(fs vfs.FS) Options {
	opts := tiny(fs, 1)
	opts.MemTableSize, opts.WALSegmentSize, opts.TargetFileSize = 1<<20, 1<<20, 32<<10
	opts.L0CompactionTrigger, opts.L0SlowdownTrigger, opts.L0StopTrigger = 20, 30, 40
	opts.Scheduler = &queued{} // which nobody runs
	return opts
}

// A compaction that is stopped in the middle of a merge leaves nothing behind,
// is no failure of the DB, and can be begun again.
func TestCompactWithStops(t *testing.T) {
	var armed atomic.Bool
	ctx, cancel := context.WithCancel(t.Context())
	fs := vfs.Inject(vfs.NewMem(), func(o vfs.Op) error {
		if armed.Load() && o.Kind == vfs.OpCreate && strings.Contains(o.Path, tableSuffix) {
			cancel()
		}
		return nil
	})
	db := mustOpen(t, roomy(fs))
	want := manyKeys(t, db, 5000)
	armed.Store(true)
	p, err := db.CompactWith(ctx, CompactOptions{})
	if !errors.Is(err, context.Canceled) || p.Merges != 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	armed.Store(false)
	if m := db.Metrics(); m.Compactions != 0 || m.JobErrors != 0 || m.Pools[poolCompact].Busy != 0 {
		t.Errorf("%+v", m)
	}
	if err := errors.Join(checkDir(db), compare(db, want)); err != nil {
		t.Error(err)
	}
	if _, err := db.CompactWith(ctx, CompactOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	var seen []CompactProgress
	p, err = db.CompactWith(t.Context(), CompactOptions{Progress: func(p CompactProgress) { seen = append(seen, p) }})
	if err != nil || p.Merges == 0 || p.Bytes == 0 || len(seen) == 0 || seen[len(seen)-1].Bytes != p.Bytes {
		t.Errorf("%+v, %v; seen %+v", p, err, seen)
	}
	for i, s := range seen {
		if s.Done < 1 || s.Done > s.Tables || i > 0 && (s.Merges < seen[i-1].Merges || s.Level < seen[i-1].Level) {
			t.Errorf("progress %d: %+v", i, s)
		}
	}
	db.removeObsolete() // the job that does it waits
	if err := errors.Join(checkDir(db), compare(db, want), db.Verify(), db.Close()); err != nil {
		t.Error(err)
	}
}

// Only tables that hold keys of the range are merged.
func TestCompactWithRange(t *testing.T) {
	db := mustOpen(t, roomy(vfs.NewMem()))
	want := manyKeys(t, db, 5000)
	if _, err := db.CompactWith(t.Context(), CompactOptions{}); err != nil {
		t.Fatal(err)
	}
	p, err := db.CompactWith(t.Context(), CompactOptions{Start: []byte("nothing"), End: []byte("there")})
	if err != nil || p.Merges != 0 {
		t.Errorf("%+v, %v", p, err)
	}
	if err := errors.Join(compare(db, want), db.Close()); err != nil {
		t.Error(err)
	}
}
