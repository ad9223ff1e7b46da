package clienttest

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// lost is a node of the pretended cluster that is dead, joiner one that waits to join.
const (
	lost   = "n-away"
	joiner = "n-new"
)

// changed is what the pretended cluster knows of changes of its ring.
type changed struct {
	open   *pairdbv1.NodeChange // the last one asked for
	begun  bool                 // by CommitChange
	looked int                  // how often it was asked for since
}

// refusedChange is a change that was not begun.
func refusedChange(code errcode.Code, msg string) error {
	return Fail(code, msg, map[string]string{errcode.MetaOutcome: string(errcode.NotApplied)})
}

// note begins a change of a node, unless it is only checked.
func (c clusterService) note(verb, node string, checkOnly bool, mustBeDead bool) (*pairdbv1.NodeChange, error) {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for i := range s.mu.nodes {
		_, name := identity(i)
		names = append(names, name)
	}
	names = append(names, lost)
	m := &pairdbv1.NodeChange{Verb: verb, State: "waiting", AskedAt: timestamppb.New(time.Unix(1_700_000_000, 0))}
	for i, name := range names {
		if id, _ := identity(i); name == node || id == node {
			m.NodeId, m.Name = id, name
		}
	}
	switch {
	case node == "n":
		return nil, refusedChange(errcode.InvalidArgument, `node: "n" is ambiguous: it can be `+strings.Join(names, ", "))
	case m.GetName() == "":
		return nil, refusedChange(errcode.InvalidArgument, `node: there is no node "`+node+`"; there is `+strings.Join(names, ", "))
	case mustBeDead && m.GetName() != lost:
		return nil, refusedChange(errcode.NodeInUse, "the node is alive: "+m.GetName())
	case checkOnly:
		return m, nil
	}
	m.Id = strings.Repeat("c1", 16)
	s.mu.changed = changed{open: m}
	return proto.CloneOf(m), nil
}

// PlanChange implements pairdbv1.ClusterServer: one node waits to join, until that is
// committed.
func (c clusterService) PlanChange(context.Context, *pairdbv1.PlanChangeRequest) (*pairdbv1.PlanChangeResponse, error) {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &pairdbv1.PlanChangeResponse{RingVersion: 2, Changing: s.mu.changed.begun}
	if s.mu.changed.begun {
		return resp, nil
	}
	id, name := identity(0)
	resp.Nodes = []*pairdbv1.PlannedNode{
		{NodeId: strings.Repeat("0e", 16), Name: joiner, Capacity: 100, After: 512, Gains: 512, GainsBytes: 1 << 29},
		{NodeId: id, Name: name, Zone: "z1", Capacity: 100, Before: 1024, After: 512, Gives: 512},
	}
	resp.Carries = []*pairdbv1.NodeChange{{Id: strings.Repeat("0e", 16), Verb: "join", NodeId: strings.Repeat("0e", 16), Name: joiner, State: "waiting", WaitsFor: "pairdb cluster commit"}}
	resp.Cannot = []*pairdbv1.NodeChange{{Id: strings.Repeat("c0", 16), Verb: "leave", NodeId: id, Name: name, State: "waiting", WaitsFor: "too few nodes would remain"}}
	resp.MovingCopies, resp.MovingBytes = 512, 1<<29
	return resp, nil
}

// ringNow is the state of the pretended ring.
func (s *Store) ringNowLocked() *pairdbv1.RingStatus {
	if s.mu.changed.begun {
		return &pairdbv1.RingStatus{Version: 3, FinalizedVersion: 2, Changing: true, Stage: "proposed", WaitingFor: []string{joiner}}
	}
	return &pairdbv1.RingStatus{Version: 2, FinalizedVersion: 2, Stage: "stable"}
}

// CommitChange implements pairdbv1.ClusterServer.
func (c clusterService) CommitChange(context.Context, *pairdbv1.CommitChangeRequest) (*pairdbv1.CommitChangeResponse, error) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if c.store.mu.changed.begun {
		return nil, refusedChange(errcode.PreconditionFailed, "a change of the layout is open")
	}
	c.store.mu.changed = changed{begun: true}
	return &pairdbv1.CommitChangeResponse{Ring: c.store.ringNowLocked()}, nil
}

// AbortChange implements pairdbv1.ClusterServer.
func (c clusterService) AbortChange(_ context.Context, req *pairdbv1.AbortChangeRequest) (*pairdbv1.AbortChangeResponse, error) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	was := c.store.mu.changed
	if req.GetId() != "" && (was.open == nil || was.open.GetId() != req.GetId()) || req.GetId() == "" && !was.begun {
		return nil, refusedChange(errcode.PreconditionFailed, "no change is under way")
	}
	c.store.mu.changed = changed{}
	return &pairdbv1.AbortChangeResponse{Ring: c.store.ringNowLocked()}, nil
}

// Decommission implements pairdbv1.ClusterServer.
func (c clusterService) Decommission(_ context.Context, req *pairdbv1.DecommissionRequest) (*pairdbv1.NodeChange, error) {
	return c.note("leave", req.GetNode(), req.GetCheckOnly(), false)
}

// Replace implements pairdbv1.ClusterServer.
func (c clusterService) Replace(_ context.Context, req *pairdbv1.ReplaceRequest) (*pairdbv1.NodeChange, error) {
	if by := req.GetBy(); by != "" && by != joiner && by != strings.Repeat("0e", 16) {
		return nil, refusedChange(errcode.InvalidArgument, `by: there is no node "`+by+`"; there is `+joiner)
	}
	m, err := c.note("replace", req.GetDead(), req.GetCheckOnly(), true)
	if m != nil {
		c.store.mu.Lock()
		defer c.store.mu.Unlock()
		for _, to := range []*pairdbv1.NodeChange{m, c.store.mu.changed.open} {
			if to.GetVerb() == "replace" {
				to.ByNodeId, to.ByName = strings.Repeat("0e", 16), joiner
			}
		}
	}
	return m, err
}

// Remove implements pairdbv1.ClusterServer.
func (c clusterService) Remove(_ context.Context, req *pairdbv1.RemoveRequest) (*pairdbv1.NodeChange, error) {
	if !req.GetAcceptLoss() {
		return nil, refusedChange(errcode.InvalidArgument, "accept_loss is not set")
	}
	m, err := c.note("remove", req.GetNode(), req.GetCheckOnly(), true)
	if m != nil && len(req.GetAlsoLost()) > 0 { // told when it is checked
		m.GivenUp = givenUp()
	}
	return m, err
}

// givenUp is what goes with more than one node of the pretended cluster.
func givenUp() []*pairdbv1.GivenUp {
	return []*pairdbv1.GivenUp{{ReplicationFactor: 3, TenantIds: []string{"default", "shop"}, Partitions: []uint32{0, 1, 2, 5, 7, 8}, EmptyPartitions: []uint32{5}}}
}

// Recover implements pairdbv1.ClusterServer: only if the lost node is named.
func (c clusterService) Recover(_ context.Context, req *pairdbv1.RecoverRequest) (*pairdbv1.RecoverResponse, error) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	id, name := identity(0)
	switch {
	case !req.GetAcceptLoss():
		return nil, refusedChange(errcode.InvalidArgument, "accept_loss is not set")
	case len(req.GetLost()) == 0 || req.GetLost()[0] == name:
		return nil, refusedChange(errcode.NodeInUse, "the node is alive: "+name)
	case req.GetLost()[0] != lost:
		return nil, refusedChange(errcode.PreconditionFailed, "a majority of the voters is left")
	}
	return &pairdbv1.RecoverResponse{
		Ring: c.store.ringNowLocked(), Lost: []*pairdbv1.TransferNode{{NodeId: "ff", Name: lost}},
		Voters: []*pairdbv1.TransferNode{{NodeId: id, Name: name}}, Left: []*pairdbv1.TransferNode{{NodeId: id, Name: name}}, GivenUp: givenUp(),
	}, nil
}

// Weigh implements pairdbv1.ClusterServer.
func (c clusterService) Weigh(_ context.Context, req *pairdbv1.WeighRequest) (*pairdbv1.NodeChange, error) {
	if n := req.GetCapacity(); n < 1 || n > 10_000 {
		return nil, refusedChange(errcode.InvalidArgument, "capacity: want 1 to 10000")
	}
	m, err := c.note("weigh", req.GetNode(), req.GetCheckOnly(), false)
	if m != nil {
		c.store.mu.Lock()
		defer c.store.mu.Unlock()
		m.Capacity = req.GetCapacity()
		if to := c.store.mu.changed.open; to.GetVerb() == "weigh" {
			to.Capacity = req.GetCapacity()
		}
	}
	return m, err
}

// ChangeStatus implements pairdbv1.ClusterServer. Each question finds it further; that
// of a removal is aborted in the end.
func (c clusterService) ChangeStatus(_ context.Context, req *pairdbv1.ChangeStatusRequest) (*pairdbv1.NodeChange, error) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	m := c.store.mu.changed.open
	if m == nil || m.GetId() != req.GetId() {
		return nil, Fail(errcode.MigrationNotFound, "no node that answers knows a change "+req.GetId(), nil)
	}
	c.store.mu.changed.looked++
	at := timestamppb.New(time.Unix(1_700_000_001, 0))
	switch c.store.mu.changed.looked {
	case 1:
		m.State, m.WaitsFor, m.BegunAt = "moving", "the new owners to fetch what they lack: n2", at
		m.Spans, m.SpansDone, m.KeysDone, m.BytesDone, m.BytesTotal, m.Percent = 40, 10, 7, 1<<20, 4<<20, 25
	case 2:
		m.State, m.WaitsFor, m.SpansDone, m.Percent = "cleaning", "", 40, 100
	default:
		m.State, m.EndedAt = "done", at
		if m.GetVerb() == "remove" {
			m.State = "aborted"
		}
	}
	return proto.CloneOf(m), nil
}

// Transfers implements pairdbv1.ClusterServer: while a change is begun, one runs and one
// waits; the third question finds it ended.
func (c clusterService) Transfers(_ context.Context, req *pairdbv1.TransfersRequest) (*pairdbv1.TransfersResponse, error) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	id, name := identity(0)
	node := &pairdbv1.TransferNode{NodeId: id, Name: name}
	to := &pairdbv1.TransferNode{NodeId: strings.Repeat("0e", 16), Name: joiner}
	resp := &pairdbv1.TransfersResponse{Unreachable: []*pairdbv1.UnreachableNode{{NodeId: "ff", Name: lost, Reason: "no route to it"}}}
	if c.store.mu.changed.begun {
		if c.store.mu.changed.looked++; c.store.mu.changed.looked > 2 {
			c.store.mu.changed = changed{}
		}
	}
	if resp.Ring = c.store.ringNowLocked(); resp.GetRing().GetChanging() {
		resp.Transfers = []*pairdbv1.Transfer{
			{Id: "t1", Kind: "gain", Partition: 5, ReplicationFactor: 3, From: []*pairdbv1.TransferNode{node}, To: to, KeysDone: 3, BytesDone: 1 << 20, BytesTotal: 4 << 20, State: "running"},
			{Id: "t2", Kind: "cleanup", Partition: 6, ReplicationFactor: 3, From: []*pairdbv1.TransferNode{node}, State: "waiting", Error: "n-away is \x1b[31mdown"},
		}
		resp.Running, resp.Waiting, resp.Spans, resp.SpansDone, resp.BytesDone, resp.BytesTotal = 1, 1, 40, 10, 1<<20, 0
	}
	if req.GetAll() {
		resp.Transfers = append(resp.Transfers, &pairdbv1.Transfer{Id: "t0", Kind: "gain", Partition: 4, ReplicationFactor: 3, From: []*pairdbv1.TransferNode{node}, To: to, KeysDone: 9, BytesDone: 100, BytesTotal: 100, State: "done"})
	}
	return resp, nil
}
