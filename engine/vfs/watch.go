package vfs

import (
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"
)

// Watch is a file system that knows which calls are under way, and how long
// already. A call costs it a compare-and-swap and a store; it has no timer and no
// goroutine. Whoever watches calls Look now and then.
type Watch struct {
	FS
	now func() time.Time
	// start is when the Watch was made: times are since then, which no step of the
	// wall clock changes.
	start time.Time
	// tick is when Look was called last, in milliseconds: the time at which
	// calls begin, so that they need not ask the clock.
	tick  atomic.Int64
	slots [watchSlots]watchSlot
}

// watchSlots bounds the calls that are watched at a time. Those beyond are made
// all the same; when they hang, so do those that have a slot.
const watchSlots = 128

// watchSlot holds a call under way: when it began, in milliseconds, above its
// OpKind and its FileKind of a byte each; 0: free. It fills a cache line.
type watchSlot struct {
	call atomic.Int64
	_    [56]byte
}

// FileKind says what a file is to the engine, by its name.
type FileKind uint8

// The kinds of files.
const (
	FileOther FileKind = iota
	FileLog
	FileTable
	FileManifest
	FileDir
)

// String names the kind as it stands in metrics and logs.
func (k FileKind) String() string {
	switch k {
	case FileLog:
		return "log"
	case FileTable:
		return "table"
	case FileManifest:
		return "manifest"
	case FileDir:
		return "directory"
	default:
		return "file"
	}
}

func fileKind(name string) FileKind {
	base := name[strings.LastIndexByte(name, '/')+1:]
	switch {
	case strings.Contains(base, ".wal"):
		return FileLog
	case strings.Contains(base, ".sst"):
		return FileTable
	case strings.HasPrefix(base, "MANIFEST"), strings.HasPrefix(base, "CURRENT"):
		return FileManifest
	default:
		return FileOther
	}
}

// Pending is a call under way.
type Pending struct {
	Op   OpKind
	File FileKind
	// Age is for how long, to the precision at which Look is called.
	Age time.Duration
}

// NewWatch returns fs, watched by the clock now.
func NewWatch(fs FS, now func() time.Time) *Watch {
	w := &Watch{FS: fs, now: now, start: now()}
	w.tick.Store(w.time())
	return w
}

// time is since the start, in milliseconds, never 0.
func (w *Watch) time() int64 { return 1 + max(0, w.now().Sub(w.start).Milliseconds()) }

// Look returns the call that has been under way longest, if there is any. It
// touches no file.
func (w *Watch) Look() (Pending, bool) {
	w.tick.Store(w.time())
	return w.Oldest(func(OpKind, FileKind) bool { return true })
}

// Oldest returns the call under way longest of those that match, if there is any.
// Unlike Look it leaves alone the time at which calls begin.
func (w *Watch) Oldest(match func(OpKind, FileKind) bool) (Pending, bool) {
	now := w.tick.Load()
	oldest, call := now, int64(0)
	for i := range w.slots {
		if c := w.slots[i].call.Load(); c != 0 && c>>16 < oldest && match(OpKind(c>>8), FileKind(c)) {
			oldest, call = c>>16, c
		}
	}
	if call == 0 {
		return Pending{}, false
	}
	return Pending{Op: OpKind(call >> 8), File: FileKind(call), Age: time.Duration(now-oldest) * time.Millisecond}, true
}

// begin notes that a call begins. end, of the result, notes its end and is
// deferred, since a call may panic.
func (w *Watch) begin(op OpKind, file FileKind) *watchSlot {
	call := w.tick.Load()<<16 | int64(op)<<8 | int64(file)
	at := rand.Uint32()
	for i := range uint32(4) {
		if s := &w.slots[(at+i)%watchSlots]; s.call.CompareAndSwap(0, call) {
			return s
		}
	}
	return nil
}

func (s *watchSlot) end() {
	if s != nil {
		s.call.Store(0)
	}
}

// watchFile is an open file of a Watch.
type watchFile struct {
	File
	w    *Watch
	kind FileKind
}

func (w *Watch) open(op OpKind, name string, open func(string) (File, error)) (File, error) {
	kind := fileKind(name)
	f, err := func() (File, error) {
		defer w.begin(op, kind).end()
		return open(name)
	}()
	if err != nil {
		return nil, err
	}
	return &watchFile{File: f, w: w, kind: kind}, nil
}

func (w *Watch) call(op OpKind, kind FileKind, f func() error) error {
	defer w.begin(op, kind).end()
	return f()
}

// Create implements FS.
func (w *Watch) Create(name string) (File, error) { return w.open(OpCreate, name, w.FS.Create) }

// Reuse implements FS.
func (w *Watch) Reuse(oldname, newname string) (File, error) {
	return w.open(OpReuse, newname, func(string) (File, error) { return w.FS.Reuse(oldname, newname) })
}

// Open implements FS.
func (w *Watch) Open(name string) (File, error) { return w.open(OpRead, name, w.FS.Open) }

// OpenAppend implements FS.
func (w *Watch) OpenAppend(name string) (File, error) {
	return w.open(OpRead, name, w.FS.OpenAppend)
}

// Rename implements FS.
func (w *Watch) Rename(oldname, newname string) error {
	return w.call(OpRename, fileKind(newname), func() error { return w.FS.Rename(oldname, newname) })
}

// Link implements FS.
func (w *Watch) Link(oldname, newname string) error {
	return w.call(OpLink, fileKind(newname), func() error { return w.FS.Link(oldname, newname) })
}

// Remove implements FS.
func (w *Watch) Remove(name string) error {
	return w.call(OpRemove, fileKind(name), func() error { return w.FS.Remove(name) })
}

// RemoveAll implements FS.
func (w *Watch) RemoveAll(name string) error {
	return w.call(OpRemove, FileDir, func() error { return w.FS.RemoveAll(name) })
}

// MkdirAll implements FS.
func (w *Watch) MkdirAll(dir string) error {
	return w.call(OpMkdir, FileDir, func() error { return w.FS.MkdirAll(dir) })
}

// SyncDir implements FS.
func (w *Watch) SyncDir(dir string) error {
	return w.call(OpSyncDir, FileDir, func() error { return w.FS.SyncDir(dir) })
}

// List implements FS.
func (w *Watch) List(dir string) (names []string, err error) {
	defer w.begin(OpRead, FileDir).end()
	return w.FS.List(dir)
}

// Stat implements FS.
func (w *Watch) Stat(name string) (Info, error) {
	defer w.begin(OpRead, fileKind(name)).end()
	return w.FS.Stat(name)
}

// Lock implements FS.
func (w *Watch) Lock(name string) (io.Closer, error) {
	defer w.begin(OpCreate, fileKind(name)).end()
	return w.FS.Lock(name)
}

// DiskUsage implements FS.
func (w *Watch) DiskUsage(dir string) (Usage, error) {
	defer w.begin(OpRead, FileDir).end()
	return w.FS.DiskUsage(dir)
}

// ReadAt implements io.ReaderAt.
func (f *watchFile) ReadAt(p []byte, off int64) (int, error) {
	defer f.w.begin(OpRead, f.kind).end()
	return f.File.ReadAt(p, off)
}

// Write implements io.Writer.
func (f *watchFile) Write(p []byte) (int, error) {
	defer f.w.begin(OpWrite, f.kind).end()
	return f.File.Write(p)
}

// Sync implements File.
func (f *watchFile) Sync() error {
	defer f.w.begin(OpSync, f.kind).end()
	return f.File.Sync()
}

// Preallocate implements File.
func (f *watchFile) Preallocate(offset, length int64) error {
	defer f.w.begin(OpPreallocate, f.kind).end()
	return f.File.Preallocate(offset, length)
}

// Truncate implements File.
func (f *watchFile) Truncate(size int64) error {
	defer f.w.begin(OpTruncate, f.kind).end()
	return f.File.Truncate(size)
}

// Size implements File.
func (f *watchFile) Size() (int64, error) {
	defer f.w.begin(OpRead, f.kind).end()
	return f.File.Size()
}

// Close implements io.Closer.
func (f *watchFile) Close() error {
	defer f.w.begin(OpSync, f.kind).end()
	return f.File.Close()
}
