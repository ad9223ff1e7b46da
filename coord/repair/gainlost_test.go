package repair

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
)

// giveUp gives nodes up, and has the next change take them out.
func (r *ringed) giveUp(nodes ...int) {
	r.t.Helper()
	for _, i := range nodes {
		r.add(&ring.Entry{Kind: ring.KindIntent, Op: [16]byte{100, byte(i)}, Intent: &ring.Intent{Verb: ring.VerbGiveUp, Node: r.nodes[i].id}})
	}
}

// keep forgets what was written to owners of which none is left.
func (r *ringed) keep(left func(i int) bool) (lost int) {
	for t, keys := range r.filled {
		for key := range keys {
			there := false
			for _, i := range r.owners(r.log.Layout(), t, key) {
				there = there || left(i)
			}
			if !there {
				delete(keys, key)
				lost++
			}
		}
	}
	return lost
}

// TestGainWithoutTheLost: old owners die while others fetch what they had. Nobody is
// waited for that is given up, everybody else is, and what those have is all brought.
func TestGainWithoutTheLost(t *testing.T) {
	for _, c := range []struct {
		name     string
		founders int
		rf       int
		lost     []int
	}{
		{"the only owner", 2, 1, []int{1}},
		{"one of three", 3, 3, []int{1}},
		{"two of three", 3, 3, []int{1, 2}},
		{"three of five", 5, 5, []int{0, 1, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				joiner := c.founders
				r := newRinged(t, c.founders+1, c.founders, c.rf)
				r.fill(100)
				dead := func(i int) bool {
					for _, l := range c.lost {
						if i == l {
							return true
						}
					}
					return false
				}
				gone := r.keep(func(i int) bool { return !dead(i) })
				if (c.rf == 1) != (gone > 0) {
					t.Fatalf("%d keys have no owner left", gone)
				}
				for _, i := range c.lost {
					r.setUp(i, false)
				}
				var members []ring.LayoutNode
				for _, n := range r.members(0, joiner+1) {
					if !dead(int(n.ID[0]) - 1) {
						members = append(members, n)
					}
				}
				r.start()
				r.propose(members)
				r.install()
				time.Sleep(2 * time.Minute)
				// One of three is not missed by a joiner that finds two; an owner that stays and
				// is to fetch what all have has only one other then.
				if synced := r.report(r.nodes[joiner].id).Synced; len(c.lost) > 1 && synced != 0 || c.rf == 1 && synced != 0 {
					t.Fatalf("the joiner is synced at %d without those who may have more", synced)
				}
				r.giveUp(c.lost...)
				r.install()
				r.finish()
				r.cleaned()
				r.check()
			})
		})
	}
}

// TestGainWithoutTheLostWaitsForTheRest: of five owners three have what every quorum
// wrote. With two given up all of the other three are waited for.
func TestGainWithoutTheLostWaitsForTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRinged(t, 6, 5, 5)
		r.fill(50)
		key := "only at one that is left"
		owners := r.owners(r.log.Layout(), tenantA, key)
		lost, rest := owners[:2], owners[2:]
		r.put(owners[0], tenantA, key, "kept", owners[1], rest[2])
		r.filled[tenantA][key] = "kept"
		for _, i := range append([]int{rest[2]}, lost...) {
			r.setUp(i, false)
		}
		var members []ring.LayoutNode
		for _, n := range r.members(0, 6) {
			if i := int(n.ID[0]) - 1; i != lost[0] && i != lost[1] {
				members = append(members, n)
			}
		}
		r.start()
		r.propose(members)
		r.giveUp(lost...)
		r.install()
		time.Sleep(3 * time.Minute)
		if v := r.report(r.nodes[5].id).Synced; v != 0 {
			t.Fatalf("the joiner is synced at %d, and one that is left was away", v)
		}
		r.setUp(rest[2], true)
		r.finish()
		for i := range 6 {
			if r.log.IsRetired(r.nodes[i].id) {
				continue
			}
			if v := r.values(i, tenantA, key); fmt.Sprint(v) != "[kept]" {
				t.Errorf("node %d has %q", i, v)
			}
		}
	})
}
