package client

import (
	"context"

	"google.golang.org/grpc"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// Drain has a node send its clients away, to be started anew, or with Undo serve them
// again; DrainStatus says how far that is. A node that is not named is the one that is
// asked, which a Client of several endpoints does not say. To ask again changes nothing.
func (c *Client) Drain(ctx context.Context, req *pairdbv1.DrainRequest) (*pairdbv1.NodeDrain, error) {
	return invoke(ctx, c, "node drain", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.NodeDrain, error) {
		return cn.cluster.Drain(ctx, req, opts...)
	})
}

// DrainStatus says how far a node is with that.
func (c *Client) DrainStatus(ctx context.Context, node string) (*pairdbv1.NodeDrain, error) {
	return invoke(ctx, c, "drain status", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.NodeDrain, error) {
		return cn.cluster.DrainStatus(ctx, &pairdbv1.DrainStatusRequest{Node: node}, opts...)
	})
}

// SafeToStop says whether a node can be stopped now so that every partition keeps a
// majority of owners that have all there is. The node is named as in Drain.
func (c *Client) SafeToStop(ctx context.Context, node string) (*pairdbv1.SafeToStopResponse, error) {
	return invoke(ctx, c, "safe to stop", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.SafeToStopResponse, error) {
		return cn.cluster.SafeToStop(ctx, &pairdbv1.SafeToStopRequest{Node: node}, opts...)
	})
}
