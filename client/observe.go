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

// Traffic shows the operations of clients and the keys used most, over about the
// last minute. It is asked as Events is.
func (c *Client) Traffic(ctx context.Context, req *pairdbv1.TrafficRequest) (*pairdbv1.TrafficResponse, error) {
	return invoke(ctx, c, "traffic", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.TrafficResponse, error) {
		return cn.observe.Traffic(ctx, req, opts...)
	})
}
