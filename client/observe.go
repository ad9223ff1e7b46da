package client

import (
	"context"

	"google.golang.org/grpc"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// Events lists what happened to the nodes. One node is asked for all of them, from
// its own machine only until there are credentials.
func (c *Client) Events(ctx context.Context, req *pairdbv1.EventsRequest) (*pairdbv1.EventsResponse, error) {
	return invoke(ctx, c, "events", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.EventsResponse, error) {
		return cn.observe.Events(ctx, req, opts...)
	})
}

// Hints lists the nodes that writes did not reach, with what the others keep for
// them.
func (c *Client) Hints(ctx context.Context) (*pairdbv1.HintsResponse, error) {
	return invoke(ctx, c, "hints", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.HintsResponse, error) {
		return cn.cluster.Hints(ctx, &pairdbv1.HintsRequest{}, opts...)
	})
}

// StartRepair has all nodes compare what owners hold, and send each what it lacks. A
// repair like one under way is the same, so it may be sent again. It is asked as
// Events is.
func (c *Client) StartRepair(ctx context.Context, req *pairdbv1.StartRepairRequest) (*pairdbv1.StartRepairResponse, error) {
	return invoke(ctx, c, "repair", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.StartRepairResponse, error) {
		return cn.cluster.StartRepair(ctx, req, opts...)
	})
}

// RepairStatus shows how far repairs are. It is asked as Events is.
func (c *Client) RepairStatus(ctx context.Context, req *pairdbv1.RepairStatusRequest) (*pairdbv1.RepairStatusResponse, error) {
	return invoke(ctx, c, "repair status", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.RepairStatusResponse, error) {
		return cn.cluster.RepairStatus(ctx, req, opts...)
	})
}

// Traffic shows the operations of clients and the keys used most, over about the
// last minute. It is asked as Events is.
func (c *Client) Traffic(ctx context.Context, req *pairdbv1.TrafficRequest) (*pairdbv1.TrafficResponse, error) {
	return invoke(ctx, c, "traffic", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.TrafficResponse, error) {
		return cn.observe.Traffic(ctx, req, opts...)
	})
}
