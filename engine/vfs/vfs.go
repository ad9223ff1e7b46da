// Package vfs is the engine's only door to files. OS is the real disk; MemFS is
// a strict in-memory file system that forgets what was not synced when it is
// told to crash; Inject wraps either and makes calls fail.
//
// Paths use '/' and are cleaned by the implementation. Errors match fs.ErrNotExist,
// fs.ErrExist and syscall.ENOSPC with errors.Is where those apply.
package vfs

import "io"

// File is an open file. A File from Open may be read by several goroutines at
// once; all else is for one goroutine.
type File interface {
	io.ReaderAt
	io.Closer
	// Write appends at the file's position, which starts at the end for
	// OpenAppend, at 0 for Create and Reuse. A short write returns an error.
	io.Writer
	// Skip moves the position n bytes ahead, n >= 0. It changes no byte and no
	// size: what lies between stays as it is, zeros if it is beyond the size when
	// something is written behind it.
	Skip(n int64) error
	// Sync makes the file's bytes and size durable (fdatasync). After an
	// error nothing is known about any byte written since the last success,
	// and a second Sync proves nothing.
	Sync() error
	// Preallocate reserves the byte range [offset, offset+length) and
	// extends the size over it if it ends beyond the size. Bytes that existed
	// stay as they are, new ones read as zeros. It returns an error that
	// matches syscall.ENOSPC when there is no room; the size may then have
	// grown by a part of the range.
	Preallocate(offset, length int64) error
	// Truncate sets the size; the position stays where it is.
	Truncate(size int64) error
	// Size returns the present size in bytes.
	Size() (int64, error)
}

// FS is a tree of files. It is safe for concurrent use.
type FS interface {
	// Create makes a file for writing and reading; it fails with fs.ErrExist
	// if the name is taken.
	Create(name string) (File, error)
	// Reuse renames oldname to newname and opens it for writing from
	// position 0 without truncating it: recycled log segments.
	Reuse(oldname, newname string) (File, error)
	// Open opens a file for reading; writing to it fails.
	Open(name string) (File, error)
	// OpenAppend opens a file for writing at its end; it must exist.
	OpenAppend(name string) (File, error)
	// Rename replaces newname atomically. It is durable after SyncDir of
	// both directories.
	Rename(oldname, newname string) error
	// Link makes a hard link; of a symbolic link to the file that it names.
	Link(oldname, newname string) error
	// Remove removes a file or an empty directory. A file that is open goes
	// on working until it is closed.
	Remove(name string) error
	// RemoveAll removes a tree; a missing one is no error.
	RemoveAll(name string) error
	// MkdirAll makes dir and what is missing above it. Each new directory is
	// durable after SyncDir of its parent.
	MkdirAll(dir string) error
	// List returns the sorted names in dir.
	List(dir string) ([]string, error)
	// Stat returns the size and whether the name is a directory.
	Stat(name string) (Info, error)
	// SyncDir makes creations, renames and removals in dir durable.
	SyncDir(dir string) error
	// Lock takes an exclusive lock on the file, creating it, and fails at
	// once when another holder has it. Close releases it.
	Lock(name string) (io.Closer, error)
	// LockShared takes a shared lock on the file, which must exist, and
	// changes nothing. Many may hold one at once; it keeps Lock from
	// succeeding, and fails at once with an error that matches
	// syscall.EWOULDBLOCK when Lock has succeeded. Close releases it.
	LockShared(name string) (io.Closer, error)
	// DiskUsage reports the file system that holds dir, in bytes.
	DiskUsage(dir string) (Usage, error)
}

// Info describes a name.
type Info struct {
	Size  int64 // bytes, 0 for a directory
	IsDir bool
}

// Usage describes a file system as an unprivileged writer sees it, in bytes:
// what is kept for root is neither in Total nor in Free.
type Usage struct {
	Total int64
	Free  int64
}
