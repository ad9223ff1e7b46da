package coord

import (
	"crypto/hmac"
	"encoding/binary"
	"errors"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// A context token is, in order: the id of the key that authenticates it u8,
// format u8 = 1, the highest HLC among the siblings that were seen u64, the
// context as package causal encodes it, 16 bytes of HMAC-SHA256. The MAC also
// covers cluster, tenant and user key, which are not in the token, so that a
// token is worth nothing anywhere else. The HLC is in it because a write must
// get a higher one than all it covers, held by its minter or not.
const (
	tokenFormat = 1
	tokenHead   = 10
	tokenMAC    = 16
	// maxTokenActors is how many context entries fit in a token.
	maxTokenActors = (MaxTokenSize - tokenHead - tokenMAC) / 9
	// maxTokenKeys is how many MAC keys are accepted at a time.
	maxTokenKeys = 2
)

var (
	errTokenSize   = errors.New("the context token is longer than 4096 bytes")
	errTokenFormat = errors.New("the context token is not one of this cluster's")
	errTokenMAC    = errors.New("the context token was not made for this tenant and key, or was altered")
)

// seal returns the token of a context, nil if that is empty, if there is no key
// to authenticate it with, or if it would be too long.
func seal(s *schema.Snapshot, tenant ring.TenantNumber, key []byte, seen causal.Context, hlc uint64) []byte {
	if len(seen) == 0 || len(s.TokenKeys) == 0 || len(seen) > maxTokenActors {
		return nil
	}
	k := &s.TokenKeys[0]
	b := make([]byte, 0, tokenHead+2+18*len(seen)+tokenMAC)
	b = append(b, k.ID, tokenFormat)
	b = binary.BigEndian.AppendUint64(b, hlc)
	b = seen.Append(b)
	if len(b)+tokenMAC > MaxTokenSize {
		return nil
	}
	return appendMAC(b, k, s.ClusterID, tenant, key, b)
}

// open checks a token and returns what it says.
func open(s *schema.Snapshot, tenant ring.TenantNumber, key, token []byte) (seen causal.Context, hlc uint64, err error) {
	if len(token) > MaxTokenSize {
		return nil, 0, errTokenSize
	}
	n := len(token) - tokenMAC
	if n <= tokenHead || token[1] != tokenFormat {
		return nil, 0, errTokenFormat
	}
	for i := range s.TokenKeys[:min(len(s.TokenKeys), maxTokenKeys)] {
		k := &s.TokenKeys[i]
		if k.ID != token[0] {
			continue
		}
		var sum [tokenMAC]byte
		if !hmac.Equal(appendMAC(sum[:0], k, s.ClusterID, tenant, key, token[:n]), token[n:]) {
			return nil, 0, errTokenMAC
		}
		seen, err := causal.DecodeContext(token[tokenHead:n], maxTokenActors)
		if err != nil {
			return nil, 0, errTokenFormat
		}
		return seen, binary.BigEndian.Uint64(token[2:tokenHead]), nil
	}
	return nil, 0, errTokenFormat
}

// appendMAC appends to dst what authenticates body as a token of the key.
func appendMAC(dst []byte, k *schema.TokenKey, cluster ring.ClusterID, tenant ring.TenantNumber, key, body []byte) []byte {
	h := takeKeyedHash(k)
	b := append(h.buf[:0], "pairdb context token"...)
	b = append(b, cluster[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(tenant))
	b = binary.BigEndian.AppendUint16(b, uint16(len(key)))
	b = append(b, key...)
	h.buf = append(b, body...)
	return h.appendSum(dst)
}
