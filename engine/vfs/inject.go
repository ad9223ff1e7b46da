package vfs

import (
	"errors"
	"fmt"
	"io"
	"path"
	"sync/atomic"
)

// OpKind names a kind of file system call.
type OpKind uint8

// The kinds of calls Inject tells apart. All but OpRead change something.
const (
	OpCreate OpKind = iota + 1
	OpWrite
	OpSync
	OpSyncDir
	OpRename
	OpRemove
	OpLink
	OpPreallocate
	OpTruncate
	OpReuse
	OpMkdir
	OpRead
)

var opNames = [...]string{
	OpCreate: "create", OpWrite: "write", OpSync: "sync", OpSyncDir: "syncdir",
	OpRename: "rename", OpRemove: "remove", OpLink: "link",
	OpPreallocate: "preallocate", OpTruncate: "truncate", OpReuse: "reuse",
	OpMkdir: "mkdir", OpRead: "read",
}

// String returns the kind's name as it stands in golden traces.
func (k OpKind) String() string {
	if int(k) < len(opNames) && opNames[k] != "" {
		return opNames[k]
	}
	return fmt.Sprintf("op(%d)", uint8(k))
}

// Op is one call seen by an Inject hook.
type Op struct {
	// Index numbers the calls that change something from 0, in the order in
	// which they began; it is -1 for OpRead.
	Index int
	Kind  OpKind
	// Path is the cleaned name the call is about.
	Path string
	// To is the new name of OpRename, OpLink and OpReuse.
	To string
	// Bytes is the length of OpWrite, of OpPreallocate's range and of a
	// ReadAt, and the new size of OpTruncate; else 0.
	Bytes int
}

// Mutates reports whether the call changes the file system or makes a change
// durable.
func (o Op) Mutates() bool { return o.Kind != OpRead }

// String formats the call without its index, one line, for golden traces.
func (o Op) String() string {
	switch {
	case o.To != "":
		return fmt.Sprintf("%s %s -> %s", o.Kind, o.Path, o.To)
	case o.Kind == OpWrite || o.Kind == OpPreallocate || o.Kind == OpTruncate:
		return fmt.Sprintf("%s %s %d", o.Kind, o.Path, o.Bytes)
	default:
		return fmt.Sprintf("%s %s", o.Kind, o.Path)
	}
}

// ShortWrite, returned by a hook for OpWrite, lets the first N bytes through
// before the call fails.
type ShortWrite struct {
	N   int
	Err error // the cause; nil means io.ErrShortWrite
}

// Error says how much was written and why no more.
func (e ShortWrite) Error() string {
	return fmt.Sprintf("short write after %d bytes: %v", e.N, e.Unwrap())
}

// Unwrap returns the cause.
func (e ShortWrite) Unwrap() error {
	if e.Err == nil {
		return io.ErrShortWrite
	}
	return e.Err
}

// ErrKilled is for hooks that end a process: every call fails with it from some
// moment on, and the file system is as the process left it, unsynced bytes
// included.
var ErrKilled = errors.New("vfs: process killed")

// Inject returns a file system that calls hook before each call to fs. An error
// from the hook is returned in place of the call, which is then not made. The
// hook is called without locks held, by whichever goroutine makes the call;
// it may block, which is a disk that stalls, and may call the wrapped fs (and
// MemFS.Crash) but must not call the returned one. A nil hook lets everything through.
//
// A hook that fails a sync of a MemFS file also makes that file forget that it
// owes its unsynced bytes to the disk: they stay readable and no later Sync
// writes them, as on a kernel that drops the dirty mark of a page it could not
// write. An error that matches ErrKilled does not do so.
//
// OpCreate is also Lock; OpRemove is also RemoveAll; OpRead is Open, OpenAppend,
// ReadAt, Size, List, Stat, LockShared and DiskUsage. Close is never seen by the hook.
func Inject(fs FS, hook func(Op) error) FS {
	if hook == nil {
		hook = func(Op) error { return nil }
	}
	return &injectFS{fs: fs, hook: hook}
}

type injectFS struct {
	fs   FS
	hook func(Op) error
	next atomic.Int64
}

type injectFile struct {
	File
	fs   *injectFS
	name string
}

// syncFailer is implemented by files that can model the loss of dirty pages.
type syncFailer interface{ failSync() }

func (i *injectFS) check(op Op) error {
	op.Index = -1
	if op.Mutates() {
		op.Index = int(i.next.Add(1) - 1)
	}
	op.Path = path.Clean(op.Path)
	if op.To != "" {
		op.To = path.Clean(op.To)
	}
	return i.hook(op)
}

func (i *injectFS) open(op Op, name string, open func() (File, error)) (File, error) {
	if err := i.check(op); err != nil {
		return nil, err
	}
	f, err := open()
	if err != nil {
		return nil, err
	}
	return &injectFile{File: f, fs: i, name: path.Clean(name)}, nil
}

func (i *injectFS) Create(name string) (File, error) {
	return i.open(Op{Kind: OpCreate, Path: name}, name, func() (File, error) { return i.fs.Create(name) })
}

func (i *injectFS) Reuse(oldname, newname string) (File, error) {
	return i.open(Op{Kind: OpReuse, Path: oldname, To: newname}, newname,
		func() (File, error) { return i.fs.Reuse(oldname, newname) })
}

func (i *injectFS) Open(name string) (File, error) {
	return i.open(Op{Kind: OpRead, Path: name}, name, func() (File, error) { return i.fs.Open(name) })
}

func (i *injectFS) OpenAppend(name string) (File, error) {
	return i.open(Op{Kind: OpRead, Path: name}, name, func() (File, error) { return i.fs.OpenAppend(name) })
}

func (i *injectFS) Rename(oldname, newname string) error {
	if err := i.check(Op{Kind: OpRename, Path: oldname, To: newname}); err != nil {
		return err
	}
	return i.fs.Rename(oldname, newname)
}

func (i *injectFS) Link(oldname, newname string) error {
	if err := i.check(Op{Kind: OpLink, Path: oldname, To: newname}); err != nil {
		return err
	}
	return i.fs.Link(oldname, newname)
}

func (i *injectFS) Remove(name string) error {
	if err := i.check(Op{Kind: OpRemove, Path: name}); err != nil {
		return err
	}
	return i.fs.Remove(name)
}

func (i *injectFS) RemoveAll(name string) error {
	if err := i.check(Op{Kind: OpRemove, Path: name}); err != nil {
		return err
	}
	return i.fs.RemoveAll(name)
}

func (i *injectFS) MkdirAll(dir string) error {
	if err := i.check(Op{Kind: OpMkdir, Path: dir}); err != nil {
		return err
	}
	return i.fs.MkdirAll(dir)
}

func (i *injectFS) List(dir string) ([]string, error) {
	if err := i.check(Op{Kind: OpRead, Path: dir}); err != nil {
		return nil, err
	}
	return i.fs.List(dir)
}

func (i *injectFS) Stat(name string) (Info, error) {
	if err := i.check(Op{Kind: OpRead, Path: name}); err != nil {
		return Info{}, err
	}
	return i.fs.Stat(name)
}

func (i *injectFS) SyncDir(dir string) error {
	if err := i.check(Op{Kind: OpSyncDir, Path: dir}); err != nil {
		return err
	}
	return i.fs.SyncDir(dir)
}

func (i *injectFS) Lock(name string) (io.Closer, error) {
	if err := i.check(Op{Kind: OpCreate, Path: name}); err != nil {
		return nil, err
	}
	return i.fs.Lock(name)
}

func (i *injectFS) LockShared(name string) (io.Closer, error) {
	if err := i.check(Op{Kind: OpRead, Path: name}); err != nil {
		return nil, err
	}
	return i.fs.LockShared(name)
}

func (i *injectFS) DiskUsage(dir string) (Usage, error) {
	if err := i.check(Op{Kind: OpRead, Path: dir}); err != nil {
		return Usage{}, err
	}
	return i.fs.DiskUsage(dir)
}

func (f *injectFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fs.check(Op{Kind: OpRead, Path: f.name, Bytes: len(p)}); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *injectFile) Write(p []byte) (int, error) {
	err := f.fs.check(Op{Kind: OpWrite, Path: f.name, Bytes: len(p)})
	if err == nil {
		return f.File.Write(p)
	}
	var short ShortWrite
	if !errors.As(err, &short) {
		return 0, err
	}
	n, werr := f.File.Write(p[:min(max(short.N, 0), len(p))])
	return n, errors.Join(err, werr)
}

func (f *injectFile) Sync() error {
	if err := f.fs.check(Op{Kind: OpSync, Path: f.name}); err != nil {
		if !errors.Is(err, ErrKilled) {
			f.failSync()
		}
		return err
	}
	return f.File.Sync()
}

func (f *injectFile) failSync() {
	if m, ok := f.File.(syncFailer); ok {
		m.failSync()
	}
}

func (f *injectFile) Preallocate(offset, length int64) error {
	if err := f.fs.check(Op{Kind: OpPreallocate, Path: f.name, Bytes: int(length)}); err != nil {
		return err
	}
	return f.File.Preallocate(offset, length)
}

func (f *injectFile) Truncate(size int64) error {
	if err := f.fs.check(Op{Kind: OpTruncate, Path: f.name, Bytes: int(size)}); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *injectFile) Size() (int64, error) {
	if err := f.fs.check(Op{Kind: OpRead, Path: f.name}); err != nil {
		return 0, err
	}
	return f.File.Size()
}
