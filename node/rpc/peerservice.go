package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
)

// MetaHandler serves the metadata calls of other nodes. clusterID is empty or
// has 16 bytes, and is this node's if both have one; sender has 16 bytes.
type MetaHandler interface {
	HandleMeta(ctx context.Context, method string, clusterID, sender, payload []byte) ([]byte, error)
}

// NodeInfo is what a node says of itself.
type NodeInfo struct {
	Node        ring.NodeID
	Incarnation uint64
	// Bytes that its tables and logs take on disk.
	Bytes uint64
	// Keys is an estimate of the live keys in its tables.
	Keys uint64
	// DiskUsedPercent is the use of the data's file system, 0..100.
	DiskUsedPercent float64
	// RingVersion is the last log entry it has learned.
	RingVersion ring.Version
	// Ready says that it serves clients.
	Ready bool
	// RepairedAt is when the owners of a partition of the node were last found equal,
	// of the one for which that is the longest ago; zero if it is not known of some.
	RepairedAt time.Time
	// Hints that it keeps for others.
	Hints uint64
	// Quarantined partitions are not served from it, since its copy is damaged.
	Quarantined uint32
	// Unverified is of how many of its spans the owners have not been found equal since
	// one of them was away; nil: it does not say.
	Unverified *uint32
	// Draining says that it has sent its clients away, or does so now.
	Draining bool
}

// peerService is the service Peer.
type peerService struct {
	peerv1.UnimplementedPeerServer
	frames *frameServer
	info   func() NodeInfo
	// observe answers for this node.
	observe     func(*peerv1.ObserveRequest) *peerv1.ObserveResponse
	startRepair func(context.Context, *pairdbv1.StartRepairRequest) (*pairdbv1.RepairRun, error)
	// scrub is Admin.Scrub.
	scrub func(start bool) *pairdbv1.NodeScrub
	// drain is Server.drainLocal.
	drain func(begin, undo bool) (*pairdbv1.NodeDrain, error)
}

// Frames implements peerv1.PeerServer.
func (p *peerService) Frames(stream grpc.BidiStreamingServer[peerv1.Frame, peerv1.Frame]) error {
	return p.frames.frames(stream)
}

// Info implements peerv1.PeerServer.
func (p *peerService) Info(_ context.Context, req *peerv1.InfoRequest) (*peerv1.InfoResponse, error) {
	if err := checkCaller(p.frames.cluster(), req.GetClusterId(), req.GetSender()); err != nil {
		return nil, err
	}
	i := p.info()
	return &peerv1.InfoResponse{
		NodeId: p.frames.self[:], Incarnation: i.Incarnation, Bytes: i.Bytes, KeysEstimate: i.Keys,
		DiskUsedPercent: i.DiskUsedPercent, RingVersion: uint64(i.RingVersion), Ready: i.Ready,
		RepairedAt: timestamp(i.RepairedAt), Hints: i.Hints, QuarantinedPartitions: i.Quarantined,
		UnverifiedSpans: i.Unverified, Draining: i.Draining,
	}, nil
}

// Observe implements peerv1.PeerServer. Other than figures, which a node that joins
// may ask for, this is for members alone: keys are data.
func (p *peerService) Observe(_ context.Context, req *peerv1.ObserveRequest) (*peerv1.ObserveResponse, error) {
	if err := checkCaller(p.frames.cluster(), req.GetClusterId(), req.GetSender()); err != nil {
		return nil, err
	}
	if !p.frames.member(ring.NodeID(req.GetSender())) {
		return nil, status.Error(codes.PermissionDenied, "the caller is no member of this cluster")
	}
	return p.observe(req), nil
}

// checkCaller refuses a caller of another cluster. A node without a cluster,
// on either side, is let through: it has to be, to be founded or to join.
func checkCaller(mine ring.ClusterID, cluster, sender []byte) error {
	if len(sender) != len(ring.NodeID{}) {
		return status.Errorf(codes.InvalidArgument, "the caller's node id has %d bytes, not %d", len(sender), len(ring.NodeID{}))
	}
	if len(cluster) == 0 {
		return nil
	}
	if len(cluster) != len(mine) {
		return status.Errorf(codes.InvalidArgument, "the caller's cluster id has %d bytes, not %d", len(cluster), len(mine))
	}
	if theirs := ring.ClusterID(cluster); !mine.IsZero() && theirs != mine {
		return status.Errorf(codes.FailedPrecondition, "this node is of cluster %s, the caller of %s", mine, theirs)
	}
	return nil
}

// metaService is the service Meta.
type metaService struct {
	peerv1.UnimplementedMetaServer
	self    ring.NodeID
	cluster func() ring.ClusterID
	handler MetaHandler
}

func (m *metaService) serve(ctx context.Context, method string, req *peerv1.MetaMessage) (*peerv1.MetaMessage, error) {
	if err := checkCaller(m.cluster(), req.GetClusterId(), req.GetSender()); err != nil {
		return nil, err
	}
	reply, err := m.handler.HandleMeta(ctx, method, req.GetClusterId(), req.GetSender(), req.GetPayload())
	if err != nil {
		if ctx.Err() != nil {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		return nil, status.Error(codes.Aborted, clip(err.Error(), maxMessageBytes))
	}
	return &peerv1.MetaMessage{ClusterId: idBytes(m.cluster()), Sender: m.self[:], Payload: reply}, nil
}

// Exchange implements peerv1.MetaServer.
func (m *metaService) Exchange(ctx context.Context, req *peerv1.MetaMessage) (*peerv1.MetaMessage, error) {
	return m.serve(ctx, "Exchange", req)
}

// Prepare implements peerv1.MetaServer.
func (m *metaService) Prepare(ctx context.Context, req *peerv1.MetaMessage) (*peerv1.MetaMessage, error) {
	return m.serve(ctx, "Prepare", req)
}

// Accept implements peerv1.MetaServer.
func (m *metaService) Accept(ctx context.Context, req *peerv1.MetaMessage) (*peerv1.MetaMessage, error) {
	return m.serve(ctx, "Accept", req)
}

// Pledge implements peerv1.MetaServer.
func (m *metaService) Pledge(ctx context.Context, req *peerv1.MetaMessage) (*peerv1.MetaMessage, error) {
	return m.serve(ctx, "Pledge", req)
}

// Found implements peerv1.MetaServer.
func (m *metaService) Found(ctx context.Context, req *peerv1.MetaMessage) (*peerv1.MetaMessage, error) {
	return m.serve(ctx, "Found", req)
}
