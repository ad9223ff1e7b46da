package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/vfs"
)

// Each call of an Open that goes on without tables, and of a Quarantine, is the
// last before a power cut: what is left opens, a table that is listed no more was
// noted before, its file is kept, and everything else is as it was.
func TestCrashAtEveryCallOfQuarantine(t *testing.T) {
	points := 0
	for seed := uint64(1); seed <= 2; seed++ {
		mem := vfs.NewMem()
		s := newScript(mem, seed)
		if err := s.run(60); err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(seed, 5))
		for i, f := range tablesOf(t, mem) {
			if os.Getenv("PAIRDB_CRASH_FULL") == "" && i%4 != int(seed)%4 {
				continue
			}
			for _, how := range []string{"missing", "cut", "quarantine"} {
				q := &quarantineCrash{f: f, want: s.model.now(), rng: rng, disk: mem.Crash(vfs.CrashKeepAll, rng)}
				if err := q.run(how); err != nil {
					t.Fatalf("seed %d, table %d of level %d, %s: %v", seed, f.Num, f.Level, how, err)
				}
				points += q.points
			}
		}
	}
	if !raceEnabled && !testing.Short() && points < 2000 {
		t.Errorf("%d points are too few to mean anything", points)
	}
	t.Logf("%d points", points)
}

type quarantineCrash struct {
	f      manifest.NewFile
	want   map[string]string
	rng    *rand.Rand
	disk   *vfs.MemFS
	kept   string // what is to be kept of the file
	points int
	err    error
}

func (q *quarantineCrash) run(how string) error {
	name := "db/" + tableName(q.f.Num)
	b, err := readWhole(q.disk, name)
	if err != nil {
		return err
	}
	switch how {
	case "missing":
		err, b = errors.Join(q.disk.Remove(name), q.disk.SyncDir("db")), nil
	case "cut":
		b = b[:len(b)/2]
		err = errors.Join(writeWhole(q.disk, name, b), q.disk.SyncDir("db"))
	}
	if err != nil {
		return err
	}
	q.kept = string(b)
	fsys := vfs.Inject(q.disk, func(o vfs.Op) error {
		if !o.Mutates() || q.err != nil {
			return q.err
		}
		for i, mode := range vfs.CrashModes() {
			if sampled := raceEnabled || testing.Short(); sampled && i != o.Index%len(vfs.CrashModes()) {
				continue
			}
			q.points++
			if err := q.check(q.disk.Crash(mode, q.rng)); err != nil {
				q.err = fmt.Errorf("crash before %s, mode %s: %w", o, mode, err)
				return q.err
			}
		}
		return nil
	})
	opts := tiny(fsys, 3)
	opts.Scheduler = &queued{} // nothing but what is asked for
	opts.Salvage = func(d []Damage) error { return noteDamage(fsys, d) }
	db, err := Open("db", opts)
	if err != nil {
		return err
	}
	if how == "quarantine" {
		err = errors.Join(noteDamage(fsys, []Damage{damageOf(q.f.Level, q.f.FileMeta, nil)}), db.Quarantine(q.f.Num))
		if again := db.Quarantine(q.f.Num); err == nil && !errors.Is(again, ErrNoTable) {
			err = fmt.Errorf("a second time: %w", again)
		}
	}
	return errors.Join(err, db.Close(), q.err, q.check(q.disk))
}

// check looks at a disk after a power cut.
func (q *quarantineCrash) check(disk *vfs.MemFS) error {
	state, _, err := manifest.Load(disk, "db")
	if err != nil {
		return err
	}
	listed := levelOf(state.Version, q.f.Num) >= 0
	if !listed {
		if _, err := disk.Stat(fmt.Sprintf("notes/%d", q.f.Num)); err != nil {
			return fmt.Errorf("the table is gone and nobody knows: %w", err)
		}
		if b, err := readWhole(disk, "db/quarantine/"+tableName(q.f.Num)); q.kept != "" && string(b) != q.kept {
			return fmt.Errorf("the table is gone with its file: %w", err)
		}
	}
	opts := tiny(disk, 7)
	opts.Salvage = func(d []Damage) error { return noteDamage(disk, d) }
	db, err := Open("db", opts)
	if err != nil {
		return fmt.Errorf("reopen: %w", err)
	}
	lo, hi := q.f.Smallest.UserKey, q.f.Largest.UserKey
	return errors.Join(compareOutside(db, q.want, lo, hi), db.Verify(), db.Close())
}

// A sound manifest that is rewritten opens at any crash.
func TestCrashWhileTheManifestIsRewritten(t *testing.T) {
	mem := vfs.NewMem()
	rng := rand.New(rand.NewPCG(1, 1))
	var failed error
	var want map[string]string
	points := 0
	disk := vfs.Inject(mem, func(o vfs.Op) error {
		if !o.Mutates() || want == nil || failed != nil {
			return failed
		}
		for _, mode := range vfs.CrashModes() {
			points++
			left := mem.Crash(mode, rng)
			db, err := Open("db", tiny(left, 3))
			if err == nil {
				err = errors.Join(compare(db, want), db.Verify(), db.Close())
			}
			if err != nil {
				failed = fmt.Errorf("crash before %s, mode %s: %w", o, mode, err)
				return failed
			}
		}
		return nil
	})
	s := newScript(disk, 1)
	if err := errors.Join(s.run(60), s.open()); err != nil {
		t.Fatal(err)
	}
	want = s.model.now()
	if err := s.db.RewriteManifest(); err != nil {
		t.Fatal(err)
	}
	if points < 50 {
		t.Errorf("%d points are too few to mean anything", points)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}
