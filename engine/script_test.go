package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"

	"github.com/pairdb/pairdb/engine/vfs"
)

// script drives a DB through every kind of file operation on one goroutine and
// keeps the model beside it.
type script struct {
	fs    vfs.FS
	seed  uint64
	rng   *rand.Rand
	db    *DB // nil while it is closed or being opened
	model *model
	// floor is the number of batches known to be durable while db is nil.
	floor int
	snaps []*Snapshot
	at    []int // the model's state of each snapshot
	queue *queued
	work  work

	tables int // files made for Ingest
	ckpt   copied
}

// copied is the last checkpoint.
type copied struct {
	n    int
	dir  string // "" while there is none to look at
	at   int    // the model's state it holds
	done bool
}

// work counts what a script made the DB do.
type work struct {
	Flushes, Compactions, Moves, WALRotations, Ingests int64
	switches                                           int64 // of the manifest's file
	deepest                                            int   // level with tables
	checkpoints                                        int
}

func (w *work) sum(o work) {
	w.Flushes += o.Flushes
	w.Compactions += o.Compactions
	w.Moves += o.Moves
	w.WALRotations += o.WALRotations
	w.Ingests += o.Ingests
	w.switches += o.switches
	w.checkpoints += o.checkpoints
	w.deepest = max(w.deepest, o.deepest)
}

func (w *work) add(db *DB) {
	m := db.Metrics()
	w.Flushes += m.Flushes
	w.Compactions += m.Compactions
	w.Moves += m.Moves
	w.WALRotations += m.WALRotations
	w.Ingests += m.Ingests
	w.switches += m.ManifestSwitches
	for i, l := range m.Levels {
		if l.Files > 0 {
			w.deepest = max(w.deepest, i)
		}
	}
}

// queued keeps background jobs until the script runs them, so that memtables,
// log segments and levels pile up as they do when the background is behind.
type queued struct {
	mu   sync.Mutex
	jobs []func()
}

func (q *queued) Go(_ string, f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.jobs = append(q.jobs, f)
}

func (q *queued) run() {
	for {
		q.mu.Lock()
		if len(q.jobs) == 0 {
			q.mu.Unlock()
			return
		}
		f := q.jobs[0]
		q.jobs = q.jobs[1:]
		q.mu.Unlock()
		f()
	}
}

func newScript(fs vfs.FS, seed uint64) *script {
	return &script{fs: fs, seed: seed, rng: rand.New(rand.NewPCG(seed, 2)), model: newModel()}
}

// acked returns how many batches the DB has promised to keep.
func (s *script) acked() int {
	n := s.floor
	if s.db != nil {
		for seq := s.db.DurableSeq(); n+1 < len(s.model.last) && s.model.last[n+1] <= seq; {
			n++
		}
	}
	return n
}

func (s *script) open() error {
	opts := tiny(s.fs, s.seed)
	if s.seed%2 == 0 {
		s.queue = &queued{}
		opts.Scheduler, opts.MaxImmutable = s.queue, 3
	}
	db, err := Open("db", opts)
	if err != nil {
		return err
	}
	s.db = db
	return nil
}

func (s *script) close() error {
	s.releaseSnaps()
	db := s.db
	s.work.add(db)
	if err := db.Close(); err != nil {
		return err
	}
	s.floor, s.db = s.acked(), nil
	return nil
}

func (s *script) releaseSnaps() {
	for _, sn := range s.snaps {
		sn.Close()
	}
	s.snaps, s.at = nil, nil
}

func (s *script) write(b *Batch, sync bool) error {
	ops := randomOps(s.rng)
	s.model.apply(ops)
	fillBatch(b, ops)
	_, err := s.db.Apply(b, WriteOptions{Sync: sync})
	return err
}

// ingest makes tables and gives them to the DB.
func (s *script) ingest() error {
	paths, ops, err := randomTables(s.fs, s.rng, &s.tables)
	if err != nil {
		return err
	}
	s.model.applyAs(ops, 1)
	if err := s.db.Ingest(paths); err != nil {
		return err
	}
	return removeAll(s.fs, paths)
}

// checkpoint replaces the last one by a new one.
func (s *script) checkpoint() error {
	old := s.ckpt.dir
	s.ckpt.dir = ""
	if old != "" {
		if err := s.fs.RemoveAll(old); err != nil {
			return err
		}
	}
	s.ckpt.n++
	s.ckpt.dir, s.ckpt.at, s.ckpt.done = fmt.Sprintf("ckpt%d", s.ckpt.n), len(s.model.states)-1, false
	if err := s.db.Checkpoint(s.ckpt.dir); err != nil {
		return err
	}
	s.ckpt.done = true
	s.work.checkpoints++
	return nil
}

// checkCopy makes sure that the checkpoint on a crashed disk is whole, or, while
// it is being made, that it is whole or does not look like a DB.
func (s *script) checkCopy(disk vfs.FS) error {
	if s.ckpt.dir == "" {
		return nil
	}
	if !s.ckpt.done {
		if _, err := disk.Stat(s.ckpt.dir + "/CURRENT"); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	db, err := Open(s.ckpt.dir, tiny(disk, 6))
	if err != nil {
		return fmt.Errorf("checkpoint, done %v: %w", s.ckpt.done, err)
	}
	err = errors.Join(compare(db, s.model.states[s.ckpt.at]), checkDir(db), db.Verify(), db.Close())
	if err != nil {
		return fmt.Errorf("checkpoint, done %v: %w", s.ckpt.done, err)
	}
	return nil
}

// run does a random workload.
func (s *script) run(steps int) error {
	if err := s.open(); err != nil {
		return err
	}
	b := NewBatch()
	for i := range steps {
		if err := s.step(b, i); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	if err := compare(s.db, s.model.now()); err != nil {
		return err
	}
	return s.close()
}

func (s *script) step(b *Batch, i int) error {
	if s.queue != nil && s.rng.IntN(12) == 0 {
		s.queue.run()
	}
	switch r := s.rng.IntN(100); {
	case r < 2:
		return s.db.Flush()
	case r < 3:
		return s.db.Compact([]byte(modelKey(s.rng.IntN(20))), []byte(modelKey(20+s.rng.IntN(20))))
	case r < 5 && len(s.snaps) < 2:
		s.snaps, s.at = append(s.snaps, s.db.Snapshot()), append(s.at, len(s.model.states)-1)
		return nil
	case r < 7 && len(s.snaps) > 0:
		for k, sn := range s.snaps {
			if err := compare(sn, s.model.states[s.at[k]]); err != nil {
				return fmt.Errorf("snapshot: %w", err)
			}
		}
		s.releaseSnaps()
		return nil
	case r < 10:
		return s.ingest()
	case r < 11:
		return s.checkpoint()
	case r < 12 && i > 10:
		if err := s.close(); err != nil {
			return err
		}
		return s.open()
	default:
		return s.write(b, r%3 != 0)
	}
}

// tour does one of everything in a fixed order.
func (s *script) tour() error {
	b := NewBatch()
	writes := func(n int) func() error {
		return func() error {
			for i := range n {
				if err := s.write(b, i%2 == 0); err != nil {
					return err
				}
			}
			return nil
		}
	}
	deleteRange := func() error {
		ops := []op{delRange(modelKey(10), modelKey(30)), set(modelKey(12), "stays")}
		s.model.apply(ops)
		fillBatch(b, ops)
		_, err := s.db.Apply(b, WriteOptions{Sync: true})
		return err
	}
	reopen := func() error { return errors.Join(s.close(), s.open()) }
	for i, f := range []func() error{
		s.open, writes(12), s.ingest, writes(3), s.checkpoint, deleteRange, s.ingest, s.ingest,
		func() error { return s.db.Flush() }, writes(6), deleteRange, s.checkpoint,
		func() error { return s.db.Compact(nil, nil) }, s.ingest, reopen, s.ingest, writes(4),
		func() error { return s.db.Compact([]byte(modelKey(5)), []byte(modelKey(25))) }, s.checkpoint,
		func() error { return compare(s.db, s.model.now()) }, s.close,
	} {
		if err := f(); err != nil {
			return fmt.Errorf("stop %d of the tour: %w", i, err)
		}
	}
	return nil
}
