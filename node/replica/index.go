package replica

import (
	"encoding/binary"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/engine"
)

// The index has an entry for each object that is Transient: the object's storage key
// with another kind. Its value is an instant, i64 in Unix milliseconds, before which
// nothing of the object can be collected, 0 for none. Entry and object are written in
// one batch.

// indexKey appends the key of the entry of an object to dst.
func indexKey(dst, key []byte) []byte {
	at := len(dst)
	dst = append(dst, key...)
	dst[at+2] = kindIndex
	return dst
}

// due is the instant of an object's entry.
func due(o *causal.Object) int64 {
	first := int64(-1)
	for i := range o.Siblings {
		switch s := &o.Siblings[i]; {
		case s.Tombstone() || s.Flags&causal.FlagStripped != 0:
			return 0
		case s.Flags&causal.FlagExpiry != 0 && (first < 0 || s.ExpiresAt < first):
			first = max(s.ExpiresAt, 0)
		}
	}
	return max(first, 0)
}

// putIndex adds to a batch what keeps the index with an object that takes the place
// of another at a storage key. buf is memory for it, returned to be used again.
func putIndex(b *engine.Batch, buf, key []byte, before, after *causal.Object) []byte {
	was, is := before.Transient(), after.Transient()
	if !was && !is {
		return buf
	}
	buf = indexKey(buf[:0], key)
	switch {
	case !is:
		b.Delete(buf)
	case !was || due(before) != due(after):
		var at [8]byte
		binary.BigEndian.PutUint64(at[:], uint64(due(after)))
		b.Set(buf, at[:])
	}
	return buf
}
