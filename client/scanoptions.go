package client

import (
	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

const (
	// MaxPageSize is the most keys that a page of a scan can have.
	MaxPageSize = 10_000
	// maxPageToken is the largest page token, in bytes.
	maxPageToken = 1536
)

// ScanOptions say which keys a scan returns; a key has to meet all that is set.
// The zero value means all keys of the tenant.
type ScanOptions struct {
	// Prefix is what the keys begin with, at most MaxKeySize bytes. One with a
	// whole part in braces, as in "{user1}photo/", asks the replicas of that part
	// alone and returns keys in the order of their bytes; any other scan visits
	// the whole ring and returns them in the order of a hash.
	Prefix string
	// Start is the first key and End that behind the last, byte by byte; empty:
	// no bound.
	Start, End string
	// Limit is how many keys are returned at most. 0: no limit.
	Limit int
	// PageSize is how many keys travel at a time at most, up to MaxPageSize. More
	// cost memory on both sides, fewer cost messages. 0: 1000.
	PageSize int
	// KeysOnly leaves the values out.
	KeysOnly bool
	// PageToken goes on behind a page of an earlier scan of the same tenant with
	// the same Prefix, Start, End and KeysOnly: what its PageToken returned.
	PageToken []byte
}

// ScanItem is a key that has a value.
type ScanItem struct {
	Key string
	// Value is the winner, the same as Siblings[0].Value; nil in a scan of keys
	// only.
	Value []byte
	// Siblings and Context are as in GetResult.
	Siblings []Sibling
	Context  Context

	wire *pairdbv1.ScanItem
}

// Proto returns the item as it came over the wire. It shares the values.
func (i *ScanItem) Proto() *pairdbv1.ScanItem { return i.wire }

func (o *ScanOptions) validate() error {
	bad := func(code errcode.Code, format string, args ...any) error {
		return localError("scan", reads, code, format, args...)
	}
	for name, key := range map[string]string{"prefix": o.Prefix, "start": o.Start, "end": o.End} {
		if len(key) > MaxKeySize {
			return bad(errcode.KeyTooLarge, "%s has %d bytes, at most %d are possible", name, len(key), MaxKeySize)
		}
	}
	switch {
	case o.Limit < 0:
		return bad(errcode.InvalidArgument, "the limit is %d", o.Limit)
	case o.PageSize < 0 || o.PageSize > MaxPageSize:
		return bad(errcode.InvalidArgument, "the page size is %d, it can be 1 to %d, or 0 for the default", o.PageSize, MaxPageSize)
	case len(o.PageToken) > maxPageToken:
		return bad(errcode.InvalidArgument, "the page token has %d bytes, at most %d are possible", len(o.PageToken), maxPageToken)
	}
	return nil
}
