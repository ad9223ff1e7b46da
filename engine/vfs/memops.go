package vfs

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Create implements FS.
func (m *MemFS) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ino, err := m.create(name)
	if err != nil {
		return nil, err
	}
	return m.handle(name, ino, true), nil
}

func (m *MemFS) create(name string) (*inode, error) {
	d, base, err := m.parent("create", name)
	if err != nil {
		return nil, err
	}
	if _, ok := d.live[base]; ok {
		return nil, pathErr("create", name, fs.ErrExist)
	}
	ino := &inode{id: m.nextSeq(), links: 1}
	m.change(d, dirOp{seq: m.nextSeq(), add: base, to: ino})
	return ino, nil
}

// Reuse implements FS.
func (m *MemFS) Reuse(oldname, newname string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ino, err := m.file("reuse", oldname)
	if err != nil {
		return nil, err
	}
	if err := m.rename(oldname, newname); err != nil {
		return nil, err
	}
	return m.handle(newname, ino, true), nil
}

// Open implements FS.
func (m *MemFS) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ino, err := m.file("open", name)
	if err != nil {
		return nil, err
	}
	return m.handle(name, ino, false), nil
}

// OpenAppend implements FS.
func (m *MemFS) OpenAppend(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ino, err := m.file("open", name)
	if err != nil {
		return nil, err
	}
	f := m.handle(name, ino, true)
	f.pos = ino.live.size
	return f, nil
}

// Rename implements FS.
func (m *MemFS) Rename(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rename(oldname, newname)
}

func (m *MemFS) rename(oldname, newname string) error {
	src, from, err := m.parent("rename", oldname)
	if err != nil {
		return err
	}
	dst, to, err := m.parent("rename", newname)
	if err != nil {
		return err
	}
	n, ok := src.live[from]
	if !ok {
		return pathErr("rename", oldname, fs.ErrNotExist)
	}
	old, taken := dst.live[to]
	if taken && old == n {
		return nil // two names of one file: rename(2) does nothing
	}
	if err := checkRename(n, old, taken); err != nil {
		return pathErr("rename", newname, err)
	}
	if d, ok := n.(*memDir); ok && d.holds(dst) {
		return pathErr("rename", newname, syscall.EINVAL)
	}
	seq := m.nextSeq()
	if src == dst {
		m.change(src, dirOp{seq: seq, del: from, add: to, to: n})
	} else {
		m.change(src, dirOp{seq: seq, del: from, to: n, dst: dst})
		m.change(dst, dirOp{seq: seq, add: to, to: n})
	}
	if taken {
		m.unlink(old)
	}
	return nil
}

// checkRename says whether n may take the place of old.
func checkRename(n, old node, taken bool) error {
	if !taken {
		return nil
	}
	_, dir := n.(*memDir)
	d, oldDir := old.(*memDir)
	switch {
	case dir && !oldDir:
		return syscall.ENOTDIR
	case !dir && oldDir:
		return syscall.EISDIR
	case oldDir && len(d.live) > 0:
		return syscall.ENOTEMPTY
	}
	return nil
}

// holds reports whether other is d or below it.
func (d *memDir) holds(other *memDir) bool {
	if d == other {
		return true
	}
	for _, n := range d.live {
		if sub, ok := n.(*memDir); ok && sub.holds(other) {
			return true
		}
	}
	return false
}

// Link implements FS.
func (m *MemFS) Link(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	ino, err := m.file("link", oldname)
	if err != nil {
		return err
	}
	d, base, err := m.parent("link", newname)
	if err != nil {
		return err
	}
	if _, ok := d.live[base]; ok {
		return pathErr("link", newname, fs.ErrExist)
	}
	ino.links++
	m.change(d, dirOp{seq: m.nextSeq(), add: base, to: ino})
	return nil
}

// Remove implements FS.
func (m *MemFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent("remove", name)
	if err != nil {
		return err
	}
	n, ok := d.live[base]
	if !ok {
		return pathErr("remove", name, fs.ErrNotExist)
	}
	if sub, ok := n.(*memDir); ok && len(sub.live) > 0 {
		return pathErr("remove", name, syscall.ENOTEMPTY)
	}
	m.change(d, dirOp{seq: m.nextSeq(), del: base})
	m.unlink(n)
	return nil
}

// RemoveAll implements FS.
func (m *MemFS) RemoveAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent("remove", name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if n, ok := d.live[base]; ok {
		m.removeTree(d, base, n)
	}
	return nil
}

func (m *MemFS) removeTree(d *memDir, name string, n node) {
	if sub, ok := n.(*memDir); ok {
		for _, elem := range sortedNames(sub.live) {
			m.removeTree(sub, elem, sub.live[elem])
		}
	}
	m.change(d, dirOp{seq: m.nextSeq(), del: name})
	m.unlink(n)
}

func sortedNames(names map[string]node) []string {
	list := make([]string, 0, len(names))
	for name := range names {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// MkdirAll implements FS.
func (m *MemFS) MkdirAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.root
	for elem := range strings.SplitSeq(strings.Trim(path.Clean("/"+name), "/"), "/") {
		if elem == "" {
			continue
		}
		n, ok := d.live[elem]
		if !ok {
			sub := m.newDir()
			m.change(d, dirOp{seq: m.nextSeq(), add: elem, to: sub})
			n = sub
		}
		if d, ok = n.(*memDir); !ok {
			return pathErr("mkdir", name, syscall.ENOTDIR)
		}
	}
	return nil
}

// List implements FS.
func (m *MemFS) List(name string) ([]string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	d, err := m.dir("open", name)
	if err != nil {
		return nil, err
	}
	return sortedNames(d.live), nil
}

// Stat implements FS.
func (m *MemFS) Stat(name string) (Info, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if path.Clean("/"+name) == "/" {
		return Info{IsDir: true}, nil
	}
	d, base, err := m.parent("stat", name)
	if err != nil {
		return Info{}, err
	}
	switch n := d.live[base].(type) {
	case *inode:
		return Info{Size: n.live.size}, nil
	case *memDir:
		return Info{IsDir: true}, nil
	default:
		return Info{}, pathErr("stat", name, fs.ErrNotExist)
	}
}

// SyncDir implements FS.
func (m *MemFS) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.dir("sync", name)
	if err != nil {
		return err
	}
	for i := range d.pending {
		if op := &d.pending[i]; op.dst != nil {
			// A journal takes both halves of a rename or neither, so
			// the file is never without a name.
			op.dst.syncTo(op.seq)
		}
	}
	d.syncTo(m.seq)
	return nil
}

// Lock implements FS.
func (m *MemFS) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := path.Clean("/" + name)
	if m.locks[key] != 0 {
		return nil, pathErr("lock", name, syscall.EWOULDBLOCK)
	}
	if _, err := m.file("lock", name); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if _, err := m.create(name); err != nil {
			return nil, err
		}
	}
	m.locks[key] = -1
	return &memLock{fs: m, key: key}, nil
}

// LockShared implements FS.
func (m *MemFS) LockShared(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.file("lock", name); err != nil {
		return nil, err
	}
	key := path.Clean("/" + name)
	if m.locks[key] < 0 {
		return nil, pathErr("lock", name, syscall.EWOULDBLOCK)
	}
	m.locks[key]++
	return &memLock{fs: m, key: key}, nil
}

type memLock struct {
	fs   *MemFS
	key  string
	once sync.Once
}

// Close releases the lock.
func (l *memLock) Close() error {
	l.once.Do(func() {
		l.fs.mu.Lock()
		defer l.fs.mu.Unlock()
		if n := l.fs.locks[l.key]; n > 1 {
			l.fs.locks[l.key] = n - 1
			return
		}
		delete(l.fs.locks, l.key)
	})
	return nil
}

// DiskUsage implements FS.
func (m *MemFS) DiskUsage(dir string) (Usage, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if _, err := m.dir("statfs", dir); err != nil {
		return Usage{}, err
	}
	total := m.limit
	if total == 0 {
		total = unlimited
	}
	return Usage{Total: total, Free: max(total-m.used, 0)}, nil
}
