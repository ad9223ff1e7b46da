package repair

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestReleaseIsToldAgain: an owner whose disk did not answer when it was to be told that it
// may collect is told again, a few times, and not only by the round of the next day; the
// others are told once.
func TestReleaseIsToldAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		fails int // of how often it is told
		gone  bool
	}{
		{"once", 1, true},
		{"twice", 2, true},
		{"always", 1 << 20, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const parts = 4
				cl := newCluster(t, 3, parts, 3, nil)
				for _, key := range []string{"a", "b", "c"} {
					cl.put(0, tenantA, key, "", 0, 1, 2) // deleted everywhere
				}
				var tries [3]int // under the lock of the replica
				for i := range cl.nodes {
					cl.nodes[i].data.fail = func(what string) error {
						if what != "release" {
							return nil
						}
						if tries[i]++; i == 1 && tries[i] <= c.fails*parts {
							return errors.New("the disk does not answer")
						}
						return nil
					}
				}
				if run := cl.repairNow(0); run.Confirmed != parts {
					t.Fatalf("the round: %+v", run)
				}
				time.Sleep(releaseTries * time.Minute) // of the bubble
				for _, n := range cl.nodes {
					n.data.mu.Lock()
					defer n.data.mu.Unlock()
				}
				again := parts * c.fails
				if !c.gone {
					again = (releaseTries - 1) * tries[0]
				}
				if tries[1] != tries[0]+again || tries[2] != tries[0] || tries[0]%parts != 0 {
					t.Errorf("owners were told %v times, want %d more the one that does not hear", tries, again)
				}
				if n := len(cl.nodes[1].data.rows[tenantA]); c.gone != (n == 0) {
					t.Errorf("%d keys are left", n)
				}
			})
		})
	}
}
