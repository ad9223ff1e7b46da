package engine

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/engine/vfs"
)

// TestCompactionRate bounds what compactions write, flushes not; Close does not
// wait for the rate.
func TestCompactionRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, Options{
			FS: vfs.NewMem(), CacheSize: -1, CompactionRate: 256 << 10, MemTableSize: 256 << 10,
			L0CompactionTrigger: 2, L0SlowdownTrigger: 100, TargetFileSize: 256 << 10, LBaseBytes: 1 << 20,
		})
		f := &filler{t: t, db: db, size: 1000, has: map[int]int{}}
		start := time.Now()
		if err := f.fill(0, 2000); err != nil {
			t.Fatal(err)
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("writers and flushes took %s of virtual time", d)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		m := db.Metrics()
		if m.CompactionOut == 0 || m.CompactionOut > 31<<18 {
			t.Errorf("%d bytes compacted in %s at 256 KiB a second", m.CompactionOut, time.Since(start))
		}
		if m.CompactionWaits == 0 || m.CompactionWaitTime < 5*time.Second || m.CompactionLimit != 256<<10 {
			t.Errorf("waits %d, %s, limit %d", m.CompactionWaits, m.CompactionWaitTime, m.CompactionLimit)
		}
		if err := f.fill(1, 2000); err != nil {
			t.Fatal(err)
		}
		until(t, "a compaction is under way", func() bool { return db.Metrics().Pools[poolCompact].Busy > 0 })
		start = time.Now()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("Close took %s", d)
		}
	})
}

// TestCompactionYieldsToSlowSyncs slows the log's syncs down while a compaction
// runs: it is paced, and no longer when writers stop.
func TestCompactionYieldsToSlowSyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var latency atomic.Int64
		latency.Store(int64(time.Millisecond))
		fs := vfs.Inject(vfs.NewMem(), func(o vfs.Op) error {
			switch {
			case o.Kind == vfs.OpSync && strings.Contains(o.Path, ".wal"):
				time.Sleep(time.Duration(latency.Load()))
			case o.Kind == vfs.OpWrite && strings.Contains(o.Path, tableSuffix):
				time.Sleep(time.Duration(o.Bytes) * time.Second / (20 << 20)) // 20 MiB/s
			}
			return nil
		})
		db := mustOpen(t, Options{FS: fs, CacheSize: -1, MemTableSize: 2 << 20, L0CompactionTrigger: 4, L0SlowdownTrigger: 100})
		b := NewBatch()
		load := func(n int, sync bool) {
			for i := range n {
				b.Reset()
				b.Set(fmt.Appendf(nil, "key%08d", i*7919%1000003), noise(i, 0, 1000))
				if _, err := db.Apply(b, WriteOptions{Sync: sync}); err != nil {
					t.Fatal(err)
				}
			}
		}
		load(20000, false) // nobody waits for syncs
		time.Sleep(time.Minute)
		synctest.Wait()
		if m := db.Metrics(); m.Compactions == 0 || m.CompactionWaits != 0 {
			t.Fatalf("bulk load: %d compactions waited %d times", m.Compactions, m.CompactionWaits)
		}
		latency.Store(int64(40 * time.Millisecond))
		load(20000, true)
		m := db.Metrics()
		if m.CompactionWaits == 0 {
			t.Errorf("%d compactions never waited for slow syncs", m.Compactions)
		}
		t.Logf("%d compactions waited %d times, %s in all", m.Compactions, m.CompactionWaits, m.CompactionWaitTime)
		if m.L0Depth >= 100 {
			t.Errorf("depth %d: compactions were slowed down too much", m.L0Depth)
		}
	})
}
