package engine

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/engine/vfs"
)

// TestStalledDiskIsReported makes calls hang: what is longer than StallAfter is
// reported once, its end too, and the DB works on.
func TestStalledDiskIsReported(t *testing.T) {
	for _, c := range []struct {
		hang    vfs.OpKind
		part    string
		seconds int
		report  bool
	}{
		{vfs.OpSync, ".wal", 9, false},
		{vfs.OpSync, ".wal", 25, true},
		{vfs.OpWrite, ".wal", 25, true},
		{vfs.OpSync, tableSuffix + tempSuffix, 25, true},
		{vfs.OpRead, "db", 25, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			var hang atomic.Bool
			fs := vfs.Inject(vfs.NewMem(), func(o vfs.Op) error {
				if o.Kind == c.hang && strings.Contains(o.Path, c.part) && hang.CompareAndSwap(true, false) {
					time.Sleep(time.Duration(c.seconds) * time.Second)
				}
				return nil
			})
			var mu sync.Mutex
			var events []string
			note := func(what string) func(vfs.Pending) {
				return func(p vfs.Pending) {
					mu.Lock()
					defer mu.Unlock()
					events = append(events, fmt.Sprintf("%s %s %s", what, p.Op, p.File))
					if p.Age < 10*time.Second || p.Age > 26*time.Second {
						t.Errorf("%s after %s", what, p.Age)
					}
				}
			}
			db := mustOpen(t, Options{
				FS: fs, CacheSize: -1,
				Events: Events{DiskStalled: note("stalled"), DiskRecovered: note("recovered")},
			})
			mustSet(t, db, "k", "v")
			hang.Store(true)
			start := time.Now()
			done := make(chan struct{})
			go func() {
				defer close(done)
				if err := mustSet(t, db, "k", "w").Wait(); err != nil {
					t.Error(err)
				}
				if err := db.Flush(); err != nil {
					t.Error(err)
				}
			}()
			time.Sleep(12 * time.Second)
			synctest.Wait()
			m := db.Metrics().Disk
			if stalled := m.Stalled > 0; stalled != c.report {
				t.Errorf("%s %s for %d s: stalled %s after 12 s", c.hang, c.part, c.seconds, m.Stalled)
			}
			if v, err := db.Get(nil, []byte("k")); err != nil || len(v) != 1 {
				t.Errorf("read while the disk hangs: %q, %v", v, err)
			}
			<-done
			time.Sleep(time.Minute - time.Since(start))
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			want := 0
			if c.report {
				want = 2
			}
			if len(events) != want || want == 2 && (!strings.HasPrefix(events[0], "stalled") || events[1] != "recovered"+strings.TrimPrefix(events[0], "stalled")) {
				t.Errorf("%s %s for %d s: events %q", c.hang, c.part, c.seconds, events)
			}
			if m := db.Metrics().Disk; m.Stalled != 0 || m.Stalls != int64(want/2) {
				t.Errorf("%s %s for %d s: %+v at the end", c.hang, c.part, c.seconds, m)
			}
		})
	}
}
