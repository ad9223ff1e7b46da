package sstable

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
)

const (
	magic         = "PAIRDBST"
	formatVersion = 1

	// trailerSize is what follows every block's payload: codec byte, CRC32C.
	trailerSize = 5

	footerSize = 96
	// Offsets in the footer.
	footIndex    = 0
	footFilter   = 16
	footRangeDel = 32
	footProps    = 48
	footNonce    = 64
	footFileSize = 72
	footLevels   = 80
	footVersion  = 81
	footReserved = 82
	footCRC      = 84
	footMagic    = 88
)

// handle says where a block's payload lies. Its trailer follows.
type handle struct {
	offset, length uint64
}

func (h handle) empty() bool { return h.length == 0 }

func (h handle) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, h.offset)
	return binary.AppendUvarint(dst, h.length)
}

// decodeHandle reads a handle that fills b.
func decodeHandle(b []byte) (h handle, ok bool) {
	var n, m int
	h.offset, n = binary.Uvarint(b)
	if n <= 0 {
		return handle{}, false
	}
	h.length, m = binary.Uvarint(b[n:])
	return h, m > 0 && n+m == len(b)
}

// within reports whether payload and trailer lie before limit.
func (h handle) within(limit uint64) bool {
	return h.length >= 1 && h.length <= math.MaxInt32 && h.offset <= limit &&
		h.length+trailerSize <= limit-h.offset
}

func leUint32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

// checksummer computes the checksums of one file.
type checksummer struct {
	table *crc32.Table
	nonce uint64
}

func newChecksummer(nonce uint64) checksummer {
	return checksummer{table: crc32.MakeTable(crc32.Castagnoli), nonce: nonce}
}

// sum returns the CRC32C of b continued from a seed made of nonce and offset.
// The seed is mixed, not concatenated: that takes no buffer, and blocks of one
// length under different seeds never have the same sum.
func (c checksummer) sum(offset uint64, b []byte) uint32 {
	x := c.nonce ^ (offset * 0x9e3779b97f4a7c15)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return crc32.Update(uint32(x>>32), c.table, b)
}

type footer struct {
	index, filter, rangeDel, props handle
	nonce                          uint64
	fileSize                       uint64
	levels                         uint8 // of the index: 1 or 2
	version                        uint8
}

func (f *footer) append(dst []byte) []byte {
	start := len(dst)
	for _, h := range [...]handle{f.index, f.filter, f.rangeDel, f.props} {
		dst = binary.LittleEndian.AppendUint64(dst, h.offset)
		dst = binary.LittleEndian.AppendUint64(dst, h.length)
	}
	dst = binary.LittleEndian.AppendUint64(dst, f.nonce)
	dst = binary.LittleEndian.AppendUint64(dst, f.fileSize)
	dst = append(dst, f.levels, f.version, 0, 0)
	sum := newChecksummer(f.nonce).sum(f.fileSize-footerSize, dst[start:])
	dst = binary.LittleEndian.AppendUint32(dst, sum)
	return append(dst, magic...)
}

var (
	errMagic        = errors.New("no table footer at the end of the file")
	errFooterCRC    = errors.New("footer checksum mismatch")
	errFooterSize   = errors.New("file size differs from the footer's")
	errFooterLevels = errors.New("index levels out of range")
	errHandle       = errors.New("block handle out of range")
	errChecksum     = errors.New("block checksum mismatch")
	errVersion      = errors.New("format version unknown")
)

// decodeFooter reads and checks the last footerSize bytes of a file of size
// bytes. errVersion means that the footer is sound but of another version.
func decodeFooter(b []byte, size uint64) (f footer, err error) {
	if len(b) != footerSize || size < footerSize || string(b[footMagic:]) != magic {
		return footer{}, errMagic
	}
	f.nonce = binary.LittleEndian.Uint64(b[footNonce:])
	sum := newChecksummer(f.nonce).sum(size-footerSize, b[:footCRC])
	if sum != binary.LittleEndian.Uint32(b[footCRC:]) {
		return footer{}, errFooterCRC
	}
	if f.version = b[footVersion]; f.version != formatVersion {
		return footer{version: f.version}, errVersion
	}
	if f.fileSize = binary.LittleEndian.Uint64(b[footFileSize:]); f.fileSize != size {
		return footer{}, errFooterSize
	}
	if f.levels = b[footLevels]; f.levels != 1 && f.levels != 2 {
		return footer{}, errFooterLevels
	}
	for _, x := range []struct {
		h        *handle
		at       int
		optional bool
	}{{&f.index, footIndex, false}, {&f.filter, footFilter, true}, {&f.rangeDel, footRangeDel, true}, {&f.props, footProps, false}} {
		x.h.offset = binary.LittleEndian.Uint64(b[x.at:])
		x.h.length = binary.LittleEndian.Uint64(b[x.at+8:])
		if x.optional && *x.h == (handle{}) {
			continue
		}
		if !x.h.within(size - footerSize) {
			return footer{}, errHandle
		}
	}
	return f, nil
}
