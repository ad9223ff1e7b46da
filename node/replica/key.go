package replica

import (
	"encoding/binary"

	"github.com/pairdb/pairdb/coord"
)

// Storage keys are [partition u16][kind u8][tenant u32][token u64][key], big
// endian: a partition is one range, and within it a tenant's keys are in token
// order. Stored data depends on it; it never changes.
// Kinds 1 and 2 are reserved for idempotency records and for the index of
// tombstones and expiries.
const kindObject = 0

// appendKey appends the storage key of an object to dst.
func appendKey(dst []byte, at *coord.Address) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(at.Partition))
	dst = append(dst, kindObject)
	dst = binary.BigEndian.AppendUint32(dst, uint32(at.Tenant))
	dst = binary.BigEndian.AppendUint64(dst, uint64(at.Token))
	return append(dst, at.Key...)
}
