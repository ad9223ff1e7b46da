package coord_test

import (
	"testing"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
)

// TestReadMeetsADrop: the ring changes and the owner that coordinates drops its copy in
// the moment before it is read. What is there is found at those that own it by then, by
// reads and scans, through that node and through another one that asks it.
func TestReadMeetsADrop(t *testing.T) {
	for _, through := range []int{0, 1} {
		for _, scans := range []bool{false, true} {
			w := newMoving(t, 1, []int{0}, []int{2})
			w.everywhere(stable)
			tenant := movingTenants[0]
			key := w.moves(tenant, 1)[0]
			s := causal.Sibling{Dot: causal.Dot{Actor: 1, Counter: 1}, HLC: 1, Value: []byte("there")}
			o := causal.Mint(&causal.Object{}, nil, s)
			for _, i := range []int{0, 2} {
				w.plant(movingID(i), tenant, key, &o)
			}
			owner := w.nodes[0]
			mine := w.log[stable].Layout().PartitionOf(ring.KeyToken(w.number(tenant), []byte(key)))
			owner.reads = func(p ring.Partition) {
				if p != mine {
					return
				}
				owner.reads = nil
				w.everywhere(finalized)
				clear(owner.live)
				clear(owner.synced)
			}
			if !scans {
				if got := w.read(w.nodes[through], tenant, key, quorum.Quorum); got != "there" {
					t.Errorf("through %d is read %q", through, got)
				}
				continue
			}
			page, err := call(w, func(done func(coord.ScanResponse, error)) {
				w.nodes[through].coord.StartScan(coord.ScanRequest{Tenant: tenant, MaxKeys: 10, Level: quorum.Quorum}, done)
			})
			if err != nil || len(page.Items) != 1 {
				t.Errorf("through %d are listed %d keys, %v", through, len(page.Items), err)
			}
		}
	}
}
