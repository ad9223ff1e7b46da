package manifest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	iofs "io/fs"
	"math/rand/v2"
	"syscall"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// The format of docs/format/manifest.md. Integers are little-endian.
const (
	magic         = "PAIRMAN\n"
	formatVersion = 1

	headerLen = 32
	// A record is: mark, length, checksum, payload, padding to recordAlign.
	recordHeaderLen = 16
	recordAlign     = 8
	// maxRecord bounds the payload of one record in bytes: a snapshot of
	// several million tables.
	maxRecord = 1 << 30

	currentName = "CURRENT"
	currentTemp = "CURRENT.tmp"

	// DefaultMaxBytes is the size in bytes at which a log is replaced.
	DefaultMaxBytes = 4 << 20
	minAllocate     = 4 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Name returns the file name of log num.
func Name(num uint64) string { return fmt.Sprintf("MANIFEST-%06d", num) }

func align(n int) int { return (n + recordAlign - 1) &^ (recordAlign - 1) }

// Options configure a Log. FS and Dir are required.
type Options struct {
	FS  vfs.FS
	Dir string
	// MaxBytes is the size at which a log is replaced by a snapshot in a new
	// file, unless the snapshot is not much smaller. Larger means fewer
	// replacements and a longer open. Default 4 MiB.
	MaxBytes int64
	// Rand yields the random 64-bit nonces of the files. Default
	// math/rand/v2's generator, which the operating system seeds.
	Rand func() uint64
}

// EnsureDefaults fills unset options.
func (o *Options) EnsureDefaults() {
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.Rand == nil {
		o.Rand = rand.Uint64
	}
}

// Log is the live manifest. One goroutine at a time may use it.
//
// The first failed write or sync is final: from then on Append returns an error
// that matches base.ErrReadOnly and that failure.
type Log struct {
	opts  Options
	state State

	num   uint64
	file  vfs.File
	nonce uint64
	// Invariant: all below size is durable; allocated bytes are reserved.
	size, allocated int64
	snapshotSize    int64
	stale           []uint64 // replaced logs that are still to be removed

	// live is set once CURRENT names the log: before that a failure is not the
	// end of writing, only of this file.
	live   bool
	failed error
}

// Create writes state into a new log num and makes it the current one. num
// must be new. If that fails before the switch, the former log still counts.
func Create(opts Options, num uint64, state State) (*Log, error) {
	opts.EnsureDefaults()
	l := &Log{opts: opts, state: state}
	next, err := l.build(num, state)
	if err != nil {
		return nil, err
	}
	if err := l.publish(num); err != nil {
		return nil, errors.Join(err, next.file.Close())
	}
	next.live = true
	return next, nil
}

// State returns the sum of all edits.
func (l *Log) State() State { return l.state }

// Num returns the number of the live log.
func (l *Log) Num() uint64 { return l.num }

// Size returns the bytes of the live log in use.
func (l *Log) Size() int64 { return l.size }

// Append makes e durable and returns the state after it. When the log has
// grown, it is replaced instead: newNum then names the new file. An edit that
// does not fit the state, or for which there is no room (base.ErrDiskFull), is
// refused and the log stays usable; any other error is final.
func (l *Log) Append(e *Edit, newNum func() uint64) (State, error) {
	if l.failed != nil {
		return State{}, l.failed
	}
	next, err := l.state.Apply(e)
	if err != nil {
		return State{}, fmt.Errorf("append to manifest: %w", err)
	}
	if l.size >= l.opts.MaxBytes && l.size >= 2*l.snapshotSize {
		num := newNum()
		if next.NextFile <= num {
			next.NextFile = num + 1
		}
		if done, err := l.replace(num, next); done || err != nil {
			return next, err
		}
		// There was no room for a new file; there may be for one record.
	}
	if err := l.write(e.append(nil)); err != nil {
		return State{}, err
	}
	l.state = next
	return next, nil
}

// Rewrite replaces the log by one with number num, which is new, that begins with the
// present state, as Append does when it has grown. If there is no room for it, the old
// one goes on; an error that matches base.ErrReadOnly is final.
func (l *Log) Rewrite(num uint64) error {
	if l.failed != nil {
		return l.failed
	}
	next := l.state
	next.NextFile = max(next.NextFile, num+1)
	done, err := l.replace(num, next)
	if err == nil && !done {
		err = errors.New("a new manifest cannot be made; is there room on the disk?")
	}
	return err
}

// TakeStale returns the numbers of replaced logs whose files may be removed.
func (l *Log) TakeStale() []uint64 {
	s := l.stale
	l.stale = nil
	return s
}

// Close closes the file. It is idempotent.
func (l *Log) Close() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	if l.failed == nil {
		l.failed = base.ErrClosed
	}
	if err != nil {
		return fmt.Errorf("close manifest %d: %w", l.num, err)
	}
	return nil
}

// replace switches to a new log that begins with state. It reports false
// without an error when the new file could not be made, which changes nothing.
func (l *Log) replace(num uint64, state State) (bool, error) {
	next, err := l.build(num, state)
	if err != nil {
		return false, nil //nolint:nilerr // the old log is whole and goes on
	}
	if err := l.publish(num); err != nil {
		err = errors.Join(err, next.file.Close())
		var unsure *unsureError
		if !errors.As(err, &unsure) {
			l.discard(Name(num))
			return false, nil
		}
		// Which log counts is unknown, so neither may be written.
		l.failed = fmt.Errorf("%w: switch manifest: %w", base.ErrReadOnly, err)
		return false, l.failed
	}
	old, oldNum := l.file, l.num
	stale := append(l.stale, oldNum)
	next.live = true
	*l = *next
	l.stale = stale
	if err := old.Close(); err != nil {
		l.failed = fmt.Errorf("%w: close manifest %d: %w", base.ErrReadOnly, oldNum, err)
		return false, l.failed
	}
	return true, nil
}

// build writes a durable log file that nothing points to yet.
func (l *Log) build(num uint64, state State) (*Log, error) {
	fs, name := l.opts.FS, Name(num)
	f, err := fs.Create(l.opts.Dir + "/" + name)
	if err != nil {
		return nil, fmt.Errorf("create manifest %d: %w", num, diskFull(err))
	}
	n := &Log{opts: l.opts, state: state, num: num, file: f, nonce: l.opts.Rand() | 1<<63}
	head := appendFileHeader(nil, num, n.nonce)
	payload := state.snapshot().append(appendHead(nil, len(state.Version.Levels)))
	need := headerLen + align(recordHeaderLen+len(payload))
	err = n.reserve(int64(need))
	if err == nil {
		_, err = f.Write(head)
	}
	if err == nil {
		n.size = headerLen
		err = n.write(payload)
	}
	if err == nil {
		err = fs.SyncDir(l.opts.Dir)
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("write manifest %d: %w", num, diskFull(err)), f.Close())
		l.discard(name)
		return nil, err
	}
	n.snapshotSize = n.size
	return n, nil
}

// discard removes a file that does not count. If it cannot be removed now, the
// next open does it.
func (l *Log) discard(name string) { _ = l.opts.FS.Remove(l.opts.Dir + "/" + name) }

// unsureError marks a failure after which it is not known which log counts.
type unsureError struct{ err error }

func (e *unsureError) Error() string { return e.err.Error() }
func (e *unsureError) Unwrap() error { return e.err }

// publish makes CURRENT name log num.
func (l *Log) publish(num uint64) error {
	fs, dir := l.opts.FS, l.opts.Dir
	temp := dir + "/" + currentTemp
	f, err := fs.Create(temp)
	if errors.Is(err, iofs.ErrExist) {
		// Left behind by a crash or a failure.
		if err = fs.Remove(temp); err == nil {
			f, err = fs.Create(temp)
		}
	}
	if err != nil {
		return fmt.Errorf("write CURRENT: %w", diskFull(err))
	}
	if _, err = f.Write(appendCurrent(nil, num)); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		l.discard(currentTemp)
		return fmt.Errorf("write CURRENT: %w", diskFull(err))
	}
	err = fs.Rename(temp, dir+"/"+currentName)
	if errors.Is(err, syscall.ENOSPC) {
		l.discard(currentTemp)
		return fmt.Errorf("write CURRENT: %w", diskFull(err))
	}
	if err == nil {
		err = fs.SyncDir(dir)
	}
	if err != nil {
		return &unsureError{fmt.Errorf("switch CURRENT: %w", err)}
	}
	return nil
}

// reserve makes sure that n more bytes are allocated.
func (l *Log) reserve(n int64) error {
	need := l.size + n - l.allocated
	if need <= 0 {
		return nil
	}
	grow := max(need, minAllocate)
	if err := l.file.Preallocate(l.allocated, grow); err != nil {
		if err := diskFull(err); errors.Is(err, base.ErrDiskFull) {
			return fmt.Errorf("extend manifest %d: %w", l.num, err)
		}
		return l.fail("extend", err)
	}
	l.allocated += grow
	return nil
}

// write appends a record and syncs it.
func (l *Log) write(payload []byte) error {
	if len(payload) > maxRecord {
		return fmt.Errorf("append to manifest %d: record of %d bytes is too large", l.num, len(payload))
	}
	rec := appendRecord(nil, l.nonce, l.size, payload)
	if err := l.reserve(int64(len(rec))); err != nil {
		return err
	}
	if _, err := l.file.Write(rec); err != nil {
		return l.fail("write", err)
	}
	if err := l.file.Sync(); err != nil {
		return l.fail("sync", err)
	}
	l.size += int64(len(rec))
	return nil
}

func (l *Log) fail(verb string, cause error) error {
	if !l.live {
		return fmt.Errorf("%s manifest %d: %w", verb, l.num, cause)
	}
	l.failed = fmt.Errorf("%w: %s manifest %d: %w", base.ErrReadOnly, verb, l.num, cause)
	return l.failed
}

// diskFull marks an error that says there is no room.
func diskFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", base.ErrDiskFull, err)
	}
	return err
}

func appendFileHeader(dst []byte, num, nonce uint64) []byte {
	at := len(dst)
	dst = append(dst, magic...)
	dst = append(dst, formatVersion, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, num)
	dst = binary.LittleEndian.AppendUint64(dst, nonce)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
}

// appendRecord frames a payload that will stand at off. The mark ties the
// record to its file and place, and the checksum covers the mark.
func appendRecord(dst []byte, nonce uint64, off int64, payload []byte) []byte {
	at := len(dst)
	dst = binary.LittleEndian.AppendUint64(dst, nonce^uint64(off))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	dst = binary.LittleEndian.AppendUint32(dst, recordSum(dst[at:], payload))
	dst = append(dst, payload...)
	for (len(dst)-at)%recordAlign != 0 {
		dst = append(dst, 0)
	}
	return dst
}

// recordSum is the checksum of mark, length and payload.
func recordSum(head, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(head[:12], castagnoli), castagnoli, payload)
}

// appendCurrent encodes CURRENT: the name and a checksum, in text so that it
// can be read and mended by hand.
func appendCurrent(dst []byte, num uint64) []byte {
	name := Name(num)
	return fmt.Appendf(dst, "%s %08x\n", name, crc32.Checksum([]byte(name), castagnoli))
}
