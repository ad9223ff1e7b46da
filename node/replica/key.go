package replica

import (
	"encoding/binary"

	"github.com/zeebo/xxh3"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// Storage keys are [partition u16][kind u8][tenant u32][token u64][key], big
// endian: a partition is one range, and within it a tenant's keys are in token
// order. Stored data depends on it; it never changes.
// Idempotency records have a hash of the key in its place, and then the
// idempotency key. The index of what is to go has the key of an object with another
// kind, and what is known of a span its replication factor behind the kind.
const (
	kindObject = 0
	kindRecord = 1
	kindIndex  = 2
	kindSpan   = 3
)

// appendKey appends the storage key of an object to dst.
func appendKey(dst []byte, at *coord.Address) []byte {
	return append(appendHead(dst, kindObject, at), at.Key...)
}

// appendRecordKey appends the storage key of an idempotency record to dst.
func appendRecordKey(dst []byte, at *coord.Address, idempotencyKey []byte) []byte {
	h := keyHash(at.Key)
	dst = append(appendHead(dst, kindRecord, at), h[:]...)
	return append(dst, idempotencyKey...)
}

// keyHash stands for a key in the storage keys of its records.
func keyHash(key []byte) [16]byte { return xxh3.Hash128(key).Bytes() }

func appendHead(dst []byte, kind byte, at *coord.Address) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(at.Partition))
	dst = append(dst, kind)
	dst = binary.BigEndian.AppendUint32(dst, uint32(at.Tenant))
	return binary.BigEndian.AppendUint64(dst, uint64(at.Token))
}

// keyHead is the length of what stands before the key itself.
const keyHead = 2 + 1 + 4 + 8

// StorageKey is a storage key in its parts.
type StorageKey struct {
	Partition ring.Partition
	Tenant    ring.TenantNumber
	Token     ring.Token
	Key       []byte // aliases what was parsed
}

// ParseKey takes the storage key of an object apart, for tools. ok is false for
// any other bytes; the token is held against the key.
func ParseKey(b []byte) (k StorageKey, ok bool) {
	if len(b) <= keyHead || b[2] != kindObject {
		return StorageKey{}, false
	}
	k = StorageKey{
		Partition: ring.Partition(binary.BigEndian.Uint16(b)),
		Tenant:    ring.TenantNumber(binary.BigEndian.Uint32(b[3:])),
		Token:     ring.Token(binary.BigEndian.Uint64(b[7:])),
		Key:       b[keyHead:],
	}
	if ring.KeyToken(k.Tenant, k.Key) != k.Token {
		return StorageKey{}, false
	}
	return k, true
}

// PartitionRange returns the bounds of the storage keys of the partitions first
// to last, both included: every one of their keys is at or after start and before
// end.
func PartitionRange(first, last ring.Partition) (start, end []byte) {
	return binary.BigEndian.AppendUint16(nil, uint16(first)), binary.BigEndian.AppendUint16(nil, uint16(last)+1)
}
