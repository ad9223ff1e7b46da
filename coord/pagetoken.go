package coord

import (
	"crypto/hmac"
	"encoding/binary"
	"errors"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// A page token is, in order: the id of the key that authenticates it u8, format
// u8 = 1, token u64 and key of the position that the scan goes on from, 16 bytes
// of HMAC-SHA256. The MAC also covers cluster, tenant and what the scan asks for,
// which are not in the token, so that it is worth nothing in any other scan. It
// names no owner: the ring may change between two pages.
const (
	pageTokenFormat = 1
	pageTokenHead   = 10
)

var (
	errPageTokenSize   = errors.New("the page token is longer than 1536 bytes")
	errPageTokenFormat = errors.New("the page token is not one of this cluster's")
	errPageTokenMAC    = errors.New("the page token was not made for this tenant, prefix, start, end and keys_only, or was altered")
)

// sealPage returns the token of a position, nil if there is no key to
// authenticate it with.
func sealPage(s *schema.Snapshot, tenant ring.TenantNumber, w *scanWant, at *Position) []byte {
	if len(s.TokenKeys) == 0 {
		return nil
	}
	k := &s.TokenKeys[0]
	b := make([]byte, 0, pageTokenHead+len(at.Key)+tokenMAC)
	b = append(b, k.ID, pageTokenFormat)
	b = binary.BigEndian.AppendUint64(b, uint64(at.Token))
	b = append(b, at.Key...)
	return append(b, pageMAC(k, s.ClusterID, tenant, w, b)...)
}

// openPage checks the token of a request and returns the position.
func openPage(s *schema.Snapshot, tenant ring.TenantNumber, w *scanWant) (Position, error) {
	t := w.pageToken
	n := len(t) - tokenMAC
	switch {
	case len(t) > MaxPageTokenSize:
		return Position{}, errPageTokenSize
	case n < pageTokenHead || n > pageTokenHead+MaxKeySize+1 || t[1] != pageTokenFormat:
		return Position{}, errPageTokenFormat
	}
	for i := range s.TokenKeys[:min(len(s.TokenKeys), maxTokenKeys)] {
		k := &s.TokenKeys[i]
		if k.ID != t[0] {
			continue
		}
		if !hmac.Equal(pageMAC(k, s.ClusterID, tenant, w, t[:n]), t[n:]) {
			return Position{}, errPageTokenMAC
		}
		return Position{Token: ring.Token(binary.BigEndian.Uint64(t[2:])), Key: t[pageTokenHead:n:n]}, nil
	}
	return Position{}, errPageTokenFormat
}

func pageMAC(k *schema.TokenKey, cluster ring.ClusterID, tenant ring.TenantNumber, w *scanWant, body []byte) []byte {
	h := takeKeyedHash(k)
	b := append(h.buf[:0], "pairdb page token"...)
	b = append(b, cluster[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(tenant))
	keysOnly := byte(0)
	if w.keysOnly {
		keysOnly = 1
	}
	b = append(b, keysOnly)
	for _, part := range [...][]byte{w.prefix, w.start, w.end} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(part)))
		b = append(b, part...)
	}
	h.buf = append(b, body...)
	return h.appendSum(nil)
}
