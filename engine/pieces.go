package engine

import (
	"bytes"
	"errors"
	"slices"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/compaction"
	"github.com/pairdb/pairdb/engine/manifest"
)

// merge is a job's merging. Its range of keys is cut into pieces that are
// merged apart, by whoever is idle, into tables of their own; one edit lists all
// of them.
type merge struct {
	db        *DB
	rs        *readState
	job       *compaction.Job
	stop      func() error // see doCompaction
	snapshots []base.SeqNum
	keep      base.SeqNum // see KeepDeletesAfter
	dels      []base.RangeDel
	// inputs and below are the job's tables but for those that dels hide.
	inputs, below []*table
	bounds        [][]byte // between pieces

	// Guarded by db.mu. The pieces before next were begun, left are not ended.
	next, left int
	pieces     []piece
}

type piece struct {
	files    []*manifest.FileMeta
	filtered int64
	err      error
}

// maxPieces bounds the pieces of a job.
const maxPieces = 8

// mergeTables writes the merged tables of a job.
func (db *DB) mergeTables(rs *readState, job *compaction.Job, stop func() error) ([]*manifest.FileMeta, error) {
	m := &merge{db: db, rs: rs, job: job, stop: stop, keep: base.SeqNum(db.keepDeletes.Load())}
	db.mu.Lock()
	m.snapshots = db.snapshots.list()
	helpers := max(0, db.opts.MaxBackgroundJobs-db.compact.running-db.helpers)
	db.mu.Unlock()
	if err := m.load(); err != nil {
		return nil, err
	}
	m.split(helpers)
	m.help(min(helpers, len(m.bounds)))
	m.work()
	return m.finish()
}

// load finds the tables to read and their range deletes.
func (m *merge) load() error {
	m.inputs = pickTables(m.rs.v.levels[m.job.Level], m.job.Inputs)
	m.below = pickTables(m.rs.v.levels[m.job.Output], m.job.Below)
	for _, t := range slices.Concat(m.inputs, m.below) {
		if t.RangeDels == 0 {
			continue
		}
		o, err := t.acquire()
		if err != nil {
			return err
		}
		m.dels = append(m.dels, o.RangeDels()...)
		o.release()
	}
	covered := func(t *table) bool { return compaction.Covered(t.FileMeta, m.dels, m.snapshots) }
	m.inputs = slices.DeleteFunc(m.inputs, covered)
	m.below = slices.DeleteFunc(m.below, covered)
	return nil
}

// split chooses the borders of the pieces for so many helpers: a piece should
// fill two tables at least.
func (m *merge) split(helpers int) {
	size := manifest.Bytes(m.job.Files())
	n := min(int64(helpers)+1, maxPieces, size/(2*m.db.opts.TargetFileSize))
	if n >= 2 {
		m.bounds = m.job.Split(int(n), m.sample(int(n)))
	}
	m.pieces = make([]piece, len(m.bounds)+1)
	m.left = len(m.pieces)
}

// sample returns keys that part the tables of level 0 evenly. Without them the
// job has fewer pieces.
func (m *merge) sample(n int) (keys [][]byte) {
	if m.job.Level > 0 {
		return nil
	}
	for _, t := range m.inputs {
		o, err := t.acquire()
		if err != nil {
			continue // the merge is going to say so
		}
		k, err := o.Sample(4 * n)
		o.release()
		if err == nil {
			keys = append(keys, k...)
		}
	}
	return keys
}

// help asks the scheduler for n helpers. Each does pieces as long as there are
// any that nobody began; one that comes late finds none.
func (m *merge) help(n int) {
	for range n {
		m.db.spawn(poolCompact, func() {
			m.db.mu.Lock()
			idle := m.next == len(m.pieces)
			if !idle {
				m.db.helpers++
			}
			m.db.mu.Unlock()
			if idle {
				return
			}
			m.work()
			m.db.mu.Lock()
			m.db.helpers--
			m.db.progress.Broadcast()
			m.db.mu.Unlock()
			m.db.schedule()
		})
	}
}

// work does pieces until all are begun.
func (m *merge) work() {
	for {
		m.db.mu.Lock()
		i := m.next
		if i == len(m.pieces) {
			m.db.mu.Unlock()
			return
		}
		m.next++
		m.db.mu.Unlock()
		var p piece
		p.err = m.db.guard(poolCompact, func() (err error) {
			p.files, p.filtered, err = m.piece(i)
			return err
		})
		m.db.mu.Lock()
		m.pieces[i] = p
		m.left--
		if m.left == 0 {
			m.db.progress.Broadcast()
		}
		m.db.mu.Unlock()
	}
}

// finish waits for the pieces of others and returns the tables of all.
func (m *merge) finish() ([]*manifest.FileMeta, error) {
	m.db.mu.Lock()
	for m.left > 0 {
		m.db.progress.Wait()
	}
	m.db.mu.Unlock()
	var files []*manifest.FileMeta
	var errs []error
	for _, p := range m.pieces {
		files = append(files, p.files...)
		if p.err != nil {
			errs = append(errs, p.err)
		}
		m.db.stats.filtered.Add(p.filtered)
	}
	if len(errs) > 0 {
		m.db.discard(files)
		return nil, errs[0] // the others fail for the same reason, or by it
	}
	if len(m.pieces) > 1 {
		m.db.stats.split.Add(int64(len(m.pieces)))
	}
	return files, m.db.syncTables(files)
}

// piece merges the i-th piece.
func (m *merge) piece(i int) (files []*manifest.FileMeta, filtered int64, err error) {
	var lower, upper []byte
	if i > 0 {
		lower = m.bounds[i-1]
	}
	if i < len(m.bounds) {
		upper = m.bounds[i]
	}
	in := newMergeIter(m.iterators())
	defer func() {
		if cerr := in.Close(); err == nil && cerr != nil {
			m.db.discard(files)
			files, err = nil, cerr
		}
	}()
	it := compaction.NewIter(compaction.IterOptions{
		In: in, RangeDels: compaction.Clip(m.dels, lower, upper), Snapshots: m.snapshots,
		Lower: lower, Upper: upper, NothingBelow: m.nothingBelow(), Filter: m.filter(),
		KeepDeletesAfter: m.keep,
	})
	tree := m.rs.v.tree
	files, err = m.db.writePiece(it, outputOptions{
		level: m.job.Output, cold: tree.Cold(m.job.Output), stop: m.stop,
		cutter: tree.NewCutter(m.job.Output, lower), wrote: m.db.pace,
	})
	return files, it.Filtered(), err
}

// nothingBelow is IterOptions.NothingBelow. Within level 0 there are older
// tables beside the job, so nothing is ever known to be gone.
func (m *merge) nothingBelow() func(start, end []byte) bool {
	if m.job.Output == 0 {
		return nil
	}
	return func(start, end []byte) bool {
		return !compaction.HasBelow(m.rs.v.Version, m.job.Output, start, end, !bytes.Equal(start, end))
	}
}

func (m *merge) filter() func(key, value []byte) bool { return m.db.opts.CompactionFilter }

// iterators returns new iterators over the tables to read.
func (m *merge) iterators() (its []base.InternalIterator) {
	if m.job.Level == 0 {
		for i := range m.inputs {
			its = append(its, &levelIter{tables: m.inputs[i : i+1], compaction: true})
		}
	} else if len(m.inputs) > 0 {
		its = append(its, &levelIter{tables: m.inputs, compaction: true})
	}
	if len(m.below) > 0 {
		its = append(its, &levelIter{tables: m.below, compaction: true})
	}
	return its
}

var errNoTable = errors.New("engine: a compaction names a table that its version lacks")

// pickTables returns the tables of a level that files names, in its order.
func pickTables(level []*table, files []*manifest.FileMeta) []*table {
	byNum := make(map[uint64]*table, len(files))
	for _, t := range level {
		byNum[t.Num] = t
	}
	out := make([]*table, len(files))
	for i, f := range files {
		if out[i] = byNum[f.Num]; out[i] == nil {
			panic(errNoTable) // a broken invariant, which ends writing
		}
	}
	return out
}
