package clienttest

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// nodeNamed finds the node that a request names, the first one if it names none.
func (s *Store) nodeNamedLocked(text string) (id, name string, err error) {
	if text == "" {
		id, name = identity(0)
		return id, name, nil
	}
	for i := range s.mu.nodes {
		if id, name = identity(i); name == text || id == text {
			return id, name, nil
		}
	}
	if text == lost {
		return "ff", lost, nil
	}
	return "", "", refusedChange(errcode.InvalidArgument, `node: there is no node "`+text+`"`)
}

// Drain implements pairdbv1.ClusterServer. The second look finds it done; that of the
// lost node is never done.
func (c clusterService) Drain(_ context.Context, req *pairdbv1.DrainRequest) (*pairdbv1.NodeDrain, error) {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	id, name, err := s.nodeNamedLocked(req.GetNode())
	if err != nil {
		return nil, err
	}
	if req.GetUndo() {
		s.mu.drain = nil
		return &pairdbv1.NodeDrain{NodeId: id, Name: name, State: "serving"}, nil
	}
	s.mu.drain = &pairdbv1.NodeDrain{
		NodeId: id, Name: name, State: "draining", Detail: "finishing the requests that are under way", Requests: 3,
		AskedAt: timestamppb.New(time.Unix(1_700_000_000, 0)),
	}
	return proto.CloneOf(s.mu.drain), nil
}

// DrainStatus implements pairdbv1.ClusterServer.
func (c clusterService) DrainStatus(_ context.Context, req *pairdbv1.DrainStatusRequest) (*pairdbv1.NodeDrain, error) {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	id, name, err := s.nodeNamedLocked(req.GetNode())
	if err != nil {
		return nil, err
	}
	d := s.mu.drain
	if d == nil || d.GetNodeId() != id {
		return &pairdbv1.NodeDrain{NodeId: id, Name: name, State: "serving"}, nil
	}
	was := proto.CloneOf(d)
	if name != lost {
		d.State, d.Detail, d.Requests, d.DrainedAt = "drained", "", 0, timestamppb.New(time.Unix(1_700_000_001, 0))
	}
	return was, nil
}

// SafeToStop implements pairdbv1.ClusterServer: it is safe once the node is drained.
func (c clusterService) SafeToStop(_ context.Context, req *pairdbv1.SafeToStopRequest) (*pairdbv1.SafeToStopResponse, error) {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	id, name, err := s.nodeNamedLocked(req.GetNode())
	if err != nil {
		return nil, err
	}
	r := &pairdbv1.SafeToStopResponse{NodeId: id, Name: name, Safe: s.mu.drain.GetState() == "drained"}
	if !r.GetSafe() {
		r.Reasons = []*pairdbv1.StopReason{
			{Kind: "hints", Text: "3 writes wait to be delivered to n-away\x1b[31m", Next: "wait until pairdb hints is empty", Nodes: []string{name}},
			{Kind: "unverified", Text: "owners of up to 7 spans have not been found equal", Next: "wait for the rounds"},
		}
	}
	return r, nil
}
