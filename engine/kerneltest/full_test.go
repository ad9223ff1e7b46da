package kerneltest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/disk"
	"github.com/pairdb/pairdb/engine/kerneltest"
)

// value is what a key holds after its n-th write: it tells the two apart and
// does not compress.
func value(key, n, size int) []byte {
	rng := rand.New(rand.NewPCG(uint64(key), uint64(n)))
	b := make([]byte, size)
	for i := 0; i+8 <= size; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rng.Uint64())
	}
	return b
}

func key(i int) []byte { return fmt.Appendf(nil, "key%06d", i) }

// writer overwrites keys of its own and knows what was acknowledged of each,
// and what may have been.
type writer struct {
	first, keys int
	acked       []int // number of the write
	tried       []int
}

func newWriter(first, keys int) *writer {
	return &writer{first: first, keys: keys, acked: make([]int, keys), tried: make([]int, keys)}
}

func size(i int) int { return 500 + i%7*500 }

// write writes key i once more.
func (w *writer) write(db *engine.DB, i int) error {
	w.tried[i]++
	b := engine.NewBatch()
	b.Set(key(w.first+i), value(w.first+i, w.tried[i], size(i)))
	_, err := db.Apply(b, engine.WriteOptions{Sync: true})
	if err == nil {
		w.acked[i] = w.tried[i]
	} else if errors.Is(err, engine.ErrDiskFull) || errors.Is(err, engine.ErrDiskThrottled) || errors.Is(err, engine.ErrNoSpace) {
		w.tried[i]-- // nothing was applied
	}
	return err
}

// check reads all keys back.
func (w *writer) check(t *testing.T, db *engine.DB) {
	t.Helper()
	for i := range w.keys {
		v, err := db.Get(nil, key(w.first+i))
		if w.acked[i] == 0 && w.tried[i] == 0 {
			if !errors.Is(err, engine.ErrNotFound) {
				t.Fatalf("key %d: %d bytes, %v; it was never written", w.first+i, len(v), err)
			}
			continue
		}
		if err != nil || !bytes.Equal(v, value(w.first+i, w.acked[i], size(i))) {
			t.Fatalf("key %d: %d bytes, %v; write %d was acknowledged", w.first+i, len(v), err, w.acked[i])
		}
	}
}

// poll waits until f says true.
func poll(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	over := time.After(5 * time.Minute) // some of it takes a thousand syncs
	for !f() {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("after five minutes not yet: %s", what)
		}
	}
}

func open(t *testing.T, l *kerneltest.Loop) *engine.DB {
	t.Helper()
	db, err := engine.Open(filepath.Join(l.Dir, "db"), engine.Options{CacheSize: 4 << 20, CheckInterval: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// TestSmallDiskFillsUpAndIsFreed is the life of an engine on a file system of
// 64 MiB: it is filled up under load until writes are refused, reads go on,
// a ballast file is deleted, writes are taken again by themselves, nothing that
// was acknowledged is lost, neither then nor after a reopening. The second time
// a neighbour fills the disk to the last byte in the middle of it all, so that
// flushes and compactions really fail.
func TestSmallDiskFillsUpAndIsFreed(t *testing.T) {
	l := kerneltest.Mount(t, 64<<20)
	if err := l.Fill("ballast", 36<<20); err != nil {
		t.Fatal(err)
	}
	db := open(t, l)
	const writers, keys = 4, 8000
	var all []*writer
	for i := range writers {
		all = append(all, newWriter(i*keys, keys))
	}
	var acked, refused atomic.Int64
	// load writes until stop says so, each writer through its keys in turn.
	load := func(stop func(err error) bool) {
		var wg sync.WaitGroup
		for _, w := range all {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(w.first), 1))
				pause := time.NewTicker(2 * time.Millisecond) // of a client that was refused
				defer pause.Stop()
				for n := range 200_000 {
					i := n % w.keys
					if n%3 == 0 {
						i = rng.IntN(w.keys)
					}
					err := w.write(db, i)
					if err == nil {
						acked.Add(1)
					} else {
						refused.Add(1)
					}
					if stop(err) {
						return
					}
					if err != nil {
						<-pause.C
					}
				}
				t.Error("the writer was never stopped")
			})
		}
		wg.Wait()
	}
	full := func(err error) bool {
		if err != nil && !errors.Is(err, engine.ErrDiskFull) {
			t.Errorf("refused with %v", err)
		}
		return err != nil
	}
	load(full)
	m := db.Metrics()
	t.Logf("full: %d writes acknowledged, %d refused, %d bytes free of %d, depth %d, %d compactions, %d job errors",
		acked.Load(), refused.Load(), m.Disk.Free, m.Disk.Total, m.L0Depth, m.Compactions, m.JobErrors)
	// Compactions go on, and may have made a little room by now.
	if m.Disk.State < disk.Throttle || m.JobErrors > 0 || m.ReadOnly {
		t.Errorf("%+v, %d job errors, read-only: %v", m.Disk, m.JobErrors, m.ReadOnly)
	}
	for _, w := range all {
		w.check(t, db)
	}

	// Freed: it recovers by itself.
	if err := l.Free("ballast"); err != nil {
		t.Fatal(err)
	}
	poll(t, "there is room", func() bool { return db.Metrics().Disk.State < disk.Throttle })
	before := acked.Load()
	if err := all[0].write(db, 0); err != nil {
		t.Fatalf("after the ballast went: %v", err)
	}
	acked.Add(1)

	// Under load a neighbour takes everything, to the last byte; what was
	// refused is refused until the neighbour leaves, and then no more.
	var phase atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		defer phase.Store(2) // the load ends with it, also if it fails
		poll(t, "the load is under way", func() bool { return acked.Load() > before+3000 })
		if err := l.Fill("neighbour", 0); err != nil {
			t.Log(err) // a flush was quicker; some bytes are left
		}
		from := refused.Load()
		poll(t, "writes are refused", func() bool { return refused.Load() > from+50 })
		if err := l.Fill("neighbour", 4096); err != nil {
			t.Log(err)
		}
		if err := db.Flush(); err != nil && !errors.Is(err, engine.ErrDiskFull) {
			t.Error(err)
		}
		phase.Store(1)
		if err := l.Free("neighbour"); err != nil {
			t.Error(err)
		}
		at := acked.Load()
		poll(t, "writes are taken again", func() bool { return acked.Load() > at+2000 || phase.Load() == 2 })
	})
	load(func(err error) bool {
		switch {
		case err == nil, errors.Is(err, engine.ErrDiskFull), errors.Is(err, engine.ErrDiskThrottled):
			return phase.Load() == 2
		default:
			t.Errorf("refused with %v", err)
			return true
		}
	})
	phase.Store(2)
	wg.Wait()
	m = db.Metrics()
	t.Logf("after the neighbour: %d writes acknowledged, %d refused, %d job errors, %d bytes free", acked.Load(), refused.Load(), m.JobErrors, m.Disk.Free)
	poll(t, "all is flushed that waits", func() bool { return db.Metrics().ImmutableCount == 0 })
	for _, w := range all {
		w.check(t, db)
	}
	if err := db.Verify(); err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, l)
	for _, w := range all {
		w.check(t, again)
	}
	if err := again.Verify(); err != nil {
		t.Error(err)
	}
	if m := again.Metrics(); m.ReadOnly {
		t.Error("read-only after it all")
	}
}
