package rpc

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
)

// fakeDrain is a DrainAdmin.
type fakeDrain struct {
	begun, undone int
	err           error
}

func (d *fakeDrain) Drain(undo bool) error {
	switch {
	case d.err != nil:
	case undo:
		d.undone++
	default:
		d.begun++
	}
	return d.err
}

func (d *fakeDrain) DrainStatus() *pairdbv1.NodeDrain {
	if d.begun > d.undone {
		return &pairdbv1.NodeDrain{State: "draining", Requests: 4}
	}
	return &pairdbv1.NodeDrain{State: "serving"}
}

// serveDrain is a server of node 0 of three with that drain.
func serveDrain(t *testing.T, d DrainAdmin, asker Asker) (*ringCluster, *Server, pairdbv1.ClusterClient) {
	t.Helper()
	c := newRing(t, 3)
	opts := serverOptions(t, c.meta.Snapshot().Self, c.meta, echo)
	opts.Ring, opts.Asker, opts.Drain = c, asker, d
	s, conn := clientOf(t, opts)
	return c, s, pairdbv1.NewClusterClient(conn)
}

func TestDrainByName(t *testing.T) {
	d := &fakeDrain{}
	_, _, client := serveDrain(t, d, &stopAsker{fakeAsker: fakeAsker{silent: map[string]bool{"peer2": true}}})
	ctx := testContext(t)
	want := func(r *pairdbv1.NodeDrain, err error, name, state, detail string) {
		t.Helper()
		if err != nil || r.GetName() != name || r.GetState() != state || r.GetDetail() != detail || len(r.GetNodeId()) != 32 {
			t.Errorf("want %s %s: %v, %v", name, state, r, err)
		}
	}
	r, err := client.DrainStatus(ctx, &pairdbv1.DrainStatusRequest{})
	want(r, err, "node0", "serving", "")
	r, err = client.Drain(ctx, &pairdbv1.DrainRequest{})
	want(r, err, "node0", "draining", "")
	r, err = client.Drain(ctx, &pairdbv1.DrainRequest{Node: "node0", Undo: true})
	want(r, err, "node0", "serving", "")
	if d.begun != 1 || d.undone != 1 {
		t.Errorf("begun %d times, undone %d times", d.begun, d.undone)
	}
	// Others are asked.
	r, err = client.Drain(ctx, &pairdbv1.DrainRequest{Node: "node1"})
	want(r, err, "node1", "draining", "true false")
	r, err = client.Drain(ctx, &pairdbv1.DrainRequest{Node: "node1", Undo: true})
	want(r, err, "node1", "draining", "false true")
	r, err = client.DrainStatus(ctx, &pairdbv1.DrainStatusRequest{Node: "node1"})
	want(r, err, "node1", "draining", "false false")
	_, err = client.Drain(ctx, &pairdbv1.DrainRequest{Node: "node2"})
	refused(t, err, errcode.Unavailable, "node2 does not answer", "no route")
	_, err = client.Drain(ctx, &pairdbv1.DrainRequest{Node: "nobody"})
	refused(t, err, errcode.InvalidArgument, `no node "nobody"`)
	d.err = errors.New("broken")
	if _, err := client.Drain(ctx, &pairdbv1.DrainRequest{}); err == nil {
		t.Error("an error is kept")
	}
}

func TestDrainOfAnother(t *testing.T) {
	_, _, client := serveDrain(t, nil, &stopAsker{fakeAsker: fakeAsker{wrong: "peer1"}})
	ctx := testContext(t)
	_, err := client.Drain(ctx, &pairdbv1.DrainRequest{})
	refused(t, err, errcode.Unavailable, "cannot be drained")
	_, err = client.Drain(ctx, &pairdbv1.DrainRequest{Node: "node1"})
	refused(t, err, errcode.Unavailable, "another node than node1")
}

// TestDrainForPeers: a member may ask for it, nobody else, and what comes back is what
// this node says.
func TestDrainForPeers(t *testing.T) {
	d := &fakeDrain{}
	c, s, _ := serveDrain(t, d, noAsker{})
	p := &peerService{frames: s.frames, drain: s.drainLocal}
	member, stranger := layoutNode(1).ID, ring.NodeID{0xee}
	ask := func(sender ring.NodeID, cluster ring.ClusterID, begin, undo bool) (*peerv1.DrainResponse, error) {
		return p.Drain(context.Background(), &peerv1.DrainRequest{ClusterId: cluster[:], Sender: sender[:], Begin: begin, Undo: undo})
	}
	if _, err := ask(stranger, testCluster, true, false); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a stranger: %v", err)
	}
	if _, err := ask(member, ring.ClusterID{1}, true, false); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("another cluster: %v", err)
	}
	r, err := ask(member, testCluster, false, false)
	if err != nil || d.begun != 0 || r.GetDrain().GetState() != "serving" {
		t.Errorf("only a look: %v, %v", r, err)
	}
	r, err = ask(member, testCluster, true, false)
	if self := c.meta.Snapshot().Self; err != nil || d.begun != 1 || r.GetDrain().GetRequests() != 4 || string(r.GetNodeId()) != string(self[:]) {
		t.Errorf("begun: %v, %v", r, err)
	}
	d.err = errors.New("broken")
	if _, err := ask(member, testCluster, false, true); status.Code(err) != codes.Unavailable {
		t.Errorf("an error: %v", err)
	}
}
