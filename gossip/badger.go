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
type badgerStore struct{ db *badger.DB }

func openBadger(dir string, logger *slog.Logger) (*badgerStore, error) {
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
		WithBlockCacheSize(0).
		WithIndexCacheSize(0)
	db, err := badger.Open(o)
	if err != nil {
		if strings.Contains(err.Error(), "Another process") {
			return nil, fmt.Errorf("open metadata store %s: %w", dir, ErrLocked)
		}
		return nil, fmt.Errorf("open metadata store %s: %w", dir, err)
	}
	return &badgerStore{db}, nil
}

// Load implements meta.Store.
func (s *badgerStore) Load(visit func(key string, value []byte) error) error {
	return s.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			err := item.Value(func(v []byte) error { return visit(string(item.Key()), v) })
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Write implements meta.Store: one transaction, synced when Update returns.
func (s *badgerStore) Write(records []meta.Record) error {
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
