package coord

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// TestTokenMAC: a token ends with the MAC that its format asks for, whatever key
// was used before, and only the key it names opens it.
func TestTokenMAC(t *testing.T) {
	snapshot := func(id uint8) *schema.Snapshot {
		s := &schema.Snapshot{ClusterID: ring.ClusterID{7, id}}
		s.TokenKeys = []schema.TokenKey{{ID: id, Key: [32]byte{id, 1, 2, 3}}}
		return s
	}
	seen := causal.NewContext(causal.Dot{Actor: 1, Counter: 2}, causal.Dot{Actor: 3, Counter: 400})
	for round := range 3 {
		for id := range uint8(3) {
			s := snapshot(id)
			token := seal(s, 5, []byte("key"), seen, 77)
			body := token[:len(token)-tokenMAC]
			h := hmac.New(sha256.New, s.TokenKeys[0].Key[:])
			h.Write([]byte("pairdb context token"))
			h.Write(s.ClusterID[:])
			h.Write(binary.BigEndian.AppendUint32(nil, 5))
			h.Write(binary.BigEndian.AppendUint16(nil, 3))
			h.Write([]byte("key"))
			h.Write(body)
			if got, want := token[len(body):], h.Sum(nil)[:tokenMAC]; !hmac.Equal(got, want) {
				t.Errorf("round %d, key %d: MAC %x, want %x", round, id, got, want)
			}
			got, hlc, err := open(s, 5, []byte("key"), token)
			if err != nil || hlc != 77 || !got.Equal(seen) {
				t.Errorf("round %d, key %d: opened %v, %d, %v", round, id, got, hlc, err)
			}
			if _, _, err := open(s, 5, []byte("yek"), token); err != errTokenMAC {
				t.Errorf("another key's token: %v", err)
			}
			if _, _, err := open(snapshot(id+1), 5, []byte("key"), token); err != errTokenFormat {
				t.Errorf("a token of another MAC key: %v", err)
			}
		}
	}
}
