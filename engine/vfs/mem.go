package vfs

import (
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// MemFS is a file system in memory that keeps, beside what its users see, what
// a disk would hold for certain, and everything in between. Sync makes the
// bytes and the size of a file durable, not its name; SyncDir makes the names
// in one directory durable, not the bytes they name. Crash returns what a power
// cut leaves. It is safe for concurrent use and its operations take effect one
// after the other.
type MemFS struct {
	mu    sync.RWMutex
	root  *memDir
	locks map[string]int // holders of a shared lock, -1 for an exclusive one
	seq   uint64         // numbers nodes and pending changes
	limit int64          // bytes, 0 for none
	// Invariant: used is the sum of the live sizes of the files that have a
	// name or an open handle.
	used int64
}

// unlimited is the size a MemFS without a limit reports.
const unlimited = 1 << 40

// NewMem returns an empty file system of unlimited size.
func NewMem() *MemFS {
	m := &MemFS{locks: map[string]int{}}
	m.root = m.newDir()
	return m
}

// SetLimit makes the file system hold at most the given number of bytes, 0 for
// no limit. Growing a file beyond it fails with an error that matches
// syscall.ENOSPC; a Write then writes what fits. Existing files are kept even
// if they exceed it. Names and directories cost nothing.
func (m *MemFS) SetLimit(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limit = bytes
}

// node is an *inode or a *memDir.
type node interface{ nodeID() uint64 }

// memDir is a directory.
type memDir struct {
	id      uint64
	live    map[string]node
	synced  map[string]node
	pending []dirOp // what makes synced into live
}

func (d *memDir) nodeID() uint64 { return d.id }

// dirOp is one change of a directory that was not synced. Both halves of a
// rename inside a directory are one dirOp; between two directories each has one,
// with the same seq.
type dirOp struct {
	seq uint64
	del string  // name that goes, "" for none
	add string  // name that comes, "" for none
	to  node    // what add names; of a source's half, what del named
	dst *memDir // in the source's half of a rename between directories
}

func (o *dirOp) apply(names map[string]node) {
	if o.del != "" {
		delete(names, o.del)
	}
	if o.add != "" {
		names[o.add] = o.to
	}
}

// syncTo makes the changes up to seq durable.
func (d *memDir) syncTo(seq uint64) {
	n := 0
	for n < len(d.pending) && d.pending[n].seq <= seq {
		d.pending[n].apply(d.synced)
		n++
	}
	d.pending = slices.Delete(d.pending, 0, n)
}

func (m *MemFS) newDir() *memDir {
	m.seq++
	return &memDir{id: m.seq, live: map[string]node{}, synced: map[string]node{}}
}

// change applies op to the live names of d and owes it to the disk.
func (m *MemFS) change(d *memDir, op dirOp) {
	op.apply(d.live)
	d.pending = append(d.pending, op)
}

func (m *MemFS) nextSeq() uint64 {
	m.seq++
	return m.seq
}

// room returns how many bytes are left after ino grew to size, negative when it
// cannot.
func (m *MemFS) room(ino *inode, size int64) int64 {
	grow := size - ino.live.size
	if m.limit == 0 || grow <= 0 {
		return 0
	}
	return m.limit - m.used - grow
}

// release gives back the space of a file that has neither name nor handle.
func (m *MemFS) release(ino *inode) {
	if ino.links == 0 && ino.open == 0 {
		m.used -= ino.live.size
	}
}

// unlink accounts for a name of n that went.
func (m *MemFS) unlink(n node) {
	if ino, ok := n.(*inode); ok {
		ino.links--
		m.release(ino)
	}
}

func pathErr(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// parent returns the directory that holds name and name's last element.
func (m *MemFS) parent(op, name string) (*memDir, string, error) {
	dir, base := path.Split(path.Clean("/" + name))
	if base == "" {
		return nil, "", pathErr(op, name, fs.ErrInvalid)
	}
	d, err := m.dir(op, dir)
	return d, base, err
}

// dir returns the directory called name.
func (m *MemFS) dir(op, name string) (*memDir, error) {
	d := m.root
	for elem := range strings.SplitSeq(strings.Trim(path.Clean("/"+name), "/"), "/") {
		if elem == "" {
			continue
		}
		n, ok := d.live[elem]
		if !ok {
			return nil, pathErr(op, name, fs.ErrNotExist)
		}
		if d, ok = n.(*memDir); !ok {
			return nil, pathErr(op, name, syscall.ENOTDIR)
		}
	}
	return d, nil
}

// file returns the file called name.
func (m *MemFS) file(op, name string) (*inode, error) {
	d, base, err := m.parent(op, name)
	if err != nil {
		return nil, err
	}
	switch n := d.live[base].(type) {
	case *inode:
		return n, nil
	case *memDir:
		return nil, pathErr(op, name, syscall.EISDIR)
	default:
		return nil, pathErr(op, name, fs.ErrNotExist)
	}
}

func (m *MemFS) handle(name string, ino *inode, writable bool) *memFile {
	ino.open++
	return &memFile{fs: m, name: path.Clean(name), ino: ino, writable: writable}
}
