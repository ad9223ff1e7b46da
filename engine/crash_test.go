package engine

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// fullCrashPoints is how many points a full enumeration has at least, besides
// those within recoveries.
const fullCrashPoints = 100_000

// TestCrashAtEveryCall cuts the power before every call that changes the disk,
// in every mode, and makes sure that what is left opens as a prefix of the
// history with everything acknowledged in it, and that checkpoints are whole.
// For some of these it does the same again at every such call of the recovery.
//
// It does one fixed workload and random ones. PAIRDB_CRASH_FULL=1 does longer
// ones, seed after seed, until there are fullCrashPoints; PAIRDB_CRASH_SEED=n
// begins with that seed.
func TestCrashAtEveryCall(t *testing.T) {
	full := os.Getenv("PAIRDB_CRASH_FULL") != ""
	first := uint64(1)
	if v := os.Getenv("PAIRDB_CRASH_SEED"); v != "" {
		var err error
		if first, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	seeds, steps, nestEvery, nestModes := uint64(2), 70, 601, 2
	if full {
		seeds, steps, nestEvery, nestModes = 1000, 250, 601, len(vfs.CrashModes())
	}
	if testing.Short() || raceEnabled {
		seeds = 1
	}
	e := &crashEnum{t: t, nestEvery: nestEvery, nestModes: nestModes}
	e.script(first, func(s *script) error { return s.tour() })
	for seed := first; seed < first+seeds; seed++ {
		e.script(seed, func(s *script) error { return s.run(steps) })
		if full && e.points >= fullCrashPoints {
			break
		}
	}
	if w := e.work; w.Flushes < 4 || w.Compactions < 4 || w.Moves == 0 || w.WALRotations < 2 || w.switches < 2 ||
		w.deepest < 2 || w.Ingests < 4 || w.checkpoints < 3 {
		t.Errorf("the scripts do not reach all parts of the engine: %+v", w)
	}
	least := 5000
	if full {
		least = fullCrashPoints
	}
	if !testing.Short() && !raceEnabled && e.points < least {
		t.Errorf("%d crash points are fewer than %d", e.points, least)
	}
	t.Logf("crash points: %d first, %d nested, %d in all; %d looks at checkpoints", e.points, e.nested, e.points+e.nested, e.copies)
	t.Logf("calls crashed at: %v", e.kinds)
	t.Logf("in all: %+v", e.work)
}

type crashEnum struct {
	t              *testing.T
	nestEvery      int // points between those whose recovery is crashed, too
	nestModes      int // modes drawn for each call of such a recovery
	work           work
	points, nested int
	copies         int // looks at checkpoints
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

// script crashes one workload.
func (e *crashEnum) script(seed uint64, work func(*script) error) {
	mem := vfs.NewMem()
	rng := rand.New(rand.NewPCG(seed, 3))
	var s *script
	disk := vfs.Inject(mem, func(o vfs.Op) error {
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
			left := mem.Crash(mode, rng)
			nest := e.points%e.nestEvery == 0
			again := mem
			if nest {
				again = left.Crash(vfs.CrashKeepAll, rng)
			}
			_, err := checkDB(left, s.model, lo, hi)
			if err == nil && (!s.ckpt.done || e.points%5 == 0) {
				e.copies++
				err = s.checkCopy(left)
			}
			if err != nil {
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
	s = newScript(disk, seed)
	err := work(s)
	if e.err != nil {
		e.t.Fatal(e.err)
	}
	if err != nil {
		e.t.Fatalf("seed %d: %v", seed, err)
	}
	e.work.sum(s.work)
	e.t.Logf("seed %d: %d batches; %+v; %d points and %d nested so far", seed, len(s.model.last)-1, s.work, e.points, e.nested)
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
