package engine

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pairdb/pairdb/engine/vfs"
)

// within fails the test unless ch yields in time.
func within[T any](t *testing.T, what string, ch <-chan T) (v T, ok bool) {
	t.Helper()
	select {
	case v = <-ch:
		return v, true
	case <-time.After(30 * time.Second):
		t.Errorf("after 30 s not yet: %s", what)
		return v, false
	}
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); {
		if time.Now().After(end) {
			t.Fatalf("after 30 s not yet: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

// A flush makes everybody who gathers durable and leaves nobody in the list. Whoever
// comes next must not wait for a timer that nobody sets.
func TestGatheringEndsWithAFlush(t *testing.T) {
	var resets atomic.Int32
	db := mustOpen(t, Options{FS: vfs.NewMem(), CacheSize: -1, Timer: func(f func()) Timer { return manualTimer{f, &resets} }})
	db.mu.Lock()
	db.commit.expect, db.commit.patience = 2, time.Millisecond // as after a sync for two
	db.mu.Unlock()

	first := make(chan error, 1)
	c := mustSet(t, db, "a", "1")
	go func() { first <- c.Wait() }()
	waitFor(t, "the first writer gathers", func() bool { return resets.Load() == 1 })
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err, ok := within(t, "the first writer's batch is durable", first); !ok || err != nil {
		t.Fatal(err)
	}
	db.gathered() // the timer, late: nobody waits

	second := make(chan error, 1)
	c = mustSet(t, db, "b", "1")
	go func() { second <- c.Wait() }()
	waitFor(t, "the second writer waits", func() bool {
		db.mu.Lock()
		defer db.mu.Unlock()
		return db.commit.inNext.n == 1 || db.DurableSeq() >= c.Seq()
	})
	if db.DurableSeq() < c.Seq() {
		if n := resets.Load(); n != 2 {
			t.Errorf("the timer was set %d times: the second writer waits for ever", n)
		}
		db.gathered()
	}
	within(t, "the second writer's batch is durable", second)
}

// The log and the manifest fail at the same time.
func TestReadOnlyIsToldOnce(t *testing.T) {
	var armed atomic.Bool
	manifestFailed, inSync := make(chan struct{}), make(chan struct{})
	var once sync.Once
	fs := vfs.Inject(vfs.NewMem(), func(o vfs.Op) error {
		if !armed.Load() || o.Kind != vfs.OpSync {
			return nil
		}
		switch {
		case strings.Contains(o.Path, ".wal"):
			once.Do(func() { close(inSync) })
			<-manifestFailed
			return syscall.EIO
		case strings.Contains(o.Path, "MANIFEST"):
			return syscall.EIO
		}
		return nil
	})
	var told atomic.Int32
	db := mustOpen(t, Options{FS: fs, CacheSize: -1, Events: Events{ReadOnly: func(error) { told.Add(1) }}})
	c := mustSet(t, db, "a", "1")
	armed.Store(true)
	result := make(chan error, 1)
	go func() { result <- c.Wait() }()
	<-inSync
	if err := db.Flush(); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("flush: %v", err)
	}
	close(manifestFailed)
	if err, _ := within(t, "the writer is told", result); !errors.Is(err, ErrReadOnly) {
		t.Errorf("wait: %v", err)
	}
	if n := told.Load(); n != 1 {
		t.Errorf("Events.ReadOnly was called %d times", n)
	}
}

// A compaction that begins while an ingest writes the manifest.
func TestCompactionBeginsDuringAnIngest(t *testing.T) {
	var armed atomic.Bool
	entered, release := make(chan struct{}), make(chan struct{})
	fs := vfs.Inject(vfs.NewMem(), func(o vfs.Op) error {
		if o.Kind == vfs.OpSync && strings.Contains(o.Path, "MANIFEST") && armed.CompareAndSwap(true, false) {
			close(entered)
			<-release
		}
		return nil
	})
	db := mustOpen(t, Options{FS: fs, CacheSize: -1, L0CompactionTrigger: 20})
	flush := func(keys ...string) {
		for _, k := range keys {
			mustSet(t, db, k, "v")
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	flush("a", "c")
	flush("x", "z")
	if err := db.Compact(nil, nil); err != nil {
		t.Fatal(err)
	}
	flush("a", "b")
	flush("y", "z")
	t.Logf("before:\n%s", db.version.Version)
	path := mustTable(t, fs, "in.sst", set("m", "v"))
	armed.Store(true)
	ingested, compacted := make(chan error, 1), make(chan error, 1)
	go func() { ingested <- db.Ingest([]string{path}) }()
	<-entered
	go func() { compacted <- db.Compact(nil, nil) }()
	waitFor(t, "the compaction waits for the manifest, or for the ingest's claim", func() bool {
		db.mu.Lock()
		defer db.mu.Unlock()
		return db.busy.Len() > 0
	})
	close(release)
	if err, _ := within(t, "ingest", ingested); err != nil {
		t.Errorf("ingest: %v", err)
	}
	if err, _ := within(t, "compact", compacted); err != nil {
		t.Errorf("compact: %v", err)
	}
	t.Logf("after:\n%s", db.version.Version)
}

// A disk without room for a table, but with what Open itself needs.
func TestOpenWithoutRoomForTables(t *testing.T) {
	mem := vfs.NewMem()
	opts := Options{FS: mem, CacheSize: -1, MemTableSize: 64 << 10, Scheduler: &queued{}}
	db, err := Open("db", opts)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for len(db.imm) < 2 || db.mem.Len() < 3 {
		mustSet(t, db, fmt.Sprintf("k%04d", n), strings.Repeat("v", 1000))
		n++
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	opts.Scheduler = inline{}
	opts.FS = vfs.Inject(mem, func(o vfs.Op) error {
		if o.Mutates() && strings.Contains(o.Path, tableSuffix) && o.Kind == vfs.OpCreate {
			return syscall.ENOSPC
		}
		return nil
	})
	if db, err = Open("db", opts); err != nil {
		t.Fatalf("the log is whole and its memtables fit in memory: %v", err)
	}
	defer db.Close()
	for i := range n {
		if _, err := db.Get(nil, fmt.Appendf(nil, "k%04d", i)); err != nil {
			t.Fatal(err)
		}
	}
}

// A reader has its state, then an ingest and a write come, then it asks what is
// visible.
func TestViewAcrossAnIngest(t *testing.T) {
	fs := vfs.NewMem()
	db := mustOpen(t, Options{FS: fs, CacheSize: -1})
	path := mustTable(t, fs, "in.sst", set("m", "v"))
	rs := db.acquireState()
	defer rs.release()
	if err := db.Ingest([]string{path}); err != nil {
		t.Fatal(err)
	}
	mustSet(t, db, "n", "v")
	keys := [][]byte{[]byte("m"), []byte("n")}
	var v Values
	v.reset(keys)
	if err := v.fill(rs, keys, db.VisibleSeq()); err != nil {
		t.Fatal(err)
	}
	_, m := v.Get(0)
	_, n := v.Get(1)
	if n && !m {
		t.Error("the view has the write after the ingest and not the ingest")
	}
}
