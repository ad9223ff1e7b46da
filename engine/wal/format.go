package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/pairdb/pairdb/engine/base"
)

// The format of docs/format/wal.md. Integers are little-endian.
const (
	segmentMagic = "PAIRWAL\n"
	// formatVersion is what is written. Segments of version 1, which have no gaps
	// between groups, are read as well.
	formatVersion    = 2
	oldFormatVersion = 1

	segmentHeaderLen = 64
	groupHeaderLen   = 32
	// groupAlign is the alignment of every group in its segment, which
	// bounds where a reader has to look for the next one after damage.
	groupAlign = 8

	// pageSize is what a disk or its file system writes at least. A group that
	// would touch one page more than it must starts at the next page instead, if
	// it leaves no more than maxGap bytes free for that, which bounds what is
	// lost to an eighth of a page.
	pageSize = 4 << 10
	maxGap   = 512

	// kindRecords is a group that holds records, kindSeal an empty one whose
	// durable offset says that all before it is durable.
	kindRecords = 1
	kindSeal    = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// align rounds n up to the next group boundary.
func align[T int | int64](n T) T { return (n + groupAlign - 1) &^ (groupAlign - 1) }

// gapBefore returns how many bytes a group of n bytes leaves free where a segment
// with allocated bytes in all ends at off.
func gapBefore(off, n, allocated int64) int64 {
	gap := -off & (pageSize - 1)
	if gap > maxGap || off+gap+n > allocated || pages(off+gap, n) == pages(off, n) {
		return 0
	}
	return gap
}

// pages returns how many pages the range [off, off+n) touches, n > 0.
func pages(off, n int64) int64 { return (off+n-1)/pageSize - off/pageSize + 1 }

// segmentHeader opens a segment.
type segmentHeader struct {
	number    uint64
	nonce     uint64
	prev      End   // the segment before this one and its durable length
	allocated int64 // bytes reserved, and so the least size of the file
	version   byte  // read from the file; append writes formatVersion
}

func (h *segmentHeader) append(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, segmentMagic...)
	dst = append(dst, formatVersion, 0, 0, 0, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, h.number)
	dst = binary.LittleEndian.AppendUint64(dst, h.nonce)
	dst = binary.LittleEndian.AppendUint64(dst, h.prev.Segment)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.prev.Length))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.allocated))
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
}

// errHeader is the cause of the corruption of a segment header.
var errHeader = errors.New("segment header checksum mismatch")

// decodeSegmentHeader parses b, whose length is segmentHeaderLen. The error is
// errHeader or matches base.ErrFormat: the magic, the version byte and the
// place of the checksum are the same in every format version to come.
func decodeSegmentHeader(b []byte) (segmentHeader, error) {
	sum := binary.LittleEndian.Uint32(b[segmentHeaderLen-4:])
	if string(b[:8]) != segmentMagic || sum != crc32.Checksum(b[:segmentHeaderLen-4], castagnoli) {
		return segmentHeader{}, errHeader
	}
	if b[8] != formatVersion && b[8] != oldFormatVersion {
		return segmentHeader{}, fmt.Errorf("%w: log segment version %d, known are %d and %d", base.ErrFormat, b[8], oldFormatVersion, formatVersion)
	}
	h := segmentHeader{
		number:    binary.LittleEndian.Uint64(b[16:]),
		nonce:     binary.LittleEndian.Uint64(b[24:]),
		prev:      End{Segment: binary.LittleEndian.Uint64(b[32:]), Length: int64(binary.LittleEndian.Uint64(b[40:]))},
		allocated: int64(binary.LittleEndian.Uint64(b[48:])),
		version:   b[8],
	}
	if h.prev.Length < 0 || h.allocated < segmentHeaderLen {
		return segmentHeader{}, errors.New("segment header out of range")
	}
	return h, nil
}

// groupHeader opens a group.
type groupHeader struct {
	durable int64 // the segment was durable up to here when this was written
	bodyLen int   // bytes of records, without the padding behind them
	kind    byte
	gap     int64 // bytes left free between the group before this one and it
	bodyCRC uint32
}

// mark is the first field of the group header at off. It tells a group of this
// segment and this place from any other bytes before a checksum is computed.
func mark(nonce uint64, off int64) uint64 { return nonce ^ uint64(off) }

// putGroup fills in the header of the group that starts at off and is held,
// header, body and padding, in group.
func putGroup(group []byte, nonce uint64, off int64, h groupHeader) {
	binary.LittleEndian.PutUint64(group[0:], mark(nonce, off))
	binary.LittleEndian.PutUint64(group[8:], uint64(h.durable))
	binary.LittleEndian.PutUint32(group[16:], uint32(h.bodyLen))
	binary.LittleEndian.PutUint16(group[20:], uint16(h.kind))
	binary.LittleEndian.PutUint16(group[22:], uint16(h.gap))
	binary.LittleEndian.PutUint32(group[24:], bodyChecksum(group[:8], group[groupHeaderLen:]))
	binary.LittleEndian.PutUint32(group[28:], crc32.Checksum(group[:28], castagnoli))
}

// bodyChecksum covers the body and its padding, seeded by the mark and thereby
// by nonce and offset.
func bodyChecksum(mark, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(mark, castagnoli), castagnoli, body)
}

// decodeGroupHeader parses b, which starts at off and holds at least
// groupHeaderLen bytes. ok is false when no group was written here.
func decodeGroupHeader(b []byte, nonce uint64, off int64) (h groupHeader, ok bool) {
	if binary.LittleEndian.Uint64(b) != mark(nonce, off) ||
		binary.LittleEndian.Uint32(b[28:]) != crc32.Checksum(b[:28], castagnoli) {
		return groupHeader{}, false
	}
	h = groupHeader{
		durable: int64(binary.LittleEndian.Uint64(b[8:])),
		bodyLen: int(binary.LittleEndian.Uint32(b[16:])),
		gap:     int64(binary.LittleEndian.Uint16(b[22:])),
		bodyCRC: binary.LittleEndian.Uint32(b[24:]),
	}
	kind := binary.LittleEndian.Uint16(b[20:])
	h.kind = byte(kind)
	ok = (kind == kindRecords || kind == kindSeal) && h.bodyLen <= MaxGroup &&
		h.durable >= segmentHeaderLen && h.durable <= off-h.gap &&
		(h.gap == 0 || h.gap <= maxGap && h.gap%groupAlign == 0 && off%pageSize == 0)
	return h, ok
}

// errRecord says that a body with a right checksum does not parse, which only a
// program that wrote it wrong can cause.
var errRecord = errors.New("malformed record in a group with a valid checksum")

// nextRecord splits the first record off a body.
func nextRecord(body []byte) (payload, rest []byte, err error) {
	n, w := binary.Uvarint(body)
	if w <= 0 || n > uint64(len(body)-w) {
		return nil, nil, errRecord
	}
	end := w + int(n)
	return body[w:end:end], body[end:], nil
}
