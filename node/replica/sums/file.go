package sums

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
)

// tempSuffix marks a file that is being written.
const tempSuffix = ".tmp"

// fileState is what is known of the file.
type fileState struct {
	mu sync.Mutex // held while it is written
	// seq is what the file on disk covers, 0 if there is none that can be used. It is
	// read without mu: the disk may hang.
	seq atomic.Uint64
	// keeps says that the engine keeps deletes; failed that the last attempt to write
	// the file was in vain.
	keeps, failed bool
}

// Log is what Save has to know of the engine.
type Log interface {
	VisibleSeq() base.SeqNum
	WaitDurable(seq base.SeqNum) error
	// KeepDeletesAfter has the engine keep what says that a key was deleted, for
	// writes above seq: whoever asks for the keys written since is told of them.
	// 0 ends it.
	KeepDeletesAfter(seq base.SeqNum)
}

// Save writes a file with all sums: everything up to a sequence number is in them,
// and everything in them is on disk. It holds one partition at a time in memory.
// The file before stays if it fails. Writes go on meanwhile.
func (s *Sums) Save(fsys vfs.FS, name string, log Log) error {
	f := &s.file
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.Partitions() == 0 {
		return nil
	}
	if !f.keeps {
		// Before seq is taken: a delete above it could be gone by the time that the
		// file is there.
		if v := log.VisibleSeq(); v > 0 {
			log.KeepDeletesAfter(v)
			f.keeps = true
		}
	}
	seq := log.VisibleSeq()
	if seq == 0 || !f.keeps {
		return nil // nothing was ever written
	}
	f.failed = true
	s.Drain()
	if err := s.save(fsys, name, seq, log); err != nil {
		return fmt.Errorf("write range sums to %s: %w", name, err)
	}
	f.failed = false
	f.seq.Store(uint64(seq))
	log.KeepDeletesAfter(seq)
	return nil
}

func (s *Sums) save(fsys vfs.FS, name string, seq base.SeqNum, log Log) (err error) {
	temp := name + tempSuffix
	if err := fsys.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := fsys.Create(temp)
	if err != nil {
		return err
	}
	newest, err := s.write(file, seq)
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		// What the file says must not be taken back by a crash.
		err = log.WaitDurable(max(seq, newest))
	}
	if err == nil {
		err = fsys.Rename(temp, name)
	}
	if err != nil {
		_ = fsys.Remove(temp) // else the next attempt does
		return err
	}
	return fsys.SyncDir(path.Dir(name))
}

// write writes the file's content and returns the newest write in it.
func (s *Sums) write(to io.Writer, seq base.SeqNum) (newest base.SeqNum, err error) {
	w := bufio.NewWriterSize(to, 64<<10)
	buf := appendHeader(nil, s.partitionBits(), seq)
	if _, err := w.Write(buf); err != nil {
		return 0, err
	}
	records := uint32(0)
	parts := s.all()
	for i := range parts {
		p := &parts[i]
		p.mu.Lock()
		buf = p.appendRecord(buf[:0], ring.Partition(i))
		newest = max(newest, p.newest)
		p.changed = false
		p.mu.Unlock()
		if len(buf)-frameLen > maxRecord {
			return 0, fmt.Errorf("partition %d takes %d bytes", i, len(buf))
		}
		if len(buf) > 0 {
			records++
		}
		if _, err := w.Write(buf); err != nil {
			return 0, err
		}
		if cap(buf) > 1<<20 {
			buf = nil
		}
	}
	buf = binary.BigEndian.AppendUint32(buf[:0], 0)
	buf = binary.BigEndian.AppendUint32(buf, records)
	buf = binary.BigEndian.AppendUint32(buf, crc32.Checksum(buf, castagnoli))
	if _, err := w.Write(buf); err != nil {
		return 0, err
	}
	return newest, w.Flush()
}

// Changed reports whether a file written now would say more than the last one.
func (s *Sums) Changed() bool {
	s.file.mu.Lock()
	failed := s.file.failed
	s.file.mu.Unlock()
	if failed {
		return true
	}
	parts := s.all()
	for i := range parts {
		p := &parts[i]
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		if changed {
			return true
		}
	}
	return false
}

// Load reads the file that an earlier start left. It is called before anything
// else, once; whoever calls it sees to it that the leaves of all keys written
// after seq are doubted. seq 0 says that there is no such file, as after an error,
// which is ErrFile or one of reading.
func (s *Sums) Load(fsys vfs.FS, name string) (seq base.SeqNum, err error) {
	file, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read range sums: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	size, err := file.Size()
	if err != nil {
		return 0, fmt.Errorf("read range sums: %w", err)
	}
	parts := s.all()
	if parts == nil {
		return 0, fileError("%s is there before the node is in a cluster", name)
	}
	loaded := make([]record, len(parts))
	if seq, err = s.load(io.NewSectionReader(file, 0, size), size, loaded); err != nil {
		return 0, fmt.Errorf("read range sums in %s: %w", name, err)
	}
	for i := range parts {
		p := &parts[i]
		p.known, p.seen, p.tenants = loaded[i].known, loaded[i].seen, loaded[i].tenants
	}
	s.file.keeps = true
	s.file.seq.Store(uint64(seq))
	return seq, nil
}

// load reads the content of a file into one record for each partition.
func (s *Sums) load(from io.Reader, size int64, into []record) (base.SeqNum, error) {
	b := make([]byte, headerLen)
	in := bufio.NewReaderSize(from, 64<<10)
	if _, err := io.ReadFull(in, b); err != nil {
		return 0, fileError("no header: %w", err)
	}
	partitionBits, seq, err := decodeHeader(b)
	switch {
	case err != nil:
		return 0, err
	case partitionBits != s.partitionBits():
		return 0, fileError("it is of 2^%d partitions, the ring has 2^%d", partitionBits, s.partitionBits())
	case seq == 0 || seq > base.MaxSeqNum:
		return 0, fileError("sequence number %d", seq)
	}
	for i := range into {
		into[i].known = true
	}
	size -= headerLen
	last := -1
	for records := uint32(0); ; records++ {
		if _, err := io.ReadFull(in, b[:frameLen]); err != nil {
			return 0, fileError("it ends early: %w", err)
		}
		n, sum := int64(binary.BigEndian.Uint32(b)), binary.BigEndian.Uint32(b[4:])
		size -= frameLen
		if n == 0 {
			if _, err := io.ReadFull(in, b[frameLen:endLen]); err != nil {
				return 0, fileError("it ends early: %w", err)
			}
			if sum != records || size != endLen-frameLen || binary.BigEndian.Uint32(b[frameLen:]) != crc32.Checksum(b[:frameLen], castagnoli) {
				return 0, fileError("its end is damaged")
			}
			return seq, nil
		}
		if n > size || n > maxRecord {
			return 0, fileError("a record of %d bytes, %d are left", n, size)
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(in, body); err != nil {
			return 0, fileError("it ends early: %w", err)
		}
		size -= n
		if crc32.Checksum(body, castagnoli) != sum {
			return 0, fileError("checksum of record %d", records)
		}
		rec, err := decodeRecord(body, partitionBits)
		if err != nil {
			return 0, fileError("record %d: %w", records, err)
		}
		if int(rec.at) <= last {
			return 0, fileError("partition %d stands after %d", rec.at, last)
		}
		last = int(rec.at)
		into[last] = rec
	}
}

// Reset forgets everything, the file included: it is not of this data.
func (s *Sums) Reset(log Log) {
	parts := s.all()
	for i := range parts {
		p := &parts[i]
		p.mu.Lock()
		p.tenants, p.seen = nil, nil
		p.forget()
		p.mu.Unlock()
	}
	s.file.mu.Lock()
	defer s.file.mu.Unlock()
	s.file.keeps = false
	s.file.seq.Store(0)
	log.KeepDeletesAfter(0)
}

// Covered returns up to which sequence number the file knows all, 0 if there is none.
func (s *Sums) Covered() base.SeqNum { return base.SeqNum(s.file.seq.Load()) }

// Stats are figures for metrics.
type Stats struct {
	Leaves, Dirty int
	// Unknown counts partitions whose tenants are not known yet.
	Unknown int
	// Recomputed counts the keys that were read for leaves since the start.
	Recomputed int64
	// Seq is what the file covers, 0 if there is none.
	Seq base.SeqNum
}

// Stats returns the figures of this moment.
func (s *Sums) Stats() Stats {
	st := Stats{Recomputed: s.recomputed.Load(), Seq: s.Covered()}
	parts := s.all()
	for i := range parts {
		p := &parts[i]
		p.mu.Lock()
		if !p.known {
			st.Unknown++
		}
		for _, t := range p.tenants {
			st.Leaves += len(t.leaves)
			for k := range t.leaves {
				if t.leaves[k].state != clean {
					st.Dirty++
				}
			}
		}
		p.mu.Unlock()
	}
	return st
}
