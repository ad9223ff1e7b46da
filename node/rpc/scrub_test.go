package rpc

import (
	"context"
	"fmt"
	"net"
	"testing"

	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// TestScrubOfAllNodes: whichever node is asked, all of them are, those that do not
// answer are named, and only callers of this machine and members may ask.
func TestScrubOfAllNodes(t *testing.T) {
	f := foundedCluster(t, 3)
	f.with(t, map[int]schema.Liveness{0: schema.Alive, 1: schema.Alive, 2: schema.Dead})
	fake := new(fakeAdmin)
	a := &adminService{meta: f, admin: fake, asker: new(fakeAsker)}
	near := grpcpeer.NewContext(context.Background(), &grpcpeer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}})
	for _, start := range []bool{true, false} {
		r, err := a.Scrub(near, &pairdbv1.ScrubRequest{Start: start})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, n := range r.GetNodes() {
			got += fmt.Sprintf("%s %t %d %d; ", n.GetNode().GetName(), n.GetRunning(), n.GetBytesDone(), n.GetQuarantinedPartitions())
		}
		if want := fmt.Sprintf("node0 %t 0 4; node1 %t 1001 0; ", start, start); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if u := r.GetUnreachable(); len(u) != 1 || u[0].GetName() != "node2" || u[0].GetReason() == "" {
			t.Errorf("unreachable: %v", u)
		}
	}
	if got := fmt.Sprint(fake.asked); got != "[scrub true scrub false]" {
		t.Error(got)
	}
	far := grpcpeer.NewContext(context.Background(), &grpcpeer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}})
	if _, err := a.Scrub(far, &pairdbv1.ScrubRequest{}); err == nil || Classify(err).Code != errcode.Forbidden {
		t.Errorf("from afar: %v", err)
	}

	s := observing(t)
	p := &peerService{frames: s.frames, scrub: fake.Scrub}
	stranger := ring.NodeID{0xee}
	if _, err := p.Scrub(context.Background(), &peerv1.ScrubRequest{Sender: stranger[:], Start: true}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a stranger: %v", err)
	}
	member, _, _ := named(1)
	r, err := p.Scrub(context.Background(), &peerv1.ScrubRequest{Sender: member[:], Start: true})
	if err != nil || ring.NodeID(r.GetNodeId()) != s.opts.Self || !r.GetScrub().GetRunning() {
		t.Errorf("a member: %v, %v", r, err)
	}
}
