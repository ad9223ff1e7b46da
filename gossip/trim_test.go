package gossip

import (
	"context"
	"fmt"
	"testing"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// TestAsleepOverMoreThanTheTail: a node that was down while the others trimmed their logs
// beyond its own, and one that is new, have what the log says, vote, and keep it over a
// start.
func TestAsleepOverMoreThanTheTail(t *testing.T) {
	f := newFabric()
	nodes := clusterOf(t, f, 3, func(o *Options) {
		o.trim, o.AutoApply, o.Settle = meta.Trim{Entries: 2, Piece: 500}, true, 1
	})
	nodes[2].stop()
	const tenants = 12
	for i := range tenants {
		if _, err := nodes[i%2].CreateTenant(context.Background(), fmt.Sprintf("t-%d", i), 3, schema.PolicyLWW); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range nodes[:2] {
		n.await(t, "all tenants", func(s *schema.Snapshot) bool { return s.Version == tenants+1 })
		if l := n.Log(); l.Base <= 1 || l.Entries > 6 || l.Base+ring.Version(l.Entries) != tenants+1 {
			t.Fatalf("%s: its log is not trimmed: %+v", n.opts.Name, l)
		}
	}
	all := func(s *schema.Snapshot) bool { return len(s.Tenants()) >= tenants+1 && s.Ready && s.Change == nil }
	back := nodes[2].again(t, nil)
	back.await(t, "what it slept through", all)
	joiner := launch(t, f, nodeOptions(t, f, "n4", func(o *Options) {
		o.trim, o.Join = nodes[0].opts.trim, []string{nodes[1].GossipAddress()}
	}))
	settled := func(s *schema.Snapshot) bool { return all(s) && len(s.Layout.Nodes()) == 4 }
	// Nothing is to be fetched here, so each says that it has.
	for _, n := range []*testNode{nodes[0], nodes[1], back, joiner} {
		n.await(t, "the change", func(s *schema.Snapshot) bool { return s.Change != nil || settled(s) })
		if c := n.Snapshot().Change; c != nil {
			if err := n.SetSynced(c.ProposedAt); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, n := range []*testNode{nodes[0], nodes[1], back, joiner} {
		n.await(t, "four nodes", settled)
	}
	nodes[0].stop()
	if _, err := joiner.CreateTenant(context.Background(), "late", 3, schema.PolicyLWW); err != nil {
		t.Fatalf("three of four vote: %v", err)
	}
	back.stop()
	again := back.again(t, nil)
	again.await(t, "all it had", func(s *schema.Snapshot) bool { _, ok := s.Tenant("late"); return ok && settled(s) })
	if l := again.Log(); l.Base <= 1 || l.SnapshotBytes == 0 {
		t.Errorf("after a start: %+v", l)
	}
}
