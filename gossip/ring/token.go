package ring

import (
	"bytes"
	"encoding/binary"

	"github.com/zeebo/xxh3"
)

// tokenScratch is room for a tenant number and the longest user key, so that
// hashing one allocates nothing.
const tokenScratch = 4 + 1024

// KeyToken gives the position of a key: xxh3-64 over the tenant's number, four
// bytes big-endian, and the key. If the key has a tag, only the tag is hashed in
// place of the key, so that all keys with one tag share a partition. The
// function is permanent: stored data is found by it.
func KeyToken(t TenantNumber, key []byte) Token {
	key = KeyTag(key)
	var scratch [tokenScratch]byte
	var buf []byte
	if len(key) <= tokenScratch-4 {
		buf = scratch[:4+len(key)]
	} else {
		buf = make([]byte, 4+len(key))
	}
	binary.BigEndian.PutUint32(buf, uint32(t))
	copy(buf[4:], key)
	return Token(xxh3.Hash(buf))
}

// KeyTag gives the part of a key that places it: what stands between the first
// '{' and the first '}' after it, if that is not empty, else the whole key. The
// result aliases key.
func KeyTag(key []byte) []byte {
	open := bytes.IndexByte(key, '{')
	if open < 0 {
		return key
	}
	rest := key[open+1:]
	if n := bytes.IndexByte(rest, '}'); n > 0 {
		return rest[:n]
	}
	return key
}
