package coord

import (
	"bytes"
	"cmp"

	"github.com/pairdb/pairdb/gossip/ring"
)

// Position is a place in the order of a scan, by token and then by key: that of
// the first key at or behind it. It names no owner and no partition, so it means
// the same under every layout.
type Position struct {
	Token ring.Token
	// Key has at most MaxKeySize+1 bytes; empty is before all keys of the token.
	Key []byte
}

// Compare orders positions.
func (p *Position) Compare(q *Position) int {
	if c := cmp.Compare(p.Token, q.Token); c != 0 {
		return c
	}
	return bytes.Compare(p.Key, q.Key)
}

// Successor returns the least key behind all that begin with prefix, nil if there
// is none.
func Successor(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			b := bytes.Clone(prefix[:i+1])
			b[i]++
			return b
		}
	}
	return nil
}

// ScanMode says what a replica tells of each key.
type ScanMode uint8

// The modes. Values travel between nodes.
const (
	// ScanValues: the whole object.
	ScanValues ScanMode = 0
	// ScanKeys: the object with its values left out. It must never be joined into
	// a copy of the key.
	ScanKeys ScanMode = 1
	// ScanDigests: its digest.
	ScanDigests ScanMode = 2
)

// ScanRange asks a replica for a piece of what one partition holds of a tenant.
type ScanRange struct {
	Partition ring.Partition
	Tenant    ring.TenantNumber
	// Class and LWW are those of an Address of the tenant.
	Class ring.Class
	LWW   bool
	// From is where to begin, Until where to end; without one, behind the last
	// key of the partition.
	From  Position
	Until *Position
	// Group says that only keys with From's token are wanted.
	Group bool
	// Start and End bound the keys byte by byte; an empty End is none.
	Start, End []byte
	Mode       ScanMode
	// MaxKeys, MaxBytes and Budget bound the piece by its keys, their bytes with
	// what is told of them, and the entries of the engine that are looked at. All
	// are at least 1, Budget at least 2.
	MaxKeys, MaxBytes, Budget int
	// Strict says that MaxBytes holds for a single key, too, so that the piece may
	// end before its first. Otherwise one key is returned whatever its size.
	Strict bool
}

// Wants reports whether a key is within Start and End.
func (r *ScanRange) Wants(key []byte) bool {
	return bytes.Compare(key, r.Start) >= 0 && (len(r.End) == 0 || bytes.Compare(key, r.End) < 0)
}

// ScanEntry is what a replica holds of one key, tombstones and all.
type ScanEntry struct {
	Key []byte
	// Object is encoded; empty for ScanDigests.
	Object []byte
	// Digest is the object's, for ScanDigests only.
	Digest [16]byte
	// Size is that of the whole object, encoded, in bytes.
	Size int
}

// ScanPiece answers a ScanRange: all that the replica holds from From up to Next,
// on disk. It is the caller's to keep.
type ScanPiece struct {
	// Entries are in the order of positions.
	Entries []ScanEntry
	// Next is where the piece ends; nil if nothing of the range is behind it.
	Next *Position
	// Scanned is how many entries of the engine were looked at.
	Scanned int
}
