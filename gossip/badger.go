package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/pairdb/pairdb/gossip/meta"
)

// badgerStore keeps metadata in a Badger database made small: a few kilobytes
// to a few megabytes that change a few times a day.
type badgerStore struct {
	db  *badger.DB
	dir string
	// running is set once the node has begun: only its start may use the last
	// of the space.
	running bool
	// garbage says that something was deleted since space was last given back.
	garbage atomic.Bool
	log     *slog.Logger
}

// The free space, in bytes, below which nothing is written: Badger writes through
// mapped files, and a page of one for which the disk has no room ends the process.
const (
	roomRunning = 512 << 10
	roomStart   = 64 << 10
	// roomCollect is for the files that live values are copied to.
	roomCollect = 64 << 20
)

// room says whether the disk has room for records.
func (s *badgerStore) room(records []meta.Record) error {
	need := int64(roomStart)
	if s.running {
		need = roomRunning
	}
	for _, r := range records {
		need += 2 * int64(len(r.Key)+len(r.Value))
	}
	free, err := freeSpace(s.dir)
	if err != nil {
		return fmt.Errorf("look for room in %s: %w", s.dir, err)
	}
	if free < need {
		return fmt.Errorf("%w: %d bytes are free in %s, %d are kept", meta.ErrNoRoom, free, s.dir, need)
	}
	return nil
}

func openBadger(dir string, logger *slog.Logger) (*badgerStore, error) {
	if err := checkBadgerDir(dir); err != nil {
		return nil, fmt.Errorf("open metadata store %s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open metadata store %s: %w", dir, err)
	}
	o := badger.DefaultOptions(dir).
		WithSyncWrites(true).
		WithLogger(badgerLog{logger}).
		WithMetricsEnabled(false).
		WithDetectConflicts(false).
		WithNumVersionsToKeep(1).
		// A transaction may take 15 % of this: see contentBytes in package meta.
		WithMemTableSize(4 << 20).
		WithNumMemtables(1).
		WithNumLevelZeroTables(1).
		WithNumLevelZeroTablesStall(4).
		WithNumCompactors(2). // the fewest it allows
		// They rest for up to a second first. What a compaction has not met, collect
		// does not know to be deleted.
		WithCompactL0OnClose(true).
		WithValueThreshold(4 << 10).
		WithValueLogFileSize(8 << 20).
		WithCompression(options.None).
		// Without these what a disk has changed is handed out as it is.
		WithChecksumVerificationMode(options.OnTableAndBlockRead).
		WithVerifyValueChecksum(true).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0)
	db, err := badger.Open(o)
	if err != nil {
		if strings.Contains(err.Error(), "Another process") {
			return nil, fmt.Errorf("open metadata store %s: %w", dir, ErrLocked)
		}
		return nil, fmt.Errorf("open metadata store %s: %w", dir, err)
	}
	s := &badgerStore{db: db, dir: dir, log: logger}
	s.garbage.Store(true) // of the lives before
	return s, nil
}

// Load implements meta.Store.
func (s *badgerStore) Load(visit func(key string, value []byte) error) error {
	return s.db.View(func(tx *badger.Txn) error {
		// The values one by one: one that cannot be read is not to hide the rest.
		it := tx.NewIterator(badger.IteratorOptions{})
		defer it.Close()
		damage := &meta.DamageError{}
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			value, err := item.ValueCopy(nil)
			if err == nil && len(value) == 0 && item.EstimatedSize() > 4<<10 {
				err = fmt.Errorf("%w: it should be large and is empty", ErrCorrupt)
			}
			if err != nil {
				damage.Keys, damage.Err = append(damage.Keys, string(item.Key())), err
				continue
			}
			if err := visit(string(item.Key()), value); err != nil {
				return err
			}
		}
		if len(damage.Keys) > 0 {
			return damage
		}
		return nil
	})
}

// Write implements meta.Store: one transaction, synced when Update returns.
func (s *badgerStore) Write(records []meta.Record) error {
	if err := s.room(records); err != nil {
		return err
	}
	return s.db.Update(func(tx *badger.Txn) error {
		for _, r := range records {
			var err error
			if r.Value == nil {
				s.garbage.Store(true)
				err = tx.Delete([]byte(r.Key))
			} else {
				err = tx.Set([]byte(r.Key), append([]byte{}, r.Value...))
			}
			if err != nil {
				return fmt.Errorf("write metadata %s: %w", r.Key, err)
			}
		}
		return nil
	})
}

// collectable says whether collect may find something, and takes it for done.
func (s *badgerStore) collectable() bool { return s.garbage.CompareAndSwap(true, false) }

// collect gives the space of values back that were deleted or replaced: entries of the log
// that are trimmed, votes, snapshots. Badger knows of those that its compactions have met,
// so some remain until later. It may run beside Write.
func (s *badgerStore) collect() {
	const files, ratio = 8, 0.5
	for range files {
		if free, err := freeSpace(s.dir); err != nil || free < roomCollect {
			return // what is there is needed for writes
		}
		err := s.db.RunValueLogGC(ratio)
		switch {
		case err == nil:
		case errors.Is(err, badger.ErrNoRewrite), errors.Is(err, badger.ErrRejected), errors.Is(err, badger.ErrDBClosed):
			return
		default:
			s.log.Warn("space of deleted metadata is not given back", "error", err)
			return
		}
	}
}

func (s *badgerStore) close() error {
	if err := s.db.Close(); err != nil && !errors.Is(err, badger.ErrDBClosed) {
		return fmt.Errorf("close metadata store: %w", err)
	}
	return nil
}

// badgerLog passes Badger's log on: errors and warnings as such, the rest at debug.
type badgerLog struct{ l *slog.Logger }

func (b badgerLog) line(level slog.Level, format string, args []any) {
	b.l.Log(context.Background(), level, "metadata store", "message", strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// Errorf implements badger.Logger.
func (b badgerLog) Errorf(f string, a ...any) { b.line(slog.LevelError, f, a) }

// Warningf implements badger.Logger.
func (b badgerLog) Warningf(f string, a ...any) { b.line(slog.LevelWarn, f, a) }

// Infof implements badger.Logger.
func (b badgerLog) Infof(f string, a ...any) { b.line(slog.LevelDebug, f, a) }

// Debugf implements badger.Logger.
func (b badgerLog) Debugf(f string, a ...any) { b.line(slog.LevelDebug, f, a) }
