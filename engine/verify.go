package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/sstable"
)

// maxDamage bounds the findings a VerifyReport keeps.
const maxDamage = 1000

// Progress says how far a verification has come, in bytes.
type Progress struct {
	Done, Total int64
}

// VerifyOptions configure a verification. The zero value is usable.
type VerifyOptions struct {
	// Progress, if set, is called now and then by the goroutine that verifies.
	Progress func(Progress)
}

// VerifyReport says what a verification looked at and what it found.
type VerifyReport struct {
	Tables     int   // read whole
	TableBytes int64 // of those
	// Damage has what is wrong, most of it *base.CorruptError, at most 1,000;
	// Omitted counts what did not fit.
	Damage  []error
	Omitted int
}

// damage notes a finding.
func (r *VerifyReport) damage(err error) {
	if len(r.Damage) == maxDamage {
		r.Omitted++
		return
	}
	r.Damage = append(r.Damage, err)
}

// table verifies one table.
func (r *VerifyReport) table(s *tableSet, f *manifest.FileMeta) {
	r.Tables++
	r.TableBytes += f.Size
	err := s.verify(f)
	if err == nil {
		return
	}
	blocks := s.damagedBlocks(s.dir + "/" + tableName(f.Num))
	if !errors.Is(err, ErrCorrupt) || len(blocks) == 0 {
		blocks = []error{err}
	}
	for _, err := range blocks {
		r.damage(fmt.Errorf("verify table %d: %w", f.Num, err))
	}
}

// Verify is VerifyWith for a caller who only wants to know whether all is well:
// it returns the first damage that was found.
func (db *DB) Verify() error {
	r, err := db.VerifyWith(context.Background(), VerifyOptions{})
	if err == nil && len(r.Damage) > 0 {
		err = r.Damage[0]
	}
	return err
}

// VerifyWith reads every block of every table, holds the tables against the
// manifest and the manifest's file against what is in memory. Reads and writes
// go on meanwhile. Damage is in the report; the error says why the verification
// did not come to its end: ErrClosed, or that of ctx, which is looked at between
// tables. The report then has what was found so far.
func (db *DB) VerifyWith(ctx context.Context, opts VerifyOptions) (VerifyReport, error) {
	var r VerifyReport
	if db.closing.Load() {
		return r, ErrClosed
	}
	if err := db.verifyManifest(); err != nil {
		if errors.Is(err, ErrClosed) {
			return r, err
		}
		r.damage(fmt.Errorf("verify manifest: %w", err))
	}
	rs := db.acquireState()
	defer rs.release()
	if err := rs.v.Check(); err != nil {
		r.damage(fmt.Errorf("verify levels: %w: %w", ErrCorrupt, err))
	}
	var p Progress
	for level := range rs.v.Levels {
		p.Total += rs.v.LevelBytes(level)
	}
	for _, level := range rs.v.levels {
		for _, t := range level {
			if err := ctx.Err(); err != nil {
				return r, fmt.Errorf("verify: %w", err)
			}
			if db.closing.Load() {
				return r, ErrClosed
			}
			r.table(db.tables, t.FileMeta)
			p.Done += t.Size
			if opts.Progress != nil {
				opts.Progress(p)
			}
		}
	}
	return r, nil
}

// verifyManifest reads the manifest while nobody writes it.
func (db *DB) verifyManifest() error {
	db.mu.Lock()
	for db.manifestBusy {
		db.progress.Wait()
	}
	if db.closed {
		db.mu.Unlock()
		return ErrClosed
	}
	db.manifestBusy = true
	failed := db.failed != nil
	db.mu.Unlock()
	defer func() {
		db.mu.Lock()
		db.manifestBusy = false
		db.progress.Broadcast()
		db.mu.Unlock()
	}()
	state, num, err := manifest.Load(db.fs, db.dir)
	if err != nil || failed {
		// After a failed write the file may be ahead of what is in memory.
		return err
	}
	want := db.manifest.State()
	if num != db.manifest.Num() || state.Version.String() != want.Version.String() ||
		state.FlushedSeq != want.FlushedSeq || state.LogNumber != want.LogNumber {
		return base.Corruptf(db.dir+"/"+manifest.Name(num), -1, "does not say what was written to it")
	}
	return nil
}

// verify reads the whole table of f from the disk, past the cache.
func (s *tableSet) verify(f *manifest.FileMeta) error {
	r, err := s.newReader(f)
	if err != nil {
		return err
	}
	defer r.Close() // only read
	m := r.Meta()
	if f.Renumbered {
		// The file has numbers of its own, the manifest those that count.
		m.SmallestSeq, m.LargestSeq = f.SmallestSeq, f.LargestSeq
		m.Smallest.Trailer, m.Largest.Trailer = f.Smallest.Trailer, f.Largest.Trailer
	}
	if m.Entries != f.Entries || m.RangeDels != f.RangeDels || m.LargestSeq != f.LargestSeq ||
		base.Compare(m.Smallest, f.Smallest) != 0 || base.Compare(m.Largest, f.Largest) != 0 {
		return base.Corruptf(s.dir+"/"+tableName(f.Num), -1, "is not the table the manifest lists")
	}
	return r.VerifyChecksums()
}

// damagedBlocks returns what is wrong with a damaged table, block by block; none
// if it is not a matter of blocks or the file cannot be read.
func (s *tableSet) damagedBlocks(path string) []error {
	f, err := s.fs.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close() // only read
	size, err := f.Size()
	if err != nil {
		return nil
	}
	var found []error
	_, err = sstable.Inspect(f, size, path, sstable.Visitor{Block: func(b sstable.BlockInfo) error {
		if b.Err != nil && len(found) < maxDamage {
			found = append(found, b.Err)
		}
		return nil
	}})
	if err != nil {
		return nil
	}
	return found
}
