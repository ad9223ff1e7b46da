package engine

import (
	"slices"

	"github.com/pairdb/pairdb/engine/compaction"
	"github.com/pairdb/pairdb/engine/manifest"
)

// recoveryFlush is the flush of a memtable while the log behind it is still being
// read. It is guarded by DB.mu; whoever sets begun does it.
type recoveryFlush struct {
	m           *memTable
	begun, done bool
	files       []*manifest.FileMeta
	err         error
}

// flushAhead hands the oldest full memtable to the scheduler, if none is with it.
func (r *recovery) flushAhead() {
	if r.ahead != nil || len(r.tables) < r.db.opts.MaxImmutable {
		return
	}
	f := &recoveryFlush{m: r.tables[0]}
	r.ahead = f
	r.db.spawn(poolFlush, func() { r.db.flushRecovered(f) })
}

// flushRecovered writes f's memtable to tables, unless somebody else does or did.
func (db *DB) flushRecovered(f *recoveryFlush) {
	db.mu.Lock()
	if f.begun {
		db.mu.Unlock()
		return
	}
	f.begun = true
	db.mu.Unlock()
	var files []*manifest.FileMeta
	err := db.protect(poolFlush, func() (err error) {
		files, err = db.writeTables(compaction.NewIter(compaction.IterOptions{
			In: f.m.NewIter(), RangeDels: f.m.Table.RangeDels(),
		}), outputOptions{})
		return err
	})
	db.mu.Lock()
	f.done, f.files, f.err = true, files, err
	db.progress.Broadcast()
	db.mu.Unlock()
}

// flushed makes sure that the oldest memtable is flushed, doing it itself if
// nobody has begun, and counts its tables into the state, which the new manifest
// will list.
func (r *recovery) flushed() error {
	r.flushAhead()
	f := r.ahead
	r.db.flushRecovered(f)
	r.awaitFlush()
	r.ahead = nil
	if f.err != nil {
		return f.err
	}
	e := &manifest.Edit{FlushedSeq: f.m.last}
	for _, file := range f.files {
		e.Added = append(e.Added, manifest.NewFile{Level: 0, FileMeta: file})
	}
	var err error
	if r.state, err = r.state.Apply(e); err != nil {
		return err
	}
	r.tables = slices.Delete(r.tables, 0, 1)
	f.m.Close()
	return nil
}

// awaitFlush returns once the flush under way, if there is one, is done. One
// that has not begun never will.
func (r *recovery) awaitFlush() {
	f := r.ahead
	if f == nil {
		return
	}
	r.db.mu.Lock()
	defer r.db.mu.Unlock()
	if !f.begun {
		f.begun, f.done = true, true
	}
	for !f.done {
		r.db.progress.Wait()
	}
}

// settle ends flushing ahead: what was begun counts, the rest is left to the
// background. If recovery failed with err, nothing counts.
func (r *recovery) settle(err error) error {
	f := r.ahead
	if f == nil {
		return err
	}
	r.awaitFlush()
	switch {
	case err != nil:
		r.db.discard(f.files)
		return err
	case f.files == nil && !isReadOnly(f.err):
		if f.err != nil {
			r.db.opts.Logger.Warn("a flush during recovery failed and is left to the background", "dir", r.db.dir, "error", f.err)
		}
		r.ahead = nil
		return nil // not begun, or to be tried again: the memtable is still there
	default:
		return r.flushed()
	}
}
