package gossip

import (
	"errors"
	"slices"
	"testing"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// TestGiveUpAndRecover: refused while one of the lost answers, be it a call only that
// gossip knows nothing of; then those that are left go on without the lost.
func TestGiveUpAndRecover(t *testing.T) {
	f := newFabric()
	nodes := clusterOf(t, f, 4, quick)
	// Three of four vote: two of them die.
	slices.SortStableFunc(nodes, func(a, b *testNode) int {
		votes := func(n *testNode) int {
			return slices.Index([]bool{true, false}, slices.Contains(n.Snapshot().Ring.Voters(), n.self))
		}
		return votes(a) - votes(b)
	})
	first, second, at, other := nodes[0], nodes[1], nodes[2], nodes[3]
	if err := at.CheckGiveUp([]ring.NodeID{first.self}); !errors.Is(err, ring.ErrNodeAlive) {
		t.Errorf("giving up a node that is alive: %v", err)
	}
	if err := at.Recover(t.Context(), []ring.NodeID{first.self, second.self}); !errors.Is(err, ring.ErrNodeAlive) {
		t.Errorf("recovering from nodes that are alive: %v", err)
	}
	first.stop()
	at.await(t, "it is gone", func(s *schema.Snapshot) bool { return !s.Alive(first.self) })
	f.mu.Lock()
	f.nodes[first.opts.Addresses.Peer] = other.Gossip
	f.mu.Unlock()
	if _, err := at.GiveUp(t.Context(), []ring.NodeID{first.self}); !errors.Is(err, ring.ErrNodeAlive) {
		t.Errorf("giving up a node at whose address a member answers: %v", err)
	}
	if _, err := at.Intend(t.Context(), ring.Intent{Verb: ring.VerbRemove, Node: first.self}); !errors.Is(err, ring.ErrNodeAlive) {
		t.Errorf("removing a node at whose address a member answers: %v", err)
	}
	f.mu.Lock()
	delete(f.nodes, first.opts.Addresses.Peer)
	f.mu.Unlock()
	if _, err := at.GiveUp(t.Context(), []ring.NodeID{first.self}); err != nil {
		t.Fatal(err)
	}
	other.await(t, "it is given up", func(s *schema.Snapshot) bool { return s.Retired(first.self) })
	// With the one that is retired a majority is lost.
	second.stop()
	at.await(t, "the second is gone", func(s *schema.Snapshot) bool { return !s.Alive(second.self) })
	other.await(t, "the second is gone", func(s *schema.Snapshot) bool { return !s.Alive(second.self) })
	if err := at.Recover(t.Context(), []ring.NodeID{second.self}); err != nil {
		t.Fatal(err)
	}
	if err := at.Recover(t.Context(), []ring.NodeID{second.self}); !errors.Is(err, ring.ErrVotersLeft) {
		t.Errorf("recovering again: %v", err)
	}
	if s := at.Snapshot().Ring; !s.IsRetired(second.self) || slices.Contains(s.Voters(), second.self) || len(s.Voters()) != 1 {
		t.Errorf("retired %v, voters %v", s.Retired(), s.Voters())
	}
	if err := second.again(t, nil).awaitFatal(t); !errors.Is(err, ErrRetired) {
		t.Errorf("it came back: %v", err)
	}
}
