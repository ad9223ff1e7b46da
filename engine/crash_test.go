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
	db, err := Open("db", tiny(s.fs, s.seed))
	if err != nil {
		return err
	}
	s.db = db
	return nil
}

func (s *script) close() error {
	s.releaseSnaps()
	db := s.db
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
	seeds, steps, nestEvery := 2, 130, 97
	if full {
		seeds, steps, nestEvery = 8, 250, 11
	}
	if testing.Short() {
		seeds, steps = 1, 80
	}
	e := &crashEnum{t: t, nestEvery: nestEvery}
	for seed := range uint64(seeds) {
		e.script(seed+1, steps)
	}
	t.Logf("crash points: %d first, %d nested, %d in all", e.points, e.nested, e.points+e.nested)
	t.Logf("calls crashed at: %v", e.kinds)
}

type crashEnum struct {
	t              *testing.T
	nestEvery      int
	points, nested int
	kinds          map[vfs.OpKind]int
}

func (e *crashEnum) script(seed uint64, steps int) {
	mem := vfs.NewMem()
	rng := rand.New(rand.NewPCG(seed, 3))
	var s *script
	fs := vfs.Inject(mem, func(o vfs.Op) error {
		if !o.Mutates() {
			return nil
		}
		if e.kinds == nil {
			e.kinds = map[vfs.OpKind]int{}
		}
		e.kinds[o.Kind]++
		lo, hi := s.acked(), len(s.model.states)-1
		for _, mode := range vfs.CrashModes() {
			e.points++
			disk := mem.Crash(mode, rng)
			nest := e.points%e.nestEvery == 0
			again := mem
			if nest {
				again = disk.Crash(vfs.CrashKeepAll, rng)
			}
			if _, err := checkDB(disk, s.model, lo, hi); err != nil {
				e.t.Fatalf("seed %d, crash before call %d (%s), mode %s: %v", seed, o.Index, o, mode, err)
			}
			if nest {
				where := fmt.Sprintf("seed %d, crash before call %d (%s), mode %s", seed, o.Index, o, mode)
				e.recovery(again, s.model, lo, hi, rng, where)
			}
		}
		return nil
	})
	s = newScript(fs, seed)
	if err := s.run(steps); err != nil {
		e.t.Fatalf("seed %d: %v", seed, err)
	}
}

// recovery crashes the recovery of disk, and the writes after it, at every call.
func (e *crashEnum) recovery(disk *vfs.MemFS, m *model, lo, hi int, rng *rand.Rand, where string) {
	m = m.clone()
	var db *DB
	floor := lo
	fs := vfs.Inject(disk, func(o vfs.Op) error {
		if !o.Mutates() {
			return nil
		}
		low := floor
		if db != nil {
			low = max(low, m.prefix(db.DurableSeq()))
		}
		for _, mode := range vfs.CrashModes() {
			e.nested++
			if _, err := checkDB(disk.Crash(mode, rng), m, low, hi); err != nil {
				e.t.Fatalf("%s; then crash before call %d (%s), mode %s: %v", where, o.Index, o, mode, err)
			}
		}
		return nil
	})
	opened, err := Open("db", tiny(fs, 9))
	if err != nil {
		e.t.Fatalf("%s: open: %v", where, err)
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
			e.t.Fatalf("%s: write after recovery: %v", where, err)
		}
	}
	if err := db.Close(); err != nil {
		e.t.Fatalf("%s: close after recovery: %v", where, err)
	}
}
