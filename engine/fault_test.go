package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/pairdb/pairdb/engine/vfs"
)

// faultRun drives a DB over a file system that fails and checks after each
// step that what it answers is still right.
type faultRun struct {
	mem    *vfs.MemFS
	model  *model
	db     *DB
	acked  int // batches promised to be durable
	events int // calls of Events.ReadOnly
}

// run works until the script ends or the DB can write no more. The fault must
// not show but in the errors of the calls it hits.
func (f *faultRun) run(fs vfs.FS, seed uint64, steps int, queue bool) error {
	opts := tiny(fs, seed)
	q := &queued{}
	if queue {
		opts.Scheduler, opts.MaxImmutable = q, 2
	}
	opts.Events.ReadOnly = func(error) { f.events++ }
	db, err := Open("db", opts)
	for range 2 {
		if err == nil {
			break
		}
		// The fault hit the opening. If it was for once, the next one works.
		db, err = Open("db", opts)
	}
	if err != nil {
		return nil
	}
	f.db = db
	rng := rand.New(rand.NewPCG(seed, 5))
	b := NewBatch()
	for range steps {
		if rng.IntN(10) == 0 {
			q.run()
		}
		if rng.IntN(25) == 0 {
			if err := db.Flush(); err != nil && !known(err) {
				return fmt.Errorf("flush: %w", err)
			}
		}
		ops := randomOps(rng)
		fillBatch(b, ops)
		f.model.apply(ops)
		c, err := db.Apply(b, WriteOptions{})
		switch {
		case err == nil:
		case !known(err):
			return fmt.Errorf("apply: %w", err)
		case c == Commit{}:
			f.model.drop() // refused
		}
		if err == nil && rng.IntN(2) == 0 {
			err = c.Wait()
			if err == nil {
				f.acked = max(f.acked, len(f.model.states)-1)
			}
		}
		f.acked = max(f.acked, f.model.prefix(db.DurableSeq()))
		if cerr := compare(db, f.model.now()); cerr != nil && !known(cerr) {
			return fmt.Errorf("after %v: %w", err, cerr)
		}
		if errors.Is(err, ErrReadOnly) {
			if _, err := db.Apply(b, WriteOptions{}); !errors.Is(err, ErrReadOnly) {
				return fmt.Errorf("apply after the end of writing: %w", err)
			}
			break
		}
	}
	f.acked = max(f.acked, f.model.prefix(db.DurableSeq()))
	return nil
}

// known reports whether a call may fail this way when a fault is injected.
func known(err error) bool {
	return errors.Is(err, ErrReadOnly) || errors.Is(err, ErrDiskFull) ||
		errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENOSPC)
}

// finish closes the DB and checks what a reopening without faults finds.
func (f *faultRun) finish(rng *rand.Rand) error {
	hi := len(f.model.states) - 1
	crashed := f.mem.Crash(vfs.CrashModes()[rng.IntN(len(vfs.CrashModes()))], rng)
	if f.db != nil {
		if err := f.db.Close(); err != nil && !known(err) {
			return fmt.Errorf("close: %w", err)
		}
	}
	if _, err := checkDB(crashed, f.model, f.acked, hi); err != nil {
		return fmt.Errorf("after a power cut: %w", err)
	}
	if _, err := checkDB(f.mem, f.model, f.acked, hi); err != nil {
		return fmt.Errorf("after a restart: %w", err)
	}
	return nil
}

// TestFaultAtEveryCall makes each call that changes the disk fail in turn, for
// once and from then on, and demands that nothing promised is lost, nothing is
// promised falsely, answers stay right and the DB opens again.
func TestFaultAtEveryCall(t *testing.T) {
	steps, stride := 70, 1
	if testing.Short() {
		steps = 35
	}
	if raceEnabled {
		stride = 7
	}
	runs, readOnly := 0, 0
	rng := rand.New(rand.NewPCG(1, 6))
	for _, queue := range []bool{false, true} {
		for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
			for _, forever := range []bool{false, true} {
				for n, more := 0, true; more; n += stride {
					name := fmt.Sprintf("queue %v, %v at call %d, forever %v", queue, fault, n, forever)
					f := &faultRun{mem: vfs.NewMem(), model: newModel()}
					more = false
					var hit vfs.Op
					fs := vfs.Inject(f.mem, func(o vfs.Op) error {
						if o.Mutates() && o.Index == n {
							hit, more = o, true
						}
						if o.Mutates() && (o.Index == n || forever && o.Index > n) {
							if o.Kind == vfs.OpWrite && o.Bytes > 8 {
								return vfs.ShortWrite{N: o.Bytes / 2, Err: fault}
							}
							return fault
						}
						return nil
					})
					err := f.run(fs, 3, steps, queue)
					if err == nil && f.db != nil && soft(fault, forever, hit) && f.db.Metrics().ReadOnly {
						err = errors.New("the DB is read-only after a failure that it should survive")
					}
					if err == nil && f.db != nil && f.db.Metrics().ReadOnly != (f.events == 1) {
						err = fmt.Errorf("read-only was reported %d times", f.events)
					}
					if err == nil && f.db != nil && f.db.Metrics().ReadOnly {
						readOnly++
					}
					if err == nil {
						err = f.finish(rng)
					}
					if err != nil {
						t.Fatalf("%s (%s): %v", name, hit, err)
					}
					runs++
				}
			}
		}
	}
	t.Logf("%d faults, %d of them ended writing", runs, readOnly)
	if readOnly == 0 || readOnly == runs {
		t.Error("the faults are all of one kind")
	}
}

// soft reports whether the DB must go on after one fault.
func soft(fault error, forever bool, o vfs.Op) bool {
	if strings.Contains(o.Path, tableSuffix) || o.Kind == vfs.OpRemove {
		return !forever
	}
	return fault == syscall.ENOSPC && !forever && (o.Kind == vfs.OpPreallocate || o.Kind == vfs.OpCreate)
}

// TestDiskFullAndFreed fills a small disk, from one side and the other, and
// frees it again: writes are refused, reads go on, and everything works again
// by itself.
func TestDiskFullAndFreed(t *testing.T) {
	for _, queue := range []bool{false, true} {
		mem := vfs.NewMem()
		opts := tiny(mem, 1)
		q := &queued{}
		if queue {
			opts.Scheduler, opts.MaxImmutable = q, 2
		}
		db, err := Open("db", opts)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		rng := rand.New(rand.NewPCG(9, 9))
		m, b := newModel(), NewBatch()
		for round := range 4 {
			usage, err := mem.DiskUsage("db")
			if err != nil {
				t.Fatal(err)
			}
			mem.SetLimit(usage.Total - usage.Free + int64(round)*1500)
			refused := 0
			for range 400 {
				ops := randomOps(rng)
				fillBatch(b, ops)
				_, err := db.Apply(b, WriteOptions{Sync: true})
				if err == nil {
					m.apply(ops)
				} else if errors.Is(err, ErrDiskFull) {
					refused++
				} else {
					t.Fatalf("round %d: %v", round, err)
				}
			}
			if refused == 0 {
				t.Fatalf("round %d: the disk never filled up", round)
			}
			if err := compare(db, m.now()); err != nil {
				t.Fatalf("round %d, full: %v", round, err)
			}
			mem.SetLimit(0)
			for range 50 {
				ops := randomOps(rng)
				fillBatch(b, ops)
				if _, err := db.Apply(b, WriteOptions{Sync: true}); err != nil {
					t.Fatalf("round %d, freed: %v", round, err)
				}
				m.apply(ops)
				q.run()
			}
			if err := errors.Join(compare(db, m.now()), db.Flush(), db.Compact(nil, nil), db.Verify()); err != nil {
				t.Fatalf("round %d, freed: %v", round, err)
			}
		}
		if err := compare(db, m.now()); err != nil {
			t.Fatal(err)
		}
	}
}
