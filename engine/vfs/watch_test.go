package vfs_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/engine/vfs"
)

// TestWatchSeesEveryCall makes each kind of call hang in turn and looks.
func TestWatchSeesEveryCall(t *testing.T) {
	calls := []struct {
		op   vfs.OpKind
		file vfs.FileKind
		do   func(fsys vfs.FS, f vfs.File) error
	}{
		{vfs.OpCreate, vfs.FileTable, func(fsys vfs.FS, _ vfs.File) error { _, err := fsys.Create("d/1.sst.tmp"); return err }},
		{vfs.OpReuse, vfs.FileLog, func(fsys vfs.FS, _ vfs.File) error { _, err := fsys.Reuse("d/1.wal", "d/2.wal.tmp"); return err }},
		{vfs.OpRead, vfs.FileLog, func(fsys vfs.FS, _ vfs.File) error { _, err := fsys.Open("d/1.wal"); return err }},
		{vfs.OpRead, vfs.FileLog, func(fsys vfs.FS, _ vfs.File) error { _, err := fsys.OpenAppend("d/1.wal"); return err }},
		{vfs.OpRename, vfs.FileManifest, func(fsys vfs.FS, _ vfs.File) error { return fsys.Rename("d/1.wal", "d/CURRENT") }},
		{vfs.OpLink, vfs.FileTable, func(fsys vfs.FS, _ vfs.File) error { return fsys.Link("d/1.wal", "d/3.sst") }},
		{vfs.OpRemove, vfs.FileLog, func(fsys vfs.FS, _ vfs.File) error { return fsys.Remove("d/1.wal") }},
		{vfs.OpRemove, vfs.FileDir, func(fsys vfs.FS, _ vfs.File) error { return fsys.RemoveAll("d") }},
		{vfs.OpMkdir, vfs.FileDir, func(fsys vfs.FS, _ vfs.File) error { return fsys.MkdirAll("e") }},
		{vfs.OpSyncDir, vfs.FileDir, func(fsys vfs.FS, _ vfs.File) error { return fsys.SyncDir("d") }},
		{vfs.OpRead, vfs.FileDir, func(fsys vfs.FS, _ vfs.File) error { _, err := fsys.List("d"); return err }},
		{vfs.OpRead, vfs.FileOther, func(fsys vfs.FS, _ vfs.File) error { _, err := fsys.Stat("d/x"); return err }},
		{vfs.OpCreate, vfs.FileOther, func(fsys vfs.FS, _ vfs.File) error { _, err := fsys.Lock("d/LOCK"); return err }},
		{vfs.OpRead, vfs.FileDir, func(fsys vfs.FS, _ vfs.File) error { _, err := fsys.DiskUsage("d"); return err }},
		{vfs.OpRead, vfs.FileLog, func(_ vfs.FS, f vfs.File) error { _, err := f.ReadAt(make([]byte, 1), 0); return err }},
		{vfs.OpWrite, vfs.FileLog, func(_ vfs.FS, f vfs.File) error { _, err := f.Write([]byte("x")); return err }},
		{vfs.OpSync, vfs.FileLog, func(_ vfs.FS, f vfs.File) error { return f.Sync() }},
		{vfs.OpPreallocate, vfs.FileLog, func(_ vfs.FS, f vfs.File) error { return f.Preallocate(0, 10) }},
		{vfs.OpTruncate, vfs.FileLog, func(_ vfs.FS, f vfs.File) error { return f.Truncate(1) }},
		{vfs.OpRead, vfs.FileLog, func(_ vfs.FS, f vfs.File) error { _, err := f.Size(); return err }},
	}
	for _, c := range calls {
		synctest.Test(t, func(t *testing.T) {
			var gate chan struct{}
			broken := errors.New("broken")
			var fail error
			w := vfs.NewWatch(vfs.Inject(vfs.NewMem(), func(vfs.Op) error {
				if gate != nil {
					<-gate
				}
				return fail
			}), time.Now)
			must(t, w.MkdirAll("d"))
			f := create(t, w, "d/1.wal", "abc")
			defer f.Close()
			if p, ok := w.Look(); ok {
				t.Fatalf("%s of a %s: before it, %+v is under way", c.op, c.file, p)
			}
			gate, fail = make(chan struct{}), broken
			done := make(chan error, 1)
			go func() { done <- c.do(w, f) }()
			synctest.Wait()
			time.Sleep(7 * time.Second)
			want := vfs.Pending{Op: c.op, File: c.file, Age: 7 * time.Second}
			if p, ok := w.Look(); !ok || p.Op != want.Op || p.File != want.File || p.Age != want.Age {
				t.Errorf("%v, %v is under way, want %v", p, ok, want)
			}
			close(gate)
			if err := <-done; !errors.Is(err, broken) {
				t.Errorf("%s of a %s: %v", c.op, c.file, err)
			}
			if p, ok := w.Look(); ok {
				t.Errorf("%s of a %s: after it, %+v is under way", c.op, c.file, p)
			}
			gate, fail = nil, nil
		})
	}
}

// TestWatchBeyondItsSlots: calls that find no slot are made all the same, and a
// panic gives its slot back.
func TestWatchBeyondItsSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		hang, blow := true, false
		w := vfs.NewWatch(vfs.Inject(vfs.NewMem(), func(vfs.Op) error {
			if hang {
				<-gate
			}
			if blow {
				panic("out of luck")
			}
			return nil
		}), time.Now)
		const calls = 1000
		done := make(chan error, calls)
		for range calls {
			go func() { done <- w.MkdirAll("d") }()
		}
		synctest.Wait()
		time.Sleep(time.Second)
		if p, ok := w.Look(); !ok || p.Age != time.Second {
			t.Errorf("%v, %v", p, ok)
		}
		hang = false
		close(gate)
		for range calls {
			must(t, <-done)
		}
		blow = true
		for range calls {
			func() {
				defer func() { _ = recover() }()
				_ = w.SyncDir("d")
			}()
		}
		if p, ok := w.Look(); ok {
			t.Errorf("after all is over %+v is under way", p)
		}
	})
}

func BenchmarkWatchRead(b *testing.B) {
	mem := vfs.NewMem()
	for name, fsys := range map[string]vfs.FS{"plain": mem, "watched": vfs.NewWatch(mem, time.Now)} {
		f, err := fsys.Create(name)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.Write(make([]byte, 64)); err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				buf := make([]byte, 64)
				for pb.Next() {
					if _, err := f.ReadAt(buf, 0); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
