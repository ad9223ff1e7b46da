package wal

import (
	"errors"
	"iter"
	"path"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// Segment describes a segment file.
type Segment struct {
	Size          int64 // bytes of the file
	FormatVersion int
	Number        uint64
	Nonce         uint64
	// Prev is the segment before this one and how much of that counts.
	Prev End
	// Allocated is how many bytes were reserved when the segment was made.
	Allocated int64

	Groups, Records int64
	Bytes           int64 // payload bytes of the records
	// Sealed says that the last group is a seal: the log was closed in order.
	Sealed bool
	// End is the offset behind the last group that counts.
	End int64
	// Durable is the highest offset that anything says was durable: a group,
	// also one behind End, or the segment after this one.
	Durable int64
	// Seen is the end of the last group recognised behind End, End if there is
	// none: what lies between was written and never acknowledged, or is
	// damaged.
	Seen int64
	// Next is the number of the segment in the same directory that continues
	// this one, 0 if there is none. This one then counts up to Durable.
	Next uint64
}

// Group describes a group of records.
type Group struct {
	Offset int64
	Gap    int64 // bytes left free before it, so that it begins at a page
	Length int64 // with header and padding, without the gap
	Body   int64 // of the records
	// Durable is up to where the segment was durable when the group was
	// written.
	Durable int64
	Seal    bool
	Records int64
}

// Inspect reads the segment file at path, whatever its name, and calls visit for
// each of its groups in order; records yields the group's payloads, valid until
// the next. visit may be nil. Nothing is changed.
//
// A file that is no segment, a truncated one and damage to what was durable are a
// *base.CorruptError; what was found before the damage is returned with it. A
// segment of a newer program matches base.ErrFormat. An unacknowledged tail is no
// error: it is what lies between End and Seen.
func Inspect(fs vfs.FS, file string, visit func(g Group, records iter.Seq[[]byte]) error) (Segment, error) {
	// A segment that is kept to be recycled, or under another name, is looked
	// at all the same.
	num, named := parseName(path.Base(file), segmentSuffix)
	r, err := openSegmentFile(fs, file, num)
	if err != nil {
		return Segment{}, err
	}
	h := &r.header
	s := Segment{
		Size: r.size, FormatVersion: int(h.version), Number: h.number, Nonce: h.nonce, Prev: h.prev, Allocated: h.allocated,
		End: segmentHeaderLen, Durable: segmentHeaderLen, Seen: segmentHeaderLen,
	}
	if named {
		err = s.findNext(fs, path.Dir(file))
	}
	if err == nil {
		err = s.read(r, visit)
	}
	return s, unjoin(errors.Join(err, r.close()))
}

// findNext looks for the segment that continues s. One that cannot be read
// continues nothing: it is inspected by itself.
func (s *Segment) findNext(fs vfs.FS, dir string) error {
	nums, err := ListSegments(fs, dir)
	if err != nil {
		return err
	}
	for _, num := range nums {
		if num <= s.Number {
			continue
		}
		r, err := openSegment(fs, dir, num)
		if err != nil {
			if errors.Is(err, base.ErrCorrupt) || errors.Is(err, base.ErrFormat) {
				return nil
			}
			return err
		}
		if r.header.prev.Segment == s.Number {
			s.Next, s.Durable = num, max(r.header.prev.Length, segmentHeaderLen)
		}
		return r.close()
	}
	return nil
}

// read walks the groups and finds out where the segment ends.
func (s *Segment) read(r *segmentReader, visit func(Group, iter.Seq[[]byte]) error) error {
	limit := r.size
	if s.Next != 0 {
		limit = s.Durable
	}
	for s.End < limit {
		at, h, body, ok, err := r.nextGroup(s.End)
		if err != nil {
			return err
		}
		if !ok || body == nil {
			break
		}
		g := Group{
			Offset: at, Gap: h.gap, Length: align(groupHeaderLen + int64(h.bodyLen)), Body: int64(h.bodyLen),
			Durable: h.durable, Seal: h.kind == kindSeal,
		}
		if err := s.group(r, g, body, visit); err != nil {
			return err
		}
	}
	switch {
	case s.Next != 0 && s.End > s.Durable:
		return base.Corruptf(r.path, s.End, "segment ends inside a group at %d", s.Durable)
	case s.Next == 0:
		durable, last, err := r.scan(s.End)
		if err != nil {
			return err
		}
		s.Durable, s.Seen = max(s.Durable, durable), last
	default:
		s.Seen = s.End
	}
	if s.End < s.Durable {
		return base.Corruptf(r.path, s.End, "damaged group in a segment durable up to %d", s.Durable)
	}
	return nil
}

// group counts a valid group and hands it on.
func (s *Segment) group(r *segmentReader, g Group, body []byte, visit func(Group, iter.Seq[[]byte]) error) error {
	for rest := body; len(rest) > 0; g.Records++ {
		payload, more, err := nextRecord(rest)
		if err != nil {
			return &base.CorruptError{File: r.path, Offset: g.Offset, Err: err}
		}
		s.Bytes += int64(len(payload))
		rest = more
	}
	s.Groups++
	s.Records += g.Records
	s.Sealed = g.Seal
	if s.Next == 0 {
		s.Durable = max(s.Durable, g.Durable)
	}
	s.End = g.Offset + g.Length
	if visit == nil {
		return nil
	}
	return visit(g, func(yield func([]byte) bool) {
		for rest := body; len(rest) > 0; {
			payload, more, err := nextRecord(rest)
			if err != nil || !yield(payload) {
				return
			}
			rest = more
		}
	})
}
