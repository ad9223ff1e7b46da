package client

import (
	"context"

	"google.golang.org/grpc"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// PlanChange says what would move if everything that is asked for were begun now.
func (c *Client) PlanChange(ctx context.Context) (*pairdbv1.PlanChangeResponse, error) {
	return invoke(ctx, c, "cluster plan", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.PlanChangeResponse, error) {
		return cn.cluster.PlanChange(ctx, &pairdbv1.PlanChangeRequest{}, opts...)
	})
}

// CommitChange begins what PlanChange shows. Like all calls below that change something
// it is taken from the node's own machine only, until there are credentials, and is not
// sent again when its outcome is unknown.
func (c *Client) CommitChange(ctx context.Context) (*pairdbv1.CommitChangeResponse, error) {
	return invoke(ctx, c, "cluster commit", writes, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.CommitChangeResponse, error) {
		return cn.cluster.CommitChange(ctx, &pairdbv1.CommitChangeRequest{}, opts...)
	})
}

// AbortChange ends the change of the ring that is under way, or takes back what was
// asked for and is not begun.
func (c *Client) AbortChange(ctx context.Context, req *pairdbv1.AbortChangeRequest) (*pairdbv1.AbortChangeResponse, error) {
	return invoke(ctx, c, "cluster abort", writes, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.AbortChangeResponse, error) {
		return cn.cluster.AbortChange(ctx, req, opts...)
	})
}

// Decommission has a node hand over its partitions and leave for good.
func (c *Client) Decommission(ctx context.Context, req *pairdbv1.DecommissionRequest) (*pairdbv1.NodeChange, error) {
	return invoke(ctx, c, "node decommission", writes, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.NodeChange, error) {
		return cn.cluster.Decommission(ctx, req, opts...)
	})
}

// ReplaceNode gives the partitions of a lost node to one that waits to join.
func (c *Client) ReplaceNode(ctx context.Context, req *pairdbv1.ReplaceRequest) (*pairdbv1.NodeChange, error) {
	return invoke(ctx, c, "node replace", writes, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.NodeChange, error) {
		return cn.cluster.Replace(ctx, req, opts...)
	})
}

// RemoveNode gives the partitions of a lost node to the others.
func (c *Client) RemoveNode(ctx context.Context, req *pairdbv1.RemoveRequest) (*pairdbv1.NodeChange, error) {
	return invoke(ctx, c, "node remove", writes, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.NodeChange, error) {
		return cn.cluster.Remove(ctx, req, opts...)
	})
}

// Recover gives the vote to the members that are left, after a majority of the voting
// nodes was lost for good.
func (c *Client) Recover(ctx context.Context, req *pairdbv1.RecoverRequest) (*pairdbv1.RecoverResponse, error) {
	return invoke(ctx, c, "cluster recover", writes, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.RecoverResponse, error) {
		return cn.cluster.Recover(ctx, req, opts...)
	})
}

// WeighNode gives a node another share of the ring.
func (c *Client) WeighNode(ctx context.Context, req *pairdbv1.WeighRequest) (*pairdbv1.NodeChange, error) {
	return invoke(ctx, c, "node weigh", writes, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.NodeChange, error) {
		return cn.cluster.Weigh(ctx, req, opts...)
	})
}

// ChangeStatus shows how far a change of a node is. The id of a join is the node's.
func (c *Client) ChangeStatus(ctx context.Context, id string) (*pairdbv1.NodeChange, error) {
	return invoke(ctx, c, "change status", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.NodeChange, error) {
		return cn.cluster.ChangeStatus(ctx, &pairdbv1.ChangeStatusRequest{Id: id}, opts...)
	})
}

// Transfers lists what is being moved between nodes, with all also what was last.
func (c *Client) Transfers(ctx context.Context, all bool) (*pairdbv1.TransfersResponse, error) {
	return invoke(ctx, c, "transfers", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.TransfersResponse, error) {
		return cn.cluster.Transfers(ctx, &pairdbv1.TransfersRequest{All: all}, opts...)
	})
}
