package manifest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/pairdb/pairdb/engine/base"
)

// NewFile is a table added to a level.
type NewFile struct {
	Level int
	*FileMeta
}

// DeletedFile is a table taken from a level.
type DeletedFile struct {
	Level int
	Num   uint64
}

// Edit is one change of the State. Zero numbers leave theirs as they are.
// Deletions come before additions, so that a table can move between levels.
type Edit struct {
	// NextFile is above every file number given out so far.
	NextFile uint64
	// FlushedSeq says that every mutation up to it is in the tables.
	FlushedSeq base.SeqNum
	// LogNumber is the oldest log segment still needed.
	LogNumber uint64
	// LogEnd says how far the log was durable when the engine was closed.
	LogEnd  LogEnd
	Deleted []DeletedFile
	Added   []NewFile
}

// LogEnd is a place in the log: so many bytes of a segment. The zero value is
// none.
type LogEnd struct {
	Segment uint64
	Length  int64
}

// State is everything the log says. It is immutable.
type State struct {
	Version    *Version
	NextFile   uint64
	FlushedSeq base.SeqNum
	LogNumber  uint64
	// LogEnd is set once the engine was closed in good order; whoever opens
	// it next goes on from a state without it.
	LogEnd LogEnd
}

// Apply returns the state after e.
func (s State) Apply(e *Edit) (State, error) {
	if e.FlushedSeq != 0 && e.FlushedSeq < s.FlushedSeq || e.LogNumber != 0 && e.LogNumber < s.LogNumber {
		return State{}, errors.New("edit turns back the log")
	}
	v, err := s.Version.Apply(e)
	if err != nil {
		return State{}, err
	}
	end := s.LogEnd
	if e.LogEnd != (LogEnd{}) {
		end = e.LogEnd
	}
	return State{
		LogEnd:     end,
		Version:    v,
		NextFile:   max(s.NextFile, e.NextFile),
		FlushedSeq: max(s.FlushedSeq, e.FlushedSeq),
		LogNumber:  max(s.LogNumber, e.LogNumber),
	}, nil
}

// snapshot returns the edit that makes s of an empty state.
func (s State) snapshot() *Edit {
	e := &Edit{NextFile: s.NextFile, FlushedSeq: s.FlushedSeq, LogNumber: s.LogNumber, LogEnd: s.LogEnd}
	for level, files := range s.Version.Levels {
		for _, f := range files {
			e.Added = append(e.Added, NewFile{Level: level, FileMeta: f})
		}
	}
	return e
}

// Tags of an encoded edit. They are permanent. A reader refuses tags it does
// not know: unlike a property, an unknown change cannot be ignored.
const (
	tagComparer   = 1 // string; first record only
	tagLevels     = 2 // number of levels; first record only
	tagNextFile   = 3
	tagFlushedSeq = 4
	tagLogNumber  = 5
	tagDeleted    = 6 // level, number
	tagAdded      = 7 // level, table
	tagLogEnd     = 8 // segment, length
	tagRenumbered = 9 // level, table: tagAdded of one that is FileMeta.Renumbered
)

// comparer names the order of keys; a log with another one is refused.
const comparer = "bytes"

// appendHead encodes what only the first record of a log carries.
func appendHead(dst []byte, levels int) []byte {
	dst = binary.AppendUvarint(dst, tagComparer)
	dst = appendBytes(dst, []byte(comparer))
	dst = binary.AppendUvarint(dst, tagLevels)
	return binary.AppendUvarint(dst, uint64(levels))
}

// append encodes e behind dst.
func (e *Edit) append(dst []byte) []byte {
	for _, n := range [...]struct{ tag, v uint64 }{
		{tagNextFile, e.NextFile}, {tagFlushedSeq, uint64(e.FlushedSeq)}, {tagLogNumber, e.LogNumber},
	} {
		if n.v != 0 {
			dst = binary.AppendUvarint(binary.AppendUvarint(dst, n.tag), n.v)
		}
	}
	if e.LogEnd != (LogEnd{}) {
		dst = binary.AppendUvarint(dst, tagLogEnd)
		dst = binary.AppendUvarint(dst, e.LogEnd.Segment)
		dst = binary.AppendUvarint(dst, uint64(e.LogEnd.Length))
	}
	for _, d := range e.Deleted {
		dst = binary.AppendUvarint(dst, tagDeleted)
		dst = binary.AppendUvarint(dst, uint64(d.Level))
		dst = binary.AppendUvarint(dst, d.Num)
	}
	for _, a := range e.Added {
		tag := uint64(tagAdded)
		if a.Renumbered {
			tag = tagRenumbered
		}
		dst = binary.AppendUvarint(dst, tag)
		dst = binary.AppendUvarint(dst, uint64(a.Level))
		dst = a.append(dst)
	}
	return dst
}

// fields lists the numbers of a table in their encoded order.
func (f *FileMeta) fields(size *uint64) [8]*uint64 {
	return [8]*uint64{
		&f.Num, size, &f.Nonce, (*uint64)(&f.SmallestSeq), (*uint64)(&f.LargestSeq),
		&f.Entries, &f.Deletes, &f.RangeDels,
	}
}

func (f *FileMeta) append(dst []byte) []byte {
	size := uint64(f.Size)
	for _, v := range f.fields(&size) {
		dst = binary.AppendUvarint(dst, *v)
	}
	for _, k := range [...]base.InternalKey{f.Smallest, f.Largest} {
		dst = binary.AppendUvarint(dst, uint64(k.Size()))
		dst = k.Append(dst)
	}
	return dst
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

var errMalformed = errors.New("malformed manifest edit")

// decoder reads the parts of an edit; after the first failure all are zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) level() int {
	n := d.uvarint()
	if n >= MaxLevels {
		d.b, d.bad = nil, true
		return 0
	}
	return int(n)
}

func (d *decoder) file(renumbered bool) *FileMeta {
	f := &FileMeta{Renumbered: renumbered}
	var size uint64
	for _, v := range f.fields(&size) {
		*v = d.uvarint()
	}
	f.Size = int64(size)
	for _, k := range [...]*base.InternalKey{&f.Smallest, &f.Largest} {
		key, ok := base.DecodeInternalKey(d.bytes())
		if !ok {
			d.b, d.bad = nil, true
			return f
		}
		*k = key.Clone()
	}
	if f.SmallestSeq > base.MaxSeqNum || f.LargestSeq > base.MaxSeqNum || f.check() != nil {
		d.b, d.bad = nil, true
	}
	return f
}

// decodeEdit parses a record. first is set for a log's first record, whose
// number of levels is returned.
func decodeEdit(b []byte, first bool) (e *Edit, levels int, err error) {
	d := &decoder{b: b}
	e = &Edit{}
	name := ""
	for len(d.b) > 0 && !d.bad {
		switch tag := d.uvarint(); tag {
		case tagComparer:
			name = string(d.bytes())
		case tagLevels:
			levels = int(min(d.uvarint(), MaxLevels+1))
		case tagNextFile:
			e.NextFile = d.uvarint()
		case tagFlushedSeq:
			e.FlushedSeq = base.SeqNum(d.uvarint())
		case tagLogNumber:
			e.LogNumber = d.uvarint()
		case tagDeleted:
			e.Deleted = append(e.Deleted, DeletedFile{Level: d.level(), Num: d.uvarint()})
		case tagAdded, tagRenumbered:
			e.Added = append(e.Added, NewFile{Level: d.level(), FileMeta: d.file(tag == tagRenumbered)})
		case tagLogEnd:
			e.LogEnd = LogEnd{Segment: d.uvarint(), Length: int64(d.uvarint())}
		default:
			d.bad = true
		}
	}
	switch {
	case d.bad || e.LogEnd.Length < 0 || e.FlushedSeq > base.MaxSeqNum:
		return nil, 0, errMalformed
	case first != (name != "") || first != (levels > 0):
		return nil, 0, errMalformed
	case first && name != comparer:
		return nil, 0, fmt.Errorf("%w: keys are ordered by %q, known is %q", base.ErrFormat, name, comparer)
	case levels > MaxLevels:
		return nil, 0, fmt.Errorf("%w: more than %d levels", base.ErrFormat, MaxLevels)
	}
	e.Added, e.Deleted = slices.Clip(e.Added), slices.Clip(e.Deleted)
	return e, levels, nil
}
