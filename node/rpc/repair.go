package rpc

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pairdb/pairdb/api/errcode"
	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// RepairAdmin starts repairs of what this node drives, and says how far they are.
type RepairAdmin interface {
	// StartRepair begins rounds over what matches: tenant "" is all, partition -1 is
	// all. It returns the id of the run; a run like one under way joins it.
	StartRepair(ctx context.Context, tenant string, partition int) (id string, err error)
	// RepairStatus returns the latest runs of this node, the oldest first.
	RepairStatus() RepairStatus
}

// RepairStatus is what repairs of this node have come to.
type RepairStatus struct {
	Runs []RepairRun
}

// RepairRun is the part of a repair that this node drives.
type RepairRun struct {
	ID string
	// Tenant and Partition are what was asked for, "" and -1 for all.
	Tenant    string
	Partition int
	// Ended is zero while the run is under way.
	Started, Ended time.Time
	// Spans are those that this node drives, Done those dealt with, Confirmed those
	// of which all owners are equal.
	Spans, Done, Confirmed int
	// KeysDiffered between owners; RowsSent were brought to those that lacked them, with
	// Bytes.
	KeysDiffered, RowsSent, Bytes uint64
	// Error is why spans were not confirmed, for one of them, and names owners that
	// were not there; empty if all were or the run is under way.
	Error string
}

func (r *RepairRun) message() *pairdbv1.RepairRun {
	m := &pairdbv1.RepairRun{
		Id: r.ID, TenantId: r.Tenant, StartedAt: timestamppb.New(r.Started),
		Spans: uint32(r.Spans), Done: uint32(r.Done), Confirmed: uint32(r.Confirmed),
		KeysDiffered: r.KeysDiffered, RowsSent: r.RowsSent, Bytes: r.Bytes, Error: clip(r.Error, maxCauseBytes),
	}
	if r.Partition >= 0 {
		p := uint32(r.Partition)
		m.Partition = &p
	}
	if !r.Ended.IsZero() {
		m.EndedAt = timestamppb.New(r.Ended)
	}
	return m
}

// repairs are the latest runs of this node, for others.
func (s *Server) repairs() []*pairdbv1.RepairRun {
	if s.opts.Repair == nil {
		return nil
	}
	var out []*pairdbv1.RepairRun
	runs := s.opts.Repair.RepairStatus().Runs
	for i := range runs {
		out = append(out, runs[i].message())
	}
	return out
}

// startRepair begins a run of this node.
func (s *Server) startRepair(ctx context.Context, what *pairdbv1.StartRepairRequest) (*pairdbv1.RepairRun, error) {
	if s.opts.Repair == nil {
		return nil, &coord.Error{Code: errcode.Unavailable, Outcome: errcode.NotApplied, Message: "this node makes no repairs"}
	}
	partition := -1
	if what.Partition != nil {
		partition = int(what.GetPartition())
	}
	id, err := s.opts.Repair.StartRepair(ctx, what.GetTenantId(), partition)
	if err != nil {
		return nil, err
	}
	for _, r := range s.repairs() {
		if r.GetId() == id {
			return r, nil
		}
	}
	// It has ended, and others have pushed it out since.
	return &pairdbv1.RepairRun{Id: id, TenantId: what.GetTenantId(), Partition: what.Partition}, nil
}

// StartRepair implements peerv1.PeerServer, for members.
func (p *peerService) StartRepair(ctx context.Context, req *peerv1.StartRepairRequest) (*peerv1.StartRepairResponse, error) {
	if err := checkCaller(p.frames.cluster(), req.GetClusterId(), req.GetSender()); err != nil {
		return nil, err
	}
	if !p.frames.member(ring.NodeID(req.GetSender())) {
		return nil, status.Error(codes.PermissionDenied, "the caller is no member of this cluster")
	}
	run, err := p.startRepair(ctx, req.GetWhat())
	if err != nil {
		return nil, status.Error(codes.Unavailable, clip(err.Error(), maxCauseBytes))
	}
	return &peerv1.StartRepairResponse{NodeId: p.frames.self[:], Run: run}, nil
}

// StartRepair asks the node at addr, host:port, to begin rounds.
func (c *MetaClient) StartRepair(ctx context.Context, addr string, what *pairdbv1.StartRepairRequest) (*peerv1.StartRepairResponse, error) {
	conn, done, err := c.conn(addr)
	if err != nil {
		return nil, fmt.Errorf("start a repair at %s: %w", addr, err)
	}
	defer done()
	cluster, self := c.opts.Identity()
	resp, err := peerv1.NewPeerClient(conn).StartRepair(ctx, &peerv1.StartRepairRequest{ClusterId: idBytes(cluster), Sender: idBytes(self), What: what})
	if err != nil {
		return nil, fmt.Errorf("start a repair at %s: %w", addr, remoteError(ctx, err))
	}
	return resp, nil
}

// StartRepair implements pairdbv1.ClusterServer.
func (c *clusterService) StartRepair(ctx context.Context, req *pairdbv1.StartRepairRequest) (*pairdbv1.StartRepairResponse, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	return c.s.StartRepair(ctx, req)
}

// StartRepair has all members begin rounds of what they drive.
func (s *Server) StartRepair(ctx context.Context, req *pairdbv1.StartRepairRequest) (*pairdbv1.StartRepairResponse, error) {
	snap := s.opts.Metadata.Snapshot()
	if snap.Layout == nil {
		return nil, &coord.Error{Code: errcode.Unavailable, Message: "there is no ring yet; the cluster is not founded"}
	}
	if n := snap.Layout.Partitions(); req.Partition != nil && int64(req.GetPartition()) >= int64(n) {
		return nil, invalid("partition: there are " + strconv.Itoa(n) + ", numbered from 0")
	}
	if id := req.GetTenantId(); id != "" {
		if err := schema.ValidateTenantID(id); err != nil {
			return nil, err
		}
		if _, _, err := findTenant(ctx, s.opts.Metadata, id); err != nil {
			return nil, err
		}
	}
	type started struct {
		run *pairdbv1.RepairRun
		err error
	}
	answers, silent := askMembers(ctx, snap, func(*schema.Member) bool { return true },
		func() started { run, err := s.startRepair(ctx, req); return started{run, err} },
		func(ctx context.Context, m *schema.Member) (started, ring.NodeID, error) {
			r, err := s.opts.Asker.StartRepair(ctx, m.Addresses.Peer, req)
			var id ring.NodeID
			copy(id[:], r.GetNodeId())
			return started{run: r.GetRun()}, id, err
		})
	if a, ok := answers[snap.Self]; ok && a.err != nil {
		return nil, a.err
	}
	resp := &pairdbv1.StartRepairResponse{Unreachable: silentNodes(snap, silent)}
	for i := range snap.Members {
		if a, ok := answers[snap.Members[i].ID]; ok && a.run != nil {
			resp.Runs = append(resp.Runs, ofNode(a.run, &snap.Members[i]))
		}
	}
	sortRuns(resp.Runs)
	return resp, nil
}

func ofNode(r *pairdbv1.RepairRun, m *schema.Member) *pairdbv1.RepairRun {
	r.NodeId, r.Name = m.ID.String(), m.Name
	return r
}

func sortRuns(runs []*pairdbv1.RepairRun) {
	slices.SortStableFunc(runs, func(a, b *pairdbv1.RepairRun) int {
		return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), compareTimes(a.GetStartedAt(), b.GetStartedAt()))
	})
}

// maxRunIDs bounds the runs that are asked for.
const maxRunIDs = 1000

// RepairStatus implements pairdbv1.ClusterServer.
func (c *clusterService) RepairStatus(ctx context.Context, req *pairdbv1.RepairStatusRequest) (*pairdbv1.RepairStatusResponse, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	return c.s.RepairStatus(ctx, req)
}

// RepairStatus asks all members how far repairs are.
func (s *Server) RepairStatus(ctx context.Context, req *pairdbv1.RepairStatusRequest) (*pairdbv1.RepairStatusResponse, error) {
	if len(req.GetIds()) > maxRunIDs {
		return nil, invalid("ids: at most " + strconv.Itoa(maxRunIDs))
	}
	snap, answers, silent, err := s.observe(ctx, "", func(ring.NodeID) *peerv1.ObserveRequest { return &peerv1.ObserveRequest{Repairs: true} })
	if err != nil {
		return nil, err
	}
	resp := &pairdbv1.RepairStatusResponse{Unreachable: silentNodes(snap, silent)}
	for i := range snap.Members {
		for _, r := range answers[snap.Members[i].ID].GetRepairs() {
			if len(req.GetIds()) == 0 || slices.Contains(req.GetIds(), r.GetId()) {
				resp.Runs = append(resp.Runs, ofNode(r, &snap.Members[i]))
			}
		}
	}
	sortRuns(resp.Runs)
	return resp, nil
}
