package vfs

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

func datasync(f *os.File) error {
	err := retryInterrupted(func() error { return unix.Fdatasync(int(f.Fd())) })
	runtime.KeepAlive(f)
	return err
}

func fallocate(f *os.File, offset, length int64) error {
	err := retryInterrupted(func() error { return unix.Fallocate(int(f.Fd()), 0, offset, length) })
	runtime.KeepAlive(f)
	return err
}

// link follows symbolic links, as os.Link does not: a link to a link is worth
// nothing once the file is gone.
func link(oldname, newname string) error {
	err := retryInterrupted(func() error {
		return unix.Linkat(unix.AT_FDCWD, oldname, unix.AT_FDCWD, newname, unix.AT_SYMLINK_FOLLOW)
	})
	if err != nil {
		return &os.LinkError{Op: "link", Old: oldname, New: newname, Err: err}
	}
	return nil
}

func lockFile(f *os.File, shared bool) error {
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	err := retryInterrupted(func() error { return unix.Flock(int(f.Fd()), how|unix.LOCK_NB) })
	runtime.KeepAlive(f)
	return err
}

// retryInterrupted repeats a system call that a signal cut short before it did
// anything. It is no retry of a failed sync: any other error is returned.
func retryInterrupted(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func diskUsage(dir string) (Usage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Usage{}, err
	}
	block := int64(st.Frsize)
	if block == 0 {
		block = int64(st.Bsize)
	}
	// As df counts: of the blocks that are free, those for root are left out.
	return Usage{Total: int64(st.Blocks-st.Bfree+st.Bavail) * block, Free: int64(st.Bavail) * block}, nil
}
