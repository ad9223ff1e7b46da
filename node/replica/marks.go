package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/bits"
	"path"
	"sync"
	"sync/atomic"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
)

// Marks are the partitions whose copy on this node is not to be believed, in a file
// of their own: what they tell of may be the engine itself. The file is written
// anew at each change, and has always the same length. A nil *Marks has none and
// takes none. It is safe for concurrent use.
type Marks struct {
	fs   vfs.FS
	path string

	// count is how many bits are set, so that a node without damage looks at one
	// word only.
	count atomic.Int64
	bits  [ring.MaxPartitions / 64]atomic.Uint64

	mu      sync.Mutex // held to change bits and file
	changed chan struct{}
	// held counts who is taking data of a partition out of the engine, and again has
	// the partitions of which some was, since Fetching.
	held  map[ring.Partition]int
	again map[ring.Partition]bool
}

const (
	marksMagic = "PAIRQUA\x01"
	marksBytes = ring.MaxPartitions / 8
	marksSize  = len(marksMagic) + marksBytes + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// NewMarks returns marks that go to the file at path, and are none so far, whatever
// the file has.
func NewMarks(fsys vfs.FS, path string) *Marks {
	return &Marks{
		fs: fsys, path: path, changed: make(chan struct{}),
		held: make(map[ring.Partition]int), again: make(map[ring.Partition]bool),
	}
}

// OpenMarks returns the marks in the file at path, none if there is no file. A
// damaged file is a *base.CorruptError: which partitions were meant is not known.
func OpenMarks(fsys vfs.FS, path string) (*Marks, error) {
	m := NewMarks(fsys, path)
	b, err := readMarks(fsys, path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	set := 0
	for i := range m.bits {
		w := binary.LittleEndian.Uint64(b[8*i:])
		m.bits[i].Store(w)
		set += bits.OnesCount64(w)
	}
	m.count.Store(int64(set))
	return m, nil
}

// readMarks returns the bits in a file.
func readMarks(fsys vfs.FS, path string) (_ []byte, err error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if size != int64(marksSize) {
		return nil, base.Corruptf(path, -1, "it has %d bytes, not %d", size, marksSize)
	}
	b := make([]byte, marksSize)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	n := marksSize - 4
	if !bytes.HasPrefix(b, []byte(marksMagic)) || crc32.Checksum(b[:n], castagnoli) != binary.LittleEndian.Uint32(b[n:]) {
		return nil, base.Corruptf(path, 0, "its checksum does not match")
	}
	return b[len(marksMagic):n], nil
}

// Has reports whether a partition is marked.
func (m *Marks) Has(p ring.Partition) bool {
	return m != nil && m.count.Load() != 0 && int(p) < ring.MaxPartitions && m.bits[p/64].Load()>>(p%64)&1 == 1
}

// List returns the marked partitions, ascending.
func (m *Marks) List() []ring.Partition {
	var out []ring.Partition
	if m == nil || m.count.Load() == 0 {
		return out
	}
	for i := range m.bits {
		for w := m.bits[i].Load(); w != 0; w &= w - 1 {
			out = append(out, ring.Partition(64*i+bits.TrailingZeros64(w)))
		}
	}
	return out
}

// Len returns how many partitions are marked.
func (m *Marks) Len() int {
	if m == nil {
		return 0
	}
	return int(m.count.Load())
}

// Changed is closed at the next change of the marks.
func (m *Marks) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// Add marks partitions: at once for whoever asks, and on disk when it returns nil.
// After an error the marks hold for this start of the process at least. It reports
// how many were not marked before.
func (m *Marks) Add(list []ring.Partition) (fresh int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range list {
		if int(p) >= ring.MaxPartitions {
			return fresh, fmt.Errorf("mark partition %d: there are at most %d", p, ring.MaxPartitions)
		}
		m.again[p] = true
		w := m.bits[p/64].Load()
		if w>>(p%64)&1 == 1 {
			continue
		}
		m.bits[p/64].Store(w | 1<<(p%64))
		m.count.Add(1)
		fresh++
	}
	// Also if none is new: an Add before may not have got to the disk.
	err = m.write()
	if fresh > 0 {
		m.tell()
	}
	return fresh, err
}

// Hold keeps the marks of partitions, also those that are still to be added, from
// being removed until release is called, and by whoever began to fetch before that:
// meanwhile their data is taken out of the engine.
func (m *Marks) Hold(list []ring.Partition) (release func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range list {
		m.held[p]++
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, p := range list {
			m.again[p] = true
			if m.held[p]--; m.held[p] == 0 {
				delete(m.held, p)
			}
		}
	}
}

// Fetching notes that a partition is fetched from now on: its mark can be removed if
// no more of its data is taken away from then to Remove.
func (m *Marks) Fetching(p ring.Partition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held[p] == 0 {
		delete(m.again, p)
	}
}

// Remove takes marks away: on disk first, with one write for all. After an error they
// are still there. Those of which more was added or taken out of the engine since
// Fetching stay. That there is none is no error.
func (m *Marks) Remove(list []ring.Partition) error {
	if m.Len() == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.encode()
	var gone []ring.Partition
	for _, p := range list {
		if !m.Has(p) || m.held[p] > 0 || m.again[p] {
			continue
		}
		b[len(marksMagic)+int(p/8)] &^= 1 << (p % 8)
		gone = append(gone, p)
	}
	if len(gone) == 0 {
		return nil
	}
	if err := m.writeBytes(b); err != nil {
		return err
	}
	for _, p := range gone {
		word := &m.bits[p/64]
		if w := word.Load(); w>>(p%64)&1 == 1 {
			word.Store(w &^ (1 << (p % 64)))
			m.count.Add(-1)
		}
	}
	m.tell()
	return nil
}

// tell closes the channel of Changed. The lock is held.
func (m *Marks) tell() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *Marks) encode() []byte {
	b := make([]byte, 0, marksSize)
	b = append(b, marksMagic...)
	for i := range m.bits {
		b = binary.LittleEndian.AppendUint64(b, m.bits[i].Load())
	}
	return b[:marksSize]
}

// write makes the marks durable. The lock is held.
func (m *Marks) write() error { return m.writeBytes(m.encode()) }

// writeBytes makes b, which it completes, the file.
func (m *Marks) writeBytes(b []byte) error {
	n := marksSize - 4
	binary.LittleEndian.PutUint32(b[n:], crc32.Checksum(b[:n], castagnoli))
	err := WriteFile(m.fs, m.path, b)
	if err != nil {
		return fmt.Errorf("note which partitions are damaged: %w", err)
	}
	return nil
}

// WriteFile makes b the content of a small file, durably: after a power cut it has
// its old content or b. Nobody else writes it at the same time.
func WriteFile(fsys vfs.FS, name string, b []byte) error {
	temp := name + ".tmp"
	if err := fsys.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(temp)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(temp, name); err != nil {
		return err
	}
	return fsys.SyncDir(path.Dir(name))
}
