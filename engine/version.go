package engine

import (
	"sync/atomic"

	"github.com/pairdb/pairdb/engine/compaction"
	"github.com/pairdb/pairdb/engine/manifest"
)

// version is a manifest.Version with the tables it lists, held open for
// whoever reads it. It is immutable.
type version struct {
	*manifest.Version
	levels [][]*table // parallel to Version.Levels
	tree   *compaction.Tree
	depth  int // of level 0
	bytes  int64
	refs   atomic.Int32
}

// readState is what a read sees: the memtables and the version under them.
// It is immutable but for what writers add to mem.
//
// Invariant: whatever is committed lies in mem, imm or v, and for every user
// key the versions in mem are newer than those in imm (newest first), those
// newer than in the tables of level 0 (newest first), and so on down.
type readState struct {
	mem  *memTable
	imm  []*memTable // newest first
	v    *version
	refs atomic.Int32 // 0: retired; it can never be used again
	db   *DB
}

// acquireState returns the current state; release it after use. It takes no
// lock.
func (db *DB) acquireState() *readState {
	for {
		rs := db.state.Load()
		for {
			n := rs.refs.Load()
			if n == 0 {
				break // replaced since it was loaded
			}
			if rs.refs.CompareAndSwap(n, n+1) {
				return rs
			}
		}
	}
}

// release gives a state back; after the last use of a version its obsolete
// tables are removed in the background.
func (rs *readState) release() {
	if rs.unref() {
		rs.db.schedule()
	}
}

// unref is release without the clean-up; it reports whether one is due.
func (rs *readState) unref() bool {
	if rs.refs.Add(-1) > 0 {
		return false
	}
	rs.mem.unref()
	for _, m := range rs.imm {
		m.unref()
	}
	return rs.v.unref(rs.db)
}

func (v *version) unref(db *DB) (obsolete bool) {
	if v.refs.Add(-1) > 0 {
		return false
	}
	for _, level := range v.levels {
		for _, t := range level {
			if t.versions.Add(-1) == 0 {
				db.obsolete.add(t)
				obsolete = true
			}
		}
	}
	return obsolete
}

// newVersion makes the version of mv, whose tables are known from old or new.
// The caller holds a reference to old and is the only one to change the version.
func (db *DB) newVersion(mv *manifest.Version, old *version) *version {
	known := map[uint64]*table{}
	if old != nil {
		for _, level := range old.levels {
			for _, t := range level {
				known[t.Num] = t
			}
		}
	}
	v := &version{Version: mv, levels: make([][]*table, len(mv.Levels))}
	for i, files := range mv.Levels {
		v.levels[i] = make([]*table, len(files))
		for k, f := range files {
			t := known[f.Num]
			if t == nil {
				t = &table{FileMeta: f, set: db.tables}
			}
			t.versions.Add(1)
			v.levels[i][k] = t
		}
	}
	v.tree = compaction.NewTree(db.shape, mv)
	v.depth = v.tree.Depth
	for level := range mv.Levels {
		v.bytes += v.tree.Bytes(level)
	}
	return v
}

// installLocked makes mem, imm (oldest first) and v the current state. It
// reports whether tables became obsolete, in which case schedule is to be
// called once db.mu is released.
func (db *DB) installLocked(mem *memTable, imm []*memTable, v *version) bool {
	rs := &readState{mem: mem, v: v, db: db, imm: make([]*memTable, len(imm))}
	mem.refs.Add(1)
	for i, m := range imm {
		m.refs.Add(1)
		rs.imm[len(imm)-1-i] = m
	}
	rs.refs.Store(1)
	v.refs.Add(1)
	db.mem, db.imm, db.version = mem, imm, v
	old := db.state.Swap(rs)
	return old != nil && old.unref()
}
