package sstable

import (
	"errors"
	"math/bits"

	"github.com/zeebo/xxh3"
)

const (
	// lineSize is the unit of the filter: all probes of a key fall into one
	// line, so that a lookup costs at most one cache miss.
	lineSize = 64
	// maxProbes of 9 bits each are cut from one 64-bit hash.
	maxProbes = 7
)

var errFilter = errors.New("malformed filter")

// filterHash is the hash of a user key in filters; it is part of the format.
func filterHash(userKey []byte) uint64 { return xxh3.Hash(userKey) }

// filter is a blocked bloom filter over user keys: lines of 512 bits, then the
// number of probes in one byte. Without lines everything may be contained.
type filter struct {
	lines  []byte
	n      uint64
	probes int
}

// buildFilter appends a filter of the hashes to dst.
func buildFilter(dst []byte, hashes []uint64, bitsPerKey int) []byte {
	n := (uint64(len(hashes))*uint64(bitsPerKey) + lineSize*8 - 1) / (lineSize * 8)
	// ln 2 times the bits is the best number of probes of an unblocked
	// filter; a blocked one, whose lines fill unevenly, wants no more.
	probes := min(max(bitsPerKey*69/100, 1), maxProbes)
	start := len(dst)
	dst = append(dst, make([]byte, n*lineSize+1)...)
	lines := dst[start : len(dst)-1]
	dst[len(dst)-1] = byte(probes)
	for _, h := range hashes {
		line := lines[lineOf(h, n)*lineSize:][:lineSize]
		for p, b := 0, probeBits(h); p < probes; p++ {
			line[(b>>3)&63] |= 1 << (b & 7)
			b >>= 9
		}
	}
	return dst
}

// lineOf maps a hash to a line by its high half.
func lineOf(h, n uint64) uint64 {
	hi, _ := bits.Mul64(h, n)
	return hi
}

// probeBits spreads a hash over the bits used within a line. The first probes
// come from low bits of the hash, which had no part in choosing the line.
func probeBits(h uint64) uint64 { return h * 0x9e3779b97f4a7c15 }

func decodeFilter(b []byte) (filter, error) {
	if len(b) == 0 || (len(b)-1)%lineSize != 0 {
		return filter{}, errFilter
	}
	f := filter{lines: b[:len(b)-1], n: uint64(len(b)-1) / lineSize, probes: int(b[len(b)-1])}
	if f.probes < 1 || f.probes > maxProbes {
		return filter{}, errFilter
	}
	return f, nil
}

// mayContain is false only for keys that were not added.
func (f *filter) mayContain(h uint64) bool {
	if f.n == 0 {
		return true
	}
	line := (*[lineSize]byte)(f.lines[lineOf(h, f.n)*lineSize:])
	for p, b := 0, probeBits(h); p < f.probes; p++ {
		if line[(b>>3)&63]&(1<<(b&7)) == 0 {
			return false
		}
		b >>= 9
	}
	return true
}
