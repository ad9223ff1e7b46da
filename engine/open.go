package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/cache"
	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/memtable"
	"github.com/pairdb/pairdb/engine/sstable"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/engine/wal"
)

const (
	lockName = "LOCK"
	walDir   = "wal"
)

// Open opens the DB in dir, making it if there is none. A directory that is
// open already is refused, as is one written by a newer program (ErrFormat).
// Damage to what was ever durable is ErrCorrupt; nothing is removed then.
func Open(dir string, opts Options) (*DB, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	db := &DB{opts: opts, dir: path.Clean(dir), cache: opts.Cache, sched: opts.Scheduler}
	db.stalls.watch = vfs.NewWatch(opts.FS, opts.Now)
	db.stalls.rule = stallRule{slow: opts.SlowAfter, stall: opts.StallAfter}
	db.fs = db.stalls.watch
	db.pacing.pacer.Most = opts.CompactionRate
	db.progress.L = &db.mu
	db.KeepDeletesAfter(opts.KeepDeletesAfter)
	if db.sched == nil {
		db.pool = newPools(map[string]int{poolFlush: 1, poolCompact: opts.MaxBackgroundJobs, poolClean: 1})
		db.sched = db.pool
	}
	if db.cache == nil {
		db.cache, db.own = cache.New(opts.CacheSize), true
	}
	db.tables = &tableSet{fs: db.fs, dir: db.dir, cache: db.cache, dec: sstable.NewDecoder(), limit: opts.MaxOpenTables}
	if err := db.open(); err != nil {
		return nil, fmt.Errorf("open engine in %s: %w", dir, err)
	}
	db.pollDisk()
	if db.pool != nil {
		db.disk.ticking = true
		db.startWatchers()
	}
	db.schedule()
	return db, nil
}

func (db *DB) open() (err error) {
	if err := db.fs.MkdirAll(db.dir); err != nil {
		return err
	}
	db.lock, err = db.fs.Lock(db.dir + "/" + lockName)
	if err != nil {
		return fmt.Errorf("lock the directory (is it open already?): %w", err)
	}
	if err = db.fit(); err != nil {
		return errors.Join(err, db.lock.Close())
	}
	r := &recovery{db: db}
	if err = r.run(); err == nil {
		return nil
	}
	if db.log != nil {
		err = errors.Join(err, db.log.Close())
	}
	if db.manifest != nil {
		err = errors.Join(err, db.manifest.Close())
	}
	db.tables.close()
	if db.own {
		err = errors.Join(err, db.cache.Close())
	}
	return errors.Join(err, db.lock.Close())
}

// recovery rebuilds the state of a DB. Until its new manifest is in place it
// changes nothing that the old one needs, so that it can be broken off and
// begun again at any point.
type recovery struct {
	db    *DB
	names []string // in the directory
	state manifest.State
	segs  []uint64 // segments found, ascending
	end   wal.End

	log    logCursor
	tables []*memTable    // oldest first; the last one may be written to
	ahead  *recoveryFlush // of tables[0], or nil
}

func (r *recovery) run() error {
	db := r.db
	if err := r.load(); err != nil {
		return err
	}
	if err := r.settle(r.replay()); err != nil {
		return err
	}
	if err := r.begin(); err != nil {
		return err
	}
	db.commit.last, db.flushedSeq = r.log.last, r.state.FlushedSeq
	db.visible.Store(uint64(r.log.last))
	db.durable.Store(uint64(r.log.last)) // Replay synced what it read
	db.cursors = make([][]byte, db.opts.Levels)
	n := len(r.tables) - 1
	db.installLocked(r.tables[n], r.tables[:n], db.newVersion(r.state.Version, nil))
	r.removeOrphans()
	return nil
}

// load reads the manifest and holds the directory against it.
func (r *recovery) load() error {
	db := r.db
	var err error
	if r.names, err = db.fs.List(db.dir); err != nil {
		return err
	}
	if slices.Contains(r.names, walDir) {
		if r.segs, err = wal.ListSegments(db.fs, db.dir+"/"+walDir); err != nil {
			return err
		}
	}
	r.state, _, err = manifest.Load(db.fs, db.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return r.found()
	}
	if err != nil {
		return err
	}
	db.opts.Levels = len(r.state.Version.Levels)
	next := r.state.NextFile
	for _, name := range r.names {
		if num, ok := fileNumber(name); ok {
			next = max(next, num+1)
		}
	}
	if len(r.segs) > 0 {
		next = max(next, r.segs[len(r.segs)-1]+1)
	}
	db.nextFile.Store(next)
	return r.checkFiles()
}

// found begins a new DB in a directory without CURRENT. One that lost it has
// tables or log records, which are not to be thrown away.
func (r *recovery) found() error {
	db := r.db
	for _, name := range r.names {
		if strings.HasSuffix(name, tableSuffix) {
			return base.Corruptf(db.dir+"/CURRENT", -1, "missing, but there is %s", name)
		}
	}
	logDir := db.dir + "/" + walDir
	if len(r.segs) > 0 {
		stats, err := wal.Verify(db.fs, logDir, r.segs)
		if err != nil {
			return err
		}
		if stats.Records > 0 {
			return base.Corruptf(db.dir+"/CURRENT", -1, "missing, but there are %d log records", stats.Records)
		}
		for _, num := range r.segs {
			if err := wal.Remove(db.fs, logDir, num); err != nil {
				return err
			}
		}
		r.segs = nil
	}
	for _, name := range r.names {
		if _, ok := manifest.ParseName(name); ok {
			if err := db.fs.Remove(db.dir + "/" + name); err != nil {
				return err
			}
		}
	}
	if err := db.fs.MkdirAll(logDir); err != nil {
		return err
	}
	// The names of the directories; those of the files in them are synced as
	// the files are made.
	if err := db.fs.SyncDir(path.Dir(db.dir)); err != nil {
		return err
	}
	r.state = manifest.State{Version: manifest.NewVersion(db.opts.Levels), NextFile: 1}
	db.nextFile.Store(1)
	return nil
}

// fileNumber returns the number of a file of ours.
func fileNumber(name string) (uint64, bool) {
	if num, ok := manifest.ParseName(name); ok {
		return num, true
	}
	digits, ok := strings.CutSuffix(strings.TrimSuffix(name, tempSuffix), tableSuffix)
	if !ok {
		return 0, false
	}
	num, err := strconv.ParseUint(digits, 10, 64)
	return num, err == nil && tableName(num) == digits+tableSuffix
}

// checkFiles makes sure that everything the manifest lists is there, or goes on
// without the tables that are not, see Options.Salvage.
func (r *recovery) checkFiles() error {
	db := r.db
	var lost []Damage
	for level, files := range r.state.Version.Levels {
		for _, f := range files {
			err := checkTableFile(db.fs, db.dir, f)
			if db.opts.Salvage != nil && errors.Is(err, ErrCorrupt) {
				lost = append(lost, damageOf(level, f, err))
			} else if err != nil {
				return err
			}
		}
	}
	if err := checkFirstSegment(db.dir, r.state, r.segs); err != nil || len(lost) == 0 {
		return err
	}
	return r.salvage(lost)
}

// replay reads the log into memtables.
func (r *recovery) replay() error {
	db := r.db
	r.log = logCursor{dir: db.dir, flushed: r.state.FlushedSeq, last: r.state.FlushedSeq}
	r.segs = neededSegments(r.state, r.segs)
	if len(r.segs) == 0 {
		return nil
	}
	stats, err := wal.Replay(db.fs, db.dir+"/"+walDir, r.segs, r.record)
	r.end = stats.End
	if stats.TornBytes > 0 {
		db.opts.Logger.Info("cut the unacknowledged end of the log", "dir", db.dir,
			"segment", stats.End.Segment, "offset", stats.End.Length, "bytes", stats.TornBytes)
	}
	if err == nil {
		err = checkLogEnd(db.dir, r.state, stats.End)
	}
	return err
}

// record applies one log record.
func (r *recovery) record(seg uint64, payload []byte) error {
	before := r.log.last
	if needed, err := r.log.next(seg, payload); err != nil || !needed {
		return err
	}
	need, err := batchNeed(payload, r.db.opts.OnRecovered)
	if err != nil {
		return r.log.corrupt(seg, "%w", err)
	}
	if err := r.room(need, seg, before); err != nil {
		return err
	}
	return r.tables[len(r.tables)-1].apply(payload, nil)
}

// room makes sure that the last memtable takes need bytes. Full ones are flushed
// while the log is read on, so that there are never more of them than writers may
// leave. last is the newest number in them.
func (r *recovery) room(need int64, seg uint64, last base.SeqNum) error {
	db := r.db
	if n := len(r.tables); n > 0 {
		if r.tables[n-1].fits(need) {
			return nil
		}
		r.tables[n-1].last = last
	}
	if len(r.tables) > db.opts.MaxImmutable {
		if err := r.flushed(); err != nil {
			return err
		}
	}
	r.flushAhead()
	r.tables = append(r.tables, newMemTable(max(db.opts.MemTableSize, need+int64(memtable.Need(0, 0))), seg))
	return nil
}

// begin makes the segment and the manifest that the DB goes on with.
func (r *recovery) begin() error {
	db := r.db
	var err error
	num := db.newFileNum()
	db.log, err = wal.Create(wal.Options{
		FS: db.fs, Dir: db.dir + "/" + walDir, SegmentSize: db.segSize, Prev: r.end, Rand: db.opts.Rand,
	}, num)
	if err != nil {
		return err
	}
	db.commit.limit, db.commit.written = db.segSize, db.log.Size()
	if len(r.tables) == 0 {
		r.tables = append(r.tables, newMemTable(db.opts.MemTableSize, num))
	}
	db.segs = append(r.segs, num)
	r.state.LogNumber = r.tables[0].firstSeg
	manifestNum := db.newFileNum()
	r.state.NextFile = db.nextFile.Load()
	r.state.LogEnd = manifest.LogEnd{}
	db.manifest, err = manifest.Create(manifest.Options{
		FS: db.fs, Dir: db.dir, MaxBytes: db.opts.ManifestSize, Rand: db.opts.Rand,
	}, manifestNum, r.state)
	if err == nil {
		db.stats.manifestBytes.Store(db.manifest.Size())
	}
	return err
}

// removeOrphans removes what no longer counts. It comes last: a state that did
// not hold together has been refused before.
func (r *recovery) removeOrphans() {
	db := r.db
	live := map[string]bool{manifest.Name(db.manifest.Num()): true}
	for _, level := range r.state.Version.Levels {
		for _, f := range level {
			live[tableName(f.Num)] = true
		}
	}
	for _, name := range r.names {
		_, ours := fileNumber(name)
		if (ours || manifest.Temporary(name)) && !live[name] {
			db.removeFile(name)
		}
	}
	nums, err := wal.ListSegments(db.fs, db.dir+"/"+walDir)
	if err != nil {
		db.opts.Logger.Warn("cannot list log segments", "dir", db.dir, "error", err)
	}
	for _, num := range nums {
		if num >= r.state.LogNumber {
			break
		}
		if err := db.log.Recycle(num); err != nil {
			db.opts.Logger.Warn("cannot recycle log segment", "dir", db.dir, "segment", num, "error", err)
		}
	}
	for len(db.segs) > 1 && db.segs[0] < r.state.LogNumber {
		db.segs = db.segs[1:]
	}
}
