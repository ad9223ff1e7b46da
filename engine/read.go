package engine

import (
	"bytes"
	"slices"
	"sort"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/sstable"
)

// Get appends the value of key to dst and returns the result, or dst and
// ErrNotFound. It sees every batch applied before the call. With the tables
// open and their blocks in the cache it allocates nothing but what dst needs
// to grow.
func (db *DB) Get(dst, key []byte) ([]byte, error) {
	value, _, err := db.get(dst, key, base.MaxSeqNum)
	return value, err
}

// GetSeq is Get into a slice of dst's memory that also returns the sequence
// number of the version found, so that the caller can tell whether it is
// durable yet (DurableSeq, WaitDurable). With ErrNotFound it is that of the
// tombstone that hides the key, 0 if none is left.
func (db *DB) GetSeq(dst, key []byte) (value []byte, at base.SeqNum, err error) {
	return db.get(dst, key, base.MaxSeqNum)
}

func (db *DB) get(dst, key []byte, snap base.SeqNum) ([]byte, base.SeqNum, error) {
	if db.closing.Load() {
		return dst, 0, ErrClosed
	}
	// First the state, then the sequence number: a state never lacks what was
	// visible when it was loaded, and compactions that hide older versions
	// are not in it.
	rs := db.acquireState()
	seq := min(snap, base.SeqNum(db.visible.Load()))
	value, at, err := rs.get(dst, key, seq)
	rs.release()
	return value, at, err
}

// get looks from the newest source to the oldest and ends at the first version
// or range delete of key: all behind it is older.
func (rs *readState) get(dst, key []byte, seq base.SeqNum) ([]byte, base.SeqNum, error) {
	if out, at, done := rs.mem.get(dst, key, seq); done {
		return result(dst, out, at)
	}
	for _, m := range rs.imm {
		if out, at, done := m.get(dst, key, seq); done {
			return result(dst, out, at)
		}
	}
	for level, tables := range rs.v.levels {
		if level > 0 {
			// At most one table of the level may hold the key.
			i := sort.Search(len(tables), func(i int) bool { return !tables[i].EndsBefore(key) })
			tables = tables[i:min(i+1, len(tables))]
		}
		for _, t := range tables {
			if !t.Contains(key) || t.SmallestSeq > seq {
				continue
			}
			out, at, done, err := t.get(dst, key, seq)
			if err != nil {
				return dst, 0, err
			}
			if done {
				return result(dst, out, at)
			}
		}
	}
	return dst, 0, ErrNotFound
}

// found is what a source knows of a key: out is nil if it is deleted.
func result(dst, out []byte, at base.SeqNum) ([]byte, base.SeqNum, error) {
	if out == nil {
		return dst, at, ErrNotFound
	}
	return out, at, nil
}

// notNil makes a value that was found distinct from none.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// get returns the newest state of key at seq; done is false if the memtable
// knows nothing of it. out is dst with the value, nil if the key is deleted.
func (m *memTable) get(dst, key []byte, seq base.SeqNum) (out []byte, at base.SeqNum, done bool) {
	del := m.rangeDels().Newest(key, seq)
	value, kind, at, ok := m.Get(key, seq)
	switch {
	case ok && at > del && kind == base.KindSet:
		return notNil(append(dst, value...)), at, true
	case ok && at > del:
		return nil, at, true
	default:
		return nil, del, del > 0
	}
}

// get is that of memTable for a table.
func (t *table) get(dst, key []byte, seq base.SeqNum) (out []byte, at base.SeqNum, done bool, err error) {
	o, err := t.acquire()
	if err != nil {
		return nil, 0, false, err
	}
	out, at, done, err = o.find(nil, dst, key, seq)
	o.release()
	return out, at, done, err
}

// find is get in the open table, by way of by if that is not nil.
func (o *openTable) find(by *sstable.Finder, dst, key []byte, seq base.SeqNum) (out []byte, at base.SeqNum, done bool, err error) {
	del := o.dels.Newest(key, seq)
	value, kind, at, ok, err := o.getBy(by, dst, key, seq)
	// An ingested table has one number: its range deletes hide older tables,
	// never its own entries.
	switch {
	case err != nil:
		return nil, 0, false, err
	case ok && at >= del && kind == base.KindSet:
		return notNil(value), at, true, nil
	case ok && at >= del:
		return nil, at, true, nil
	default:
		return nil, del, del > 0, nil
	}
}

// Snapshot is a view of the DB as it was when it was taken. It keeps what it
// sees from being compacted away; close it. It is safe for concurrent use.
type Snapshot struct {
	db     *DB
	seq    base.SeqNum
	closed bool // guarded by db.mu
}

// Snapshot returns a view of all that is visible now.
func (db *DB) Snapshot() *Snapshot {
	db.mu.Lock()
	defer db.mu.Unlock()
	s := &Snapshot{db: db, seq: db.commit.last}
	db.snapshots.add(s.seq)
	return s
}

// Seq returns the newest sequence number the snapshot sees.
func (s *Snapshot) Seq() base.SeqNum { return s.seq }

// Get is DB.Get on the snapshot.
func (s *Snapshot) Get(dst, key []byte) ([]byte, error) {
	if s.isClosed() {
		return dst, ErrClosed
	}
	value, _, err := s.db.get(dst, key, s.seq)
	return value, err
}

// NewIter is DB.NewIter on the snapshot. The iterator may outlive it.
func (s *Snapshot) NewIter(lower, upper []byte) (*Iterator, error) {
	if s.isClosed() {
		return nil, ErrClosed
	}
	return s.db.newIter(lower, upper, s.seq)
}

func (s *Snapshot) isClosed() bool {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	return s.closed
}

// Close releases the snapshot. It is idempotent and returns nil.
func (s *Snapshot) Close() error {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.db.snapshots.remove(s.seq)
	}
	return nil
}

// snapshotList holds the sequence numbers of the open snapshots, ascending,
// one for each. It is guarded by DB.mu.
type snapshotList struct{ seqs []base.SeqNum }

func (l *snapshotList) add(seq base.SeqNum) {
	i, _ := slices.BinarySearch(l.seqs, seq)
	l.seqs = slices.Insert(l.seqs, i, seq)
}

func (l *snapshotList) remove(seq base.SeqNum) {
	if i, ok := slices.BinarySearch(l.seqs, seq); ok {
		l.seqs = slices.Delete(l.seqs, i, i+1)
	}
}

// oldest returns the smallest number, base.MaxSeqNum if there is none.
func (l *snapshotList) oldest() base.SeqNum {
	if len(l.seqs) == 0 {
		return base.MaxSeqNum
	}
	return l.seqs[0]
}

// list returns the distinct numbers, ascending.
func (l *snapshotList) list() []base.SeqNum { return slices.Compact(slices.Clone(l.seqs)) }

// tablesIn returns the tables that may hold a key in [lower, upper), nil bounds
// being open. sorted says that they are in key order and disjoint.
func tablesIn(tables []*table, sorted bool, lower, upper []byte) []*table {
	if sorted {
		lo, hi := 0, len(tables)
		if lower != nil {
			lo = sort.Search(hi, func(i int) bool { return !tables[i].EndsBefore(lower) })
		}
		if upper != nil {
			hi = sort.Search(hi, func(i int) bool { return bytes.Compare(tables[i].Smallest.UserKey, upper) >= 0 })
		}
		return tables[lo:max(lo, hi)]
	}
	var out []*table
	for _, t := range tables {
		if (lower == nil || !t.EndsBefore(lower)) && (upper == nil || bytes.Compare(t.Smallest.UserKey, upper) < 0) {
			out = append(out, t)
		}
	}
	return out
}
