package rpc

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// DrainAdmin sends the clients of this node away. None of it waits.
type DrainAdmin interface {
	// Drain begins unless it has begun; with undo the node serves clients again.
	Drain(undo bool) error
	// DrainStatus says how far it is, without id and name.
	DrainStatus() *pairdbv1.NodeDrain
}

// drainLocal begins, undoes or only shows the drain of this node.
func (s *Server) drainLocal(begin, undo bool) (*pairdbv1.NodeDrain, error) {
	if s.opts.Drain == nil {
		return nil, &coord.Error{Code: errcode.Unavailable, Outcome: errcode.NotApplied, Message: "this node cannot be drained"}
	}
	if begin || undo {
		if err := s.opts.Drain.Drain(undo); err != nil {
			return nil, err
		}
	}
	return s.opts.Drain.DrainStatus(), nil
}

// Drain implements peerv1.PeerServer, for members.
func (p *peerService) Drain(_ context.Context, req *peerv1.DrainRequest) (*peerv1.DrainResponse, error) {
	if err := checkCaller(p.frames.cluster(), req.GetClusterId(), req.GetSender()); err != nil {
		return nil, err
	}
	if !p.frames.member(ring.NodeID(req.GetSender())) {
		return nil, status.Error(codes.PermissionDenied, "the caller is no member of this cluster")
	}
	d, err := p.drain(req.GetBegin(), req.GetUndo())
	if err != nil {
		return nil, status.Error(codes.Unavailable, clip(err.Error(), maxCauseBytes))
	}
	return &peerv1.DrainResponse{NodeId: p.frames.self[:], Drain: d}, nil
}

// Drain asks the node at addr, host:port, for its drain.
func (c *MetaClient) Drain(ctx context.Context, addr string, begin, undo bool) (*peerv1.DrainResponse, error) {
	conn, done, err := c.conn(addr)
	if err != nil {
		return nil, fmt.Errorf("drain %s: %w", addr, err)
	}
	defer done()
	cluster, self := c.opts.Identity()
	resp, err := peerv1.NewPeerClient(conn).Drain(ctx, &peerv1.DrainRequest{ClusterId: idBytes(cluster), Sender: idBytes(self), Begin: begin, Undo: undo})
	if err != nil {
		return nil, fmt.Errorf("drain %s: %w", addr, remoteError(ctx, err))
	}
	return resp, nil
}

// Drain implements pairdbv1.ClusterServer.
func (c *clusterService) Drain(ctx context.Context, req *pairdbv1.DrainRequest) (*pairdbv1.NodeDrain, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	return c.s.drain(ctx, req.GetNode(), !req.GetUndo(), req.GetUndo())
}

// DrainStatus implements pairdbv1.ClusterServer.
func (c *clusterService) DrainStatus(ctx context.Context, req *pairdbv1.DrainStatusRequest) (*pairdbv1.NodeDrain, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	return c.s.drain(ctx, req.GetNode(), false, false)
}

// drain asks the node that text names for its drain, this one if it is empty.
func (s *Server) drain(ctx context.Context, text string, begin, undo bool) (*pairdbv1.NodeDrain, error) {
	snap := s.opts.Metadata.Snapshot()
	node, err := nodeOrSelf(snap, text)
	if err != nil {
		return nil, err
	}
	d := new(pairdbv1.NodeDrain)
	if node.id == snap.Self {
		if d, err = s.drainLocal(begin, undo); err != nil {
			return nil, err
		}
	} else {
		m, known := snap.Member(node.id)
		if !known || m.Addresses.Peer == "" {
			return nil, &coord.Error{Code: errcode.Unavailable, Outcome: errcode.NotApplied, Message: "where " + node.name + " is to be reached is not known here; ask that node itself"}
		}
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		r, err := s.opts.Asker.Drain(ctx, m.Addresses.Peer, begin, undo)
		if err != nil {
			// To ask again changes nothing more.
			return nil, &coord.Error{Code: errcode.Unavailable, Outcome: errcode.Indeterminate, Message: node.name + " does not answer: " + clip(err.Error(), maxCauseBytes) + "; see pairdb status"}
		}
		if string(r.GetNodeId()) != string(node.id[:]) {
			return nil, &coord.Error{Code: errcode.Unavailable, Outcome: errcode.NotApplied, Message: "another node than " + node.name + " answers at " + m.Addresses.Peer}
		}
		if r.GetDrain() != nil {
			d = r.GetDrain()
		}
	}
	d.NodeId, d.Name = node.id.String(), node.name
	return d, nil
}
