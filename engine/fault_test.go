package engine

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/pairdb/pairdb/engine/vfs"
)

// faultRun drives a DB over a file system that fails and checks as it goes that
// what it answers is still right.
type faultRun struct {
	mem    *vfs.MemFS
	fs     vfs.FS // over mem
	rng    *rand.Rand
	model  *model
	db     *DB
	acked  int // batches promised to be durable
	events int // calls of Events.ReadOnly

	// own makes the workload's goroutine do all background work, even without a
	// queue: there are others.
	own bool

	tables, ckpts int
	// unsure says that the newest state of the model is that of an ingest that
	// ended writing: it may be on disk, and is not in memory.
	unsure bool
}

// run works until the script ends or the DB can write no more. The fault must
// not show but in the errors of the calls it hits.
func (f *faultRun) run(seed uint64, steps int, queue bool) error {
	opts := tiny(f.fs, seed)
	q := &queued{}
	if queue {
		opts.MaxImmutable = 2
	}
	if queue || f.own {
		opts.Scheduler = q
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
	f.rng = rand.New(rand.NewPCG(seed, 5))
	b := NewBatch()
	for range steps {
		if f.rng.IntN(10) == 0 || f.own && !queue {
			q.run()
		}
		err := f.step(b)
		if err != nil && !known(err) {
			return err
		}
		f.acked = max(f.acked, f.model.prefix(db.DurableSeq()))
		if err != nil || f.rng.IntN(5) == 0 {
			if cerr := f.compare(); cerr != nil {
				return fmt.Errorf("after %v: %w", err, cerr)
			}
		}
		if errors.Is(err, ErrReadOnly) {
			b.Reset()
			b.Delete([]byte("k"))
			if _, err := db.Apply(b, WriteOptions{}); !errors.Is(err, ErrReadOnly) {
				return fmt.Errorf("apply after the end of writing: %w", err)
			}
			break
		}
	}
	return f.compare()
}

// compare holds the DB against the model, but for reads that fail.
func (f *faultRun) compare() error {
	n := len(f.model.states) - 1
	if f.unsure {
		n--
	}
	if err := compare(f.db, f.model.states[n]); err != nil && !known(err) {
		return err
	}
	return nil
}

func (f *faultRun) step(b *Batch) error {
	switch r := f.rng.IntN(100); {
	case r < 4:
		return f.db.Flush()
	case r < 9:
		return f.ingest()
	case r < 12:
		f.ckpts++
		err := f.db.Checkpoint(fmt.Sprint("ckpt", f.ckpts))
		return errors.Join(err, f.fs.RemoveAll(fmt.Sprint("ckpt", f.ckpts)))
	default:
		return f.apply(b)
	}
}

func (f *faultRun) apply(b *Batch) error {
	ops := randomOps(f.rng)
	fillBatch(b, ops)
	f.model.apply(ops)
	c, err := f.db.Apply(b, WriteOptions{})
	if err != nil && c == (Commit{}) {
		f.model.drop() // refused
	}
	if err == nil && f.rng.IntN(2) == 0 {
		if err = c.Wait(); err == nil {
			f.acked = max(f.acked, len(f.model.states)-1)
		}
	}
	return err
}

func (f *faultRun) ingest() error {
	paths, ops, err := randomTables(f.fs, f.rng, &f.tables)
	if err != nil {
		return errors.Join(err, removeAll(f.fs, paths))
	}
	f.model.applyAs(ops, 1)
	err = f.db.Ingest(paths)
	switch {
	case err == nil:
		f.acked = max(f.acked, len(f.model.states)-1)
	case errors.Is(err, ErrReadOnly):
		f.unsure = true
	default:
		f.model.drop()
	}
	return errors.Join(err, removeAll(f.fs, paths))
}

// known reports whether a call may fail this way when a fault is injected.
func known(err error) bool {
	for _, e := range []error{ErrReadOnly, ErrDiskFull, syscall.EIO, syscall.ENOSPC, io.ErrShortWrite} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
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

// fault is what goes wrong at one call, or from one call on.
type fault struct {
	err     error // syscall.EIO, syscall.ENOSPC or io.ErrShortWrite
	n       int   // index of the call
	forever bool
	queue   bool // background work is done late

	hit  vfs.Op // the call it hit first
	seen bool
}

func (x *fault) String() string {
	return fmt.Sprintf("%v at call %d (%s), forever %v, queue %v", x.err, x.n, x.hit, x.forever, x.queue)
}

// hook is for vfs.Inject. A write that fails with an error number leaves half of
// its bytes, a short one all but the last.
func (x *fault) hook(o vfs.Op) error {
	if !o.Mutates() || o.Index < x.n {
		return nil
	}
	if o.Index == x.n {
		x.hit, x.seen = o, true
	} else if !x.forever {
		return nil
	}
	short := x.err == io.ErrShortWrite
	switch {
	case o.Kind == vfs.OpWrite && short && o.Bytes > 1:
		return vfs.ShortWrite{N: o.Bytes - 1}
	case o.Kind == vfs.OpWrite && o.Bytes > 8:
		return vfs.ShortWrite{N: o.Bytes / 2, Err: x.err}
	case short:
		return nil // only writes are short
	default:
		return x.err
	}
}

// TestFaultAtEveryCall makes each call that changes the disk fail in turn, for
// once and from then on, and demands that nothing promised is lost, nothing is
// promised falsely, answers stay right and the DB opens again. Each run takes every
// third call and begins with another of them; with PAIRDB_CRASH_FULL, as make crash
// has it, it takes all.
func TestFaultAtEveryCall(t *testing.T) {
	steps, stride := 70, 3
	if os.Getenv("PAIRDB_CRASH_FULL") != "" {
		stride = 1
	}
	if testing.Short() {
		steps = 35
	}
	first := rand.IntN(stride)
	runs, readOnly := map[error]int{}, 0
	rng := rand.New(rand.NewPCG(1, 6))
	for _, queue := range []bool{false, true} {
		// Up to the fault all runs are alike, so these are the calls that can be short.
		var writes []int
		for _, err := range []error{syscall.EIO, syscall.ENOSPC, io.ErrShortWrite} {
			for _, forever := range []bool{false, true} {
				for i, more := 0, true; more; i++ {
					n := first + i*stride
					if err == io.ErrShortWrite {
						n = writes[i]
					}
					x := &fault{err: err, n: n, forever: forever, queue: queue}
					ended, ferr := x.try(steps, rng)
					if ferr != nil {
						t.Fatalf("%s: %v", x, ferr)
					}
					if ended {
						readOnly++
					}
					more = x.seen
					if err == io.ErrShortWrite {
						more = i+1 < len(writes)
						if x.hit.Kind != vfs.OpWrite {
							t.Fatalf("%s: this call wrote before", x)
						}
					} else if err == syscall.EIO && !forever && x.hit.Kind == vfs.OpWrite {
						writes = append(writes, n)
					}
					runs[err]++
				}
			}
		}
	}
	all := 0
	for _, n := range runs {
		all += n
	}
	t.Logf("%d faults, %d of them ended writing: %v", all, readOnly, runs)
	if readOnly == 0 || readOnly == all {
		t.Error("the faults are all of one kind")
	}
}

// try runs a workload with the fault; ended says that it ended writing.
func (x *fault) try(steps int, rng *rand.Rand) (ended bool, err error) {
	f := &faultRun{mem: vfs.NewMem(), model: newModel()}
	f.fs = vfs.Inject(f.mem, x.hook)
	if err := f.run(3, steps, x.queue); err != nil {
		return false, err
	}
	if f.db != nil {
		ended = f.db.Metrics().ReadOnly
		if ended && soft(x.err, x.forever, x.hit) {
			return true, errors.New("the DB is read-only after a failure that it should survive")
		}
		if ended != (f.events == 1) {
			return ended, fmt.Errorf("read-only was reported %d times", f.events)
		}
	}
	return ended, f.finish(rng)
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
