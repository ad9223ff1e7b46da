package coord

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"sync"
	"testing"

	"github.com/pairdb/pairdb/coord/causal"
)

// What tokens are made of does not change: nodes of other versions open them.
func TestTokenAuthenticatesWhatItSays(t *testing.T) {
	s := keys(2)
	tok := seal(s, 7, []byte("key"), causal.Context{{Actor: 1, Counter: 2}}, 42)
	h := hmac.New(sha256.New, s.TokenKeys[0].Key[:])
	h.Write([]byte("pairdb context token"))
	h.Write(s.ClusterID[:])
	h.Write([]byte{0, 0, 0, 7, 0, 3, 'k', 'e', 'y'})
	n := len(tok) - tokenMAC
	h.Write(tok[:n])
	if want := h.Sum(nil)[:tokenMAC]; !bytes.Equal(tok[n:], want) {
		t.Errorf("%x, want %x", tok[n:], want)
	}
}

func TestKeyedHashesAreNotMixedUp(t *testing.T) {
	seen := causal.Context{{Actor: 1, Counter: 2}}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			s := keys(uint8(i%2 + 1))
			for range 2000 {
				if _, _, err := open(s, 7, []byte("key"), seal(s, 7, []byte("key"), seen, 42)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkSeal(b *testing.B) {
	s, key, seen := keys(2), []byte("bench/000000000001"), causal.Context{{Actor: 1, Counter: 2}, {Actor: 9, Counter: 300}}
	b.ReportAllocs()
	for b.Loop() {
		seal(s, 7, key, seen, 42)
	}
}
