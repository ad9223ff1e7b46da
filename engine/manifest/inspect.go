package manifest

import (
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// Record is an intact record of a log.
type Record struct {
	Offset int64
	Length int64 // with header and padding
	Edit   *Edit
	// State is the sum of all records up to this one.
	State State
}

// Info describes a log file.
type Info struct {
	Size          int64 // bytes of the file
	FormatVersion int
	Number        uint64
	Nonce         uint64
	Records       int64
	// End is the offset behind the last intact record.
	End int64
	// Torn says that there are bytes behind End which are no record: an edit
	// that nobody was told of.
	Torn bool
	// State is the sum of all records.
	State State
}

// Inspect reads the log file at path, whatever its name, and calls visit for
// each of its records in order; visit may be nil. Nothing is changed.
//
// A file that is no manifest and damage to what was ever durable are a
// *base.CorruptError; what was found before the damage is returned with it. A log
// of a newer program matches base.ErrFormat. Memory is bounded by the state and
// the largest record.
func Inspect(vf vfs.FS, file string, visit func(Record) error) (Info, error) {
	f, err := vf.Open(file)
	if err != nil {
		return Info{}, fmt.Errorf("open %s: %w", file, err)
	}
	info, err := inspectFile(f, file, visit)
	return info, errors.Join(err, f.Close())
}

func inspectFile(f vfs.File, file string, visit func(Record) error) (Info, error) {
	size, err := f.Size()
	if err != nil {
		return Info{}, fmt.Errorf("read %s: %w", file, err)
	}
	if size > maxFile {
		return Info{}, base.Corruptf(file, -1, "%d bytes are more than %d", size, int64(maxFile))
	}
	num, _ := ParseName(path.Base(file)) // 0, which is none, for any other name
	return walk(f, size, file, num, visit)
}

// walk sums up the log in the first size bytes of r. num is as in
// decodeFileHeader.
func walk(r io.ReaderAt, size int64, file string, num uint64, visit func(Record) error) (Info, error) {
	w := vfs.NewWindow(r, size)
	info := Info{Size: size, FormatVersion: formatVersion}
	failed := func(err error) (Info, error) { return info, fmt.Errorf("read %s: %w", file, err) }
	head, err := w.Bytes(0, min(headerLen, int(size)))
	if err != nil {
		return failed(err)
	}
	if info.Number, info.Nonce, err = decodeFileHeader(file, num, head); err != nil {
		return Info{}, err
	}
	info.End = headerLen
	for {
		payload, err := recordAt(w, info.Nonce, info.End)
		if err != nil {
			return failed(err)
		}
		if payload == nil {
			break
		}
		if err := info.add(file, payload, visit); err != nil {
			return info, err
		}
	}
	if info.Records == 0 {
		return info, base.Corruptf(file, info.End, "damaged snapshot")
	}
	return info, info.scan(w, file)
}

// add applies the record at info.End.
func (info *Info) add(file string, payload []byte, visit func(Record) error) error {
	first := info.Records == 0
	state := info.State
	e, levels, err := decodeEdit(payload, first)
	if err == nil && first {
		state.Version = NewVersion(levels)
	}
	if err == nil {
		state, err = state.Apply(e)
	}
	if errors.Is(err, base.ErrFormat) {
		return fmt.Errorf("read manifest %s: %w", file, err)
	}
	if err != nil {
		return &base.CorruptError{File: file, Offset: info.End, Err: err}
	}
	rec := Record{Offset: info.End, Length: int64(align(recordHeaderLen + len(payload))), Edit: e, State: state}
	info.State = state
	info.Records++
	info.End += rec.Length
	if visit == nil {
		return nil
	}
	return visit(rec)
}

// scan looks at what lies behind the last record. Each record is written only
// after the one before it was synced, so a record behind the damage proves that
// what is damaged was durable.
func (info *Info) scan(w *vfs.Window, file string) error {
	for at := info.End; at < info.Size; at += recordAlign {
		b, err := w.Bytes(at, int(min(recordAlign, info.Size-at)))
		if err == nil && !info.Torn {
			for _, c := range b {
				info.Torn = info.Torn || c != 0
			}
		}
		var payload []byte
		if err == nil && at > info.End {
			payload, err = recordAt(w, info.Nonce, at)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		if payload != nil {
			return base.Corruptf(file, info.End, "damaged edit before an intact one at %d", at)
		}
	}
	return nil
}
