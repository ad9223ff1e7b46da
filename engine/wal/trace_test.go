package wal

import (
	"slices"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/engine/vfs"
)

// TestTrace pins the file operations and their order: what a commit costs and
// what a rotation relies on.
func TestTrace(t *testing.T) {
	var trace []string
	fs := vfs.Inject(memDir(t), func(op vfs.Op) error {
		if op.Mutates() {
			trace = append(trace, strings.ReplaceAll(op.String(), "wal/", ""))
		}
		return nil
	})
	want := func(what string, ops ...string) {
		t.Helper()
		if !slices.Equal(trace, ops) {
			t.Errorf("%s: %q, want %q", what, trace, ops)
		}
		trace = nil
	}
	w, err := Create(testOptions(fs), 1)
	must(t, err)
	want("create", "create 000001.wal.tmp", "preallocate 000001.wal.tmp 8192", "write 000001.wal.tmp 64",
		"sync 000001.wal.tmp", "rename 000001.wal.tmp -> 000001.wal", "syncdir wal")
	must(t, w.Append([]byte("x")))
	want("append")
	must(t, w.Append(make([]byte, 200)))
	must(t, w.Commit())
	want("commit", "write 000001.wal.tmp 240", "sync 000001.wal.tmp")
	must(t, w.Commit())
	want("commit of nothing")
	must(t, w.Append([]byte("x")))
	must(t, w.CommitNoSync())
	want("commit without sync", "write 000001.wal.tmp 40")
	must(t, w.Rotate(2))
	want("rotate", "sync 000001.wal.tmp", "create 000002.wal.tmp", "preallocate 000002.wal.tmp 8192",
		"write 000002.wal.tmp 64", "sync 000002.wal.tmp", "rename 000002.wal.tmp -> 000002.wal", "syncdir wal")
	must(t, w.Recycle(1))
	want("recycle", "rename 000001.wal -> 000001.wal.free")
	must(t, w.Rotate(3))
	want("rotate into a recycled segment", "reuse 000001.wal.free -> 000003.wal.tmp", "write 000003.wal.tmp 64",
		"sync 000003.wal.tmp", "rename 000003.wal.tmp -> 000003.wal", "syncdir wal")
	must(t, w.Append(make([]byte, 10000)))
	must(t, w.Commit())
	want("commit beyond the end", "preallocate 000003.wal.tmp 8192", "write 000003.wal.tmp 10040", "sync 000003.wal.tmp")
	must(t, w.Remove(2))
	want("remove", "remove 000002.wal")
	must(t, w.Close())
	want("close", "write 000003.wal.tmp 32", "sync 000003.wal.tmp")
	stats, err := Replay(fs, "wal", []uint64{3}, func(uint64, []byte) error { return nil })
	must(t, err)
	want("replay", "sync 000003.wal")
	_, err = Verify(fs, "wal", []uint64{3})
	must(t, err)
	want("verify")
	opts := testOptions(fs)
	opts.Prev = stats.End
	w, err = Create(opts, 4)
	must(t, err)
	must(t, w.Close())
	trace = nil
}

// nullFile swallows writes.
type nullFile struct{ vfs.File }

func (nullFile) Write(p []byte) (int, error) { return len(p), nil }
func (nullFile) Sync() error                 { return nil }

func TestCommitDoesNotAllocate(t *testing.T) {
	opts := testOptions(memDir(t))
	opts.SegmentSize = 16 << 20
	w, err := Create(opts, 1)
	must(t, err)
	w.file = nullFile{w.file}
	payload := make([]byte, 1000)
	allocs := testing.AllocsPerRun(500, func() {
		for range 8 {
			if err := w.Append(payload); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("a commit of 8 records makes %v allocations", allocs)
	}
	must(t, w.Close())
}
