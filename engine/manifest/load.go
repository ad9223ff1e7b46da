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
	info, err := Inspect(vf, dir+"/"+Name(num), nil)
	if errors.Is(err, fs.ErrNotExist) {
		err = base.Corruptf(dir+"/"+Name(num), -1, "CURRENT names a missing file")
	}
	if err != nil {
		return State{}, num, err
	}
	return info.State, num, nil
}

// readFile reads a small file.
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

// decodeFileHeader checks the first bytes of the log at path, which must be
// number num, or any if num is 0.
func decodeFileHeader(path string, num uint64, b []byte) (number, nonce uint64, err error) {
	if len(b) < headerLen || string(b[:8]) != magic ||
		crc32.Checksum(b[:headerLen-4], castagnoli) != binary.LittleEndian.Uint32(b[headerLen-4:headerLen]) {
		return 0, 0, base.Corruptf(path, 0, "damaged manifest header")
	}
	if b[8] != formatVersion {
		return 0, 0, fmt.Errorf("%w: manifest %s has version %d, known is %d", base.ErrFormat, path, b[8], formatVersion)
	}
	number = binary.LittleEndian.Uint64(b[12:])
	if num != 0 && number != num {
		return 0, 0, base.Corruptf(path, 0, "file holds manifest %d", number)
	}
	return number, binary.LittleEndian.Uint64(b[20:]), nil
}

// recordAt returns the payload of the record at off, if there is an intact one.
// It is valid until the window moves.
func recordAt(w *vfs.Window, nonce uint64, off int64) ([]byte, error) {
	h, err := w.Bytes(off, recordHeaderLen)
	if h == nil || err != nil || binary.LittleEndian.Uint64(h) != nonce^uint64(off) {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(h[8:])
	if n > maxRecord {
		return nil, nil
	}
	if h, err = w.Bytes(off, recordHeaderLen+int(n)); h == nil || err != nil {
		return nil, err
	}
	payload := h[recordHeaderLen:]
	if recordSum(h, payload) != binary.LittleEndian.Uint32(h[12:]) {
		return nil, nil
	}
	return payload, nil
}
