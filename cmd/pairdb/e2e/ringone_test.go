package e2e

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/pairdb/pairdb/client"
)

// TestOneNodeGrowsToThree: a cluster of one is a database at once, and has three copies
// of everything when two nodes have joined, so that it goes on without the first.
func TestOneNodeGrowsToThree(t *testing.T) {
	t.Parallel()
	c := &cluster{t: t}
	first := &agent{t: t, name: "node-1", dir: filepath.Join(t.TempDir(), "node-1"), args: []string{"--bootstrap", "--set", "ring.settle=" + ringSettle}}
	c.agents = append(c.agents, first)
	first.start()
	first.waitHealthy(30 * time.Second)
	want := c.fill(first, "one", 2000, 300)
	c.join()
	c.waitRing(first, wantNodes(2)...)
	c.join()
	c.waitRing(first, wantNodes(3)...)
	for _, a := range c.agents {
		a.waitHealthy(30 * time.Second)
	}
	cl := c.client(2)
	if _, err := cl.Put(t.Context(), "all", []byte("three"), client.WithLevel(client.LevelAll)); err != nil {
		t.Errorf("a write to all three: %v", err)
	}
	c.equalOwners()
	first.kill()
	c.wantAll(c.agents[2], want)
	if _, err := cl.Put(t.Context(), "quorum", []byte("two of three"), client.WithLevel(client.LevelQuorum)); err != nil {
		t.Errorf("a write without the founder: %v", err)
	}
}
