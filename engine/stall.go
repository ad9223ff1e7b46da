package engine

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pairdb/pairdb/engine/memtable"
	"github.com/pairdb/pairdb/engine/wal"
)

// StallReason says what a writer waited for.
type StallReason uint8

// The reasons of a stall.
const (
	// StallMemTables: all memtables are full and the flush is behind.
	StallMemTables StallReason = iota
	// StallLevel0: level 0 is too deep and compaction is behind.
	StallLevel0
	// StallIngest: an Ingest writes the manifest.
	StallIngest
	// StallSlowdown: the writer was slowed down before one of the first two
	// happens.
	StallSlowdown
	stallReasons
)

// String names the reason as it stands in metrics.
func (r StallReason) String() string {
	switch r {
	case StallMemTables:
		return "memtables"
	case StallLevel0:
		return "level0"
	case StallIngest:
		return "ingest"
	case StallSlowdown:
		return "slowdown"
	default:
		return fmt.Sprintf("stall(%d)", uint8(r))
	}
}

// makeRoomLocked waits until a batch can be applied at once: there is room in
// the memtable, in the log segment and in what waits for the log. It reports
// whether a memtable became full, so that the caller schedules its flush.
func (db *DB) makeRoomLocked(b *Batch) (full bool, err error) {
	q := &db.commit
	for {
		if err := db.usableLocked(); err != nil {
			return full, err
		}
		if db.stalls.writes.Load() {
			return full, ErrStalled
		}
		switch {
		case db.writersStopped:
			db.waitForIngestLocked()
		case q.rotating || len(q.pending) > maxPending && q.leading:
			db.awaitLogLocked()
		case len(q.pending) > maxPending:
			err = db.leadLocked()
		case db.version.depth >= db.opts.L0StopTrigger:
			err = db.stallLocked(StallLevel0)
		case !db.mem.fits(b.memSize):
			if len(db.imm) >= db.opts.MaxImmutable {
				err = db.stallLocked(StallMemTables)
				break
			}
			db.rotateMemLocked(b.memSize)
			full = true
		case q.written+q.inflightBytes+q.pendingBytes+wal.GroupBytes(len(b.data)) > q.limit:
			if q.leading {
				db.awaitLogLocked()
				break
			}
			err = db.rotateLogLocked(wal.GroupBytes(len(b.data)))
		default:
			return full, nil
		}
		if err != nil {
			return full, err
		}
	}
}

// awaitLogLocked waits until the leader, who hands the lead to nobody meanwhile,
// is done, or something else has changed.
func (db *DB) awaitLogLocked() {
	db.commit.wanted++
	db.progress.Wait()
	db.commit.wanted--
}

// rotateMemLocked makes the memtable immutable, if there is anything in it, and
// a new one with room for need bytes the one to write to.
func (db *DB) rotateMemLocked(need int64) {
	size := max(db.opts.MemTableSize, need+int64(memtable.Need(0, 0)))
	imm := db.imm
	if !db.mem.Empty() {
		db.mem.last = db.commit.last
		imm = append(imm[:len(imm):len(imm)], db.mem)
	}
	db.installLocked(newMemTable(size, db.segs[len(db.segs)-1]), imm, db.version)
}

// stallLocked waits for background work to make progress. Whatever nobody has
// begun yet the writer does itself, so that it never waits for a scheduler that
// waits for the writer. It returns the error of the work it did.
func (db *DB) stallLocked(reason StallReason) error {
	start := db.opts.Now()
	db.mu.Unlock()
	var err error
	if reason == StallMemTables {
		err = db.runFlush()
	} else {
		err = db.runCompaction()
	}
	if err == nil {
		db.schedule()
	}
	db.mu.Lock()
	switch {
	case err == nil && reason == StallLevel0 && db.heldBackLocked():
		err = errAvoided
	case err == errJobRunning:
		err = nil
		if db.stalledLocked(reason) {
			db.progress.Wait()
		}
	}
	d := db.opts.Now().Sub(start)
	db.stats.stalled(reason, d)
	if f := db.opts.Events.Stalled; f != nil {
		db.mu.Unlock()
		f(reason, d)
		db.mu.Lock()
	}
	if err != nil {
		return fmt.Errorf("write refused, %s full: %w", reason, err)
	}
	return nil
}

// waitForIngestLocked waits until writers may go on.
func (db *DB) waitForIngestLocked() {
	start := db.opts.Now()
	for db.writersStopped && db.usableLocked() == nil && !db.stalls.writes.Load() {
		db.progress.Wait()
	}
	d := db.opts.Now().Sub(start)
	db.stats.stalled(StallIngest, d)
	if f := db.opts.Events.Stalled; f != nil {
		db.mu.Unlock()
		f(StallIngest, d)
		db.mu.Lock()
	}
}

// stalledLocked reports whether the job that ends the stall is running.
func (db *DB) stalledLocked(reason StallReason) bool {
	if db.usableLocked() != nil {
		return false
	}
	if reason == StallMemTables {
		return db.flush.running > 0 && len(db.imm) >= db.opts.MaxImmutable
	}
	return db.compact.running > 0 && db.version.depth >= db.opts.L0StopTrigger
}

// heldBackLocked reports whether level 0 stays full because of a damaged table.
func (db *DB) heldBackLocked() bool {
	return db.busy.Avoids(nil) && db.compact.running == 0 && db.version.depth >= db.opts.L0StopTrigger && db.pickLocked() == nil
}

const (
	// fullRate is how many bytes a second writers may write when the slowdown
	// begins, leastRate just before writes stop.
	fullRate  = 128 << 20
	leastRate = 1 << 20
	// Delays gather until they are worth a timer, and are served in parts.
	minDelay = time.Millisecond
	maxDelay = 50 * time.Millisecond
)

// slowdown holds the delay that writers owe.
type slowdown struct{ owed atomic.Int64 } // nanoseconds

// oweDelayLocked charges for n bytes written while the tree is behind. The
// rate falls with the square of what is left before the stop, so that there is
// no cliff.
func (db *DB) oweDelayLocked(n int) {
	o := &db.opts
	x := float64(db.version.depth-o.L0SlowdownTrigger+1) / float64(o.L0StopTrigger-o.L0SlowdownTrigger)
	if len(db.imm) >= o.MaxImmutable {
		x = max(x, float64(db.mem.Bytes())/float64(db.mem.Cap()))
	}
	if x <= 0 {
		return
	}
	rate := max(leastRate, fullRate*(1-min(x, 1))*(1-min(x, 1)))
	db.slow.owed.Add(int64(float64(n) / rate * float64(time.Second)))
}

// payDelay sleeps for what is owed. It is called without locks.
func (db *DB) payDelay() {
	d := time.Duration(db.slow.owed.Load())
	if d < minDelay {
		return
	}
	d = min(d, maxDelay)
	db.slow.owed.Add(-int64(d))
	db.opts.Sleep(d)
	db.stats.stalled(StallSlowdown, d)
	if f := db.opts.Events.Stalled; f != nil {
		f(StallSlowdown, d)
	}
}
