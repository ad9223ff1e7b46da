package repair

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
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
		time.Sleep(time.Minute) // of the bubble
		want("after the first round", 0, 0, 0)

		// While one is away those that are there have nothing new to say: that it is
		// away is seen by others. Once it is back all is in doubt.
		c.setUp(2, false)
		time.Sleep(10 * time.Second) // of the bubble
		c.setUp(2, true)
		want("back, and nobody has looked yet", 4, 4)
		time.Sleep(1500 * time.Millisecond) // of the bubble
		want("back", 4, 4)
		time.Sleep(2 * time.Minute) // of the bubble
		want("compared since", 0, 0, 0)

		c.nodes[1].restart()
		c.nodes[1].m.Start()
		want("started anew", 4, 4, 4)
		time.Sleep(1500 * time.Millisecond) // of the bubble
		want("seen to be", 4, 4, 4)
		time.Sleep(2 * time.Minute) // of the bubble
		want("compared since the start", 0, 0, 0)
	})
}

// TestDoubtIsTold: a node that one of the owners alone took for away, and that misses
// nothing, is no reason for whoever drives to compare all again; it is told.
func TestDoubtIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ill atomic.Bool
		c := newCluster(t, 3, 4, 3, func(i int, o *Options) {
			if i == 1 {
				o.Healthy = func(id ring.NodeID) bool { return id[0] != 3 || !ill.Load() }
			}
		})
		want := func(when string, counts ...int) {
			t.Helper()
			for i, n := range counts {
				if got := c.nodes[i].m.Unverified(); got != n {
					t.Errorf("%s: node %d has %d unverified spans, want %d", when, i, got, n)
				}
			}
		}
		for i := range c.nodes {
			c.nodes[i].m.Start()
		}
		time.Sleep(time.Minute) // of the bubble
		want("after the first round", 0, 0, 0)
		ill.Store(true)
		time.Sleep(10 * time.Second) // of the bubble
		rounds := c.nodes[0].m.Status().Rounds
		ill.Store(false)
		time.Sleep(1500 * time.Millisecond) // of the bubble
		want("away for one of three", 0, 4, 0)
		time.Sleep(time.Minute) // of the bubble
		want("compared since", 0, 0, 0)
		if n := c.nodes[0].m.Status().Rounds - rounds; n != 1 {
			t.Errorf("%d rounds for it", n)
		}
	})
}

// TestDoubtIsNoHurry: where rounds cannot end well, since who drives cannot reach an owner
// that others reach, whoever is in doubt does not take its pauses from it.
func TestDoubtIsNoHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cut, ill atomic.Bool
		c := newCluster(t, 3, 4, 3, func(i int, o *Options) {
			if away := map[int]*atomic.Bool{0: &cut, 1: &ill}[i]; away != nil {
				o.Healthy = func(id ring.NodeID) bool { return id[0] != 3 || !away.Load() }
			}
		})
		for i := range c.nodes {
			c.nodes[i].m.Start()
		}
		time.Sleep(time.Minute) // of the bubble
		cut.Store(true)
		ill.Store(true)
		time.Sleep(10 * time.Second) // of the bubble
		ill.Store(false)
		rounds := c.nodes[0].m.Status().Rounds
		time.Sleep(30 * time.Minute) // of the bubble
		if n := c.nodes[0].m.Status().Rounds - rounds; n < 3 || n > 15 {
			t.Errorf("%d rounds in half an hour in which none could end well", n)
		}
		cut.Store(false)
		time.Sleep(time.Minute) // of the bubble
		for i := range c.nodes {
			if n := c.nodes[i].m.Unverified(); n != 0 {
				t.Errorf("node %d has %d unverified spans once all are reached", i, n)
			}
		}
	})
}

func TestDoubles(t *testing.T) {
	var at []int
	for now := 10; now <= 1000; now += 10 {
		if doubles(time.Duration(now-10)*time.Second, time.Duration(now)*time.Second, 24*time.Second) {
			at = append(at, now)
		}
	}
	if want := []int{30, 50, 100, 200, 390, 770}; !slices.Equal(at, want) {
		t.Errorf("at %v, want %v", at, want)
	}
	if doubles(-time.Hour, 23*time.Second, 24*time.Second) || !doubles(-time.Hour, 24*time.Second, 24*time.Second) {
		t.Error("what is back since the last look counts from then")
	}
}
