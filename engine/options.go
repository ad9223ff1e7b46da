package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/cache"
	"github.com/pairdb/pairdb/engine/compaction"
	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/sstable"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/engine/wal"
)

// Options configure a DB. The zero value is a working configuration; Open
// fills in the defaults. All sizes are bytes.
type Options struct {
	// FS is the file system, default vfs.OS().
	FS vfs.FS
	// Logger gets what an operator should see, default slog.DiscardHandler.
	Logger *slog.Logger

	// MemTableSize is the size of a memtable with its overhead, but for an index
	// that takes a fourteenth of that besides. Larger means
	// fewer flushes and less compaction, smaller means less memory and a
	// faster recovery. Default 64 MiB.
	MemTableSize int64
	// MaxImmutable is how many full memtables may wait for their flush
	// before writers wait, too. Default 2.
	MaxImmutable int

	// BlockSize is the size of a data block before compression. Larger
	// compresses and scans better, smaller reads single keys cheaper.
	// Default 4 KiB; 32 KiB, if that is larger, in the last level of a tree
	// with several.
	BlockSize int
	// BloomBitsPerKey sizes the filters, default 10 (about 1 % false
	// positives); negative writes none.
	BloomBitsPerKey int

	// Cache holds decoded blocks; it may be shared between DBs and is not
	// closed by Close. Default is a cache of its own of CacheSize.
	Cache *cache.Cache
	// CacheSize is the size of the DB's own cache, default 256 MiB; negative
	// means none.
	CacheSize int64
	// MaxOpenTables bounds the tables kept open, and with them file
	// descriptors and pinned indexes. Default 1000.
	MaxOpenTables int

	// Levels is the number of levels with level 0, default 5. It is fixed
	// when the DB is made.
	Levels int
	// L0CompactionTrigger is the depth of overlapping tables at which level
	// 0 is merged into the base level, the first one in use: lower favours
	// reads, higher writes. Default 4.
	L0CompactionTrigger int
	// L0SlowdownTrigger is the depth from which writers are slowed down, more
	// and more up to L0StopTrigger, where they wait. Defaults 20 and 40.
	L0SlowdownTrigger int
	L0StopTrigger     int
	// LBaseBytes is the target size of the base level, default 256 MiB, and
	// LevelMultiplier bounds the ratio from level to level, default 10. With
	// the size of the data they say how many levels are in use.
	LBaseBytes      int64
	LevelMultiplier int
	// TargetFileSize bounds a table, default 32 MiB. Smaller means finer
	// compactions, larger fewer files.
	TargetFileSize int64

	// MaxBackgroundJobs bounds the compactions, and the pieces that a large
	// one is split into, that are worked on at the same time; flushes have a
	// place of their own. More keep up with more writes, fewer leave the
	// processor and the disk to the foreground. Default 2.
	MaxBackgroundJobs int

	// WALSegmentSize is the size of a log segment, default 64 MiB.
	WALSegmentSize int64
	// ManifestSize is the size at which the manifest is rewritten, default
	// 4 MiB.
	ManifestSize int64

	// DiskWarn, DiskThrottle and DiskStop are percents of the file system in
	// use, by anybody: from the first on a warning is logged, from the second
	// on large writes are refused (ErrDiskThrottled), the larger the sooner,
	// from the third on all writes that do not free space (ErrDiskFull). Each
	// ends by itself two percent lower. Higher uses more of the disk, lower
	// leaves more time to act. Defaults 80, 90 and 95. The sizes above are
	// the most there is: on a small disk a part of them is used, so that what
	// DiskStop keeps free is enough for flushes and compactions.
	DiskWarn, DiskThrottle, DiskStop int
	// CheckInterval is how often the disk is looked at, default a second. It
	// plays no part with a Scheduler, see CheckDisk.
	CheckInterval time.Duration
	// SlowAfter is for how long a call that readers and writers wait for (a
	// write or sync of the log, a read of a table) may be under way before the
	// disk counts as one that does not answer: writes are then refused with
	// ErrStalled until it does. Shorter sends callers elsewhere sooner, longer
	// bears slower disks. Default 2 s, 400 times what a sync takes on a sound
	// virtual disk. StallAfter is the same for all other calls, such as syncs
	// of tables, which may be large. Default 10 s.
	SlowAfter, StallAfter time.Duration
	// CompactionRate bounds what compactions write together, in bytes a
	// second, whatever becomes of the tree: too low a bound makes writers
	// wait. Default 0, none; they yield to writers that wait for slow syncs
	// in any case.
	CompactionRate int64

	// Rand yields the nonces of files. It must be safe for concurrent use.
	// Default is math/rand/v2, which the operating system seeds.
	Rand func() uint64
	// Now and Sleep are the clock, default that of package time. Now is used
	// for metrics, to find calls that hang and to pace compactions, Sleep to
	// slow writers and compactions down.
	Now   func() time.Time
	Sleep func(time.Duration)
	// Timer makes a stopped timer that calls f, on a goroutine of its own, once
	// the time is over for which it was last reset. Writers of whom several wait
	// for a sync use one. Default is that of package time.
	Timer func(f func()) Timer
	// Scheduler runs background jobs. Default is a bounded pool of goroutines
	// for each kind: one flush, MaxBackgroundJobs compactions and one clean-up
	// at a time.
	Scheduler Scheduler

	// CompactionFilter, if not nil, is asked by compactions about values that no
	// snapshot sees: true drops the value as a delete would. It is for records
	// that expire: a value may be asked about never, or several times, and by
	// several goroutines at once. Key and value are valid during the call; it
	// must not call the DB.
	CompactionFilter func(key, value []byte) (drop bool)

	// KeepDeletesAfter is what DB.KeepDeletesAfter is told before anything is
	// compacted.
	KeepDeletesAfter base.SeqNum
	// Salvage says what Open does about tables that the manifest lists and that are
	// missing or have not the size they should have. nil, the default: it fails
	// with ErrCorrupt. Else they are given to it, and once it has returned nil they
	// are taken out of the DB, durably, and what is there of their files is moved
	// to the folder QuarantineDir. An error fails Open, and nothing has changed.
	//
	// Without them older values of their keys show, and keys that were deleted: the
	// caller has noted durably, before it returns, that what the DB says of those
	// ranges is not to be believed. It may be called again about the same tables,
	// after a crash. It must not call the DB.
	Salvage func([]Damage) error

	// OnRecovered is called by Open with each key set or deleted by a log
	// record that was replayed into a memtable, and the sequence number of that. The
	// key is valid during the call. Range deletes are not reported.
	OnRecovered func(key []byte, seq base.SeqNum)
	// Events are called at points of interest.
	Events Events
}

// Timer is a timer as time.AfterFunc makes it.
type Timer interface {
	Reset(time.Duration) bool
	Stop() bool
}

// Scheduler runs background jobs. Go must call f once, at any time, on any
// goroutine, at once and inline if it likes; each job is finite. A job that is
// never run costs no correctness: writers that have to wait for it run it
// themselves.
type Scheduler interface {
	Go(name string, f func())
}

// Events are optional callbacks. They are called without locks held, by
// background jobs and by writers; they must not call the DB.
type Events struct {
	// Flushed and Compacted are called after the tables are in place.
	Flushed   func(tables int, bytes int64)
	Compacted func(level, output int, bytesIn, bytesOut int64)
	// Stalled is called after a writer had to wait.
	Stalled func(reason StallReason, d time.Duration)
	// BackgroundError is called when a flush or compaction failed. It will
	// be tried again.
	BackgroundError func(job string, err error)
	// Damaged is called when a compaction meets a table that cannot be read, or not
	// all of it. Nothing of the compaction is kept, and until the table is
	// quarantined no other one touches it.
	Damaged func(Damage)
	// DiskStalled is called when a call to the file system has been under way
	// for SlowAfter or StallAfter, DiskRecovered when the disk answers again.
	// They must not wait for the disk.
	DiskStalled   func(vfs.Pending)
	DiskRecovered func(vfs.Pending)
	// ReadOnly is called once, when a failure ended all writing.
	ReadOnly func(err error)
}

func orDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

// EnsureDefaults fills unset options but those that are resources (Cache).
func (o *Options) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.OS()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	orDefault(&o.MemTableSize, 64<<20)
	orDefault(&o.MaxImmutable, 2)
	orDefault(&o.BlockSize, 4<<10)
	orDefault(&o.BloomBitsPerKey, 10)
	orDefault(&o.CacheSize, 256<<20)
	orDefault(&o.MaxOpenTables, 1000)
	orDefault(&o.Levels, 5)
	orDefault(&o.L0CompactionTrigger, 4)
	orDefault(&o.L0SlowdownTrigger, max(20, 3*o.L0CompactionTrigger))
	orDefault(&o.L0StopTrigger, 2*o.L0SlowdownTrigger)
	orDefault(&o.LBaseBytes, 256<<20)
	orDefault(&o.LevelMultiplier, 10)
	orDefault(&o.TargetFileSize, 32<<20)
	orDefault(&o.MaxBackgroundJobs, 2)
	orDefault(&o.WALSegmentSize, wal.DefaultSegmentSize)
	orDefault(&o.ManifestSize, manifest.DefaultMaxBytes)
	orDefault(&o.DiskWarn, 80)
	orDefault(&o.DiskThrottle, 90)
	orDefault(&o.DiskStop, 95)
	orDefault(&o.CheckInterval, time.Second)
	orDefault(&o.SlowAfter, 2*time.Second)
	orDefault(&o.StallAfter, 10*time.Second)
	if o.Rand == nil {
		o.Rand = rand.Uint64
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Sleep == nil {
		o.Sleep = time.Sleep
	}
	if o.Timer == nil {
		o.Timer = func(f func()) Timer {
			t := time.AfterFunc(time.Hour, f)
			t.Stop()
			return t
		}
	}
}

// Validate reports the first option that is out of bounds.
func (o *Options) Validate() error {
	switch {
	case o.MemTableSize < 4<<10 || o.MemTableSize > 2<<30:
		return fmt.Errorf("engine: memtable size %d is not in [4 KiB, 2 GiB]", o.MemTableSize)
	case o.MaxImmutable < 1:
		return errors.New("engine: no immutable memtable allowed")
	case o.Levels < 2 || o.Levels > manifest.MaxLevels:
		return fmt.Errorf("engine: %d levels are not in [2, %d]", o.Levels, manifest.MaxLevels)
	case o.L0CompactionTrigger < 1 || o.L0SlowdownTrigger <= o.L0CompactionTrigger || o.L0StopTrigger <= o.L0SlowdownTrigger:
		return fmt.Errorf("engine: level 0 triggers %d, %d, %d do not ascend",
			o.L0CompactionTrigger, o.L0SlowdownTrigger, o.L0StopTrigger)
	case o.LBaseBytes < 1 || o.LevelMultiplier < 2 || o.TargetFileSize < 1:
		return errors.New("engine: level sizes are not positive or do not grow")
	case o.DiskWarn < 1 || o.DiskThrottle <= o.DiskWarn || o.DiskStop <= o.DiskThrottle || o.DiskStop > 100:
		return fmt.Errorf("engine: disk percentages %d, %d, %d do not ascend up to 100", o.DiskWarn, o.DiskThrottle, o.DiskStop)
	case o.CheckInterval < time.Millisecond || o.StallAfter < 4*time.Millisecond || o.SlowAfter < 16*time.Millisecond:
		return fmt.Errorf("engine: check interval %s or stall times %s, %s are too short", o.CheckInterval, o.SlowAfter, o.StallAfter)
	case o.CompactionRate < 0:
		return fmt.Errorf("engine: compaction rate %d is negative", o.CompactionRate)
	case o.WALSegmentSize < wal.MinSegmentSize:
		return fmt.Errorf("engine: log segment size %d is below %d", o.WALSegmentSize, wal.MinSegmentSize)
	case o.MaxBackgroundJobs < 1 || o.MaxBackgroundJobs > 64:
		return fmt.Errorf("engine: %d background jobs are not in [1, 64]", o.MaxBackgroundJobs)
	case o.MaxOpenTables < 1:
		return errors.New("engine: no open tables allowed")
	}
	probe := o.tableOptions(false)
	probe.Nonce = 1
	probe.EnsureDefaults()
	return probe.Validate()
}

// shape returns the options of the compaction picker.
func (o *Options) shape() compaction.Options {
	return compaction.Options{
		// It never waits until writers are slowed down, or longer.
		L0Patience: min(2, float64(o.L0SlowdownTrigger)/float64(o.L0CompactionTrigger)),
		L0Trigger:  o.L0CompactionTrigger, BaseBytes: o.LBaseBytes,
		Multiplier: o.LevelMultiplier, TargetFileSize: o.TargetFileSize,
	}
}

// tableOptions returns how tables are laid out, without a nonce. cold ones are
// those of the last level once the data is so large that most of it lies there
// and is read rarely: they pay time for space.
func (o *Options) tableOptions(cold bool) sstable.WriterOptions {
	w := sstable.WriterOptions{BlockSize: o.BlockSize, BitsPerKey: o.BloomBitsPerKey, Codec: sstable.CodecS2}
	if cold {
		w.Codec = sstable.CodecZstd
		if o.BlockSize >= 4<<10 {
			w.BlockSize = max(o.BlockSize, 32<<10)
		}
	}
	return w
}
