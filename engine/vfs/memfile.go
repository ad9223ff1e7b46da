package vfs

import (
	"io/fs"
	"slices"
	"syscall"
)

// pendingKind is a kind of change a file owes to the disk.
type pendingKind uint8

const (
	pendingWrite  pendingKind = iota
	pendingGrow               // Preallocate
	pendingResize             // Truncate
)

// pendingOp is one change that was not synced.
type pendingOp struct {
	seq  uint64 // order over the whole file system
	kind pendingKind
	off  int64  // of a write; the size for the other kinds
	data []byte // of a write
}

// end returns the size the change needs at least.
func (o *pendingOp) end() int64 { return o.off + int64(len(o.data)) }

// apply makes the change to c.
func (o *pendingOp) apply(c *content) {
	switch o.kind {
	case pendingWrite:
		c.writeAt(o.data, o.off)
	case pendingGrow:
		c.grow(o.off)
	case pendingResize:
		c.resize(o.off)
	}
}

// inode is a file, under any number of names.
type inode struct {
	id      uint64
	live    content     // what readers see
	synced  content     // what is on the disk for certain
	pending []pendingOp // what makes synced into live, unless lossy
	// lossy says that a failed sync dropped changes that only live has.
	lossy bool
	links int // live names
	open  int // handles
}

func (n *inode) nodeID() uint64 { return n.id }

// sync makes what is pending durable. It costs what was written since the last
// call, not what the file holds.
func (n *inode) sync() {
	for i := range n.pending {
		op := &n.pending[i]
		first, last := op.off/pageSize, (op.end()-1)/pageSize
		switch op.kind {
		case pendingGrow:
			continue
		case pendingResize:
			n.synced.resize(op.off)
			last = first
		case pendingWrite:
		}
		for p := first; p <= last; p++ {
			n.synced.adopt(int(p), n.live.page(int(p)))
		}
	}
	if n.synced.size > n.live.size {
		n.synced.resize(n.live.size)
	}
	n.synced.size = n.live.size
	n.live.own = nil
	clear(n.pending)
	n.pending = n.pending[:0]
}

// dropPending forgets what is owed; the live bytes stay.
func (n *inode) dropPending() {
	if len(n.pending) > 0 {
		n.lossy = true
		n.pending = nil
	}
}

// memFile is a handle.
type memFile struct {
	fs       *MemFS
	name     string
	ino      *inode
	pos      int64
	writable bool
	closed   bool
}

func (f *memFile) err(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

// begin checks that the handle may change the file.
func (f *memFile) begin(op string) error {
	if f.closed {
		return f.err(op, fs.ErrClosed)
	}
	if !f.writable {
		return f.err(op, syscall.EBADF)
	}
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.RLock()
	defer f.fs.mu.RUnlock()
	if f.closed {
		return 0, f.err("read", fs.ErrClosed)
	}
	if off < 0 {
		return 0, f.err("read", syscall.EINVAL)
	}
	if len(p) == 0 {
		return 0, nil
	}
	return f.ino.live.readAt(p, off)
}

func (f *memFile) Write(p []byte) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.begin("write"); err != nil {
		return 0, err
	}
	var full error
	if room := f.fs.room(f.ino, f.pos+int64(len(p))); room < 0 {
		// Like a real disk: what fits is written.
		p = p[:max(int64(len(p))+room, 0)]
		full = f.err("write", syscall.ENOSPC)
	}
	if len(p) > 0 {
		f.change(pendingOp{kind: pendingWrite, off: f.pos, data: slices.Clone(p)})
		f.pos += int64(len(p))
	}
	return len(p), full
}

func (f *memFile) Skip(n int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return f.err("seek", fs.ErrClosed)
	}
	if n < 0 {
		return f.err("seek", syscall.EINVAL)
	}
	f.pos += n
	return nil
}

// change applies op to the live content and owes it to the disk.
func (f *memFile) change(op pendingOp) {
	f.fs.seq++
	op.seq = f.fs.seq
	before := f.ino.live.size
	op.apply(&f.ino.live)
	f.fs.used += f.ino.live.size - before
	f.ino.pending = append(f.ino.pending, op)
}

func (f *memFile) Preallocate(offset, length int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.begin("fallocate"); err != nil {
		return err
	}
	if offset < 0 || length <= 0 {
		return f.err("fallocate", syscall.EINVAL)
	}
	if f.fs.room(f.ino, offset+length) < 0 {
		return f.err("fallocate", syscall.ENOSPC)
	}
	if offset+length > f.ino.live.size {
		f.change(pendingOp{kind: pendingGrow, off: offset + length})
	}
	return nil
}

func (f *memFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.begin("truncate"); err != nil {
		return err
	}
	if size < 0 {
		return f.err("truncate", syscall.EINVAL)
	}
	if f.fs.room(f.ino, size) < 0 {
		return f.err("truncate", syscall.ENOSPC)
	}
	if size != f.ino.live.size {
		f.change(pendingOp{kind: pendingResize, off: size})
	}
	return nil
}

func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return f.err("sync", fs.ErrClosed)
	}
	f.ino.sync()
	return nil
}

// failSync is called by Inject in place of a Sync that failed.
func (f *memFile) failSync() {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.ino.dropPending()
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.RLock()
	defer f.fs.mu.RUnlock()
	if f.closed {
		return 0, f.err("stat", fs.ErrClosed)
	}
	return f.ino.live.size, nil
}

func (f *memFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return f.err("close", fs.ErrClosed)
	}
	f.closed = true
	f.ino.open--
	f.fs.release(f.ino)
	return nil
}
