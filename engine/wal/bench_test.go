package wal

import (
	"testing"

	"github.com/pairdb/pairdb/engine/vfs"
)

// BenchmarkCommit frames a group of 8 records of 100 bytes; the file swallows
// it.
func BenchmarkCommit(b *testing.B) {
	opts := testOptions(memDir(b))
	w, err := Create(opts, 1)
	must(b, err)
	w.file = nullFile{w.file}
	w.allocated = 1 << 62
	payload := make([]byte, 100)
	b.SetBytes(800)
	b.ReportAllocs()
	for b.Loop() {
		for range 8 {
			if err := w.Append(payload); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCommitDisk is one record of 100 bytes per group on a real disk.
func BenchmarkCommitDisk(b *testing.B) {
	w, err := Create(Options{FS: vfs.OS(), Dir: b.TempDir()}, 1)
	must(b, err)
	payload := make([]byte, 100)
	for b.Loop() {
		if err := w.Append(payload); err != nil {
			b.Fatal(err)
		}
		if err := w.Commit(); err != nil {
			b.Fatal(err)
		}
	}
	must(b, w.Close())
}

// BenchmarkScan looks for headers in a segment that is not in use.
func BenchmarkScan(b *testing.B) {
	opts := testOptions(memDir(b))
	opts.SegmentSize = 64 << 20
	w, err := Create(opts, 1)
	must(b, err)
	must(b, w.Close())
	b.SetBytes(opts.SegmentSize)
	for b.Loop() {
		if _, err := Verify(opts.FS, opts.Dir, []uint64{1}); err != nil {
			b.Fatal(err)
		}
	}
}
