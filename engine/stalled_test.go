package engine

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/engine/vfs"
)

// TestStalledDiskIsReported makes calls hang: what is longer than SlowAfter, or for
// calls that nobody waits for StallAfter, is reported once, its end too, and the
// DB works on.
func TestStalledDiskIsReported(t *testing.T) {
	for _, c := range []struct {
		hang    vfs.OpKind
		part    string
		seconds int
		after   int // seconds; 0: it is not reported
	}{
		{vfs.OpSync, ".wal", 1, 0},
		{vfs.OpSync, ".wal", 13, 2},
		{vfs.OpWrite, ".wal", 13, 2},
		{vfs.OpSync, tableSuffix + tempSuffix, 9, 0},
		{vfs.OpSync, tableSuffix + tempSuffix, 25, 10},
		{vfs.OpRead, "db", 25, 10},
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
					if p.Age < time.Duration(c.after)*time.Second || what == "stalled" && p.Age > time.Duration(c.after+1)*time.Second || p.Age > 26*time.Second {
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
			if stalled := m.Stalled > 0; stalled != (c.after > 0) {
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
			if c.after > 0 {
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

// TestStallRule: when the disk counts as one that does not answer, step by step.
func TestStallRule(t *testing.T) {
	const s = time.Second
	logSync := func(age time.Duration) vfs.Pending { return vfs.Pending{Op: vfs.OpSync, File: vfs.FileLog, Age: age} }
	type step struct {
		at     time.Duration
		waited time.Duration // age of the oldest call that somebody waits for
		oldest time.Duration
		out    bool
	}
	for name, steps := range map[string][]step{
		"short calls": {{0, 0, 0, false}, {s, s, s, false}, {2 * s, 1900 * time.Millisecond, 9 * s, false}},
		"one long call, back at once": {
			{0, 0, 0, false}, {s, s, s, false}, {2 * s, 2 * s, 2 * s, true}, {3 * s, 3 * s, 3 * s, true}, {3200 * time.Millisecond, 0, 0, false},
		},
		"a call that nobody waits for": {{0, 0, 9 * s, false}, {s, 0, 10 * s, true}, {2 * s, 0, 0, false}},
		"again while on trial": {
			{0, 2 * s, 2 * s, true},
			{s, 0, 0, false},
			// The next call is out after two thirds of a second, and its end is not enough.
			{2 * s, 600 * time.Millisecond, 0, false},
			{2100 * time.Millisecond, 700 * time.Millisecond, 0, true},
			{4 * s, 0, 0, true},
			{5 * s, 0, 0, true},
			{6 * s, 0, 0, false},
		},
		"a call in the pause begins it anew": {
			{0, 2 * s, 2 * s, true}, {s, 0, 0, false}, {2 * s, s, s, true}, {3 * s, 0, 0, true}, {4 * s, s, s, true}, {5 * s, 0, 0, true}, {7 * s, 0, 0, false},
		},
		"the trial ends": {
			{0, 2 * s, 2 * s, true}, {s, 0, 0, false}, {11 * s, 0, 0, false}, {12 * s, 0, 0, false}, {21500 * time.Millisecond, 0, 0, false}, {22 * s, s, s, false},
		},
		"a process that did not run":             {{0, 0, 0, false}, {30 * s, 30 * s, 30 * s, false}, {30100 * time.Millisecond, 0, 0, false}},
		"a process that did not run, and a disk": {{0, 0, 0, false}, {30 * s, 30 * s, 30 * s, false}, {30100 * time.Millisecond, 30 * s, 30 * s, true}},
	} {
		r := stallRule{slow: 2 * s, stall: 10 * s}
		begin := time.Unix(1000, 0)
		for i, st := range steps {
			r.judge(begin.Add(st.at), logSync(st.oldest), logSync(st.waited))
			if r.out != st.out {
				t.Errorf("%s: step %d: out %v, want %v", name, i, r.out, st.out)
			}
		}
	}
}

// TestStalledDiskRefusesWrites: once a sync of the log hangs, new writes and those
// that wait for room are refused and have done nothing; reads go on; when the
// disk answers again writes are taken, and what was visible becomes durable.
func TestStalledDiskRefusesWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var armed atomic.Bool
		hang := make(chan struct{})
		db := mustOpen(t, Options{CacheSize: -1, FS: vfs.Inject(vfs.NewMem(), func(o vfs.Op) error {
			if o.Kind == vfs.OpSync && strings.Contains(o.Path, ".wal") && armed.CompareAndSwap(true, false) {
				<-hang
			}
			return nil
		})})
		mustSet(t, db, "k", "v")
		armed.Store(true)
		visible := mustSet(t, db, "k", "w")
		waiter := make(chan error, 1)
		go func() { waiter <- visible.Wait() }()
		synctest.Wait()
		// More than may be pending, so that the last one waits for room.
		room := make(chan error, 1)
		go func() {
			for {
				var b Batch
				b.Set([]byte("large"), make([]byte, maxPending/2))
				if _, err := db.Apply(&b, WriteOptions{}); err != nil {
					room <- err
					return
				}
			}
		}()
		synctest.Wait()
		if writes, reads := db.Hangs(); writes || reads {
			t.Error("it hangs at once")
		}
		time.Sleep(2500 * time.Millisecond)
		synctest.Wait()
		if writes, reads := db.Hangs(); !writes || reads {
			t.Errorf("hangs: writes %v, reads %v after 2.5 s", writes, reads)
		}
		select {
		case err := <-room:
			if !errors.Is(err, ErrStalled) {
				t.Errorf("a write that waits for room: %v", err)
			}
		default:
			t.Error("a write that waits for room still does")
		}
		seq := db.VisibleSeq()
		var b Batch
		b.Set([]byte("k"), []byte("x"))
		if _, err := db.Apply(&b, WriteOptions{}); !errors.Is(err, ErrStalled) {
			t.Errorf("a write while the disk hangs: %v", err)
		}
		if v, err := db.Get(nil, []byte("k")); err != nil || string(v) != "w" || db.VisibleSeq() != seq {
			t.Errorf("read %q, %v; visible %d, was %d", v, err, db.VisibleSeq(), seq)
		}
		close(hang)
		if err := <-waiter; err != nil {
			t.Errorf("the write under way: %v", err)
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if err := mustSet(t, db, "k", "y").Wait(); err != nil {
			t.Errorf("a write afterwards: %v", err)
		}
	})
}

// TestHangingReadIsTold: reads of tables that hang are told apart.
func TestHangingReadIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var armed atomic.Bool
		hang := make(chan struct{})
		db := mustOpen(t, Options{CacheSize: -1, FS: vfs.Inject(vfs.NewMem(), func(o vfs.Op) error {
			if o.Kind == vfs.OpRead && strings.HasSuffix(o.Path, tableSuffix) && armed.CompareAndSwap(true, false) {
				<-hang
			}
			return nil
		})})
		mustSet(t, db, "k", "v")
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
		armed.Store(true)
		read := make(chan error, 1)
		go func() {
			_, err := db.Get(nil, []byte("k"))
			read <- err
		}()
		time.Sleep(2500 * time.Millisecond)
		synctest.Wait()
		if writes, reads := db.Hangs(); !writes || !reads {
			t.Errorf("hangs: writes %v, reads %v", writes, reads)
		}
		close(hang)
		if err := <-read; err != nil {
			t.Error(err)
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if writes, reads := db.Hangs(); writes || reads {
			t.Errorf("hangs: writes %v, reads %v after the end", writes, reads)
		}
	})
}
