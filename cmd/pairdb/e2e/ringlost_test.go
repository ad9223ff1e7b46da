package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// waitDown waits until a node says that others are down.
func (c *cluster) waitDown(at *agent, lost ...*agent) {
	c.t.Helper()
	if err := poll(time.Minute, func() (bool, error) {
		s, err := at.ring()
		down := 0
		for _, n := range s.Nodes {
			for _, a := range lost {
				if n.NodeID == a.addr.NodeID && n.State == "down" {
					down++
				}
			}
		}
		return down == len(lost), err
	}); err != nil {
		c.t.Fatalf("nodes that were killed are not down: %v", err)
	}
}

// fillSingle writes keys of a tenant with one copy.
func (c *cluster) fillSingle(at *agent, n int) {
	c.t.Helper()
	mustRun(c.t, "tenant", "create", "single", "--rf", "1", "--endpoint", at.addr.GRPC)
	cl := c.clientOf(at)
	for i := range n {
		if _, err := cl.Put(c.t.Context(), fmt.Sprint("single/", i), []byte("value"), client.WithTenant("single")); err != nil {
			c.t.Fatal(err)
		}
	}
}

// wantSome reads them: what the lost owned is gone, the rest is there, and everything can
// be written again.
func (c *cluster) wantSome(at *agent, n int) {
	c.t.Helper()
	cl, there := c.clientOf(at), 0
	for i := range n {
		key := fmt.Sprint("single/", i)
		got, err := cl.Get(c.t.Context(), key, client.WithTenant("single"))
		switch {
		case errors.Is(err, client.ErrKeyNotFound):
		case err != nil:
			c.t.Fatalf("%s: %v", key, err)
		default:
			there += len(got.Siblings)
		}
		if _, err := cl.Put(c.t.Context(), key, []byte("new"), client.WithTenant("single")); err != nil {
			c.t.Fatalf("%s: %v", key, err)
		}
	}
	if there == 0 || there == n {
		c.t.Errorf("%d of %d keys with one copy are there", there, n)
	}
}

// TestLostMajorityIsRecovered: two of three nodes are lost for good, one with its disk.
// Nothing of ring and tenants can be changed, until the third one recovers. It has all
// that had three copies, takes writes at quorum again, and another node joins. A lost one
// that comes back is refused.
func TestLostMajorityIsRecovered(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, "--set", "ring.settle="+ringSettle)
	at := c.agents[0]
	want := c.fill(at, "recover", 1000, 200)
	c.fillSingle(at, 100)
	ep := "--endpoint=" + at.addr.GRPC
	lost := slices.Clone(c.agents[1:3])
	ids := []string{lost[0].addr.NodeID, lost[1].addr.NodeID}
	expect(t, errcode.ExitConflict, []string{"NODE_IN_USE", "answers"}, nil, "cluster", "recover", "node-2", "node-3", "--accept-loss", "--yes", ep)
	for _, a := range lost {
		a.kill()
	}
	lost[0].wipe()
	c.waitDown(at, lost...)
	expect(t, errcode.ExitConsistency, []string{"node-2", "node-3"}, nil, "tenant", "create", "frozen", ep)
	expect(t, errcode.ExitConflict, []string{"PRECONDITION_FAILED", "a majority of the voters is left"}, nil, "cluster", "recover", "node-2", "--accept-loss", "--yes", ep)
	expect(t, errcode.ExitUsage, []string{"there is no node"}, nil, "cluster", "recover", "node-2", "node-7", "--accept-loss", "--yes", ep)
	r := run(t, nil, "cluster", "recover", "node-2", ids[1], "--accept-loss", "--yes", ep)
	if r.code != 0 || !strings.Contains(r.stdout, "these vote now: node-1") || !strings.Contains(r.stdout, "given up of 1 tenants with 1 copies (single)") {
		t.Fatalf("recover: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	c.forget(lost...)
	c.waitRing(at, "node-1")
	c.wantAll(at, want)
	c.wantSome(at, 100)
	mustRun(t, "tenant", "create", "thawed", ep)
	fresh := c.joinAs("node-4", t.TempDir())
	c.waitRing(at, "node-1", "node-4")
	fresh.waitHealthy(30 * time.Second)
	more := c.fill(fresh, "after", 200, 100)
	c.equalOwners()
	c.wantAll(fresh, want)
	c.wantAll(at, more)
	// One that comes back with its disk is none any more.
	lost[1].args = nil
	if said := lost[1].wantRefused("a member that was given up"); !strings.Contains(said, "retired") {
		t.Errorf("it does not say that it is retired:\n%s", said)
	}
}

// TestLostOwnerIsGivenUp: the only owner of some partitions dies while the ring changes.
// The change waits for it, until it is given up; then it is begun anew without it and
// done, and all that had other copies is there.
func TestLostOwnerIsGivenUp(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, "--set", "ring.settle="+ringSettle)
	at, lost := c.agents[0], c.agents[2]
	want := c.fill(at, "given-up", 1000, 200)
	c.fillSingle(at, 100)
	ep := "--endpoint=" + at.addr.GRPC
	expect(t, errcode.ExitConflict, []string{"NODE_IN_USE", "alive"}, nil, "node", "remove", "node-3", "--accept-loss", "--yes", ep)
	id := lost.addr.NodeID
	lost.kill()
	lost.wipe()
	c.waitDown(at, lost)
	c.forget(lost)
	fresh := c.joinAs("node-4", t.TempDir())
	c.waitStage(at, "proposed")
	r := runFor(t, changeLimit, nil, "node", "remove", id, "--accept-loss", "--yes", "--wait", ep)
	if r.code != 0 || !strings.Contains(r.stdout, "node-3 is removed: done") || !strings.Contains(r.stdout, "given up of 1 tenants with 1 copies (single)") {
		s, _ := at.ring() // it is told for the error's sake
		t.Fatalf("remove: exit %d\n%s%s\n%s", r.code, r.stdout, r.stderr, s.String())
	}
	c.waitRing(at, "node-1", "node-2", "node-4")
	fresh.waitHealthy(30 * time.Second)
	c.equalOwners()
	c.wantAll(fresh, want)
	c.wantSome(at, 100)
}
