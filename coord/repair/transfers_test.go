package repair

import (
	"testing"
	"testing/synctest"

	"github.com/pairdb/pairdb/gossip/ring"
)

// TestTransfersAreThereAtOnce: what a node gains is listed as soon as it knows of the change,
// before it has looked at it, and also if a message that waits for what is confirmed was there
// first. Of a change that is given up nothing is taken for what the next one needs.
func TestTransfersAreThereAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 4, 3, 3)
		r.fill(20)
		r.start()
		gainer := r.nodes[3].m
		left := func() (n int) {
			for _, tr := range gainer.Transfers() {
				if tr.Kind == TransferGain && tr.State != TransferDone && tr.At == r.log.Change().ProposedAt {
					n++
				}
			}
			return n
		}
		want, mine := 0, ring.Partition(0)
		propose := func() {
			r.propose(r.members(0, 4))
			r.install()
			want = 0
			for p := range r.log.Layout().Partitions() {
				for _, c := range gainer.opts.View().Classes() {
					if r.log.Change().Gains(r.log.Layout(), r.nodes[3].id, ring.Partition(p), c.Copies) {
						want, mine = want+1, ring.Partition(p)
					}
				}
			}
		}
		propose()
		if got := left(); got != want || want == 0 {
			t.Errorf("%d of %d are left of a change that nobody has looked at", got, want)
		}
		r.until("synced", func() bool { return r.report(r.nodes[3].id).Synced > 0 })
		if got := left(); got != 0 {
			t.Errorf("%d are left when all is there", got)
		}
		r.step(ring.KindAbort)
		r.install()
		propose()
		gainer.Horizon(mine, func() {})
		if got := left(); got != want {
			t.Errorf("%d of %d are left of the next one, of which only what is confirmed was asked for", got, want)
		}
	})
}
