package engine

import (
	"sync/atomic"
	"time"

	"github.com/pairdb/pairdb/engine/cache"
	"github.com/pairdb/pairdb/engine/compaction"
)

// counters are updated without locks.
type counters struct {
	batches, ops, batchBytes               atomic.Int64
	syncs, syncNanos, syncBytes, rotations atomic.Int64
	ownSyncs, ownSyncNanos                 atomic.Int64 // of these, for the sake of rotation
	flushes, flushTables, flushBytes       atomic.Int64
	// leadBegan is when the present leader of the log took it, in nanoseconds of
	// Options.Now, 0 if there is none.
	leadBegan                                  atomic.Int64
	compactions, moves, compactIn, compactOut  atomic.Int64
	jobErrors, manifestBytes, manifestSwitches atomic.Int64
	stalls, stallNanos                         [stallReasons]atomic.Int64
	filtered, split, drops, quarantined        atomic.Int64
	ingests, ingestTables, ingestBytes         atomic.Int64
	pools                                      poolSet
}

func (c *counters) applied(b *Batch) {
	c.batches.Add(1)
	c.ops.Add(int64(b.count))
	c.batchBytes.Add(int64(len(b.data)))
}

func (c *counters) synced(d time.Duration, bytes int) {
	c.syncs.Add(1)
	c.syncNanos.Add(int64(d))
	c.syncBytes.Add(int64(bytes))
}

// syncedAlone notes that the last sync was one that no writer asked for.
func (c *counters) syncedAlone(d time.Duration) {
	c.ownSyncs.Add(1)
	c.ownSyncNanos.Add(int64(d))
}

func (c *counters) flushed(tables int, bytes int64) {
	c.flushes.Add(1)
	c.flushTables.Add(int64(tables))
	c.flushBytes.Add(bytes)
}

func (c *counters) compacted(job *compaction.Job, in, out int64) {
	switch {
	case job.Move:
		c.moves.Add(1)
		return
	case job.Drop:
		c.drops.Add(1)
		return
	}
	c.compactions.Add(1)
	c.compactIn.Add(in)
	c.compactOut.Add(out)
}

func (c *counters) ingested(tables int, bytes int64) {
	c.ingests.Add(1)
	c.ingestTables.Add(int64(tables))
	c.ingestBytes.Add(bytes)
}

func (c *counters) stalled(r StallReason, d time.Duration) {
	c.stalls[r].Add(1)
	c.stallNanos[r].Add(int64(d))
}

// LevelMetrics describe a level.
type LevelMetrics struct {
	Files int
	Bytes int64
	Score float64 // 1 and above: due for compaction
}

// StallMetrics count the waits of writers for one reason.
type StallMetrics struct {
	Count int64
	Time  time.Duration
}

// Metrics are the figures of a DB. Counters run from Open on.
type Metrics struct {
	// Applied batches, their operations and encoded bytes.
	Batches, Ops, BatchBytes int64

	WALSyncs    int64
	WALSyncTime time.Duration
	// WALBusy is how long the write and sync of the log under way have been
	// running, 0 if there are none. If they do not end, the disk hangs.
	WALBusy      time.Duration
	WALSyncBytes int64 // records written by groups that were synced
	WALRotations int64
	WALSegments  int

	MemTableBytes  int64 // of the mutable one
	ImmutableCount int
	ImmutableBytes int64

	Flushes, FlushTables, FlushBytes int64
	// Drops are of tables that range deletes hid, on a disk that is nearly full.
	Compactions, Moves, Drops   int64
	CompactionIn, CompactionOut int64 // bytes
	CompactionDebt              int64 // bytes above the levels' targets
	JobErrors                   int64
	// Quarantined tables were taken out of the DB because they are damaged.
	Quarantined int64
	// Ingests count the calls that succeeded.
	Ingests, IngestTables, IngestBytes int64
	// Pools are the background jobs by kind: flush, compact and clean.
	Pools map[string]PoolMetrics

	// CompactionWaits counts the times that a compaction waited to yield to
	// writers, or for CompactionRate, CompactionWaitTime for how long in all.
	CompactionWaits    int64
	CompactionWaitTime time.Duration
	// CompactionLimit is the bytes a second that compactions may write now, 0
	// for no bound.
	CompactionLimit int64

	Stalls map[string]StallMetrics // by StallReason.String

	Disk DiskMetrics

	Levels     []LevelMetrics
	L0Depth    int
	TableBytes int64
	// Entries are the keys set in tables and memtables less those deleted
	// there: an estimate of the live keys that counts overwritten ones twice
	// until they are compacted.
	Entries       int64
	OpenTables    int
	ObsoleteFiles int
	Snapshots     int
	ManifestBytes int64
	// ManifestSwitches counts the replacements of the manifest's file.
	ManifestSwitches int64

	Cache  cache.Stats
	Filter FilterMetrics

	// WriteAmp is how many bytes were written to the log and to tables, ingested
	// ones included, for each byte applied or ingested since Open; 0 before the
	// first.
	WriteAmp float64
	// ReadAmp is how many tables the read of one key looks into at most: the
	// depth of level 0 and a table of each level in use below. Filters spare most
	// of them.
	ReadAmp int
	// SpaceAmp estimates how many bytes of tables there are for each byte of
	// live data, for which it takes the last level in use; 0 without tables.
	SpaceAmp float64

	VisibleSeq, DurableSeq, FlushedSeq uint64
	// Closed and ReadOnly say why writes are refused, if they are.
	Closed, ReadOnly bool
}

// Metrics returns the present figures.
func (db *DB) Metrics() Metrics {
	c := &db.stats
	m := Metrics{
		Batches: c.batches.Load(), Ops: c.ops.Load(), BatchBytes: c.batchBytes.Load(),
		WALSyncs: c.syncs.Load(), WALSyncTime: time.Duration(c.syncNanos.Load()),
		WALSyncBytes: c.syncBytes.Load(), WALRotations: c.rotations.Load(),
		Flushes: c.flushes.Load(), FlushTables: c.flushTables.Load(), FlushBytes: c.flushBytes.Load(),
		Compactions: c.compactions.Load(), Moves: c.moves.Load(), Drops: c.drops.Load(),
		CompactionIn: c.compactIn.Load(), CompactionOut: c.compactOut.Load(),
		Ingests: c.ingests.Load(), IngestTables: c.ingestTables.Load(), IngestBytes: c.ingestBytes.Load(),
		Quarantined: c.quarantined.Load(),
		JobErrors:   c.jobErrors.Load(), ManifestBytes: c.manifestBytes.Load(),
		ManifestSwitches: c.manifestSwitches.Load(),
		Stalls:           make(map[string]StallMetrics, stallReasons),
		OpenTables:       db.tables.openCount(), ObsoleteFiles: db.obsolete.len(), Cache: db.cache.Stats(),
		Filter:     db.tables.filters.metrics(),
		VisibleSeq: db.visible.Load(), DurableSeq: db.durable.Load(),
		CompactionWaits: db.pacing.waits.Load(), CompactionWaitTime: time.Duration(db.pacing.waitNanos.Load()),
		CompactionLimit: db.pacing.rate(), Disk: db.diskMetrics(),
	}
	m.Pools = map[string]PoolMetrics{
		poolFlush: c.pools.flush.metrics(), poolCompact: c.pools.compact.metrics(), poolClean: c.pools.clean.metrics(),
	}
	if began := c.leadBegan.Load(); began != 0 {
		m.WALBusy = max(1, time.Duration(db.opts.Now().UnixNano()-began))
	}
	for r := range stallReasons {
		m.Stalls[r.String()] = StallMetrics{Count: c.stalls[r].Load(), Time: time.Duration(c.stallNanos[r].Load())}
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	m.MemTableBytes, m.ImmutableCount = db.mem.Bytes(), len(db.imm)
	m.Entries = int64(db.mem.Len())
	for _, im := range db.imm {
		m.ImmutableBytes += im.Bytes()
		m.Entries += int64(im.Len())
	}
	v := db.version
	for level, files := range v.Levels {
		bytes := v.LevelBytes(level)
		m.Levels = append(m.Levels, LevelMetrics{Files: len(files), Bytes: bytes, Score: v.tree.Score(level)})
		m.TableBytes += bytes
		if level > 0 && len(files) > 0 {
			m.ReadAmp++
		}
		for _, f := range files {
			m.Entries += max(0, int64(f.Entries)-2*int64(f.Deletes))
		}
	}
	m.L0Depth, m.CompactionDebt = v.depth, v.tree.Debt()
	m.ReadAmp += m.L0Depth
	m.SpaceAmp = v.tree.SpaceAmp()
	m.WriteAmp = writeAmp(m.BatchBytes, m.IngestBytes, m.FlushBytes+m.CompactionOut)
	m.WALSegments, m.Snapshots = len(db.segs), len(db.snapshots.seqs)
	m.FlushedSeq = uint64(db.flushedSeq)
	m.Closed, m.ReadOnly = db.closed, db.failed != nil
	return m
}

// writeAmp returns the bytes written for each byte of user data: a batch is
// logged once, an ingested table is there as it came.
func writeAmp(batches, ingested, tables int64) float64 {
	user := batches + ingested
	if user == 0 {
		return 0
	}
	return float64(user+tables) / float64(user)
}
