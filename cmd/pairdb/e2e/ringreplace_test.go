package e2e

import (
	"strings"
	"testing"
	"time"
)

// TestLostNodeIsReplaced kills a node and takes its disk away. A new one, which waits to
// join, is told to take its place, and then holds what the old one held; the old identity
// is gone for good. A new identity under the old name is refused, and told what to do.
func TestLostNodeIsReplaced(t *testing.T) {
	t.Parallel()
	// The new node is named before it has joined by itself.
	c := startCluster(t, 3, "--set", "ring.settle=15s")
	want := c.fill(c.agents[0], "replace", 2000, 300)
	at, lost := c.agents[0], c.agents[2]
	old := lost.addr.NodeID
	lost.kill()
	lost.wipe()
	if err := poll(time.Minute, func() (bool, error) {
		s, err := at.ring()
		down := false
		for _, n := range s.Nodes {
			down = down || n.NodeID == old && n.State == "down"
		}
		return down, err
	}); err != nil {
		t.Fatalf("a node that was killed is not down: %v", err)
	}
	lost.args = []string{"--join", at.addr.Gossip}
	if said := lost.wantRefused("a new identity under the name of a member"); !strings.Contains(said, "pairdb node replace --dead "+lost.name) {
		t.Errorf("it does not say what to do:\n%s", said)
	}
	c.forget(lost)
	fresh := c.joinAs("node-4", t.TempDir())
	if err := poll(10*time.Second, func() (bool, error) {
		s, err := at.ring()
		waits := false
		for _, n := range s.Nodes {
			waits = waits || n.NodeID == fresh.addr.NodeID && n.State == "waiting"
		}
		return waits, err
	}); err != nil {
		s, _ := at.ring() // it is told for the error's sake
		t.Fatalf("the new one does not wait: %v; %s", err, s.String())
	}
	r := runFor(t, changeLimit, nil, "node", "replace", "--dead", old, "--yes", "--wait", "--endpoint", at.addr.GRPC)
	if r.code != 0 || !strings.Contains(r.stdout, "done") {
		t.Fatalf("replace: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	c.waitRing(at, "node-1", "node-2", "node-4")
	s, err := at.ring()
	if err != nil || strings.Contains(s.String(), old) {
		t.Errorf("the old node is still there: %s, %v", s.String(), err)
	}
	fresh.waitHealthy(30 * time.Second)
	c.equalOwners()
	c.wantAll(fresh, want)
	// Of three copies each, any two nodes have all: the new one holds its own.
	c.agents[1].kill()
	c.wantAll(fresh, want)
}
