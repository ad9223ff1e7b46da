package repair

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestUnverified: what was compared since an owner was away last is verified, at each
// owner as far as it knows; an owner that was away, or was started anew, has to be
// compared again, though it misses nothing.
func TestUnverified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 4, 3, nil)
		want := func(when string, counts ...int) {
			t.Helper()
			for i, n := range counts {
				if got := c.nodes[i].m.Unverified(); got != n {
					t.Errorf("%s: node %d has %d unverified spans, want %d", when, i, got, n)
				}
			}
		}
		for k := range 50 {
			c.put(k%3, tenantA, fmt.Sprint("key", k), "v")
		}
		want("before any round", 4, 4, 4)
		for i := range c.nodes {
			c.nodes[i].m.Start()
		}
		time.Sleep(time.Minute)
		want("after the first round", 0, 0, 0)

		// While one is away those that are there have nothing new to say: that it is
		// away is seen by others. Once it is back all is in doubt.
		c.setUp(2, false)
		time.Sleep(10 * time.Second)
		c.setUp(2, true)
		time.Sleep(1500 * time.Millisecond)
		want("back", 4, 4)
		time.Sleep(2 * time.Minute)
		want("compared since", 0, 0, 0)

		c.nodes[1].restart()
		c.nodes[1].m.Start()
		want("started anew", 0, 4)
		time.Sleep(1500 * time.Millisecond)
		want("seen to be", 4, 4, 4)
		time.Sleep(2 * time.Minute)
		want("compared since the start", 0, 0, 0)
	})
}
