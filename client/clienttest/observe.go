package clienttest

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// observeService is the service Observe: two events, of which a cursor "1" leaves
// the second, and the traffic of one node.
type observeService struct {
	pairdbv1.UnimplementedObserveServer
	server *Server
}

// Events implements pairdbv1.ObserveServer.
func (o observeService) Events(_ context.Context, req *pairdbv1.EventsRequest) (*pairdbv1.EventsResponse, error) {
	if req.GetNode() == "nobody" {
		return nil, status.Error(codes.InvalidArgument, `node: there is no node "nobody"`)
	}
	at := func(s int64) *timestamppb.Timestamp { return timestamppb.New(time.Unix(1_700_000_000+s, 0)) }
	name := adminService{server: o.server}.name()
	all := []*pairdbv1.Event{
		{Node: name, Number: 1, Time: at(0), Last: at(0), Kind: "lifecycle", Severity: "info", Text: "this node is ready", Count: 1},
		{
			Node: name, Number: 2, Time: at(5), Last: at(9), Kind: "engine", Severity: "error", Text: "engine job failed", Count: 3, LeftOut: 7,
			Details: []*pairdbv1.EventDetail{{Key: "err", Value: "no\x1b[31m space"}},
		},
	}
	r := &pairdbv1.EventsResponse{NextCursor: "2"}
	switch req.GetCursor() {
	case "":
		r.Events, r.NextCursor = all[:1], "1"
		if req.GetLimit() != 1 {
			r.Events, r.NextCursor = all, "2"
		}
	case "1":
		r.Events = all[1:]
	}
	r.Unreachable = []*pairdbv1.UnreachableNode{{NodeId: "ff", Name: "n-away", Reason: "no route to it"}}
	return r, nil
}

// Traffic implements pairdbv1.ObserveServer.
func (o observeService) Traffic(_ context.Context, req *pairdbv1.TrafficRequest) (*pairdbv1.TrafficResponse, error) {
	ms := func(n int) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Millisecond) }
	r := &pairdbv1.TrafficResponse{Nodes: []*pairdbv1.NodeTraffic{{
		Node: adminService{server: o.server}.name(), Window: durationpb.New(time.Minute), UnderWay: 3, ReadsPerSecond: 100, WritesPerSecond: 50,
		Operations: []*pairdbv1.OperationTraffic{
			{Operation: "get", PerSecond: 100, P50: ms(1), P95: ms(2), P99: ms(4)},
			{Operation: "put", PerSecond: 50, FailedPerSecond: 0.5, P50: ms(5), P95: ms(10), P99: ms(20)},
		},
	}}}
	keys := []*pairdbv1.HotKey{
		{TenantId: "default", Key: []byte("greeting"), Kind: "read", PerSecond: 40, PerSecondError: 0.5, Share: 0.4},
		{TenantId: "shop", Key: []byte("\xff\x00\x1b"), Kind: "write", PerSecond: 10, PerSecondError: 2, Share: 0.2},
	}
	r.HotKeys = keys[:min(len(keys), int(req.GetHotKeys()))]
	return r, nil
}
