package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/sstable"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/engine/wal"
)

var (
	// ErrInUse says that a directory belongs to a DB that is open.
	ErrInUse = errors.New("engine: directory is in use")
	// ErrNoDB says that a directory holds no DB.
	ErrNoDB = errors.New("engine: no DB in the directory")
)

// Orphan is a file in a DB's directory that the DB does not need.
type Orphan struct {
	Name  string // relative to the directory
	Bytes int64
	// Why says what it is. The engine removes what it knows at the next Open;
	// "foreign" is what it leaves alone.
	Why string
}

// maxOrphans bounds the orphans a DirReport lists.
const maxOrphans = 1000

// DirReport is what VerifyDir found.
type DirReport struct {
	VerifyReport
	// Manifest is the number of the manifest that counts, 0 if none can be read.
	Manifest uint64
	// State is what it says.
	State manifest.State
	// Segments of the log were read, with so many records and their bytes.
	Segments   int
	LogRecords int64
	LogBytes   int64
	// LogEnd is where the log ends, TornBytes the length of the tail behind it
	// that was never acknowledged and will be cut.
	LogEnd    wal.End
	TornBytes int64
	// LastSeq is the newest sequence number in tables and log.
	LastSeq base.SeqNum
	// Orphans are at most 1,000; OmittedOrphans counts the others.
	Orphans        []Orphan
	OmittedOrphans int
}

// VerifyDir checks the DB in dir, which must not be open, without opening it: all
// that Open checks, every block of every table, every group of the log. Nothing is
// written, not even the lock file; while it runs, Open fails.
//
// Damage is in the report. The error says why there is no whole report: ErrInUse,
// ErrNoDB, that of ctx, or that the directory cannot be listed.
func VerifyDir(ctx context.Context, fsys vfs.FS, dir string, opts VerifyOptions) (DirReport, error) {
	v := &dirVerifier{
		ctx: ctx, fs: fsys, dir: path.Clean(dir), opts: opts,
		live: map[string]bool{"CURRENT": true, lockName: true, walDir: true, QuarantineDir: true},
	}
	v.tables = &tableSet{fs: fsys, dir: v.dir, dec: sstable.NewDecoder()}
	lock, err := fsys.LockShared(v.dir + "/" + lockName)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return v.report, fmt.Errorf("verify %s: %w", dir, ErrInUse)
	case errors.Is(err, fs.ErrNotExist): // a copy, which nobody ever opened
	case err != nil:
		return v.report, fmt.Errorf("verify %s: %w", dir, err)
	}
	err = v.run()
	if lock != nil {
		err = errors.Join(err, lock.Close())
	}
	if err != nil {
		return v.report, fmt.Errorf("verify %s: %w", dir, err)
	}
	return v.report, nil
}

type dirVerifier struct {
	ctx    context.Context
	fs     vfs.FS
	dir    string
	opts   VerifyOptions
	tables *tableSet
	report DirReport

	names    []string
	segs     []uint64 // all of them, ascending
	live     map[string]bool
	progress Progress
}

func (v *dirVerifier) run() error {
	var err error
	if v.names, err = v.fs.List(v.dir); err != nil {
		return err
	}
	logs := []string{}
	if slices.Contains(v.names, walDir) {
		if logs, err = v.fs.List(v.dir + "/" + walDir); err != nil {
			return err
		}
		if v.segs, err = wal.ListSegments(v.fs, v.dir+"/"+walDir); err != nil {
			return err
		}
	}
	if !v.anything() {
		return ErrNoDB
	}
	r := &v.report
	r.State, r.Manifest, err = manifest.Load(v.fs, v.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.damage(base.Corruptf(v.dir+"/CURRENT", -1, "missing"))
	case err != nil:
		r.damage(fmt.Errorf("read manifest: %w", err))
	default:
		v.live[manifest.Name(r.Manifest)] = true
		return errors.Join(v.listed(), v.orphans(logs))
	}
	// Nobody knows what belongs to the DB, so all of it is looked at.
	r.Manifest, r.State = 0, manifest.State{}
	return v.unlisted()
}

// anything reports whether there is a file of ours.
func (v *dirVerifier) anything() bool {
	return len(v.segs) > 0 || slices.ContainsFunc(v.names, func(name string) bool {
		_, ours := fileNumber(name)
		return ours || name == "CURRENT"
	})
}

// step is called after n more bytes.
func (v *dirVerifier) step(n int64) error {
	v.progress.Done += n
	if v.opts.Progress != nil {
		v.opts.Progress(v.progress)
	}
	return v.ctx.Err()
}

// listed checks what the manifest lists.
func (v *dirVerifier) listed() error {
	r := &v.report
	for level := range r.State.Version.Levels {
		v.progress.Total += r.State.Version.LevelBytes(level)
	}
	for _, files := range r.State.Version.Levels {
		for _, f := range files {
			v.live[tableName(f.Num)] = true
			if err := checkTableFile(v.fs, v.dir, f); err != nil {
				r.damage(err)
			} else {
				r.table(v.tables, f, nil)
			}
			if err := v.step(f.Size); err != nil {
				return err
			}
		}
	}
	if err := checkFirstSegment(v.dir, r.State, v.segs); err != nil {
		r.damage(err)
	}
	return v.log(neededSegments(r.State, v.segs))
}

// log checks the segments that are still needed.
func (v *dirVerifier) log(segs []uint64) error {
	r := &v.report
	r.LastSeq = r.State.FlushedSeq
	for _, num := range segs {
		v.live[walDir+"/"+wal.NumberedName(num)] = true
	}
	if len(segs) == 0 {
		return nil
	}
	c := logCursor{dir: v.dir, flushed: r.State.FlushedSeq, last: r.State.FlushedSeq}
	stats, err := wal.Read(v.fs, v.dir+"/"+walDir, segs, func(seg uint64, payload []byte) error {
		if err := v.step(0); err != nil {
			return err
		}
		if _, err := c.next(seg, payload); err != nil {
			return err
		}
		if err := ReadBatch(payload, func(Op) error { return nil }); err != nil {
			return c.corrupt(seg, "%w", err)
		}
		return nil
	})
	r.Segments, r.LogRecords, r.LogBytes = stats.Segments, stats.Records, stats.Bytes
	r.LogEnd, r.TornBytes, r.LastSeq = stats.End, stats.TornBytes, c.last
	if err == nil {
		err = checkLogEnd(v.dir, r.State, stats.End)
	}
	if err != nil && v.ctx.Err() == nil {
		r.damage(fmt.Errorf("read log: %w", err))
		return nil
	}
	return err
}

// unlisted checks every table and every segment by itself.
func (v *dirVerifier) unlisted() error {
	r := &v.report
	for _, name := range v.names {
		if num, ok := fileNumber(name); !ok || name != tableName(num) {
			continue
		}
		info, err := v.fs.Stat(v.dir + "/" + name)
		if err != nil {
			return err
		}
		if err := v.tables.verifyAlone(v.dir+"/"+name, info.Size); err != nil {
			r.damage(err)
		}
		r.Tables++
		r.TableBytes += info.Size
		if err := v.step(info.Size); err != nil {
			return err
		}
	}
	for _, num := range v.segs {
		s, err := wal.Inspect(v.fs, segmentPath(v.dir, num), nil)
		if err != nil {
			r.damage(fmt.Errorf("read log: %w", err))
		}
		r.Segments++
		r.LogRecords += s.Records
		r.LogBytes += s.Bytes
		if err := v.step(0); err != nil {
			return err
		}
	}
	return nil
}

// orphans lists what the manifest does not need.
func (v *dirVerifier) orphans(logs []string) error {
	for _, name := range v.names {
		if !v.live[name] {
			if err := v.orphan(name, v.whyOrphan(name)); err != nil {
				return err
			}
		}
	}
	for _, name := range logs {
		name = walDir + "/" + name
		switch {
		case v.live[name]:
		case strings.HasSuffix(name, ".wal"):
			if err := v.orphan(name, "log segment whose records are all in tables"); err != nil {
				return err
			}
		case strings.HasSuffix(name, ".wal.free"): // kept to be overwritten
		case strings.HasSuffix(name, ".wal.tmp"):
			if err := v.orphan(name, "unfinished log segment"); err != nil {
				return err
			}
		default:
			if err := v.orphan(name, "foreign"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *dirVerifier) whyOrphan(name string) string {
	_, ours := fileNumber(name)
	_, log := manifest.ParseName(name)
	switch {
	case log:
		return "manifest that CURRENT does not name"
	case manifest.Temporary(name), ours && strings.HasSuffix(name, tempSuffix):
		return "unfinished"
	case ours:
		return "table that no level lists"
	default:
		return "foreign"
	}
}

func (v *dirVerifier) orphan(name, why string) error {
	r := &v.report
	if len(r.Orphans) == maxOrphans {
		r.OmittedOrphans++
		return nil
	}
	info, err := v.fs.Stat(v.dir + "/" + name)
	if err != nil {
		return err
	}
	r.Orphans = append(r.Orphans, Orphan{Name: name, Bytes: info.Size, Why: why})
	return nil
}

// verifyAlone reads a table that no manifest describes.
func (s *tableSet) verifyAlone(path string, size int64) (err error) {
	f, err := s.fs.Open(path)
	if err != nil {
		return fmt.Errorf("open table: %w", err)
	}
	r, err := sstable.NewReader(f, size, sstable.ReaderOptions{Name: path, Decoder: s.dec})
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(r.VerifyChecksums(), r.Close())
}
