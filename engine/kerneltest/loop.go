// Package kerneltest holds tests of the engine on the real kernel: file systems
// that fill up, lose their power or fail to sync, and processes that die at a
// system call. Mount is for other tests of that kind. They need root, and fail
// without.
package kerneltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Loop is an ext4 file system in a file, mounted on a loop device.
type Loop struct {
	// Dir is where it is mounted, Image the file that it is in.
	Dir, Image string
	// Device is the loop device.
	Device string
}

// Mount makes an ext4 file system of size bytes and mounts it. It is unmounted,
// and its loop device freed, when the test ends, however it does: whoever uses
// it still then sees it vanish.
func Mount(t testing.TB, size int64) *Loop {
	t.Helper()
	return mountIn(t, t.TempDir(), size)
}

// mountIn is Mount with the image in the folder root, and further arguments for
// mkfs.ext4.
func mountIn(t testing.TB, root string, size int64, args ...string) *Loop {
	t.Helper()
	l := &Loop{Dir: filepath.Join(root, "mnt"), Image: filepath.Join(root, "image")}
	if err := os.WriteFile(l.Image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(l.Image, size); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(l.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	// No blocks for root, as whom the tests run: they are to see the end.
	run(t, "mkfs.ext4", append([]string{"-q", "-m", "0", l.Image}, args...)...)
	l.Device = strings.TrimSpace(run(t, "losetup", "--find", "--show", l.Image))
	t.Cleanup(func() {
		run(t, "losetup", "--detach", l.Device)
	})
	l.Remount(t)
	t.Cleanup(func() {
		if err := l.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// Remount mounts the file system again after an Unmount.
func (l *Loop) Remount(t testing.TB) {
	t.Helper()
	run(t, "mount", "-t", "ext4", l.Device, l.Dir)
}

// Unmount unmounts the file system, from under whoever uses it still if need be.
// It is no error if it is not mounted.
func (l *Loop) Unmount() error { return unmount(l.Dir) }

func unmount(dir string) error {
	err := syscall.Unmount(dir, 0)
	if err == syscall.EBUSY {
		err = syscall.Unmount(dir, syscall.MNT_DETACH)
	}
	if err != nil && err != syscall.EINVAL { // EINVAL: not mounted
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// Fill makes the file name take all the space there is but for free bytes; with
// 0 it takes what it can get. It replaces one of that name.
func (l *Loop) Fill(name string, free int64) error {
	path := filepath.Join(l.Dir, name)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(l.Dir, &st); err != nil {
		return fmt.Errorf("fill %s: %w", l.Dir, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close() // nothing was written
	n := int64(st.Bavail)*st.Bsize - free
	if n <= 0 {
		return fmt.Errorf("fill %s: less than %d bytes are free", l.Dir, free)
	}
	err = syscall.Fallocate(int(f.Fd()), 0, 0, n)
	if err == syscall.ENOSPC && free == 0 {
		return nil // others were quicker, or the file's own tree took a block
	}
	if err != nil {
		return fmt.Errorf("fill %s with %d bytes: %w", l.Dir, n, err)
	}
	return nil
}

// Free removes a file that Fill made.
func (l *Loop) Free(name string) error { return os.Remove(filepath.Join(l.Dir, name)) }

// runLimit is for one command: a device that does not answer is to fail a test, not to
// stop all.
const runLimit = 2 * time.Minute

// run runs a command as root and returns what it prints.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatalf("%s: this test needs root, to mount a file system of its own", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), runLimit)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, time.Second
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), errors.Join(err, ctx.Err()), errs.String())
	}
	return out.String()
}
