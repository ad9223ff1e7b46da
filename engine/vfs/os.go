package vfs

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sort"
	"syscall"
)

// Modes of what OS creates: the data of a database concerns its owner alone.
const (
	fileMode = 0o600
	dirMode  = 0o700
)

// OS returns the real file system. It has no state, so any two values are
// interchangeable.
func OS() FS { return osFS{} }

type osFS struct{}

type osFile struct{ f *os.File }

func (osFS) Create(name string) (File, error) {
	return openOS(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (osFS) Reuse(oldname, newname string) (File, error) {
	if err := os.Rename(filepath.FromSlash(oldname), filepath.FromSlash(newname)); err != nil {
		return nil, err
	}
	return openOS(newname, os.O_RDWR)
}

func (osFS) Open(name string) (File, error) { return openOS(name, os.O_RDONLY) }

func (osFS) OpenAppend(name string) (File, error) {
	// Not O_APPEND: the position must start at the end but then belong to
	// this file alone, as it does after Create.
	f, err := openOS(name, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	if _, err := f.f.Seek(0, io.SeekEnd); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func openOS(name string, flag int) (*osFile, error) {
	f, err := os.OpenFile(filepath.FromSlash(name), flag, fileMode)
	if err != nil {
		return nil, err
	}
	return &osFile{f: f}, nil
}

func (osFS) Rename(oldname, newname string) error {
	return os.Rename(filepath.FromSlash(oldname), filepath.FromSlash(newname))
}

func (osFS) Link(oldname, newname string) error {
	return link(filepath.FromSlash(oldname), filepath.FromSlash(newname))
}

func (osFS) Remove(name string) error { return os.Remove(filepath.FromSlash(name)) }

func (osFS) RemoveAll(name string) error { return os.RemoveAll(filepath.FromSlash(name)) }

func (osFS) MkdirAll(dir string) error { return os.MkdirAll(filepath.FromSlash(dir), dirMode) }

func (osFS) List(dir string) ([]string, error) {
	d, err := os.Open(filepath.FromSlash(dir))
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return nil, err
	}
	sort.Strings(names)
	return names, nil
}

func (osFS) Stat(name string) (Info, error) {
	fi, err := os.Stat(filepath.FromSlash(name))
	if err != nil {
		return Info{}, err
	}
	if fi.IsDir() {
		return Info{IsDir: true}, nil
	}
	return Info{Size: fi.Size()}, nil
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(filepath.FromSlash(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(filepath.FromSlash(name), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	// Closing the descriptor releases the lock, and so does the end of the
	// process, however it ends.
	if err := lockFile(f, false); err != nil {
		return nil, errors.Join(&os.PathError{Op: "lock", Path: name, Err: err}, f.Close())
	}
	return f, nil
}

func (osFS) LockShared(name string) (io.Closer, error) {
	f, err := os.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	if err := lockFile(f, true); err != nil {
		return nil, errors.Join(&os.PathError{Op: "lock", Path: name, Err: err}, f.Close())
	}
	return f, nil
}

func (osFS) DiskUsage(dir string) (Usage, error) {
	u, err := diskUsage(filepath.FromSlash(dir))
	if err != nil {
		return Usage{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return u, nil
}

func (f *osFile) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }

func (f *osFile) Write(p []byte) (int, error) { return f.f.Write(p) }

func (f *osFile) Skip(n int64) error {
	_, err := f.f.Seek(n, io.SeekCurrent)
	return err
}

func (f *osFile) Close() error { return f.f.Close() }

func (f *osFile) Truncate(size int64) error { return f.f.Truncate(size) }

func (f *osFile) Sync() error {
	if err := datasync(f.f); err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.f.Name(), Err: err}
	}
	return nil
}

func (f *osFile) Size() (int64, error) {
	fi, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func (f *osFile) Preallocate(offset, length int64) error {
	err := fallocate(f.f, offset, length)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, errors.ErrUnsupported) {
		return f.writeZeros(offset + length)
	}
	if err != nil {
		return &os.PathError{Op: "fallocate", Path: f.f.Name(), Err: err}
	}
	return nil
}

// writeZeros extends the file to end with written zeros, for file systems that
// cannot reserve space. It writes beyond the present size only, so that no byte
// that exists is lost.
func (f *osFile) writeZeros(end int64) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	zeros := make([]byte, min(max(end-size, 0), 1<<20))
	for size < end {
		n, err := f.f.WriteAt(zeros[:min(int64(len(zeros)), end-size)], size)
		if err != nil {
			return err
		}
		size += int64(n)
	}
	return nil
}
