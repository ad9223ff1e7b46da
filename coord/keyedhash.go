package coord

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"sync"

	"github.com/pairdb/pairdb/gossip/schema"
)

// keyedHash is an HMAC-SHA256 under a token key that is used again: each answer
// has a token, and to begin with the key costs as much as what follows.
type keyedHash struct {
	key  [len(schema.TokenKey{}.Key)]byte
	hash hash.Hash
	// buf is what is to be authenticated.
	buf []byte
	sum [sha256.Size]byte
}

// keyedHashes holds what no call uses just now. There are one or two keys, so
// that what is in it nearly always has the right one.
var keyedHashes sync.Pool // *keyedHash

// takeKeyedHash returns one for k, which appendSum gives back.
func takeKeyedHash(k *schema.TokenKey) *keyedHash {
	if h, ok := keyedHashes.Get().(*keyedHash); ok && h.key == k.Key {
		return h
	}
	return &keyedHash{key: k.Key, hash: hmac.New(sha256.New, k.Key[:])}
}

// appendSum appends the first tokenMAC bytes of the MAC of buf to dst and gives
// h up.
func (h *keyedHash) appendSum(dst []byte) []byte {
	h.hash.Reset()
	h.hash.Write(h.buf) // a hash never fails
	dst = append(dst, h.hash.Sum(h.sum[:0])[:tokenMAC]...)
	keyedHashes.Put(h)
	return dst
}
