package vfs_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"testing"

	"github.com/pairdb/pairdb/engine/vfs"
)

// script makes one call of each kind and returns the errors.
func script(fsys vfs.FS) []error {
	var errs []error
	do := func(err error) { errs = append(errs, err) }
	do(fsys.MkdirAll("d"))
	f, err := fsys.Create("d/a")
	do(err)
	if err == nil {
		_, err = f.Write([]byte("hello"))
		do(err)
		do(f.Preallocate(0, 100))
		do(f.Truncate(50))
		do(f.Sync())
		_, err = f.ReadAt(make([]byte, 3), 0)
		do(err)
		_, err = f.Size()
		do(err)
		do(f.Close())
	}
	do(fsys.Link("d/a", "d/b"))
	do(fsys.Rename("d/b", "d/c"))
	f, err = fsys.Reuse("d/c", "d/e")
	do(err)
	if err == nil {
		do(f.Close())
	}
	do(fsys.SyncDir("d/"))
	l, err := fsys.Lock("d/LOCK")
	do(err)
	if err == nil {
		do(l.Close())
	}
	_, err = fsys.List("d")
	do(err)
	do(fsys.Remove("d/a"))
	do(fsys.RemoveAll("d"))
	return errs
}

func TestInjectTrace(t *testing.T) {
	var got []string
	next := 0
	fsys := vfs.Inject(vfs.NewMem(), func(op vfs.Op) error {
		if op.Mutates() {
			if op.Index != next {
				t.Errorf("%v has index %d, want %d", op, op.Index, next)
			}
			next++
		} else if op.Index != -1 {
			t.Errorf("%v has index %d", op, op.Index)
		}
		got = append(got, op.String())
		return nil
	})
	if err := errors.Join(script(fsys)...); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"mkdir d", "create d/a", "write d/a 5", "preallocate d/a 100", "truncate d/a 50", "sync d/a",
		"read d/a", "read d/a", "link d/a -> d/b", "rename d/b -> d/c", "reuse d/c -> d/e", "syncdir d",
		"create d/LOCK", "read d", "remove d/a", "remove d",
	}
	if !slices.Equal(got, want) {
		t.Errorf("trace\n%q, want\n%q", got, want)
	}
}

// TestInjectFailsEachCall fails the n-th call for every n and expects that error
// once and no change by that call.
func TestInjectFailsEachCall(t *testing.T) {
	cause := errors.New("injected")
	calls := 0
	count := vfs.Inject(vfs.NewMem(), func(vfs.Op) error { calls++; return nil })
	script(count)
	for n := range calls {
		i, traceAfter := 0, ""
		m := vfs.NewMem()
		fsys := vfs.Inject(m, func(op vfs.Op) error {
			if i++; i-1 == n {
				traceAfter = dump(t, m, "")
				return fmt.Errorf("call %d: %w", n, cause)
			}
			if i-2 == n && traceAfter != dump(t, m, "") {
				t.Errorf("failing call %d changed the disk to %q", n, dump(t, m, ""))
			}
			return nil
		})
		failed := 0
		for _, err := range script(fsys) {
			if errors.Is(err, cause) {
				failed++
			}
		}
		if failed != 1 {
			t.Errorf("call %d failed %d times", n, failed)
		}
	}
}

func TestInjectShortWrite(t *testing.T) {
	var fail error
	m := vfs.NewMem()
	fsys := vfs.Inject(m, func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite {
			return fail
		}
		return nil
	})
	f, err := fsys.Create("a")
	must(t, err)
	fail = fmt.Errorf("disk: %w", vfs.ShortWrite{N: 3, Err: syscall.ENOSPC})
	if n, err := f.Write([]byte("abcdef")); n != 3 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Write = %d, %v", n, err)
	}
	fail = vfs.ShortWrite{N: 100}
	if n, err := f.Write([]byte("gh")); n != 2 || !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("Write = %d, %v", n, err)
	}
	fail = nil
	write(t, f, "i")
	if got := read(t, m, "a"); got != "abcghi" {
		t.Errorf("file holds %q", got)
	}
}

// TestInjectedSyncFailureLosesBytes shows that a later Sync that succeeds does
// not make durable what a failed one was to write.
func TestInjectedSyncFailureLosesBytes(t *testing.T) {
	var fail error
	m := vfs.NewMem()
	fsys := vfs.Inject(vfs.Inject(m, nil), func(op vfs.Op) error {
		if op.Kind == vfs.OpSync {
			return fail
		}
		return nil
	})
	f, err := fsys.Create("a")
	must(t, err)
	must(t, fsys.SyncDir(""))
	write(t, f, rep("a", 4096))
	must(t, f.Sync())
	write(t, f, rep("b", 4096))
	fail = syscall.EIO
	wantIs(t, f.Sync(), syscall.EIO)
	fail = nil
	must(t, f.Sync())
	write(t, f, rep("c", 4096))
	// The size is metadata, which the second Sync did write.
	wantOutcomes(t, m, vfs.CrashDropUnsynced, "a="+runs(rep("a", 4096)+rep("\x00", 4096)))
	wantOutcomes(t, m, vfs.CrashKeepAll, "a="+runs(rep("a", 4096)+rep("\x00", 4096)+rep("c", 4096)))
	must(t, f.Sync())
	wantOutcomes(t, m, vfs.CrashDropUnsynced, "a="+runs(rep("a", 4096)+rep("\x00", 4096)+rep("c", 4096)))
	if got := runs(read(t, m, "a")); got != "a4096b4096c4096" {
		t.Errorf("readers see %q", got)
	}
}

// TestKilledSyncKeepsWhatIsOwed ends a process in place of its sync: the next
// one finds its bytes and can still make them durable.
func TestKilledSyncKeepsWhatIsOwed(t *testing.T) {
	m := vfs.NewMem()
	f, err := vfs.Inject(m, func(op vfs.Op) error {
		if op.Kind == vfs.OpSync {
			return fmt.Errorf("op %d: %w", op.Index, vfs.ErrKilled)
		}
		return nil
	}).Create("a")
	must(t, err)
	write(t, f, "b")
	wantIs(t, f.Sync(), vfs.ErrKilled)
	g, err := m.OpenAppend("a")
	must(t, err)
	must(t, g.Sync())
	must(t, m.SyncDir(""))
	wantOutcomes(t, m, vfs.CrashDropUnsynced, "a=b")
}
