package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/disk"
	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/rangedel"
	"github.com/pairdb/pairdb/engine/sstable"
)

const (
	// MaxIngestFiles bounds the tables of one Ingest.
	MaxIngestFiles = 4096
	// MaxTableRangeDeletes bounds the range deletes of a table made for Ingest:
	// they are kept in memory while it is open.
	MaxTableRangeDeletes = 1 << 16
)

var (
	// ErrIngest marks tables that Ingest refuses although they are sound: the
	// error says why.
	ErrIngest = errors.New("engine: table cannot be ingested")
	// ErrIngestOverlap says that tables given to one Ingest share keys. It
	// matches ErrIngest. Ingest them one after the other, oldest first.
	ErrIngestOverlap = fmt.Errorf("%w: tables overlap", ErrIngest)
)

// Ingest adds the tables in the files named by paths, all or none, as if all of
// their contents had been written just now by one batch, but for a range
// delete: it hides what the DB held before and nothing of the files. It returns
// once that is durable and visible. Snapshots and iterators from before do not
// see it.
//
// The tables are made with NewTableWriter, or are those of another DB as long as
// each key is in them once and not hidden by a range delete beside it. They must
// not share keys with one another (ErrIngestOverlap). Every block is read first:
// damage, and a file that is no table, is ErrCorrupt; a table of another format
// version ErrFormat. For lack of space it is ErrDiskFull.
//
// The files are linked into the DB if they lie on its file system, else copied;
// they are left where they are, and must not be changed any more. Ingest flushes
// the memtables, and writers wait while it does so for the last time and writes
// the manifest: few large ones are better than many small ones. After an error
// nothing was ingested, but after ErrReadOnly the next Open may find that it was.
func (db *DB) Ingest(paths []string) error {
	if len(paths) > MaxIngestFiles {
		return fmt.Errorf("%w: %d files in one call, limit is %d", ErrIngest, len(paths), MaxIngestFiles)
	}
	db.mu.Lock()
	if err := db.usableLocked(); err != nil {
		db.mu.Unlock()
		return err
	}
	db.ingests++ // Close waits for it
	db.mu.Unlock()
	defer func() {
		db.mu.Lock()
		defer db.mu.Unlock()
		db.ingests--
		db.progress.Broadcast()
	}()
	in := &ingest{db: db}
	if err := in.run(paths); err != nil {
		return diskFull(fmt.Errorf("ingest: %w", err))
	}
	db.stats.ingested(len(in.files), manifest.Bytes(in.files))
	db.schedule()
	return nil
}

// ingest is one call of Ingest.
type ingest struct {
	db    *DB
	files []*manifest.FileMeta // numbered when they are installed
	// temps are the names of files that are not renamed yet.
	temps []string
}

func (in *ingest) run(paths []string) error {
	keep := false
	defer func() {
		if !keep {
			in.discard()
		}
	}()
	if err := in.ask(paths); err != nil {
		return err
	}
	for _, path := range paths {
		if err := in.take(path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if len(in.files) == 0 {
		keep = true
		return nil // nothing but empty tables
	}
	if err := disjoint(in.files); err != nil {
		return err
	}
	if err := in.name(); err != nil {
		return err
	}
	err := in.install()
	// If the manifest failed it is unknown whether it lists them.
	keep = err == nil || isReadOnly(err)
	return err
}

// ask asks the disk manager for the room: the files take it as soon as whoever
// made them removes his names, and compactions once more.
func (in *ingest) ask(paths []string) error {
	var w disk.Write
	for _, path := range paths {
		info, err := in.db.fs.Stat(path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		w.Bytes += info.Size
		w.Largest = max(w.Largest, info.Size)
	}
	_, err := in.db.admit(w, "set of tables")
	return err
}

// discard removes the files brought in. What cannot be removed is an orphan
// until the next open.
func (in *ingest) discard() {
	for _, name := range in.temps {
		_ = in.db.fs.Remove(name)
	}
	in.db.discard(in.files)
}

// take brings a file into the DB's directory under a temporary name, reads all
// of it and makes its bytes durable.
func (in *ingest) take(path string) error {
	if in.db.closing.Load() {
		return ErrClosed
	}
	num := in.db.newFileNum()
	temp := in.db.dir + "/" + tableName(num) + tempSuffix
	if err := in.bring(path, temp); err != nil {
		return err
	}
	f, err := in.check(path, temp)
	if err != nil {
		return err
	}
	if f == nil {
		// An empty table: what is in no file need not be ingested.
		in.temps = in.temps[:len(in.temps)-1]
		return in.db.fs.Remove(temp)
	}
	if err := in.sync(temp); err != nil {
		return err
	}
	f.Num = num
	in.files = append(in.files, f)
	return nil
}

// bring links or copies path to temp.
func (in *ingest) bring(path, temp string) error {
	err := in.db.fs.Link(path, temp)
	if err == nil {
		in.temps = append(in.temps, temp)
		return nil
	}
	for _, e := range []error{syscall.EXDEV, syscall.EPERM, syscall.EMLINK, syscall.EOPNOTSUPP} {
		if errors.Is(err, e) {
			return in.copyFile(path, temp)
		}
	}
	return fmt.Errorf("link: %w", err)
}

func (in *ingest) copyFile(path, temp string) (err error) {
	src, err := in.db.fs.Open(path)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := in.db.fs.Create(temp)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	in.temps = append(in.temps, temp)
	defer func() { err = errors.Join(err, dst.Close()) }()
	buf := make([]byte, 256<<10)
	for off := int64(0); ; {
		if in.db.closing.Load() {
			return ErrClosed
		}
		n, err := src.ReadAt(buf, off)
		if _, werr := dst.Write(buf[:n]); werr != nil {
			return fmt.Errorf("copy: %w", werr)
		}
		off += int64(n)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("copy: %w", err)
		}
	}
}

// sync makes the bytes of a file durable: who wrote it may not have done so.
func (in *ingest) sync(name string) error {
	f, err := in.db.fs.OpenAppend(name)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// check reads a table whole and returns what the manifest has to know of it but
// for its numbers, nil if it is empty. Errors name the file as the caller does.
func (in *ingest) check(path, temp string) (meta *manifest.FileMeta, err error) {
	file, err := in.db.fs.Open(temp)
	if err != nil {
		return nil, err
	}
	size, err := file.Size()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	r, err := sstable.NewReader(file, size, sstable.ReaderOptions{Name: path, Decoder: in.db.tables.dec})
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	defer r.Close() // only read
	c := &tableCheck{db: in.db}
	if err := c.ranges(r.RangeDels()); err != nil {
		return nil, err
	}
	if err := r.Verify(c.entry); err != nil {
		return nil, err
	}
	m := r.Meta()
	if m.Empty() {
		return nil, nil
	}
	if base.Compare(c.smallest(), m.Smallest) != 0 || base.Compare(c.largest(), m.Largest) != 0 {
		return nil, base.Corruptf(path, -1, "the properties have other bounds than the contents")
	}
	return &manifest.FileMeta{
		Size: m.Size, Nonce: m.Nonce, Smallest: m.Smallest, Largest: m.Largest,
		Entries: m.Entries, Deletes: m.Deletes, RangeDels: m.RangeDels, Renumbered: true,
	}, nil
}

// tableCheck finds out whether the contents of a table can all be of one
// sequence number.
type tableCheck struct {
	db          *DB
	rds         []base.RangeDel
	dels        *rangedel.List
	n           int
	first, last base.InternalKey
}

// ranges takes the range deletes, which are in order of their starts.
func (c *tableCheck) ranges(rds []base.RangeDel) error {
	if len(rds) > MaxTableRangeDeletes {
		return fmt.Errorf("%w: %d range deletes, limit is %d", ErrIngest, len(rds), MaxTableRangeDeletes)
	}
	for i, rd := range rds {
		switch {
		case len(rd.Start) == 0 || len(rd.Start) > MaxKeySize || len(rd.End) > MaxKeySize:
			return fmt.Errorf("%w: the bounds of a range delete have %d and %d bytes, not 1 to %d",
				ErrIngest, len(rd.Start), len(rd.End), MaxKeySize)
		case i > 0 && bytes.Compare(rd.Start, rds[i-1].End) < 0:
			return fmt.Errorf("%w: range deletes overlap at %.64q", ErrIngest, rd.Start)
		}
	}
	c.rds, c.dels = rds, rangedel.Build(rds)
	return nil
}

// entry takes a point entry.
func (c *tableCheck) entry(k base.InternalKey, value []byte) error {
	switch {
	case len(k.UserKey) == 0 || len(k.UserKey) > MaxKeySize:
		return fmt.Errorf("%w: a key has %d bytes, not 1 to %d", ErrIngest, len(k.UserKey), MaxKeySize)
	case len(value) > MaxValueSize:
		return fmt.Errorf("%w: a value has %d bytes, limit is %d", ErrIngest, len(value), MaxValueSize)
	case c.n > 0 && bytes.Equal(k.UserKey, c.last.UserKey):
		return fmt.Errorf("%w: several versions of %.64q", ErrIngest, k.UserKey)
	case c.dels.Newest(k.UserKey, base.MaxSeqNum) > k.SeqNum():
		return fmt.Errorf("%w: a range delete in it hides %.64q", ErrIngest, k.UserKey)
	}
	c.last = base.InternalKey{UserKey: append(c.last.UserKey[:0], k.UserKey...), Trailer: k.Trailer}
	if c.n == 0 {
		c.first = k.Clone()
	}
	if c.n++; c.n%checkEvery == 0 && c.db.closing.Load() {
		return ErrClosed
	}
	return nil
}

func (c *tableCheck) smallest() base.InternalKey {
	if len(c.rds) > 0 && (c.n == 0 || base.Compare(c.rds[0].StartKey(), c.first) < 0) {
		return c.rds[0].StartKey()
	}
	return c.first
}

func (c *tableCheck) largest() base.InternalKey {
	if n := len(c.rds); n > 0 && (c.n == 0 || base.Compare(c.rds[n-1].EndKey(), c.last) > 0) {
		return c.rds[n-1].EndKey()
	}
	return c.last
}

// disjoint returns an error if two of files share a user key.
func disjoint(files []*manifest.FileMeta) error {
	sorted := slices.Clone(files)
	slices.SortFunc(sorted, func(a, b *manifest.FileMeta) int {
		return bytes.Compare(a.Smallest.UserKey, b.Smallest.UserKey)
	})
	for i, f := range sorted[1:] {
		if f.Overlaps(sorted[i]) {
			return fmt.Errorf("%w at %.64q", ErrIngestOverlap, f.Smallest.UserKey)
		}
	}
	return nil
}

// name gives the files their names and makes these durable.
func (in *ingest) name() error {
	db := in.db
	for _, f := range in.files {
		path := db.dir + "/" + tableName(f.Num)
		if err := db.fs.Rename(in.temps[0], path); err != nil {
			return fmt.Errorf("name table %d: %w", f.Num, err)
		}
		in.temps = in.temps[1:]
	}
	if err := db.fs.SyncDir(db.dir); err != nil {
		return fmt.Errorf("name tables: %w", err)
	}
	return nil
}
