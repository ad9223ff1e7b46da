package engine

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
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
}

// work counts what a script made the DB do.
type work struct {
	Flushes, Compactions, Moves, WALRotations int64
	switches                                  int64 // of the manifest's file
	deepest                                   int   // level with tables
}

func (w *work) sum(o work) {
	w.Flushes += o.Flushes
	w.Compactions += o.Compactions
	w.Moves += o.Moves
	w.WALRotations += o.WALRotations
	w.switches += o.switches
	w.deepest = max(w.deepest, o.deepest)
}

func (w *work) add(db *DB) {
	m := db.Metrics()
	w.Flushes += m.Flushes
	w.Compactions += m.Compactions
	w.Moves += m.Moves
	w.WALRotations += m.WALRotations
	w.switches += m.ManifestSwitches
	for i, l := range m.Levels {
		if l.Files > 0 {
			w.deepest = max(w.deepest, i)
		}
	}
}

// queued keeps background jobs until the script runs them, so that memtables,
// log segments and levels pile up as they do when the background is behind.
type queued struct{ jobs []func() }

func (q *queued) Go(_ string, f func()) { q.jobs = append(q.jobs, f) }

func (q *queued) run() {
	for len(q.jobs) > 0 {
		f := q.jobs[0]
		q.jobs = q.jobs[1:]
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

// run does the whole workload.
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
	case r < 8 && i > 10:
		if err := s.close(); err != nil {
			return err
		}
		return s.open()
	default:
		return s.write(b, r%3 != 0)
	}
}

// TestCrashAtEveryCall cuts the power before every call that changes the disk,
// in every mode, and makes sure that what is left opens as a prefix of the
// history with everything acknowledged in it. For some of these it does the
// same again at every such call of the recovery. PAIRDB_CRASH_FULL=1 does all
// of that for all of them and for more scripts.
func TestCrashAtEveryCall(t *testing.T) {
	full := os.Getenv("PAIRDB_CRASH_FULL") != ""
	seeds, steps, nestEvery, nestModes := 2, 100, 601, 2
	if full {
		seeds, steps, nestEvery, nestModes = 8, 250, 61, len(vfs.CrashModes())
	}
	if testing.Short() || raceEnabled {
		seeds = 1
	}
	e := &crashEnum{t: t, nestEvery: nestEvery, nestModes: nestModes}
	for seed := range uint64(seeds) {
		e.script(seed+1, steps)
	}
	if w := e.work; w.Flushes < 4 || w.Compactions < 4 || w.Moves == 0 || w.WALRotations < 2 || w.switches < 2 || w.deepest < 2 {
		t.Errorf("the scripts do not reach all parts of the engine: %+v", w)
	}
	if !testing.Short() && !raceEnabled && e.points+e.nested < 5000 {
		t.Errorf("%d crash points are fewer than 5000", e.points+e.nested)
	}
	t.Logf("crash points: %d first, %d nested, %d in all", e.points, e.nested, e.points+e.nested)
	t.Logf("calls crashed at: %v", e.kinds)
}

type crashEnum struct {
	t              *testing.T
	nestEvery      int // points between those whose recovery is crashed, too
	nestModes      int // modes drawn for each call of such a recovery
	work           work
	points, nested int
	kinds          map[vfs.OpKind]int
	err            error // the first violation
}

// fail records the first violation. It does not end the test on the spot: the
// hook runs within a call of the DB, which must be let out.
func (e *crashEnum) fail(format string, args ...any) error {
	if e.err == nil {
		e.err = fmt.Errorf(format, args...)
	}
	return e.err
}

func (e *crashEnum) script(seed uint64, steps int) {
	mem := vfs.NewMem()
	rng := rand.New(rand.NewPCG(seed, 3))
	var s *script
	fs := vfs.Inject(mem, func(o vfs.Op) error {
		if !o.Mutates() || e.err != nil {
			return e.err
		}
		if e.kinds == nil {
			e.kinds = map[vfs.OpKind]int{}
		}
		e.kinds[o.Kind]++
		lo, hi := s.acked(), len(s.model.states)-1
		for i, mode := range vfs.CrashModes() {
			if raceEnabled && i != o.Index%len(vfs.CrashModes()) {
				continue
			}
			e.points++
			disk := mem.Crash(mode, rng)
			nest := e.points%e.nestEvery == 0
			again := mem
			if nest {
				again = disk.Crash(vfs.CrashKeepAll, rng)
			}
			if _, err := checkDB(disk, s.model, lo, hi); err != nil {
				return e.fail("seed %d, crash before call %d (%s), mode %s: %w", seed, o.Index, o, mode, err)
			}
			if nest {
				where := fmt.Sprintf("seed %d, crash before call %d (%s), mode %s", seed, o.Index, o, mode)
				if err := e.recovery(again, s.model, lo, hi, rng, where); err != nil {
					return err
				}
			}
		}
		return nil
	})
	s = newScript(fs, seed)
	err := s.run(steps)
	if e.err != nil {
		e.t.Fatal(e.err)
	}
	if err != nil {
		e.t.Fatalf("seed %d: %v", seed, err)
	}
	e.t.Logf("seed %d: %d batches; %+v", seed, len(s.model.last)-1, s.work)
	e.work.sum(s.work)
}

// recovery crashes the recovery of disk, and the writes after it, at every call.
func (e *crashEnum) recovery(disk *vfs.MemFS, m *model, lo, hi int, rng *rand.Rand, where string) error {
	m = m.clone()
	var db *DB
	floor := lo
	fs := vfs.Inject(disk, func(o vfs.Op) error {
		if !o.Mutates() || e.err != nil {
			return e.err
		}
		low := floor
		if db != nil {
			low = max(low, m.prefix(db.DurableSeq()))
		}
		for _, i := range rng.Perm(len(vfs.CrashModes()))[:e.nestModes] {
			mode := vfs.CrashModes()[i]
			e.nested++
			if _, err := checkDB(disk.Crash(mode, rng), m, low, hi); err != nil {
				return e.fail("%s; then crash before call %d (%s), mode %s: %w", where, o.Index, o, mode, err)
			}
		}
		return nil
	})
	opened, err := Open("db", tiny(fs, 9))
	if err != nil {
		return e.fail("%s: open: %w", where, err)
	}
	// From here on what was recovered is promised, and new batches follow it.
	n := m.prefix(opened.VisibleSeq())
	m = &model{states: m.states[: n+1 : n+1], last: m.last[: n+1 : n+1]}
	floor, hi, db = n, n, opened
	b := NewBatch()
	for i := range 2 {
		ops := []op{{base.KindSet, modelKey(i), where[:10]}}
		m.apply(ops)
		hi++
		fillBatch(b, ops)
		if _, err := db.Apply(b, WriteOptions{Sync: true}); err != nil {
			return e.fail("%s: write after recovery: %w", where, err)
		}
	}
	if err := db.Close(); err != nil {
		return e.fail("%s: close after recovery: %w", where, err)
	}
	return e.err
}
