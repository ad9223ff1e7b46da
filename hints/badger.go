package hints

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

const (
	// sealFile has the checksums of all others of a store that was closed in an
	// orderly way. Badger ends the process over some damage; what the seal does not
	// fit is never shown to it.
	sealFile = "SEAL"
	// openingFile is there while Badger opens the store. If it is there at a start,
	// opening has ended the process: the store is given up.
	openingFile = "OPENING"
	manifest    = "MANIFEST"
)

// openDir opens the Badger store in a folder of dir, which it returns. fresh says why
// it is empty though it may have had hints: it was not there, or was damaged. A store
// that is begun anew has a folder of its own, since a Badger whose files were taken
// away may go on trying to write them.
func openDir(dir string, log *slog.Logger) (db *badger.DB, folder, fresh string, err error) {
	number, err := newest(dir)
	if err != nil {
		return nil, "", "", err
	}
	folder = filepath.Join(dir, strconv.Itoa(number))
	if fresh, err = sound(folder); err != nil {
		return nil, "", "", err
	}
	if fresh == "" {
		if db, err = openBadger(folder, log); err == nil {
			return db, folder, "", nil
		}
		if isLocked(err) {
			return nil, "", "", err
		}
		fresh = "the store of hints could not be opened: " + err.Error()
	}
	db, folder, err = beginAnew(dir, number+1, log)
	return db, folder, fresh, err
}

// beginAnew deletes what there is and opens an empty store in the folder of a number.
func beginAnew(dir string, number int, log *slog.Logger) (*badger.DB, string, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, "", fmt.Errorf("delete the store of hints: %w", err)
	}
	folder := filepath.Join(dir, strconv.Itoa(number))
	db, err := openBadger(folder, log)
	return db, folder, err
}

// newest returns the highest number of a folder in dir, 0 if there is none.
func newest(dir string) (number int, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n > number && n < math.MaxInt32 {
			number = n
		}
	}
	return number, nil
}

// sound says what is wrong with the store in dir, as far as can be told without
// Badger; "" if nothing is.
func sound(dir string) (wrong string, err error) {
	if _, err := os.Stat(filepath.Join(dir, manifest)); err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		return "there was no store of hints", nil
	}
	if _, err := os.Stat(filepath.Join(dir, openingFile)); err == nil {
		return "an earlier attempt to open the store of hints ended the process", nil
	}
	want, err := os.ReadFile(filepath.Join(dir, sealFile))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil // the process was killed: Badger has its own checks
	} else if err != nil {
		return "", err
	}
	got, err := checksums(dir)
	if err != nil || !bytes.Equal(got, want) {
		return "the store of hints is damaged", nil
	}
	return "", nil
}

// checksums lists the files of the store with sizes and checksums.
func checksums(dir string) ([]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, e := range entries {
		if e.Name() == sealFile || e.Name() == openingFile || e.Name() == "LOCK" {
			continue
		}
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
		n, err := io.Copy(sum, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, "%s %d %08x\n", e.Name(), n, sum.Sum32())
	}
	return out.Bytes(), nil
}

// openBadger opens a store made small: small memtables and value log, no caches,
// and nothing is synced.
func openBadger(dir string, log *slog.Logger) (db *badger.DB, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	opening := filepath.Join(dir, openingFile)
	if err := os.WriteFile(opening, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(dir, sealFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, fmt.Errorf("open the store of hints: %v", r)
		}
		if e := os.Remove(opening); e != nil && err == nil {
			err = errors.Join(e, db.Close())
			db = nil
		}
	}()
	return badger.Open(badger.DefaultOptions(dir).
		WithSyncWrites(false).
		WithLogger(badgerLog{log}).
		WithMetricsEnabled(false).
		WithDetectConflicts(false).
		WithNumVersionsToKeep(1).
		// A transaction may take 15 % of this: see maxBatchBytes.
		WithMemTableSize(4 << 20).
		WithNumMemtables(2).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(8).
		WithNumCompactors(2). // the fewest it allows
		WithValueThreshold(4 << 10).
		WithValueLogFileSize(1 << 20).
		WithCompression(options.None).
		WithChecksumVerificationMode(options.OnTableAndBlockRead).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0))
}

func isLocked(err error) bool { return strings.Contains(err.Error(), "Another process") }

// closeWait bounds closing a store: one whose files were taken away may never end.
const closeWait = 5 * time.Second

// closeBadger closes db, or leaves it behind after closeWait.
func closeBadger(db *badger.DB) error {
	ended := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				ended <- fmt.Errorf("close the store of hints: %v", r)
			}
		}()
		ended <- db.Close()
	}()
	t := time.NewTimer(closeWait)
	defer t.Stop()
	select {
	case err := <-ended:
		return err
	case <-t.C:
		return errors.New("close the store of hints: it does not end")
	}
}

// seal notes what the files of a closed store are.
func seal(dir string) error {
	sums, err := checksums(dir)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, sealFile), sums, 0o600)
}

// there reports whether the store's files have not been taken away.
func there(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, manifest))
	return err == nil
}

// loadBacklogs reads the summaries.
func loadBacklogs(db *badger.DB, visit func(key []byte, b backlog)) error {
	return db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.IteratorOptions{PrefetchValues: true, PrefetchSize: 16, Prefix: []byte{kindSummary}})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			k := slices.Clone(it.Item().Key())
			if len(k) != targetLen {
				return errHint
			}
			if err := it.Item().Value(func(v []byte) error {
				b, err := decodeBacklog(v)
				if err == nil {
					visit(k, b)
				}
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

// badgerLog passes Badger's log on: errors and warnings as warnings, since nothing
// depends on hints, the rest at debug.
type badgerLog struct{ l *slog.Logger }

func (b badgerLog) line(level slog.Level, format string, args []any) {
	b.l.Log(context.Background(), level, "store of hints", "message", strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// Errorf implements badger.Logger.
func (b badgerLog) Errorf(f string, a ...any) { b.line(slog.LevelWarn, f, a) }

// Warningf implements badger.Logger.
func (b badgerLog) Warningf(f string, a ...any) { b.line(slog.LevelWarn, f, a) }

// Infof implements badger.Logger.
func (b badgerLog) Infof(f string, a ...any) { b.line(slog.LevelDebug, f, a) }

// Debugf implements badger.Logger.
func (b badgerLog) Debugf(f string, a ...any) { b.line(slog.LevelDebug, f, a) }
