package repair

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/coord"
)

// TestGainYields: a gainer and its sources are told of all that is fetched, and go no
// faster than they say, whatever the rate that is set would allow. A source holds no
// answer back for so long that it is taken for one that does not answer.
func TestGainYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 4, 3, 3)
		r.fill(2000)
		const hold = 2 * time.Second
		var read, fetched, held atomic.Int64
		for i, n := range r.nodes {
			n.m.opts.Streamed = func(bytes int) time.Duration {
				if i == 3 {
					fetched.Add(int64(bytes))
					return hold
				}
				read.Add(int64(bytes))
				held.Add(1)
				return time.Hour
			}
		}
		frames := 0
		r.seen = func(from, to int, m *coord.Message) {
			if q, err := decodeRequest(m.Body); from == 3 && err == nil && m.Op == coord.OpRepair && q.kind == kindObjects {
				frames++
			}
		}
		r.propose(r.members(0, 4))
		r.install()
		began := time.Now()
		r.nodes[3].m.Start()
		r.until("synced", func() bool { return r.report(r.nodes[3].id).Synced > 0 })
		if frames == 0 || int(held.Load()) != frames {
			t.Errorf("%d frames were asked for, and %d answers held back: each is, once", frames, held.Load())
		}
		if read.Load() == 0 || fetched.Load() < read.Load() {
			t.Errorf("the sources were told of %d bytes, the gainer of %d", read.Load(), fetched.Load())
		}
		if took := time.Since(began); took < maxHold+hold {
			t.Errorf("it took %s, though each frame is to wait for %s", took, maxHold+hold)
		}
	})
}
