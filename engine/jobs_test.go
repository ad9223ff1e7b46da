package engine

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pairdb/pairdb/engine/vfs"
)

// TestPanicInJobEndsWriting makes a flush and a compaction panic: the process
// goes on, reads are answered, writers are told, Close returns.
func TestPanicInJobEndsWriting(t *testing.T) {
	for _, pool := range []string{poolFlush, poolCompact} {
		for _, live := range []bool{false, true} {
			var armed atomic.Bool
			fs := vfs.Inject(vfs.NewMem(), func(o vfs.Op) error {
				if o.Kind == vfs.OpCreate && strings.Contains(o.Path, tableSuffix) && armed.Load() {
					panic("out of luck")
				}
				return nil
			})
			opts := tiny(fs, 1)
			opts.L0CompactionTrigger, opts.L0SlowdownTrigger, opts.L0StopTrigger = 20, 30, 40
			if live {
				opts.Scheduler, opts.Rand = nil, nil
			}
			var log bytes.Buffer
			var mu sync.Mutex
			opts.Logger = slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
				mu.Lock()
				defer mu.Unlock()
				return log.Write(p)
			}), nil))
			db := mustOpen(t, opts)
			mustSet(t, db, "k", "v")
			var err error
			if pool == poolCompact {
				for range 2 {
					mustSet(t, db, "k", "v")
					if err := db.Flush(); err != nil {
						t.Fatal(err)
					}
				}
				armed.Store(true)
				err = db.Compact(nil, nil)
			} else {
				armed.Store(true)
				err = db.Flush()
			}
			if !errors.Is(err, ErrReadOnly) {
				t.Errorf("%s: %v", pool, err)
			}
			b := NewBatch()
			b.Set([]byte("k"), []byte("w"))
			if _, err := db.Apply(b, WriteOptions{}); !errors.Is(err, ErrReadOnly) {
				t.Errorf("%s: write after the panic: %v", pool, err)
			}
			if v, err := db.Get(nil, []byte("k")); string(v) != "v" {
				t.Errorf("%s: read after the panic: %q, %v", pool, v, err)
			}
			if n := db.Metrics().Pools[pool].Panics; n != 1 {
				t.Errorf("%s: %d panics counted", pool, n)
			}
			if err := db.Close(); err != nil {
				t.Errorf("%s: close: %v", pool, err)
			}
			mu.Lock()
			if !strings.Contains(log.String(), "out of luck") || !strings.Contains(log.String(), "output.go") {
				t.Errorf("%s: the log lacks the cause or the stack: %s", pool, log.String())
			}
			mu.Unlock()
		}
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestPoolsAreBounded hands over more jobs than there are workers.
func TestPoolsAreBounded(t *testing.T) {
	p := newPools(map[string]int{poolCompact: 3})
	var now, most, done atomic.Int64
	gate := make(chan struct{})
	var entered sync.WaitGroup
	entered.Add(4)
	job := func() {
		for n := now.Add(1); ; {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		if done.Load() == 0 {
			entered.Done()
			<-gate
		}
		now.Add(-1)
		done.Add(1)
	}
	for range 3 {
		p.Go(poolCompact, job)
	}
	p.Go(poolFlush, job) // a flush does not wait behind compactions
	entered.Wait()
	if most.Load() != 4 {
		t.Errorf("%d jobs at once, want 3 of one pool and 1 of the other", most.Load())
	}
	var ran atomic.Int64
	for range 20 {
		p.Go(poolCompact, func() { ran.Add(1) })
	}
	if ran.Load() != 0 {
		t.Error("a job ran beyond the bound")
	}
	close(gate)
	p.wait()
	if ran.Load() != 20 {
		t.Errorf("%d of 20 jobs ran", ran.Load())
	}
}

// TestFlushDoesNotWaitForCompaction stops a compaction midway and flushes.
func TestFlushDoesNotWaitForCompaction(t *testing.T) {
	gate, entered := make(chan struct{}), make(chan struct{}, 16)
	var armed atomic.Bool
	fs := vfs.Inject(vfs.NewMem(), func(o vfs.Op) error {
		if armed.Load() && o.Kind == vfs.OpCreate && strings.Contains(o.Path, tableSuffix) && armed.CompareAndSwap(true, false) {
			entered <- struct{}{}
			<-gate
		}
		return nil
	})
	opts := tiny(fs, 1)
	opts.Scheduler, opts.Rand, opts.MaxBackgroundJobs = nil, nil, 1
	opts.L0CompactionTrigger, opts.L0SlowdownTrigger, opts.L0StopTrigger = 20, 30, 40
	db := mustOpen(t, opts)
	for i := range 3 {
		mustSet(t, db, "k", fmt.Sprint(i))
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	armed.Store(true)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := db.Compact(nil, nil); err != nil {
			t.Error(err)
		}
	})
	<-entered
	mustSet(t, db, "l", "1")
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	if m := db.Metrics(); m.Levels[0].Files != 4 || m.Pools[poolCompact].Busy != 1 {
		t.Errorf("%d tables in level 0, %d compactions busy", m.Levels[0].Files, m.Pools[poolCompact].Busy)
	}
	close(gate)
	wg.Wait()
	if m := db.Metrics(); m.Levels[0].Files != 1 {
		t.Errorf("%d tables in level 0 after the compaction", m.Levels[0].Files)
	}
}
