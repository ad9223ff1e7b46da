package hints

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/pairdb/pairdb/gossip/ring"
)

// FuzzHint: what decodes is what was encoded.
func FuzzHint(f *testing.F) {
	h := Hint{Target: ring.NodeID{1}, Partition: 2, Tenant: 3, Token: 4, Key: []byte("key"), IdempotencyKey: []byte("id")}
	f.Add(h.appendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHint(b)
		if err != nil {
			return
		}
		if again := h.appendTo(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
		if targetOf(string(b)) != h.Target || partitionOf(string(b)) != h.Partition || !bytes.HasPrefix(b, prefixOf(h.Target)) {
			t.Fatalf("%x is not where it belongs", b)
		}
	})
}

// FuzzBacklog: the same for summaries.
func FuzzBacklog(f *testing.F) {
	b := backlog{count: 3, bytes: 200, ages: []age{{1, 100, 1}, {2, 200, 2}}}
	f.Add(b.encode())
	f.Fuzz(func(t *testing.T, v []byte) {
		b, err := decodeBacklog(v)
		if err != nil {
			return
		}
		if !bytes.Equal(b.encode(), v) {
			t.Fatalf("%x became %x", v, b.encode())
		}
	})
}

// TestBacklog: whatever comes and goes, in whatever order and by whatever clock, the
// summary says what there is.
func TestBacklog(t *testing.T) {
	type kept struct{ size, ms, slot int64 }
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var b backlog
		var all []kept
		for range 300 {
			if len(all) > 0 && r.IntN(3) == 0 {
				i := r.IntN(len(all))
				b.remove(all[i].size, all[i].slot)
				all = append(all[:i], all[i+1:]...)
			} else {
				ms := r.Int64N(10_000)
				k := kept{1 + r.Int64N(100), ms, ms / 500}
				b.add(k.size, k.ms, k.slot)
				all = append(all, k)
			}
			var size int64
			oldest := int64(1 << 60)
			for _, k := range all {
				size += k.size
				oldest = min(oldest, k.ms)
			}
			if b.count != int64(len(all)) || b.bytes != size {
				t.Fatalf("%+v of %d", b, len(all))
			}
			if len(all) == 0 {
				if !b.oldest().IsZero() || len(b.ages) > 0 {
					t.Fatalf("%+v of none", b)
				}
				continue
			}
			if got := b.oldest().UnixMilli(); got > oldest || got <= oldest-500 {
				t.Fatalf("the oldest is of %d, said to be of %d", oldest, got)
			}
			if again, err := decodeBacklog(b.encode()); err != nil || !reflect.DeepEqual(again, b) {
				t.Fatalf("%+v became %+v, %v", b, again, err)
			}
		}
	}
}
