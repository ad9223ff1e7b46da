package node

import (
	"context"
	"testing"

	"github.com/pairdb/pairdb/gossip/ring"
)

// TestReadyOnceAllAreCalled: a node that starts again is ready when it has called each of
// the others once: what is asked of it then finds connections, or nobody to connect to.
func TestReadyOnceAllAreCalled(t *testing.T) {
	nodes := startNodes(t, 0, 0, 0)
	nodes[2].stop()
	var n *Node
	served := make(chan struct{})
	n, err := Open(nodes[2].cfg, Options{Logger: testLogger("again"), Ready: func(Addresses) {
		called := map[ring.NodeID]bool{}
		for _, m := range n.gossip.Snapshot().Members {
			if m.ID == n.gossip.Snapshot().Self {
				continue
			}
			select {
			case <-n.peers.Connect(m.ID):
				called[m.ID] = true
			default:
				t.Errorf("it is ready and has not called %s", m.Name)
			}
		}
		if len(called) != 2 {
			t.Errorf("it has called %v", called)
		}
		if !n.serves() {
			t.Error("it is ready and does not serve")
		}
		close(served)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if n.met.Load() || n.serves() {
		t.Error("it serves before it has called anybody")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- n.Serve(ctx) }()
	select {
	case <-served:
	case err := <-ended:
		t.Fatalf("it ends: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := n.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
