package coord_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
)

// TestBursts: three blind puts of one key, each at another node, within a few
// milliseconds, and nothing afterwards. Nothing is lost, so next to none of them may be
// left in doubt because it waits for what replaced it to win.
func TestBursts(t *testing.T) {
	for _, jitter := range []time.Duration{time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond} {
		w := newWorld(1, 3, 3, newFakeDisk)
		w.net.jitter = jitter
		rnd := rand.New(rand.NewPCG(1, 7))
		writes, doubt := 0, 0
		for k := range 1500 {
			key := fmt.Appendf(nil, "k%d", k)
			for _, n := range w.nodes {
				w.after(time.Duration(rnd.Int64N(int64(jitter+2*time.Millisecond))), func() {
					n.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: key, Value: []byte("v"), Level: quorum.Quorum}, func(_ coord.WriteResponse, err error) {
						writes++
						if err != nil {
							doubt++
						}
					})
				})
			}
			w.advance(6 * time.Second)
		}
		t.Logf("jitter of %v: %d of %d puts in doubt", jitter, doubt, writes)
		if writes != 4500 || doubt > 5 {
			t.Errorf("jitter of %v: %d of %d puts in doubt", jitter, doubt, writes)
		}
	}
}
