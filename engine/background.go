package engine

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/pairdb/pairdb/engine/manifest"
)

// job is a kind of background work of which one runs at a time. It is guarded
// by DB.mu.
type job struct {
	queued  bool // handed to the scheduler and not begun
	running bool
	failed  bool // the last run failed: wait for a reason to try again
}

// errJobRunning says that the work asked for is under way elsewhere.
var errJobRunning = errors.New("engine: job is running")

// goroutines is the default Scheduler: a goroutine for each job.
type goroutines struct{ wg sync.WaitGroup }

// Go runs f on a goroutine of its own.
func (g *goroutines) Go(_ string, f func()) { g.wg.Go(f) }

func (g *goroutines) wait() { g.wg.Wait() }

// schedule hands due work to the scheduler. It is called without locks, since
// the scheduler may run the job at once.
func (db *DB) schedule() {
	db.mu.Lock()
	var names []string
	var jobs []func()
	claim := func(j *job, due bool, name string, f func()) {
		if due && !j.queued && !j.running && !j.failed {
			j.queued = true
			names, jobs = append(names, name), append(jobs, f)
		}
	}
	if db.usableLocked() == nil {
		claim(&db.flush, len(db.imm) > 0, "flush", db.flushJob)
		claim(&db.compact, db.shape.Needed(db.version.Version), "compact", db.compactJob)
		claim(&db.clean, db.obsolete.len() > 0, "clean", db.cleanJob)
	}
	db.mu.Unlock()
	for i, f := range jobs {
		db.sched.Go(names[i], f)
	}
}

// retryFailed lets schedule try again what failed before.
func (db *DB) retryFailed() {
	db.mu.Lock()
	db.flush.failed, db.compact.failed, db.clean.failed = false, false, false
	db.mu.Unlock()
	db.schedule()
}

// begin claims a job for the caller; end it with end. It fails when the job is
// running or the DB cannot be written.
func (db *DB) begin(j *job) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	j.queued = false
	if err := db.usableLocked(); err != nil {
		return err
	}
	if j.running {
		return errJobRunning
	}
	j.running = true
	return nil
}

func (db *DB) end(j *job, name string, err error) {
	db.mu.Lock()
	j.running = false
	j.failed = err != nil
	db.progress.Broadcast()
	closed := db.closed
	db.mu.Unlock()
	if err == nil || closed || errors.Is(err, ErrClosed) {
		return
	}
	db.stats.jobErrors.Add(1)
	db.opts.Logger.Warn("background job failed and will be tried again", "job", name, "dir", db.dir, "error", err)
	if f := db.opts.Events.BackgroundError; f != nil {
		f(name, err)
	}
}

func (db *DB) flushJob() {
	if db.runFlush() == nil {
		// Progress is a reason to try again what failed for lack of space.
		db.retryFailed()
	}
}

func (db *DB) compactJob() {
	if db.runCompaction() == nil {
		db.schedule()
	}
}

func (db *DB) cleanJob() {
	if db.begin(&db.clean) != nil {
		return
	}
	db.removeObsolete()
	db.end(&db.clean, "clean", nil)
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
	if err := db.fs.Remove(db.dir + "/" + name); err != nil {
		db.opts.Logger.Warn("cannot remove obsolete file", "dir", db.dir, "file", name, "error", err)
	}
}

// edit makes a change of the version durable and installs it. prepare is called
// when nobody else changes the version and completes the edit under mu; done,
// also under mu, updates what else hangs on it.
func (db *DB) edit(e *manifest.Edit, prepare func(), done func()) error {
	db.mu.Lock()
	for db.manifestBusy {
		db.progress.Wait()
	}
	if err := db.usableLocked(); err != nil {
		db.mu.Unlock()
		return err
	}
	db.manifestBusy = true
	if prepare != nil {
		prepare()
	}
	db.mu.Unlock()

	e.NextFile = db.nextFile.Load()
	state, err := db.manifest.Append(e, db.newFileNum)
	stale := db.manifest.TakeStale()
	db.obsolete.addManifests(stale)
	db.stats.manifestSwitches.Add(int64(len(stale)))
	db.stats.manifestBytes.Store(db.manifest.Size())

	db.mu.Lock()
	db.manifestBusy = false
	if err != nil {
		final := errors.Is(err, ErrReadOnly)
		if final {
			db.failLocked(err)
		}
		db.progress.Broadcast()
		db.mu.Unlock()
		if final {
			db.reportFailure(err)
		}
		return err
	}
	imm := db.imm
	if done != nil {
		done()
		imm = db.imm
	}
	db.installLocked(db.mem, imm, db.newVersion(state.Version, db.version))
	db.progress.Broadcast()
	db.mu.Unlock()
	return nil
}
