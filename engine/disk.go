package engine

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/disk"
	"github.com/pairdb/pairdb/engine/vfs"
)

// diskManager knows the file system of the DB. What it decides stands in
// package disk.
type diskManager struct {
	limits disk.Limits
	// unasked is the size in bytes of the largest batch that is let through
	// without asking, -1 if all have to.
	unasked atomic.Int64
	// ticking says that somebody looks at the disk regularly.
	ticking bool
	refused [disk.Verdicts]atomic.Int64

	mu      sync.Mutex
	known   bool
	state   disk.State
	usage   vfs.Usage
	failing bool // the last question was not answered
}

// freeing is what the DB knows of writes that free space. It is guarded by DB.mu.
type freeing struct {
	// warned is the first sequence number after the disk was last below Warn.
	warned base.SeqNum
	// from is the first of a write that frees space and may not have done so
	// yet; 0 if the disk is below Throttle or there is none.
	from base.SeqNum
	// inMem says that the memtable holds such a write.
	inMem bool
	// uncovered is the last version that dropCovered found nothing in.
	uncovered *version
}

// fit takes the sizes that suit the disk. It is called once, before any other
// file of the DB is touched.
func (db *DB) fit() error {
	u, err := db.fs.DiskUsage(db.dir)
	if err != nil {
		return fmt.Errorf("size the parts: %w", err)
	}
	o := &db.opts
	s := disk.Fit(disk.Sizes{
		Segment: o.WALSegmentSize, MemTable: o.MemTableSize, Base: o.LBaseBytes,
		Table: o.TargetFileSize, Manifest: o.ManifestSize,
	}, u.Total)
	o.MemTableSize, o.LBaseBytes, o.TargetFileSize, o.ManifestSize = s.MemTable, s.Base, s.Table, s.Manifest
	db.segSize, db.shape = s.Segment, o.shape()
	db.disk.limits = disk.Limits{
		Warn: o.DiskWarn, Throttle: o.DiskThrottle, Stop: o.DiskStop,
		Reserve: disk.Reserve(s, o.MaxImmutable),
	}
	return nil
}

// pollDisk asks the file system how full it is and acts on a change of state.
// It is called without locks.
func (db *DB) pollDisk() {
	d := &db.disk
	u, err := db.fs.DiskUsage(db.dir)
	d.mu.Lock()
	if err != nil {
		first := !d.failing
		d.failing = true
		d.mu.Unlock()
		if first {
			db.opts.Logger.Warn("cannot ask how full the disk is", "dir", db.dir, "error", err)
		}
		return
	}
	old, first := d.state, !d.known
	if first {
		old = disk.OK
	}
	d.known, d.failing = true, false
	d.usage, d.state = u, d.limits.Next(old, u)
	state := d.state
	d.unasked.Store(d.limits.Unasked(state, u))
	d.mu.Unlock()
	if state != old {
		db.diskChanged(old, state, u, first)
	}
}

func (db *DB) diskChanged(old, state disk.State, u vfs.Usage, first bool) {
	db.mu.Lock()
	f := &db.freeing
	switch {
	case first:
		f.warned = 1 // since when is not known: before this start
	case old == disk.OK:
		f.warned = db.commit.last + 1
	}
	switch {
	case state < disk.Throttle:
		f.from, f.uncovered = 0, nil
	case state == disk.Full:
		// Nothing but compaction gives space back now, so let it have all that
		// was written since the disk began to fill up; the log first.
		f.from, f.inMem = max(1, f.warned), true
	}
	db.mu.Unlock()
	attrs := []any{
		"dir", db.dir, "state", state.String(), "before", old.String(), "total_bytes", u.Total, "free_bytes", u.Free,
	}
	switch {
	case state == disk.Full:
		db.opts.Logger.Error("disk is full: writes are refused until space is freed; reads, deletes and compaction go on", attrs...)
	case state > old:
		db.opts.Logger.Warn("disk is filling up", attrs...)
	default:
		db.opts.Logger.Info("disk has room again", attrs...)
	}
}

// now returns what is known of the disk.
func (d *diskManager) now() (state disk.State, u vfs.Usage, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state, d.usage, d.known
}

// askDisk asks for a batch that is larger than what is let through unasked, and
// reports whether it frees space.
func (db *DB) askDisk(b *Batch, o WriteOptions) (frees bool, err error) {
	if b.count == 0 {
		return false, nil
	}
	w := weigh(b)
	w.Frees = w.Frees || o.Frees
	state, err := db.admit(w, "batch")
	return err == nil && w.Frees && state >= disk.Throttle, err
}

// admit asks for a write, and returns in what state the disk is or why the write
// is refused.
func (db *DB) admit(w disk.Write, what string) (disk.State, error) {
	d := &db.disk
	if !d.ticking {
		db.pollDisk()
	}
	state, u, _ := d.now()
	v := d.limits.Admit(state, u, w)
	if v == disk.Admit {
		return state, nil
	}
	d.refused[v].Add(1)
	used := 100 * float64(u.Total-u.Free) / float64(max(1, u.Total))
	switch v {
	case disk.TooFull:
		return state, fmt.Errorf("%w: %.1f %% of it is in use and %d bytes are free, of which %d are kept; free space or add a disk",
			ErrDiskFull, used, u.Free, d.limits.Reserve)
	case disk.Throttled:
		return state, fmt.Errorf("%w: a value or table of %d bytes with %.1f %% of the disk in use; try again, or write less at once", ErrDiskThrottled, w.Largest, used)
	default:
		return state, fmt.Errorf("%w: a %s of %d bytes needs twice as much, and %d bytes are free, of which %d are kept", ErrNoSpace, what, w.Bytes, u.Free, d.limits.Reserve)
	}
}

// weigh measures a batch.
func weigh(b *Batch) disk.Write {
	w := disk.Write{Bytes: int64(len(b.data)), Frees: true}
	for r := (batchReader{count: b.count, rest: b.data[batchHeaderLen:]}); ; {
		kind, key, value, ok := r.next()
		if !ok {
			return w
		}
		w.Largest = max(w.Largest, int64(len(key)+len(value)))
		w.Frees = w.Frees && kind != base.KindSet
	}
}

// roomLocked returns what a new compaction may write: what is free, less what
// the memtables, the log and the manifest will take, and the compactions that
// are under way. It is 1 if there is no room, and 0, no bound, as long as
// nothing is known of the disk.
func (db *DB) roomLocked() int64 {
	_, u, known := db.disk.now()
	if !known {
		return 0
	}
	room := u.Free - db.mem.Bytes() - 2*db.opts.ManifestSize - db.busy.Bytes()
	for _, m := range db.imm {
		room -= m.Bytes()
	}
	if db.log.Spare() == 0 {
		room -= db.segSize
	}
	return max(1, room)
}

// sinceLocked returns from where on compactions are to be done for the sake of
// space, 0 if they are not.
func (db *DB) sinceLocked() base.SeqNum {
	if state, _, _ := db.disk.now(); state < disk.Throttle {
		return 0
	}
	return db.freeing.from
}

// CheckDisk looks at the disk: how full it is, whether calls hang, whether what
// failed for lack of space is worth another try. With the default Scheduler the
// DB does so by itself, every CheckInterval; who brings a Scheduler of his own
// calls it now and then.
func (db *DB) CheckDisk() {
	db.checkStalls()
	db.checkSpace()
}

func (db *DB) checkSpace() {
	db.pollDisk()
	_, u, known := db.disk.now()
	db.mu.Lock()
	if db.usableLocked() != nil || !known {
		db.mu.Unlock()
		return
	}
	room := db.roomLocked()
	db.freeing.uncovered = nil // a snapshot may have gone
	short := db.sinceLocked() != 0 || room > 0 && room < db.version.bytes
	for _, j := range []*job{&db.flush, &db.compact, &db.clean} {
		if j.failed && j.retry.Due(u.Free) {
			j.failed, short = false, true
		}
	}
	if db.freeing.inMem && db.sinceLocked() != 0 && len(db.imm) == 0 {
		db.freeing.inMem = false
		if !db.mem.Empty() {
			db.rotateMemLocked(0)
			short = true
		}
	}
	db.mu.Unlock()
	if short {
		db.schedule()
	}
}

// noteFreeingLocked notes that the write of seq frees space.
func (db *DB) noteFreeingLocked(seq base.SeqNum) {
	if db.freeing.from == 0 {
		db.freeing.from = seq
	}
	db.freeing.inMem = true
}

// watchers are the two goroutines of the default scheduler that look at the disk.
type watchers struct {
	stop chan struct{}
	wg   sync.WaitGroup
}

// startWatchers begins to look. What waits for the disk and what watches whether
// somebody does are apart, since the disk may not answer.
func (db *DB) startWatchers() {
	db.watchers.stop = make(chan struct{})
	every := func(d time.Duration, f func()) {
		db.watchers.wg.Go(func() {
			t := time.NewTicker(d)
			defer t.Stop()
			for {
				select {
				case <-db.watchers.stop:
					return
				case <-t.C:
					f()
				}
			}
		})
	}
	every(db.opts.CheckInterval, db.checkSpace)
	every(min(db.opts.CheckInterval, db.opts.StallAfter/4, db.opts.SlowAfter/16), db.checkStalls)
}

func (db *DB) stopWatchers() {
	if db.watchers.stop != nil {
		close(db.watchers.stop)
		db.watchers.wg.Wait()
	}
}

// DiskMetrics describe the disk.
type DiskMetrics struct {
	// Total and Free are bytes of the file system, as last seen.
	Total, Free int64
	State       disk.State
	// Refused writes, by why: TooFull, Throttled and NoSpace.
	Refused map[disk.Verdict]int64
	// Stalls counts the times that the disk did not answer, see
	// Options.SlowAfter; Stalled is for how long it has not by now, 0 if it does.
	Stalls  int64
	Stalled time.Duration
}

func (db *DB) diskMetrics() DiskMetrics {
	d := &db.disk
	m := DiskMetrics{Refused: map[disk.Verdict]int64{}, Stalls: db.stalls.count.Load()}
	var u vfs.Usage
	m.State, u, _ = d.now()
	m.Total, m.Free = u.Total, u.Free
	for _, v := range []disk.Verdict{disk.TooFull, disk.Throttled, disk.NoSpace} {
		m.Refused[v] = d.refused[v].Load()
	}
	db.stalls.mu.Lock()
	defer db.stalls.mu.Unlock()
	m.Stalled = db.stalls.now.Age
	return m
}
