package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pairdb/pairdb/engine/vfs"
)

// Level 0 is at its stop and not due for compaction yet.
func TestStopBelowPatience(t *testing.T) {
	db := mustOpen(t, Options{FS: vfs.NewMem(), CacheSize: -1, L0CompactionTrigger: 4, L0SlowdownTrigger: 5, L0StopTrigger: 6})
	for i := range 500 {
		mustSet(t, db, fmt.Sprintf("k%04d", i), string(noise(i, 0, 1000)))
	}
	if err := db.Compact(nil, nil); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := NewBatch()
		for range 8 {
			b.Reset()
			b.Set([]byte("k0000"), []byte("v"))
			b.Set([]byte("k0499"), []byte("v"))
			if _, err := db.Apply(b, WriteOptions{}); err != nil {
				t.Log(err)
				return
			}
			if err := db.Flush(); err != nil {
				t.Log(err)
				return
			}
		}
	}()
	if _, ok := within(t, "eight writes and flushes", done); !ok {
		m := db.Metrics()
		t.Errorf("depth %d, score %.2f, stalls %+v", m.L0Depth, m.Levels[0].Score, m.Stalls["level0"])
	}
}

// A segment is being recycled on a disk that hangs: who only looks at memory goes on.
func TestRecycleHoldsUpNobody(t *testing.T) {
	var armed atomic.Bool
	entered, release := make(chan struct{}), make(chan struct{})
	fs := vfs.Inject(vfs.NewMem(), func(o vfs.Op) error {
		if o.Kind == vfs.OpRename && strings.HasSuffix(o.To, ".free") && armed.CompareAndSwap(true, false) {
			close(entered)
			<-release
		}
		return nil
	})
	db := mustOpen(t, Options{FS: fs, CacheSize: -1, WALSegmentSize: 64 << 10, MemTableSize: 4 << 20})
	for i := range 300 {
		mustSet(t, db, fmt.Sprintf("k%04d", i), strings.Repeat("v", 1000))
	}
	armed.Store(true)
	flushed, looked := make(chan error, 1), make(chan struct{})
	go func() { flushed <- db.Flush() }()
	<-entered
	go db.schedule() // as whoever gives back the last hold on a state does
	go func() {
		for range 20 {
			db.Metrics()
		}
		close(looked)
	}()
	within(t, "metrics", looked)
	close(release)
	within(t, "flush", flushed)
}

// A file given to Ingest is a symbolic link.
func TestIngestOfALink(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(dir+"/db", Options{CacheSize: -1, MemTableSize: 1 << 20, WALSegmentSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	w, err := NewTableWriter(dir+"/real.sst", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Set([]byte("m"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir+"/real.sst", dir+"/link.sst"); err != nil {
		t.Fatal(err)
	}
	if err := db.Ingest([]string{dir + "/link.sst"}); err != nil {
		t.Fatal(err)
	}
	names, _ := filepath.Glob(dir + "/db/*.sst")
	for _, name := range names {
		if info, err := os.Lstat(name); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s is %v: the table is gone with the file it names", filepath.Base(name), info.Mode())
		}
	}
}
