package kerneltest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/vfs"
)

// job is what a driver is told to do.
type job struct {
	Dir  string // of the database
	Seed uint64
	// Writers is how many there are; each goes on after the batches of its own
	// that the database holds.
	Writers int
	To      int // the batch at which each ends; 0: when it fails
	// Script is for a single writer: everything happens on one thread, the same
	// way each time, and chores more often.
	Script bool
	// LogOnly makes memtable and log segments so large, and leaves out the
	// chores, that all goes to one segment.
	LogOnly bool
	// Ops makes the driver tell of each call at the file system seam.
	Ops bool
}

// inline runs background jobs at once, on the goroutine that asks for them.
type inline struct{}

func (inline) Go(_ string, f func()) { f() }

// driver is the process that a fault hits. It writes to its standard output,
// a line in one call:
//
//	opening, open         before and after it opens the database
//	ack W N TIME          the first N batches of writer W are durable; once as
//	                      it was found, then after each batch that is synced.
//	                      TIME is when that was known, see monotonic.
//	end W readonly TEXT   writer W ended: the engine only reads
//	end W refused TEXT    ... a batch was refused five times
//	end W done            ... it was told to end there
//	op KIND PATH          a call that changes the disk goes through the seam
//	readable              a script's database shows all that was applied
//	note TEXT             a chore failed, which it may
//	fail TEXT             something that must not happen
type driver struct {
	job job
	h   *history
	db  *engine.DB
	// applied is the number of batches of each writer that Apply took.
	applied []int
}

// monotonic is a clock that all processes share, in nanoseconds.
func monotonic() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err) // there is no such kernel
	}
	return now.Nano()
}

func say(format string, args ...any) {
	line := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ") + "\n"
	if _, err := os.Stdout.WriteString(line); err != nil {
		os.Exit(3) // the test is gone
	}
}

// drive is the main function of the driver.
func drive(text string) error {
	d := &driver{}
	if err := json.Unmarshal([]byte(text), &d.job); err != nil {
		return err
	}
	d.h = newHistory(d.job.Seed, d.job.Writers)
	opts := options(d.job.Seed)
	if d.job.Script {
		rng := rand.New(rand.NewPCG(d.job.Seed, 5))
		opts.Scheduler, opts.Rand = inline{}, rng.Uint64
		// A timer would have this thread wake others, by calls of its own.
		opts.Sleep = func(time.Duration) {}
		opts.MemTableSize, opts.WALSegmentSize, opts.ManifestSize = 16<<10, 8<<10, 1<<10
	}
	if d.job.LogOnly {
		opts.MemTableSize, opts.WALSegmentSize = 64<<20, 32<<20
	}
	if d.job.Ops {
		opts.FS = vfs.Inject(vfs.OS(), func(o vfs.Op) error {
			if o.Mutates() {
				say("op %s %s", o.Kind, o.Path)
			}
			return nil
		})
	}
	say("opening")
	var err error
	if d.db, err = engine.Open(d.job.Dir, opts); err != nil {
		say("note open: %v", err)
		return nil
	}
	say("open")
	for w := range d.job.Writers {
		at, err := position(d.db, w)
		if errors.Is(err, syscall.EIO) {
			say("note %v", err) // the power was cut in between
			return nil
		}
		if err != nil {
			return err
		}
		d.applied = append(d.applied, at)
		say("ack %d %d %d", w, at, monotonic())
	}
	if d.job.Script {
		if err = d.write(0); err == nil {
			err = d.readable()
		}
	} else {
		err = d.writeAll()
	}
	if err != nil {
		return err
	}
	if d.job.To > 0 {
		if err := d.db.Close(); err != nil {
			say("note close: %v", err)
		}
	}
	return nil
}

func (d *driver) writeAll() error {
	errs := make([]error, d.job.Writers)
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() { errs[w] = d.write(w) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// write does the batches of a writer until its end or a failure.
func (d *driver) write(w int) error {
	b := engine.NewBatch()
	for i, refused := d.applied[w], 0; d.job.To == 0 || i < d.job.To; {
		s := d.h.step(w, i)
		s.fill(b)
		_, err := d.db.Apply(b, engine.WriteOptions{Sync: s.sync})
		switch {
		case errors.Is(err, engine.ErrReadOnly):
			say("end %d readonly %v", w, err)
			return d.stillReadOnly(b)
		case err != nil && refused == 4:
			say("end %d refused %v", w, err)
			return nil
		case err != nil:
			refused++
			continue
		}
		refused = 0
		i++
		d.applied[w] = i
		if s.sync {
			say("ack %d %d %d", w, i, monotonic())
		}
		if err := d.chore(w, i, s); err != nil {
			say("note %s: %v", s.chore, err)
		}
	}
	say("end %d done", w)
	return nil
}

// stillReadOnly makes sure that no write is taken once one met ErrReadOnly.
func (d *driver) stillReadOnly(b *engine.Batch) error {
	for _, sync := range []bool{true, false, true} {
		if _, err := d.db.Apply(b, engine.WriteOptions{Sync: sync}); !errors.Is(err, engine.ErrReadOnly) {
			return fmt.Errorf("write after ErrReadOnly: %w", err)
		}
	}
	return nil
}

// readable makes sure that reads go on, whatever failed, and show all that was
// applied.
func (d *driver) readable() error {
	if err := d.h.compare(d.db, d.applied, d.applied); err != nil {
		return fmt.Errorf("read at the end: %w", err)
	}
	say("readable")
	return nil
}

func (d *driver) chore(w, i int, s step) error {
	kind := s.chore
	if d.job.LogOnly {
		return nil
	}
	if d.job.Script && i%17 == 0 {
		kind = []string{"flush", "compact", "checkpoint"}[i/17%3]
	}
	switch kind {
	case "flush":
		return d.db.Flush()
	case "compact":
		if s.from == "" {
			return d.db.Compact(nil, nil)
		}
		return d.db.Compact([]byte(s.from), []byte(s.to))
	case "checkpoint":
		dir := fmt.Sprintf("%s-copy-%d-%d", d.job.Dir, w, i)
		// One that a cut made incomplete goes first.
		return errors.Join(os.RemoveAll(dir), d.db.Checkpoint(dir), os.RemoveAll(dir))
	}
	return nil
}
