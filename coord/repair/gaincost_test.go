package repair

import (
	"testing"
	"testing/synctest"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// TestGainCosts counts what a span costs that is gained while nothing is written: a few
// messages, none of which asks the same twice.
func TestGainCosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 4, 3, 3)
		r.fill(600)
		count, spans := make(map[kind]int), 0
		r.seen = func(from, to int, m *coord.Message) {
			if q, err := decodeRequest(m.Body); from == 3 && err == nil && m.Op == coord.OpRepair {
				if count[q.kind]++; q.kind == kindState {
					spans += len(q.spans)
				}
			}
		}
		r.propose(r.members(0, 4))
		r.install()
		r.nodes[3].m.Start()
		r.until("synced", func() bool { return r.report(r.nodes[3].id).Synced > 0 })
		gained := 0
		for p := range 8 {
			if r.log.Change().Gains(r.log.Layout(), r.nodes[3].id, ring.Partition(p), ring.Same(3)) {
				gained++
			}
		}
		most := map[kind]int{kindKnown: 3, kindState: 6 * gained, kindRecords: 2 * gained, kindSums: 6 * gained}
		for k, n := range most {
			if count[k] == 0 || count[k] > n {
				t.Errorf("%d messages of kind %d for %d spans, not up to %d", count[k], k, gained, n)
			}
		}
		if spans != count[kindState] {
			t.Errorf("%d messages ask about %d spans, each is about one", count[kindState], spans)
		}
	})
}
