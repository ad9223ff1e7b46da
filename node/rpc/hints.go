package rpc

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
)

// Hints implements pairdbv1.ClusterServer.
func (c *clusterService) Hints(ctx context.Context, _ *pairdbv1.HintsRequest) (*pairdbv1.HintsResponse, error) {
	return c.s.Hints(ctx)
}

// Hints asks all members what they keep for others, and adds it up.
func (s *Server) Hints(ctx context.Context) (*pairdbv1.HintsResponse, error) {
	snap, answers, silent, err := s.observe(ctx, "", func(ring.NodeID) *peerv1.ObserveRequest { return &peerv1.ObserveRequest{Hints: true} })
	if err != nil {
		return nil, err
	}
	resp := &pairdbv1.HintsResponse{Unreachable: silentNodes(snap, silent)}
	targets := make(map[ring.NodeID]*pairdbv1.HintTarget)
	for i := range snap.Members {
		holder := &snap.Members[i]
		for _, b := range answers[holder.ID].GetHints() {
			var id ring.NodeID
			if copy(id[:], b.GetTarget()) != len(id) {
				continue
			}
			t := targets[id]
			if t == nil {
				t = &pairdbv1.HintTarget{NodeId: id.String(), OldestAt: b.GetOldestAt()}
				if m, ok := snap.Member(id); ok {
					t.Name = m.Name
				}
				targets[id] = t
				resp.Targets = append(resp.Targets, t)
			}
			t.Count += b.GetCount()
			t.Bytes += b.GetBytes()
			t.OldestAt = earlier(t.GetOldestAt(), b.GetOldestAt())
			t.Holders = append(t.Holders, &pairdbv1.HintHolder{
				NodeId: holder.ID.String(), Name: holder.Name, Count: b.GetCount(), Bytes: b.GetBytes(), OldestAt: b.GetOldestAt(),
			})
		}
	}
	slices.SortFunc(resp.Targets, func(a, b *pairdbv1.HintTarget) int {
		return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetNodeId(), b.GetNodeId()))
	})
	for _, t := range resp.Targets {
		slices.SortFunc(t.Holders, func(a, b *pairdbv1.HintHolder) int { return cmp.Compare(a.GetName(), b.GetName()) })
	}
	return resp, nil
}

// earlier is the earlier of two times, one of which may be unset.
func earlier(a, b *timestamppb.Timestamp) *timestamppb.Timestamp {
	if a == nil || b != nil && compareTimes(b, a) < 0 {
		return b
	}
	return a
}
