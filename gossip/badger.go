package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

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
}

// The free space, in bytes, below which nothing is written: Badger writes through
// mapped files, and a page of one for which the disk has no room ends the process.
const (
	roomRunning = 512 << 10
	roomStart   = 64 << 10
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
	return &badgerStore{db: db, dir: dir}, nil
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
