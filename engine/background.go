package engine

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/pairdb/pairdb/engine/disk"
	"github.com/pairdb/pairdb/engine/manifest"
)

// job is a kind of background work. It is guarded by DB.mu.
type job struct {
	queued  int  // handed to the scheduler and not begun
	running int  // begun, by whomever
	failed  bool // the last run failed: wait for a reason to try again
	retry   disk.Retry
}

// errJobRunning says that the work asked for is under way elsewhere.
var errJobRunning = errors.New("engine: job is running")

// schedule hands due work to the scheduler. It is called without locks, since
// the scheduler may run the job at once.
func (db *DB) schedule() {
	db.mu.Lock()
	var names []string
	var jobs []func()
	claim := func(j *job, due bool, name string, f func()) {
		if due {
			j.queued++
			names, jobs = append(names, name), append(jobs, f)
		}
	}
	if db.usableLocked() == nil {
		claim(&db.flush, db.flush.idle() && len(db.imm) > 0, poolFlush, db.flushJob)
		claim(&db.compact, db.compactDueLocked(), poolCompact, db.compactJob)
		claim(&db.clean, db.clean.idle() && db.obsolete.len() > 0, poolClean, db.cleanJob)
	}
	db.mu.Unlock()
	for i, f := range jobs {
		db.spawn(names[i], f)
	}
}

// idle reports whether a job of which one runs at a time may be handed over.
func (j *job) idle() bool { return j.queued == 0 && j.running == 0 && !j.failed }

// retryFailed lets schedule try again what failed before.
func (db *DB) retryFailed() {
	db.mu.Lock()
	db.flush.failed, db.compact.failed, db.clean.failed = false, false, false
	db.mu.Unlock()
	db.schedule()
}

// begun says that a job that was handed over begins.
func (db *DB) begun(j *job) {
	db.mu.Lock()
	defer db.mu.Unlock()
	j.queued--
}

// begin claims a job of which one runs at a time for the caller; end it with
// end. It fails when the job is running or the DB cannot be written.
func (db *DB) begin(j *job) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if err := db.usableLocked(); err != nil {
		return err
	}
	if j.running > 0 {
		return errJobRunning
	}
	j.running++
	return nil
}

// end gives a job back; release, if not nil, is called under mu.
func (db *DB) end(j *job, name string, err error, release func()) {
	db.pollDisk()
	_, u, _ := db.disk.now()
	damage, damaged := db.DamageOf(err)
	db.mu.Lock()
	if damaged {
		db.busy.Avoid(damage.File)
	}
	if release != nil {
		release()
	}
	j.running--
	stopped := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	// Whoever asked for it gave it up, and nothing is wrong; or no other job is going
	// to meet the same damage.
	j.failed = err != nil && !stopped && !damaged
	switch {
	case err == nil:
		j.retry.Worked()
	case !stopped && !damaged:
		j.retry.Failed(u.Free)
	}
	db.progress.Broadcast()
	closed := db.closed
	db.mu.Unlock()
	if err == nil || stopped || closed || errors.Is(err, ErrClosed) {
		return
	}
	db.stats.jobErrors.Add(1)
	if damaged {
		db.opts.Logger.Error("a compaction met a damaged table, which no compaction will touch until it is quarantined",
			"dir", db.dir, "table", damage.File, "level", damage.Level, "error", err)
		if f := db.opts.Events.Damaged; f != nil {
			f(damage)
		}
		return
	}
	db.opts.Logger.Warn("background job failed and will be tried again", "job", name, "dir", db.dir, "error", err)
	if f := db.opts.Events.BackgroundError; f != nil {
		f(name, err)
	}
}

func (db *DB) flushJob() {
	db.begun(&db.flush)
	if db.runFlush() == nil {
		// Progress is a reason to try again what failed for lack of space.
		db.retryFailed()
	}
}

func (db *DB) cleanJob() {
	db.begun(&db.clean)
	if db.begin(&db.clean) != nil {
		return
	}
	err := db.protect(poolClean, func() error { db.removeObsolete(); return nil })
	db.end(&db.clean, poolClean, err, nil)
	db.schedule()
}

// obsoleteList holds tables and manifests whose files are to be removed.
type obsoleteList struct {
	mu        sync.Mutex
	tables    []*table
	manifests []uint64
	n         atomic.Int64
}

func (l *obsoleteList) len() int { return int(l.n.Load()) }

func (l *obsoleteList) add(t *table) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tables = append(l.tables, t)
	l.n.Add(1)
}

func (l *obsoleteList) addManifests(nums []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.manifests = append(l.manifests, nums...)
	l.n.Add(int64(len(nums)))
}

func (l *obsoleteList) take() ([]*table, []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, m := l.tables, l.manifests
	l.tables, l.manifests = nil, nil
	l.n.Store(0)
	return t, m
}

// removeObsolete removes the files nobody needs any more. One that cannot be
// removed is left to the next open, which removes orphans.
func (db *DB) removeObsolete() {
	tables, manifests := db.obsolete.take()
	for _, t := range tables {
		db.tables.forget(t)
		db.removeFile(tableName(t.Num))
	}
	for _, num := range manifests {
		db.removeFile(manifest.Name(num))
	}
}

func (db *DB) removeFile(name string) {
	if err := db.fs.Remove(db.dir + "/" + name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		db.opts.Logger.Warn("cannot remove obsolete file", "dir", db.dir, "file", name, "error", err)
	}
}

// edit makes a change of the version durable and installs it. prepare is called
// when nobody else changes the version and completes the edit under mu; done,
// also under mu, updates what else hangs on it. Jobs that end at the same time
// take turns.
func (db *DB) edit(e *manifest.Edit, prepare func(), done func()) error {
	old, err := db.ownManifest(prepare)
	if err != nil {
		return err
	}
	owned := true
	defer func() {
		if owned { // a panic, which protect makes final
			db.mu.Lock()
			db.manifestBusy = false
			db.mu.Unlock()
		}
	}()
	e.NextFile = db.nextFile.Load()
	state, err := db.manifest.Append(e, db.newFileNum)
	stale := db.manifest.TakeStale()
	db.obsolete.addManifests(stale)
	db.stats.manifestSwitches.Add(int64(len(stale)))
	db.stats.manifestBytes.Store(db.manifest.Size())
	var v *version
	if err == nil {
		v = db.newVersion(state.Version, old)
	}
	owned = false
	return db.disownManifest(v, err, done)
}

// ownManifest waits until nobody else writes the manifest. It returns the
// version, which only the owner changes.
func (db *DB) ownManifest(prepare func()) (*version, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	for db.manifestBusy {
		db.progress.Wait()
	}
	if err := db.usableLocked(); err != nil {
		return nil, err
	}
	db.manifestBusy = true
	if prepare != nil {
		prepare()
	}
	return db.version, nil
}

// disownManifest installs v, unless err tells that the edit was refused, and
// lets the next one have the manifest.
func (db *DB) disownManifest(v *version, err error, done func()) error {
	final := errors.Is(err, ErrReadOnly)
	first := false
	func() {
		db.mu.Lock()
		defer db.mu.Unlock()
		db.manifestBusy = false
		db.progress.Broadcast()
		if final {
			first = db.failLocked(err)
		}
		if err == nil {
			if done != nil {
				done()
			}
			db.installLocked(db.mem, db.imm, v)
			// An ingest takes its number in done and is seen from here on;
			// for others this changes nothing.
			db.visible.Store(uint64(db.commit.last))
		}
	}()
	if first {
		db.reportFailure(err)
	}
	return err
}
