package client

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// Node is one endpoint of a Client, for what concerns a node and not the cluster:
// its calls go there and nowhere else. A node takes them from its own machine only,
// until there are credentials.
type Node struct {
	c  *Client
	cn *conn
}

// Nodes returns one Node per endpoint in the order of Options.Endpoints.
func (c *Client) Nodes() []*Node {
	all := make([]*Node, len(c.conns))
	for i, cn := range c.conns {
		all[i] = &Node{c: c, cn: cn}
	}
	return all
}

// Endpoint returns the endpoint, host:port.
func (n *Node) Endpoint() string { return n.cn.endpoint }

// Flush writes what the node has in memory to tables.
func (n *Node) Flush(ctx context.Context) (*pairdbv1.FlushResponse, error) {
	return ask(ctx, n, "flush", func(ctx context.Context, opts ...grpc.CallOption) (*pairdbv1.FlushResponse, error) {
		return n.cn.admin.Flush(ctx, &pairdbv1.FlushRequest{}, opts...)
	})
}

// Compact merges the node's data, or that of some partitions if they are not nil,
// down to the lowest level, and returns the result. progress, if not nil, is called
// with what the node tells meanwhile. When ctx ends, the node stops.
func (n *Node) Compact(ctx context.Context, partitions *pairdbv1.PartitionRange, progress func(*pairdbv1.CompactResponse)) (*pairdbv1.CompactResponse, error) {
	return ask(ctx, n, "compact", func(ctx context.Context, opts ...grpc.CallOption) (*pairdbv1.CompactResponse, error) {
		stream, err := n.cn.admin.Compact(ctx, &pairdbv1.CompactRequest{Partitions: partitions}, opts...)
		return last(stream, err, progress)
	})
}

// Verify makes the node read all its tables and returns what it found; damage is
// no error. progress is as in Compact.
func (n *Node) Verify(ctx context.Context, progress func(*pairdbv1.VerifyResponse)) (*pairdbv1.VerifyResponse, error) {
	return ask(ctx, n, "verify", func(ctx context.Context, opts ...grpc.CallOption) (*pairdbv1.VerifyResponse, error) {
		stream, err := n.cn.admin.Verify(ctx, &pairdbv1.VerifyRequest{}, opts...)
		return last(stream, err, progress)
	})
}

// Scrub asks all nodes of the cluster, by way of this one, how their scrubs are, and
// has each begin one if start is set and none is under way.
func (n *Node) Scrub(ctx context.Context, start bool) (*pairdbv1.ScrubResponse, error) {
	return ask(ctx, n, "scrub", func(ctx context.Context, opts ...grpc.CallOption) (*pairdbv1.ScrubResponse, error) {
		return n.cn.admin.Scrub(ctx, &pairdbv1.ScrubRequest{Start: start}, opts...)
	})
}

// Stats shows the figures of the node's engine.
func (n *Node) Stats(ctx context.Context) (*pairdbv1.StatsResponse, error) {
	return ask(ctx, n, "stats", func(ctx context.Context, opts ...grpc.CallOption) (*pairdbv1.StatsResponse, error) {
		return n.cn.admin.Stats(ctx, &pairdbv1.StatsRequest{}, opts...)
	})
}

// ask sends one request to the node, once.
func ask[Resp any](ctx context.Context, n *Node, op string, fn func(context.Context, ...grpc.CallOption) (Resp, error)) (Resp, error) {
	var zero Resp
	if n.c.closed.Load() {
		e := localError(op, reads, errcode.Unavailable, "the client is closed")
		e.Err = ErrClosed
		return zero, e
	}
	var cancel context.CancelFunc
	if n.c.opts.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, n.c.opts.Timeout)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel() // which also ends a stream that was not read to its end
	resp, err := attempt(ctx, n.cn, op, reads, 1, func(ctx context.Context, _ *conn, opts ...grpc.CallOption) (Resp, error) {
		return fn(ctx, opts...)
	})
	if err != nil {
		return zero, err
	}
	return resp, nil
}

// last hands the messages of a stream to progress and returns the one that is done.
func last[M interface{ GetDone() bool }](stream interface{ Recv() (M, error) }, err error, progress func(M)) (M, error) {
	var zero M
	if err != nil {
		return zero, err
	}
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return zero, status.Error(codes.Internal, "the node ended its answer without a result")
		case err != nil:
			return zero, err
		case m.GetDone():
			return m, nil
		case progress != nil:
			progress(m)
		}
	}
}
