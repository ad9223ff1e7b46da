package rpc

import (
	"context"
	"fmt"

	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Routes implements pairdbv1.ClusterServer.
func (c *clusterService) Routes(ctx context.Context, req *pairdbv1.RoutesRequest) (*pairdbv1.RoutesResponse, error) {
	name := tenantOf(ctx, req.GetTenantId())
	if err := schema.ValidateTenantID(name); err != nil {
		return nil, err
	}
	tenant, snap, err := findTenant(ctx, c.meta, name)
	if err != nil {
		return nil, err
	}
	if snap.Layout == nil {
		return nil, &coord.Error{Code: errcode.Unavailable, Message: "there is no ring yet; the cluster is not founded"}
	}
	resp := routes(snap, tenant)
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(resp)
	if err != nil {
		return nil, fmt.Errorf("name the routes: %w", err)
	}
	if resp.Etag = max(xxh3.Hash(b), 1); resp.Etag == req.GetKnownEtag() {
		return &pairdbv1.RoutesResponse{Etag: resp.Etag}, nil
	}
	return resp, nil
}

// routes is the answer without its etag. While owners change they are those that are
// read: they alone coordinate.
func routes(snap *schema.Snapshot, tenant *schema.Tenant) *pairdbv1.RoutesResponse {
	resp := &pairdbv1.RoutesResponse{TenantNumber: uint32(tenant.Number)}
	nodes := ringNodes(snap)
	index := make(map[ring.NodeID]uint32, len(nodes))
	for i, n := range nodes {
		index[n.ID] = uint32(i)
		r := &pairdbv1.RouteNode{NodeId: n.ID.String()}
		if m, ok := snap.Member(n.ID); ok {
			r.Address = m.Addresses.GRPC
			r.Alive = (m.Liveness == schema.Alive || m.ID == snap.Self) && !m.Withdrawn && !m.Drained
		}
		resp.Nodes = append(resp.Nodes, r)
	}
	var room [ring.MaxOwners]ring.NodeID
	for p := range snap.Layout.Partitions() {
		sets := snap.Sets(room[:0], ring.Partition(p), tenant.Copies())
		owners := readers(&sets)
		// The same for all: a change in how many owners there are touches every partition.
		resp.Replicas = uint32(len(owners))
		for _, id := range owners {
			resp.Owners = append(resp.Owners, index[id])
		}
	}
	return resp
}
