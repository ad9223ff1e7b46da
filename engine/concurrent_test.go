package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pairdb/pairdb/engine/cache"
	"github.com/pairdb/pairdb/engine/vfs"
)

// TestFailedSyncIsFinal makes a log sync fail while others wait for it.
func TestFailedSyncIsFinal(t *testing.T) {
	mem := vfs.NewMem()
	var broken atomic.Bool
	var syncs atomic.Int64
	fs := vfs.Inject(mem, func(o vfs.Op) error {
		if broken.Load() && o.Kind == vfs.OpSync && strings.Contains(o.Path, ".wal") {
			syncs.Add(1)
			return syscall.EIO
		}
		return nil
	})
	db := mustOpen(t, Options{FS: fs, CacheSize: -1, MemTableSize: 1 << 20, WALSegmentSize: 1 << 20})
	mustSet(t, db, "before", "1")
	broken.Store(true)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			b := NewBatch()
			b.Set(fmt.Append(nil, i), nil)
			if _, err := db.Apply(b, WriteOptions{Sync: true}); !errors.Is(err, ErrReadOnly) {
				t.Errorf("writer %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n := syncs.Load(); n != 1 {
		t.Errorf("the failed file was synced %d times", n)
	}
	if v, err := db.Get(nil, []byte("before")); string(v) != "1" {
		t.Errorf("read after the failure: %q, %v", v, err)
	}
	for i, err := range []error{db.Flush(), db.Compact(nil, nil)} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

// TestConcurrent has writers, readers, iterators, flushes and compactions go on
// at once; every writer counts up under keys of its own, and nobody may see a
// count go back or a batch in part.
func TestConcurrent(t *testing.T) {
	opts := tiny(vfs.NewMem(), 1)
	opts.Scheduler, opts.Rand, opts.Sleep = nil, nil, func(time.Duration) {}
	opts.MemTableSize, opts.MaxOpenTables, opts.MaxBackgroundJobs = 16<<10, 4, 4
	opts.Cache = cache.New(16 << 10)
	defer opts.Cache.Close()
	db := mustOpen(t, opts)
	const writers = 4
	rounds := 400
	if testing.Short() {
		rounds = 150
	}
	var done atomic.Bool
	var writing, others sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			b := NewBatch()
			var count [8]byte
			for i := range rounds {
				binary.BigEndian.PutUint64(count[:], uint64(i+1))
				b.Reset()
				b.DeleteRange(fmt.Appendf(nil, "w%d-", w), fmt.Appendf(nil, "w%d.", w))
				b.Set(fmt.Appendf(nil, "w%d-a", w), count[:])
				b.Set(fmt.Appendf(nil, "w%d-b%03d", w, i%97), bytes.Repeat(count[:], 20))
				b.Set(fmt.Appendf(nil, "w%d-c", w), count[:])
				c, err := db.Apply(b, WriteOptions{Sync: i%3 == 0})
				if err == nil && i%5 == 0 {
					err = c.Wait()
				}
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	for r := range 2 {
		others.Go(func() {
			var seen [writers]uint64
			for i := 0; !done.Load(); i++ {
				w := (i + r) % writers
				if n, err := readCount(db, w, i%2 == 0); err != nil || n < seen[w] {
					t.Errorf("writer %d: count %d after %d: %v", w, n, seen[w], err)
					return
				} else {
					seen[w] = n
				}
			}
		})
	}
	others.Go(func() {
		rng := rand.New(rand.NewPCG(1, 1))
		for !done.Load() {
			var err error
			switch rng.IntN(3) {
			case 0:
				err = db.Flush()
			case 1:
				err = db.Compact([]byte("w1"), []byte("w2"))
			default:
				err = db.Verify()
			}
			if err != nil {
				t.Error(err)
				return
			}
			_ = db.Metrics()
		}
	})
	writing.Wait()
	done.Store(true)
	others.Wait()
	for w := range writers {
		if n, err := readCount(db, w, true); err != nil || n != uint64(rounds) {
			t.Errorf("writer %d ended at %d of %d: %v", w, n, rounds, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// readCount returns the count of a writer, which its keys agree on.
func readCount(db *DB, w int, snapshot bool) (uint64, error) {
	if !snapshot {
		v, err := db.Get(nil, fmt.Appendf(nil, "w%d-c", w))
		if errors.Is(err, ErrNotFound) {
			return 0, nil
		} else if err != nil {
			return 0, err
		}
		return binary.BigEndian.Uint64(v), nil
	}
	it, err := db.NewIter(fmt.Appendf(nil, "w%d-", w), fmt.Appendf(nil, "w%d.", w))
	if err != nil {
		return 0, err
	}
	defer it.Close()
	var counts []uint64
	for ok := it.First(); ok; ok = it.Next() {
		counts = append(counts, binary.BigEndian.Uint64(it.Value()))
	}
	if err := it.Error(); err != nil || len(counts) == 0 {
		return 0, err
	}
	if len(counts) != 3 || counts[0] != counts[1] || counts[1] != counts[2] {
		return 0, fmt.Errorf("a batch was seen in part: %v", counts)
	}
	return counts[0], nil
}

// TestGroupCommit makes sure that writers that wait together are synced
// together.
func TestGroupCommit(t *testing.T) {
	mem := vfs.NewMem()
	gate := make(chan struct{})
	entered := make(chan struct{}, 16)
	var armed atomic.Bool
	fs := vfs.Inject(mem, func(o vfs.Op) error {
		if armed.Load() && o.Kind == vfs.OpSync {
			entered <- struct{}{}
			<-gate
		}
		return nil
	})
	db := mustOpen(t, Options{FS: fs, CacheSize: -1, MemTableSize: 1 << 20, WALSegmentSize: 1 << 20})
	armed.Store(true)
	var wg sync.WaitGroup
	first := mustSet(t, db, "first", "")
	wg.Go(func() {
		if err := first.Wait(); err != nil {
			t.Error(err)
		}
	})
	<-entered
	const n = 20
	for i := range n {
		c := mustSet(t, db, fmt.Sprint(i), "")
		wg.Go(func() {
			if err := c.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	before := db.Metrics().WALSyncs
	close(gate)
	wg.Wait()
	if got := db.Metrics().WALSyncs - before; got != 2 {
		t.Errorf("%d syncs for the first and %d that waited for it, want 2", got, n)
	}
}
