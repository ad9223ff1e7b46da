// Package base holds what every part of the storage engine agrees on: sequence
// numbers, internal keys and their order, the iterator contract and the typed
// errors. It does no I/O and holds no state.
package base

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// SeqNum numbers the mutations of one engine in commit order, from 1. A later
// mutation of a key shadows an earlier one. 56 bits are usable: the low byte
// of a trailer holds the Kind.
type SeqNum uint64

// MaxSeqNum is the largest sequence number; as the sequence of a lookup key it
// sorts before every stored version of that user key.
const MaxSeqNum SeqNum = 1<<56 - 1

// Kind says what a stored internal key does to its user key.
type Kind uint8

// Values are permanent: they are stored in the WAL and in tables. Zero is not
// a kind, so that zeroed bytes never parse as a mutation.
const (
	// KindDelete hides every older version of the user key.
	KindDelete Kind = 1
	// KindSet gives the user key a value.
	KindSet Kind = 2
	// KindRangeDelete hides every older version of the user keys in
	// [user key, value).
	KindRangeDelete Kind = 3
	// KindMax is the largest kind, used in lookup keys: with MaxSeqNum it
	// sorts before everything stored under the same user key.
	KindMax Kind = KindRangeDelete
)

// String names the kind for logs and tests.
func (k Kind) String() string {
	switch k {
	case KindDelete:
		return "DEL"
	case KindSet:
		return "SET"
	case KindRangeDelete:
		return "RANGEDEL"
	default:
		return fmt.Sprintf("KIND(%d)", uint8(k))
	}
}

// Valid reports whether k may appear in a file.
func (k Kind) Valid() bool { return k >= KindDelete && k <= KindMax }

// Trailer packs a sequence number and a kind: seq<<8 | kind.
type Trailer uint64

// MakeTrailer packs seq and kind.
func MakeTrailer(seq SeqNum, kind Kind) Trailer {
	return Trailer(uint64(seq)<<8 | uint64(kind))
}

// SeqNum returns the packed sequence number.
func (t Trailer) SeqNum() SeqNum { return SeqNum(t >> 8) }

// Kind returns the packed kind.
func (t Trailer) Kind() Kind { return Kind(t & 0xff) }

// TrailerLen is the encoded length of a trailer in bytes.
const TrailerLen = 8

// InternalKey is a user key with the trailer of one mutation of it. The user
// key is not copied: whoever makes an InternalKey says how long it lives.
type InternalKey struct {
	UserKey []byte
	Trailer Trailer
}

// MakeInternalKey returns the internal key of one mutation.
func MakeInternalKey(userKey []byte, seq SeqNum, kind Kind) InternalKey {
	return InternalKey{UserKey: userKey, Trailer: MakeTrailer(seq, kind)}
}

// SearchKey returns the internal key that sorts at or before every version of
// userKey visible at seq.
func SearchKey(userKey []byte, seq SeqNum) InternalKey {
	return MakeInternalKey(userKey, seq, KindMax)
}

// SeqNum returns the key's sequence number.
func (k InternalKey) SeqNum() SeqNum { return k.Trailer.SeqNum() }

// Kind returns the key's kind.
func (k InternalKey) Kind() Kind { return k.Trailer.Kind() }

// Size is the encoded length in bytes.
func (k InternalKey) Size() int { return len(k.UserKey) + TrailerLen }

// Append appends the encoded key, user key then little-endian trailer, to dst.
func (k InternalKey) Append(dst []byte) []byte {
	dst = append(dst, k.UserKey...)
	return binary.LittleEndian.AppendUint64(dst, uint64(k.Trailer))
}

// DecodeInternalKey splits an encoded key without copying it. ok is false when
// b is too short or its kind is unknown.
func DecodeInternalKey(b []byte) (k InternalKey, ok bool) {
	n := len(b) - TrailerLen
	if n < 0 {
		return InternalKey{}, false
	}
	k = InternalKey{
		UserKey: b[:n:n],
		Trailer: Trailer(binary.LittleEndian.Uint64(b[n:])),
	}
	return k, k.Kind().Valid()
}

// Clone returns a copy that shares no memory with k.
func (k InternalKey) Clone() InternalKey {
	return InternalKey{UserKey: bytes.Clone(k.UserKey), Trailer: k.Trailer}
}

// String formats the key as user#seq,KIND for tests and tools.
func (k InternalKey) String() string {
	return fmt.Sprintf("%q#%d,%s", k.UserKey, k.SeqNum(), k.Kind())
}

// Compare orders internal keys: user key ascending by bytes, then newest
// first (sequence number, then kind, descending).
func Compare(a, b InternalKey) int {
	if c := bytes.Compare(a.UserKey, b.UserKey); c != 0 {
		return c
	}
	switch {
	case a.Trailer > b.Trailer:
		return -1
	case a.Trailer < b.Trailer:
		return 1
	default:
		return 0
	}
}

// InternalIterator walks internal keys in the order of Compare. It is used by
// one goroutine. Positioning methods return whether the iterator now stands on
// an entry; after false, Error says whether it ended or failed. Key and Value
// are valid until the next positioning call.
type InternalIterator interface {
	// First moves to the first entry, Last to the last.
	First() bool
	Last() bool
	// SeekGE moves to the first entry at or after key, SeekLT to the last
	// one before it.
	SeekGE(key InternalKey) bool
	SeekLT(key InternalKey) bool
	// Next and Prev move by one entry. They may be called only while the
	// iterator is valid.
	Next() bool
	Prev() bool
	// Valid reports whether the iterator stands on an entry.
	Valid() bool
	Key() InternalKey
	Value() []byte
	// Error returns the first failure met, nil at a plain end.
	Error() error
	// Close releases what the iterator holds and returns Error.
	Close() error
}
