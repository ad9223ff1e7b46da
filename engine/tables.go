package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/cache"
	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/rangedel"
	"github.com/pairdb/pairdb/engine/sstable"
	"github.com/pairdb/pairdb/engine/vfs"
)

const (
	tableSuffix = ".sst"
	tempSuffix  = ".tmp"
)

func tableName(num uint64) string { return fmt.Sprintf("%06d%s", num, tableSuffix) }

// table is a live table file. It is shared by all versions that list it.
type table struct {
	*manifest.FileMeta
	set *tableSet
	// versions counts the versions that list the table; at 0 the file goes.
	versions atomic.Int32
	// open is the reader while the table is open.
	open atomic.Pointer[openTable]
	mu   sync.Mutex // held to open the table
}

// openTable is a reader in use. refs counts its users and, while it is the
// table's open one, the set.
type openTable struct {
	*sstable.Reader
	t         *table
	rangeDels []base.RangeDel
	dels      *rangedel.List
	refs      atomic.Int32
	// used is set by each use and cleared by the set's clock hand.
	used atomic.Bool
}

// tableSet opens tables on demand and keeps at most limit of them open.
type tableSet struct {
	fs    vfs.FS
	dir   string
	cache *cache.Cache
	dec   *sstable.Decoder
	limit int

	filters filterCounters

	mu sync.Mutex
	// ring holds the open tables in the order of the clock hand.
	//
	// Invariant: each is the open one of its table; the set holds a ref.
	ring   []*openTable
	hand   int
	closed bool
}

// acquire returns the open reader of t; release it after use.
func (t *table) acquire() (*openTable, error) {
	if o := t.open.Load(); o != nil && o.tryRef() {
		if !o.used.Load() {
			o.used.Store(true)
		}
		return o, nil
	}
	return t.acquireSlow()
}

func (o *openTable) tryRef() bool {
	for {
		n := o.refs.Load()
		if n == 0 {
			return false
		}
		if o.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release gives back a reader; the last one closes it.
func (o *openTable) release() {
	if o.refs.Add(-1) == 0 {
		// A file that was only read has nothing to lose in a failed close.
		_ = o.Reader.Close()
	}
}

func (t *table) acquireSlow() (*openTable, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o := t.open.Load(); o != nil && o.tryRef() {
		return o, nil
	}
	r, err := t.set.newReader(t.FileMeta, nil)
	if err != nil {
		return nil, err
	}
	rds := renumber(t.FileMeta, r.RangeDels())
	o := &openTable{Reader: r, t: t, rangeDels: rds, dels: rangedel.Build(rds)}
	o.refs.Store(1)
	o.used.Store(true)
	t.set.admit(o)
	return o, nil
}

// newReader opens the file of f, reads it through wrap, if that is not nil, and
// holds it against what the manifest says.
func (s *tableSet) newReader(f *manifest.FileMeta, wrap func(vfs.File) vfs.File) (*sstable.Reader, error) {
	path := s.dir + "/" + tableName(f.Num)
	file, err := s.fs.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		// A version that lists it is in use, so nobody but a stranger removed it.
		return nil, base.Corruptf(path, -1, "table is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("open table: %w", err)
	}
	if wrap != nil {
		file = wrap(file)
	}
	size, err := file.Size()
	if err == nil && size != f.Size {
		err = base.Corruptf(path, -1, "table has %d bytes, the manifest says %d", size, f.Size)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	r, err := sstable.NewReader(file, size, sstable.ReaderOptions{
		Cache: s.cache, FileNum: cacheID(f), Name: path, Nonce: f.Nonce, Decoder: s.dec,
	})
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return r, nil
}

// admit makes o the open one of its table and closes others if there are too
// many. When the set is closed, o stays its user's alone.
func (s *tableSet) admit(o *openTable) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	o.refs.Add(1)
	o.t.open.Store(o)
	s.ring = append(s.ring, o)
	for len(s.ring) > s.limit {
		s.hand %= len(s.ring)
		victim := s.ring[s.hand]
		if victim == o || victim.used.Swap(false) {
			s.hand++
			continue
		}
		s.dropLocked(s.hand)
	}
}

func (s *tableSet) dropLocked(i int) {
	o := s.ring[i]
	s.ring = append(s.ring[:i], s.ring[i+1:]...)
	o.t.open.CompareAndSwap(o, nil)
	o.release()
}

// forget closes t, as far as nobody uses it.
func (s *tableSet) forget(t *table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, o := range s.ring {
		if o.t == t {
			s.dropLocked(i)
			return
		}
	}
}

// close closes all tables but those in use, which close after their last use.
func (s *tableSet) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for len(s.ring) > 0 {
		s.dropLocked(len(s.ring) - 1)
	}
}

// openCount returns the number of open tables.
func (s *tableSet) openCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ring)
}
