package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/sstable"
	"github.com/pairdb/pairdb/engine/vfs"
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
	// Pace, if set, is called by it before it reads n bytes of a table. It may wait,
	// so that reading is as slow as it is to be. An error from it, such as that of
	// ctx, ends the verification.
	Pace func(n int) error
	// Damaged, if set, is called for each table in which VerifyWith finds damage, at
	// once. It may call DB.Quarantine.
	Damaged func(Damage)
}

// VerifyReport says what a verification looked at and what it found.
type VerifyReport struct {
	Tables     int   // read whole
	TableBytes int64 // of those
	// Damage has what is wrong, most of it *base.CorruptError, at most 1,000;
	// Omitted counts what did not fit.
	Damage  []error
	Omitted int
	// ManifestDamaged says that the manifest's file is not what it should be, see
	// DB.RewriteManifest. VerifyDir does not set it.
	ManifestDamaged bool
}

// damage notes a finding.
func (r *VerifyReport) damage(err error) {
	if len(r.Damage) == maxDamage {
		r.Omitted++
		return
	}
	r.Damage = append(r.Damage, err)
}

// table verifies one table and returns what is wrong with it.
func (r *VerifyReport) table(s *tableSet, f *manifest.FileMeta, pace func(n int) error) error {
	p := &paced{pace: pace}
	err := s.verify(f, p.file)
	if p.err != nil {
		return p.err // it was not read whole
	}
	r.Tables++
	r.TableBytes += f.Size
	if err == nil {
		return nil
	}
	blocks := s.damagedBlocks(s.dir + "/" + tableName(f.Num))
	if !errors.Is(err, ErrCorrupt) || len(blocks) == 0 {
		blocks = []error{err}
	}
	for _, err := range blocks {
		r.damage(fmt.Errorf("verify table %d: %w", f.Num, err))
	}
	return err
}

// paced reads a table no faster than pace lets it.
type paced struct {
	vfs.File
	pace func(n int) error
	err  error // from pace
}

func (p *paced) file(f vfs.File) vfs.File {
	if p.pace == nil {
		return f
	}
	p.File = f
	return p
}

// ReadAt implements vfs.File. One goroutine verifies.
func (p *paced) ReadAt(b []byte, off int64) (int, error) {
	if p.err == nil {
		p.err = p.pace(len(b))
	}
	if p.err != nil {
		return 0, p.err
	}
	return p.File.ReadAt(b, off)
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
// tables, or of VerifyOptions.Pace. Tables that are made while it runs are not read. The report then has what was found so far.
func (db *DB) VerifyWith(ctx context.Context, opts VerifyOptions) (VerifyReport, error) {
	var r VerifyReport
	if db.closing.Load() {
		return r, ErrClosed
	}
	if err := db.verifyManifest(); err != nil {
		if errors.Is(err, ErrClosed) {
			return r, err
		}
		r.ManifestDamaged = errors.Is(err, ErrCorrupt)
		r.damage(fmt.Errorf("verify manifest: %w", err))
	}
	rs := db.acquireState()
	listed := rs.v.Version
	rs.release() // what is read takes long: do not keep obsolete tables for it
	if err := listed.Check(); err != nil {
		r.damage(fmt.Errorf("verify levels: %w: %w", ErrCorrupt, err))
	}
	var p Progress
	for level := range listed.Levels {
		p.Total += listed.LevelBytes(level)
	}
	for _, files := range listed.Levels {
		for _, f := range files {
			if err := ctx.Err(); err != nil {
				return r, fmt.Errorf("verify: %w", err)
			}
			if err := db.verifyTable(&r, f, &opts); err != nil {
				return r, fmt.Errorf("verify: %w", err)
			}
			p.Done += f.Size
			if opts.Progress != nil {
				opts.Progress(p)
			}
		}
	}
	return r, nil
}

// verifyTable verifies a table, unless it has been merged into others meanwhile.
// The error says why the verification ends.
func (db *DB) verifyTable(r *VerifyReport, f *manifest.FileMeta, opts *VerifyOptions) error {
	if db.closing.Load() {
		return ErrClosed
	}
	rs := db.acquireState()
	level := levelOf(rs.v.Version, f.Num)
	var err error
	var before int
	if level >= 0 {
		before = len(r.Damage) + r.Omitted
		err = r.table(db.tables, f, opts.Pace)
	}
	rs.release()
	if err == nil {
		return nil
	}
	if len(r.Damage)+r.Omitted == before {
		return err
	}
	if opts.Damaged != nil && errors.Is(err, ErrCorrupt) {
		opts.Damaged(damageOf(level, f, err))
	}
	return nil
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

// verify reads the whole table of f from the disk, past the cache and through wrap,
// if that is not nil.
func (s *tableSet) verify(f *manifest.FileMeta, wrap func(vfs.File) vfs.File) error {
	r, err := s.newReader(f, wrap)
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
