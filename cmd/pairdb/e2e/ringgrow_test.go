package e2e

import (
	"testing"
	"time"
)

// TestClusterGrowsAndShrinks has two nodes join three at once, under a load, with no
// command, and then two leave, one of them a founder. No request fails, every
// acknowledged write is there, and the leavers hold nothing and are no members.
func TestClusterGrowsAndShrinks(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, "--set", "ring.settle="+ringSettle)
	want := c.fill(c.agents[0], "grow", 3000, 300)
	l := startLoad(t, c.endpoints(), 6)
	l.waitAcks(300)
	began := time.Now()
	c.join("--set", "ring.settle="+ringSettle)
	c.join("--set", "ring.settle="+ringSettle)
	c.waitRing(c.agents[0], wantNodes(5)...)
	t.Logf("three nodes have become five in %s, with %d writes so far", time.Since(began).Round(time.Millisecond), l.acks.Load())
	l.mu.Lock()
	if len(l.fails) > 0 {
		t.Errorf("requests failed while the cluster grew: %v", l.fails)
	}
	l.mu.Unlock()
	for _, a := range c.agents {
		a.waitHealthy(30 * time.Second)
	}
	c.wantAll(c.agents[4], want)

	began = time.Now()
	stays, founder, joiner := c.agents[0], c.agents[1], c.agents[3]
	mustRun(t, "node", "decommission", founder.name, "--yes", "--endpoint", stays.addr.GRPC)
	c.decommission(stays, joiner)
	c.waitRing(stays, "node-1", "node-3", "node-5")
	t.Logf("five nodes have become three in %s", time.Since(began).Round(time.Millisecond))
	l.waitAcks(l.acks.Load() + 300)
	l.end()
	if len(l.fails) > 0 {
		t.Errorf("requests failed although no node did: %v", l.fails)
	}
	c.forget(founder, joiner)
	l.verify(c.client(1))
	c.wantAll(stays, want)
	c.equalOwners()
	for _, a := range []*agent{founder, joiner} {
		// A node that is no member any more ends by itself, and says so.
		if err := a.endWithin(time.Minute); err != nil {
			t.Errorf("it is retired, and %v", err)
		} else if err := a.wait(); err != nil {
			t.Errorf("%s has left in order and ends with %v", a.name, err)
		}
		if n := keysOnDisk(t, a); n != 0 {
			t.Errorf("%s has left and holds %d keys", a.name, n)
		}
	}
}
