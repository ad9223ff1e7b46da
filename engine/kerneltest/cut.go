package kerneltest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

const (
	// ext4Shutdown is EXT4_IOC_SHUTDOWN, and noLogFlush its flag that leaves
	// what the journal holds in memory unwritten.
	ext4Shutdown = 0x8004587d
	noLogFlush   = 2
)

// Cut cuts the power of the file system, under whoever uses it: from now on
// every call that needs the disk fails with EIO, and what was not synced never
// reaches it. PowerOn ends that.
//
// Unlike a machine without power, the process lives on, and a sync that is under
// way when Cut is called may tell it that all is well though nothing was written:
// the kernel loses that error. So what is acknowledged after Cut was called is
// no promise.
func (l *Loop) Cut() error {
	dir, err := os.Open(l.Dir)
	if err != nil {
		return fmt.Errorf("cut the power of %s: %w", l.Dir, err)
	}
	defer dir.Close() // a directory, only looked at
	flags := uint32(noLogFlush)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, dir.Fd(), ext4Shutdown, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		return fmt.Errorf("cut the power of %s: %w", l.Dir, errno)
	}
	return nil
}

// PowerOn unmounts the file system and mounts it again, which forgets what was
// cached and replays the journal. Nobody may use it any more: a file system that
// is still in use would come back as it is, so the test fails then.
func (l *Loop) PowerOn(t testing.TB) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	over := time.After(20 * time.Second)
	for unmounted := false; ; {
		var err error
		if !unmounted {
			err = syscall.Unmount(l.Dir, 0)
			unmounted = err == nil
		}
		if unmounted {
			// A process that was just given a mount namespace of its own, as
			// containers are, has a copy of the mount for a moment.
			err = l.idle()
		}
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EBUSY) { // the kernel may be late to let go
			t.Fatalf("unmount %s: %v", l.Dir, err)
		}
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("unmount %s: still in use after 20 s: %v", l.Dir, err)
		}
	}
	l.Remount(t)
}

// idle fails with EBUSY as long as the device is mounted anywhere.
func (l *Loop) idle() error {
	f, err := os.OpenFile(l.Device, os.O_RDONLY|syscall.O_EXCL, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// Overcommitted is a Loop of size bytes on a disk of fewer: once that many are
// written, writes succeed, since they reach the page cache, and syncs fail. grow
// gives the disk all that was promised.
//
// With journal the file system's journal has its place on the disk beforehand:
// then it is the data that cannot be written, which the kernel tells one sync
// and no other. Without, the journal may fail first, and the file system stops.
func Overcommitted(t testing.TB, size, disk int64, journal bool) (l *Loop, grow func()) {
	t.Helper()
	root := t.TempDir()
	run(t, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", disk), "pairdb-test", root)
	t.Cleanup(func() {
		if err := unmount(root); err != nil {
			t.Error(err)
		}
	})
	var args []string
	if journal {
		args = []string{"-J", "size=4"}
	}
	l = mountIn(t, root, size, args...)
	l.writeSingleBlocks(t)
	if journal {
		l.writeJournal(t)
	}
	return l, func() {
		t.Helper()
		run(t, "mount", "-o", fmt.Sprintf("remount,size=%d", size+size/8), root)
	}
}

// writeSingleBlocks has the loop driver write one block of 4 KiB at a time: it
// takes a longer write that its disk cuts short for a success, and a disk that
// lies is another test.
func (l *Loop) writeSingleBlocks(t testing.TB) {
	t.Helper()
	limit := filepath.Join("/sys/block", filepath.Base(l.Device), "queue/max_sectors_kb")
	before, err := os.ReadFile(limit)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(limit, []byte("4"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the device keeps it
		if err := os.WriteFile(limit, before, 0); err != nil {
			t.Error(err)
		}
	})
}

// writeJournal goes once around a journal of 4 MiB, several blocks at a time.
func (l *Loop) writeJournal(t testing.TB) {
	t.Helper()
	name := filepath.Join(l.Dir, "journal")
	for range 400 {
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Sync(), f.Close(), os.Remove(name)); err != nil {
			t.Fatal(err)
		}
	}
}
