package manifest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// maxFile bounds the log that Load reads, in bytes.
const maxFile = 2 << 30

// ParseName returns the number of a log's file name.
func ParseName(name string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, "MANIFEST-")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && Name(n) == name
}

// Temporary reports whether name is a leftover of an interrupted switch.
func Temporary(name string) bool { return name == currentTemp }

// Current returns the number of the log that counts. The error matches
// fs.ErrNotExist when there is none.
func Current(vf vfs.FS, dir string) (uint64, error) {
	path := dir + "/" + currentName
	b, err := readFile(vf, path, 256)
	if err != nil {
		return 0, err
	}
	name, _, _ := strings.Cut(string(b), " ")
	num, ok := ParseName(name)
	if !ok || string(appendCurrent(nil, num)) != string(b) {
		return 0, base.Corruptf(path, -1, "does not name a manifest")
	}
	return num, nil
}

// Load reads the current log of dir and returns its state and number. Damage
// to anything that was ever durable is a *base.CorruptError; a half-written
// last record is cut. The log is not changed: go on with Create and a higher
// number.
func Load(vf vfs.FS, dir string) (State, uint64, error) {
	num, err := Current(vf, dir)
	if err != nil {
		return State{}, 0, err
	}
	path := dir + "/" + Name(num)
	b, err := readFile(vf, path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, 0, base.Corruptf(path, -1, "CURRENT names a missing file")
	}
	if err != nil {
		return State{}, 0, err
	}
	state, err := decode(path, num, b)
	return state, num, err
}

func readFile(vf vfs.FS, path string, limit int64) ([]byte, error) {
	f, err := vf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	b, err := readAll(f, path, limit)
	return b, errors.Join(err, f.Close())
}

func readAll(f vfs.File, path string, limit int64) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if size > limit {
		return nil, base.Corruptf(path, -1, "%d bytes are more than %d", size, limit)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b, nil
}

// decode sums up the log in b.
func decode(path string, num uint64, b []byte) (State, error) {
	nonce, err := decodeFileHeader(path, num, b)
	if err != nil {
		return State{}, err
	}
	var state State
	off := headerLen
	for first := true; ; first = false {
		payload, ok := recordAt(b, nonce, off)
		if !ok {
			if first {
				return State{}, base.Corruptf(path, int64(off), "damaged snapshot")
			}
			break
		}
		e, levels, err := decodeEdit(payload, first)
		if err == nil && first {
			state.Version = NewVersion(levels)
		}
		if err == nil {
			state, err = state.Apply(e)
		}
		if errors.Is(err, base.ErrFormat) {
			return State{}, fmt.Errorf("read manifest %s: %w", path, err)
		}
		if err != nil {
			return State{}, &base.CorruptError{File: path, Offset: int64(off), Err: err}
		}
		off += align(recordHeaderLen + len(payload))
	}
	// Each record is written only after the one before it was synced, so a
	// record behind the damage proves that what is damaged was durable.
	for at := off + recordAlign; at+recordHeaderLen <= len(b); at += recordAlign {
		if _, ok := recordAt(b, nonce, at); ok {
			return State{}, base.Corruptf(path, int64(off), "damaged edit before an intact one at %d", at)
		}
	}
	return state, nil
}

func decodeFileHeader(path string, num uint64, b []byte) (nonce uint64, err error) {
	if len(b) < headerLen || string(b[:8]) != magic ||
		crc32.Checksum(b[:headerLen-4], castagnoli) != binary.LittleEndian.Uint32(b[headerLen-4:]) {
		return 0, base.Corruptf(path, 0, "damaged manifest header")
	}
	if b[8] != formatVersion {
		return 0, fmt.Errorf("%w: manifest %s has version %d, known is %d", base.ErrFormat, path, b[8], formatVersion)
	}
	if got := binary.LittleEndian.Uint64(b[12:]); got != num {
		return 0, base.Corruptf(path, 0, "file holds manifest %d", got)
	}
	return binary.LittleEndian.Uint64(b[20:]), nil
}

// recordAt returns the payload of the record at off, if there is an intact one.
func recordAt(b []byte, nonce uint64, off int) ([]byte, bool) {
	if off+recordHeaderLen > len(b) {
		return nil, false
	}
	h := b[off:]
	if binary.LittleEndian.Uint64(h) != nonce^uint64(off) {
		return nil, false
	}
	n := binary.LittleEndian.Uint32(h[8:])
	if n > maxRecord || int(n) > len(h)-recordHeaderLen {
		return nil, false
	}
	payload := h[recordHeaderLen:][:n:n]
	return payload, recordSum(h, payload) == binary.LittleEndian.Uint32(h[12:])
}
