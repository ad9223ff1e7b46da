package rpc

import (
	"slices"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// TestVerdictNamesWhoIsGoneForGood: a joiner that was turned away and is down keeps
// deletes from being collected, which nothing else would tell.
func TestVerdictNamesWhoIsGoneForGood(t *testing.T) {
	c := newRing(t, 3)
	c.propose(nil, nil, layoutNode(0), layoutNode(1), layoutNode(2), layoutNode(3))
	c.add(&ring.Entry{Kind: ring.KindAbort, Step: &ring.Step{Change: c.state.Change().ID}})
	for _, down := range []bool{false, true} {
		v := judge(c.meta.Snapshot(), func(id ring.NodeID) bool { return !down || id != layoutNode(3).ID })
		if v.word != "healthy" || !strings.HasPrefix(v.reason, "All 3 nodes are up.") || strings.Contains(v.reason, "node3") != down {
			t.Errorf("down %v: %s, %s", down, v.word, v.reason)
		}
	}
}

// TestVerdictOnTheLost: who was given up is not waited for, however it was: nobody is told
// that it is down, as if it should be started.
func TestVerdictOnTheLost(t *testing.T) {
	lost := layoutNode(2).ID
	up := func(id ring.NodeID) bool { return id != lost }
	intent := func(i ring.Intent) func(*ringCluster) {
		i.Node = lost
		return func(c *ringCluster) { c.add(&ring.Entry{Kind: ring.KindIntent, Intent: &i}) }
	}
	for name, x := range map[string]struct {
		do   func(*ringCluster)
		word string
		lost bool
	}{
		"down":        {func(*ringCluster) {}, "down", false},
		"leaves":      {intent(ring.Intent{Verb: ring.VerbLeave}), "down", false},
		"removed":     {intent(ring.Intent{Verb: ring.VerbRemove}), "lost", true},
		"given up":    {intent(ring.Intent{Verb: ring.VerbGiveUp}), "lost", true},
		"replaced":    {intent(ring.Intent{Verb: ring.VerbReplace, By: layoutNode(4).ID}), "lost", true},
		"in a change": {func(c *ringCluster) { c.propose([]ring.NodeID{lost}, nil, layoutNode(0), layoutNode(1), layoutNode(3)) }, "lost", true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newRing(t, 4)
			x.do(c)
			snap := c.meta.Snapshot()
			v := judge(snap, up)
			if v.word != "degraded" || strings.Contains(v.reason, "Given up for lost") != x.lost || strings.Contains(v.reason, "Down:") == x.lost || !strings.Contains(v.reason, "node2. Every partition has a quorum.") {
				t.Errorf("%s: %s", v.word, v.reason)
			}
			members := slices.Clone(snap.Members)
			for i := range members {
				if members[i].ID == lost {
					members[i].Liveness = schema.Dead
				}
			}
			if r := (report{snap: snap.WithMembers(members)}); r.state(lost) != x.word {
				t.Errorf("its state is %q, want %q", r.state(lost), x.word)
			}
		})
	}
	c := newRing(t, 4)
	intent(ring.Intent{Verb: ring.VerbRemove})(c)
	v := judge(c.meta.Snapshot(), func(id ring.NodeID) bool { return up(id) && id != layoutNode(1).ID })
	if v.word != "unhealthy" || !strings.HasPrefix(v.reason, "Down: node1. Given up for lost, to be taken out by a change of the ring: node2. ") {
		t.Errorf("one of each: %s: %s", v.word, v.reason)
	}
	// After a recovery no intent names them.
	c = newRing(t, 3)
	r, err := c.state.Recovery([]ring.NodeID{layoutNode(1).ID, lost})
	if err != nil {
		t.Fatal(err)
	}
	c.add(&ring.Entry{Kind: ring.KindRecover, Recover: r})
	v = judge(c.meta.Snapshot(), func(id ring.NodeID) bool { return id == layoutNode(0).ID })
	if v.word != "unhealthy" || !strings.HasPrefix(v.reason, "Given up for lost, to be taken out by a change of the ring: node1, node2. ") {
		t.Errorf("after a recovery: %s: %s", v.word, v.reason)
	}
}
