package e2e

import (
	"testing"
	"time"
)

// slowStream makes a join of a few megabytes last, so that something can happen to it.
const slowStream = "256KiB"

// TestJoinSurvivesKills kills the node that joins while it fetches, and then one that
// it fetches from. Both are started again, and the join is done in the end.
func TestJoinSurvivesKills(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, "--set", "ring.settle="+ringSettle)
	want := c.fill(c.agents[0], "kills", 6000, 1500)
	joiner := c.join("--stream-rate", slowStream)
	c.waitMoving(c.agents[0])
	joiner.kill()
	during := c.fill(c.agents[0], "while it is down", 200, 100)
	joiner.start()
	c.waitMoving(c.agents[0])
	// Without the source, writes need the joiner, to which whoever makes them may not be
	// connected again.
	c.waitReached(c.agents[1])
	source := c.agents[2]
	source.kill()
	for key, value := range c.fill(c.agents[1], "while a source is down", 200, 100) {
		during[key] = value
	}
	source.start()
	source.waitHealthy(time.Minute)
	c.waitRing(c.agents[0], wantNodes(4)...)
	joiner.waitHealthy(30 * time.Second)
	c.wantAll(joiner, want)
	c.wantAll(source, during)
	c.equalOwners()
}

// TestJoinSurvivesStopOfAll stops every node of a cluster in the middle of a join, and
// starts them again: the change goes on where it was.
func TestJoinSurvivesStopOfAll(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, "--set", "ring.settle="+ringSettle)
	want := c.fill(c.agents[0], "stop", 6000, 1500)
	c.join("--stream-rate", slowStream)
	c.waitMoving(c.agents[0])
	for _, a := range c.agents {
		a.kill()
	}
	for _, a := range c.agents {
		a.start()
	}
	for _, a := range c.agents[:3] {
		a.waitHealthy(time.Minute)
	}
	c.waitRing(c.agents[0], wantNodes(4)...)
	c.agents[3].waitHealthy(30 * time.Second) // it may learn last that it is an owner
	c.wantAll(c.agents[3], want)
	c.equalOwners()
}
