package vfs_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/pairdb/pairdb/engine/vfs"
)

// TestConcurrentUse has writers, readers and crashes at once; the race detector
// is the judge, and every crashed disk must hold whole sectors.
func TestConcurrentUse(t *testing.T) {
	m := vfs.NewMem()
	must(t, m.MkdirAll("d"))
	must(t, m.SyncDir(""))
	block := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, 4096) }
	var wg sync.WaitGroup
	for i := range 3 {
		name := fmt.Sprint("d/f", i)
		f := create(t, m, name, "")
		r, err := m.Open(name)
		must(t, err)
		wg.Go(func() {
			for range 50 {
				if _, err := f.Write(block(i)); err != nil {
					t.Error(err)
				}
				if err := f.Sync(); err != nil {
					t.Error(err)
				}
				if err := m.SyncDir("d"); err != nil {
					t.Error(err)
				}
			}
		})
		for range 2 {
			wg.Go(func() {
				buf := make([]byte, 4096)
				for range 100 {
					if n, _ := r.ReadAt(buf, 0); n == 4096 && !bytes.Equal(buf, block(i)) {
						t.Error("a reader saw another file's bytes")
					}
				}
			})
		}
	}
	wg.Go(func() {
		rng := newRand(1)
		for k := range 100 {
			c := m.Crash(vfs.CrashModes()[k%11], rng)
			names, err := c.List("d")
			if err != nil {
				t.Error(err)
			}
			for _, name := range names {
				if info, err := c.Stat("d/" + name); err != nil || info.Size%512 != 0 {
					t.Errorf("Stat(%s) = %+v, %v", name, info, err)
				}
			}
		}
	})
	wg.Wait()
}
