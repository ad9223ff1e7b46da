package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// driver runs a scripted workload as the engine would and remembers what it was
// told.
type driver struct {
	t    *testing.T
	w    *Writer
	sent []sentRecord // committed in this order, in doubt from acked on
	// acked records were reported durable.
	acked int
	// min is the first segment still needed. The engine has it in its
	// manifest, durable before a segment is recycled.
	min     uint64
	pending []string
	next    int
}

type sentRecord struct {
	seg  uint64
	data string
}

func (d *driver) append(size int) error {
	r := fmt.Sprintf("%d:%s", d.next, strings.Repeat(string(rune('a'+d.next%26)), size))
	d.next++
	if err := d.w.Append([]byte(r)); err != nil {
		return err
	}
	d.pending = append(d.pending, r)
	return nil
}

// commit ends a group. Records refused for lack of space were not sent.
func (d *driver) commit(sync bool) error {
	var err error
	if sync {
		err = d.w.Commit()
	} else {
		err = d.w.CommitNoSync()
	}
	if !errors.Is(err, base.ErrDiskFull) {
		for _, r := range d.pending {
			d.sent = append(d.sent, sentRecord{d.w.Segment(), r})
		}
	}
	d.pending = nil
	if err == nil && sync {
		d.acked = len(d.sent)
	}
	return err
}

func (d *driver) rotate(num uint64) error {
	err := d.w.Rotate(num)
	if err == nil {
		d.acked = len(d.sent)
	}
	return err
}

func (d *driver) recycle(num uint64) error {
	if num == 0 {
		return nil // the rotation was refused
	}
	d.min = num + 1
	return d.w.Recycle(num)
}

// script is the workload; it goes on after a refusal and stops at the first
// other error.
func (d *driver) script(opts Options) error {
	w, err := Create(opts, 1)
	if err != nil {
		return err
	}
	d.w = w
	steps := []func() error{
		func() error { return d.append(10) },
		func() error { return d.commit(true) },
		func() error { return errors.Join(d.append(0), d.append(600), d.append(30)) },
		func() error { return d.commit(true) },
		func() error { return d.append(900) },
		func() error { return d.commit(false) },
		func() error { return d.append(200) },
		func() error { return d.commit(false) },
		func() error { return d.append(300) },
		func() error { return d.commit(true) },
		func() error { return d.append(50) },
		func() error { return d.commit(false) },
		func() error { return d.rotate(d.w.Segment() + 1) },
		func() error { return d.append(1200) },
		func() error { return d.commit(true) },
		func() error { return d.recycle(d.w.Segment() - 1) },
		func() error { return d.append(700) },
		func() error { return d.commit(true) },
		func() error { return d.rotate(d.w.Segment() + 1) }, // recycled
		func() error { return d.append(40) },
		func() error { return d.commit(true) },
		func() error { return d.append(5000) }, // extends the segment
		func() error { return d.commit(true) },
		func() error { return d.append(5) },
		func() error { return d.commit(false) },
	}
	for _, step := range steps {
		if err := step(); err != nil && !errors.Is(err, base.ErrDiskFull) {
			return err
		}
	}
	err = w.Close()
	if err == nil {
		d.acked = len(d.sent)
	}
	return err
}

// verify replays fs and checks it against what the driver was told. It returns
// what was found and where the log ends.
func (d *driver) verify(fs vfs.FS, what string) ([]string, ReplayStats, error) {
	got, stats, err := replayAll(fs, d.min)
	if err != nil {
		return nil, stats, err
	}
	var want []string
	acked := 0
	for i, r := range d.sent {
		if r.seg < d.min {
			continue
		}
		want = append(want, r.data)
		if i < d.acked {
			acked++
		}
	}
	if len(got) < acked || len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
		d.t.Fatalf("%s: found %d records of %d acknowledged and %d sent", what, len(got), acked, len(want))
	}
	return got, stats, nil
}

func crashOptions(fs vfs.FS) Options {
	opts := testOptions(fs)
	opts.SegmentSize = MinSegmentSize
	return opts
}

var errCrashed = errors.New("the power is off")

// crashAt returns a file system on which the k-th change and all after it fail,
// and a function that returns the disk as it was then.
func crashAt(m *vfs.MemFS, k int, before func()) vfs.FS {
	off := false
	return vfs.Inject(m, func(op vfs.Op) error {
		if op.Mutates() && op.Index == k {
			off = true
			before()
		}
		if off {
			return errCrashed
		}
		return nil
	})
}

// countOps returns how many changes run makes on an empty log directory.
func countOps(t *testing.T, run func(fs vfs.FS)) int {
	n := 0
	run(vfs.Inject(memDir(t), func(op vfs.Op) error {
		if op.Mutates() {
			n++
		}
		return nil
	}))
	return n
}

// TestCrashEverywhere cuts the power before every change, in every mode, and
// then again before every change of the recovery.
func TestCrashEverywhere(t *testing.T) {
	ops := countOps(t, func(fs vfs.FS) {
		d := &driver{t: t}
		must(t, d.script(crashOptions(fs)))
	})
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	crashes := 0
	for _, mode := range vfs.CrashModes() {
		t.Run(mode.String(), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(mode), 1))
			for k := range ops + 1 {
				for round := range rounds {
					m := memDir(t)
					d := &driver{t: t}
					disk := m
					fs := crashAt(m, k, func() { disk = m.Crash(mode, rng) })
					if err := d.script(crashOptions(fs)); k < ops && !errors.Is(err, errCrashed) {
						t.Fatalf("op %d: the script ended with %v", k, err)
					}
					what := fmt.Sprintf("power cut before op %d (round %d)", k, round)
					crashes += 1 + d.crashInRecovery(disk, rng, what)
				}
			}
		})
	}
	t.Logf("%d crashes at %d changes", crashes, ops)
}

// crashInRecovery recovers disk, cutting the power before every change that
// makes, and verifies each outcome. It returns the number of crashes.
func (d *driver) crashInRecovery(disk *vfs.MemFS, rng *rand.Rand, what string) int {
	modes := vfs.CrashModes()
	for k := 0; ; k++ {
		again := *d
		m := disk.Crash(vfs.CrashKeepAll, rng)
		mode := modes[rng.IntN(len(modes))]
		var second *vfs.MemFS
		fs := crashAt(m, k, func() { second = m.Crash(mode, rng) })
		what := fmt.Sprintf("%s, then %v before op %d of recovery", what, mode, k)
		err := again.recover(fs, what)
		if second == nil {
			must(d.t, err)
			return k
		}
		wantIs(d.t, err, errCrashed)
		_, _, err = again.verify(second, what)
		if err != nil {
			d.t.Fatalf("%s: %v", what, err)
		}
	}
}

// recover replays, goes on in a new segment and commits to it.
func (d *driver) recover(fs vfs.FS, what string) error {
	got, stats, err := d.verify(fs, what)
	if err != nil {
		if !errors.Is(err, errCrashed) {
			d.t.Fatalf("%s: %v", what, err)
		}
		return err
	}
	// What was replayed is served from now on, so it must stay.
	kept := 0
	d.sent = slices.Clone(d.sent)
	d.sent = slices.DeleteFunc(d.sent, func(r sentRecord) bool {
		if r.seg < d.min {
			return true
		}
		kept++
		return kept > len(got)
	})
	d.acked = len(d.sent)
	segs, err := ListSegments(fs, "wal")
	if err != nil {
		return err
	}
	next := d.min + 1
	for _, n := range segs {
		next = max(next, n+1)
		if n < d.min {
			if err := Remove(fs, "wal", n); err != nil {
				return err
			}
		}
	}
	opts := crashOptions(fs)
	opts.Prev = stats.End
	if d.w, err = Create(opts, next); err != nil {
		return err
	}
	d.pending = nil
	for _, size := range []int{20, 700} {
		if err := d.append(size); err != nil {
			return err
		}
		if err := d.commit(size == 700); err != nil {
			return err
		}
	}
	return nil
}

// TestFailEveryCall fails the n-th change for every n, once and from then on, in
// several ways. The log must not claim what it does not have, stop for good
// where it cannot know, and replay afterwards.
func TestFailEveryCall(t *testing.T) {
	kinds := map[string]error{
		"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC, "EMFILE": syscall.EMFILE,
		"short write":     vfs.ShortWrite{N: 13, Err: syscall.EIO},
		"full write":      vfs.ShortWrite{N: 1 << 30, Err: syscall.EIO},
		"short by ENOSPC": vfs.ShortWrite{N: 40, Err: syscall.ENOSPC},
	}
	ops := countOps(t, func(fs vfs.FS) {
		d := &driver{t: t}
		must(t, d.script(crashOptions(fs)))
	})
	for name, cause := range kinds {
		for _, persistent := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/persistent=%v", name, persistent), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(9, 9))
				for n := range ops {
					failEveryCall(t, n, cause, persistent, rng)
				}
			})
		}
	}
}

func failEveryCall(t *testing.T, n int, cause error, persistent bool, rng *rand.Rand) {
	m := memDir(t)
	d := &driver{t: t}
	var at vfs.Op
	fs := vfs.Inject(m, func(op vfs.Op) error {
		if op.Mutates() && (op.Index == n || persistent && op.Index > n) {
			if op.Index == n {
				at = op
			}
			return cause
		}
		return nil
	})
	what := fmt.Sprintf("%v failed at op %d %v", cause, n, at)
	if err := d.script(crashOptions(fs)); err != nil {
		wantIs(t, err, cause)
		if errors.Is(err, base.ErrReadOnly) {
			// Final, whatever is tried, even if the disk is well again.
			wantIs(t, d.w.Append([]byte("x")), base.ErrReadOnly)
			wantIs(t, d.w.Commit(), base.ErrReadOnly)
			wantIs(t, d.w.CommitNoSync(), cause)
			wantIs(t, d.w.Rotate(99), base.ErrReadOnly)
			if !d.w.closed {
				wantIs(t, d.w.Close(), base.ErrReadOnly)
			}
		}
	}
	for _, mode := range vfs.CrashModes() {
		disk := m.Crash(mode, rng)
		again := *d
		must(t, again.recover(disk, what))
		_, _, err := again.verify(disk.Crash(vfs.CrashDropUnsynced, rng), what)
		must(t, err)
	}
}

// TestKillThenPowerCut ends the process before every change, so that what it
// wrote without a sync is still there for the recovery to read, and then cuts
// the power before every change of the recovery: what was replayed must stay.
func TestKillThenPowerCut(t *testing.T) {
	ops := countOps(t, func(fs vfs.FS) {
		d := &driver{t: t}
		must(t, d.script(crashOptions(fs)))
	})
	rng := rand.New(rand.NewPCG(4, 4))
	modes := vfs.CrashModes()
	for k := range ops + 1 {
		for j := 0; ; j++ {
			m := memDir(t)
			d := &driver{t: t}
			killed := false
			err := d.script(crashOptions(vfs.Inject(m, func(op vfs.Op) error {
				if killed = killed || op.Mutates() && op.Index == k; killed {
					return vfs.ErrKilled
				}
				return nil
			})))
			if killed {
				wantIs(t, err, vfs.ErrKilled)
			}
			mode := modes[j%len(modes)]
			var disk *vfs.MemFS
			what := fmt.Sprintf("killed before op %d, then %v before op %d of recovery", k, mode, j)
			err = d.recover(crashAt(m, j, func() { disk = m.Crash(mode, rng) }), what)
			if disk == nil {
				must(t, err)
				_, _, err = d.verify(m.Crash(vfs.CrashDropUnsynced, rng), what)
				must(t, err)
				break
			}
			_, _, err = d.verify(disk, what)
			must(t, err)
		}
	}
}
