package rpc

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Scrub implements pairdbv1.AdminServer: it asks all members.
func (a *adminService) Scrub(ctx context.Context, req *pairdbv1.ScrubRequest) (*pairdbv1.ScrubResponse, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	snap := a.meta.Snapshot()
	answers, silent := askMembers(ctx, snap, func(*schema.Member) bool { return true },
		func() *pairdbv1.NodeScrub { return a.admin.Scrub(req.GetStart()) },
		func(ctx context.Context, m *schema.Member) (*pairdbv1.NodeScrub, ring.NodeID, error) {
			r, err := a.asker.Scrub(ctx, m.Addresses.Peer, req.GetStart())
			var id ring.NodeID
			copy(id[:], r.GetNodeId())
			return r.GetScrub(), id, err
		})
	resp := &pairdbv1.ScrubResponse{Unreachable: silentNodes(snap, silent)}
	for i := range snap.Members {
		m := &snap.Members[i]
		if s, ok := answers[m.ID]; ok && s != nil {
			s.Node = nodeName(m)
			resp.Nodes = append(resp.Nodes, s)
		}
	}
	slices.SortFunc(resp.Nodes, func(a, b *pairdbv1.NodeScrub) int { return cmp.Compare(a.GetNode().GetName(), b.GetNode().GetName()) })
	return resp, nil
}

// Scrub implements peerv1.PeerServer. It costs disk time, so it is for members alone.
func (p *peerService) Scrub(_ context.Context, req *peerv1.ScrubRequest) (*peerv1.ScrubResponse, error) {
	if err := checkCaller(p.frames.cluster(), req.GetClusterId(), req.GetSender()); err != nil {
		return nil, err
	}
	if !p.frames.member(ring.NodeID(req.GetSender())) {
		return nil, status.Error(codes.PermissionDenied, "the caller is no member of this cluster")
	}
	return &peerv1.ScrubResponse{NodeId: p.frames.self[:], Scrub: p.scrub(req.GetStart())}, nil
}
