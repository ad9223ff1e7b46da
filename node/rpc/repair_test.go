package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pairdb/pairdb/api/errcode"
	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// fakeRepair is a RepairAdmin whose runs do nothing.
type fakeRepair struct {
	mu   sync.Mutex
	runs []RepairRun
	err  error
}

func (f *fakeRepair) StartRepair(_ context.Context, tenant string, partition int) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return "", f.err
	}
	id := fmt.Sprint("own", len(f.runs))
	f.runs = append(f.runs, RepairRun{ID: id, Tenant: tenant, Partition: partition, Started: time.Unix(int64(len(f.runs)), 0), Spans: 4})
	return id, nil
}

func (f *fakeRepair) RepairStatus() RepairStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return RepairStatus{Runs: append([]RepairRun(nil), f.runs...)}
}

// repairing is a server of node 0 of four, of which node 2 is silent and node 3 dead.
func repairing(t *testing.T, admin RepairAdmin) *Server {
	t.Helper()
	f := foundedCluster(t, 4)
	f.with(t, map[int]schema.Liveness{3: schema.Dead})
	opts := serverOptions(t, f.Snapshot().Self, f, echo)
	opts.Asker = &fakeAsker{silent: map[string]bool{"peer2": true}}
	opts.Repair = admin
	s, _ := clientOf(t, opts)
	return s
}

// TestRepairOfAllNodes: whichever node is asked has all begin, and names those that
// could not be told.
func TestRepairOfAllNodes(t *testing.T) {
	admin := &fakeRepair{}
	s := repairing(t, admin)
	ctx := testContext(t)
	p := uint32(5)
	r, err := s.StartRepair(ctx, &pairdbv1.StartRepairRequest{TenantId: "default", Partition: &p})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, run := range r.GetRuns() {
		got += fmt.Sprintf("%s:%s:%s:%d:%d ", run.GetName(), run.GetId(), run.GetTenantId(), run.GetPartition(), run.GetSpans())
	}
	if got != "node0:own0:default:5:4 node1:run1:default:5:10 " {
		t.Errorf("runs %s", got)
	}
	if u := r.GetUnreachable(); len(u) != 2 || u[0].GetName() != "node2" || u[1].GetName() != "node3" {
		t.Errorf("unreachable %v", u)
	}
	if _, err := s.StartRepair(ctx, &pairdbv1.StartRepairRequest{}); err != nil {
		t.Fatal(err)
	}
	if run := admin.runs[1]; run.Tenant != "" || run.Partition != -1 {
		t.Errorf("all is %+v", run)
	}
	admin.mu.Lock()
	admin.runs[0].Ended, admin.runs[0].Error, admin.runs[0].Done = time.Unix(9, 0), "node2 is down", 4
	admin.mu.Unlock()
	st, err := s.RepairStatus(ctx, &pairdbv1.RepairStatusRequest{Ids: []string{"own0"}})
	if err != nil {
		t.Fatal(err)
	}
	if runs := st.GetRuns(); len(runs) != 1 || runs[0].GetError() != "node2 is down" || runs[0].GetDone() != 4 || runs[0].GetEndedAt().GetSeconds() != 9 || runs[0].GetName() != "node0" {
		t.Errorf("status %v", st)
	}
	if st, err := s.RepairStatus(ctx, &pairdbv1.RepairStatusRequest{}); err != nil || len(st.GetRuns()) != 2 || len(st.GetUnreachable()) != 2 {
		t.Errorf("all: %v, %v", st, err)
	}
}

// TestRepairRefusals are told before anything is begun, or by the node itself.
func TestRepairRefusals(t *testing.T) {
	admin := &fakeRepair{}
	s := repairing(t, admin)
	ctx := testContext(t)
	far := uint32(1 << 20)
	for name, c := range map[string]struct {
		req  *pairdbv1.StartRepairRequest
		want errcode.Code
	}{
		"no such partition": {&pairdbv1.StartRepairRequest{Partition: &far}, errcode.InvalidArgument},
		"no tenant id":      {&pairdbv1.StartRepairRequest{TenantId: "No"}, errcode.InvalidTenantID},
		"no such tenant":    {&pairdbv1.StartRepairRequest{TenantId: "nobody"}, errcode.TenantNotFound},
	} {
		if _, err := s.StartRepair(ctx, c.req); err == nil || Classify(err).Code != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.RepairStatus(ctx, &pairdbv1.RepairStatusRequest{Ids: make([]string, maxRunIDs+1)}); err == nil {
		t.Error("any number of ids is taken")
	}
	if len(admin.runs) != 0 {
		t.Errorf("begun: %+v", admin.runs)
	}
	admin.err = errors.New("the node is stopping")
	if _, err := s.StartRepair(ctx, &pairdbv1.StartRepairRequest{}); err == nil {
		t.Error("a refusal of the node's own is not told")
	}
	if _, err := repairing(t, nil).StartRepair(ctx, &pairdbv1.StartRepairRequest{}); err == nil || Classify(err).Code != errcode.Unavailable {
		t.Errorf("without repairs: %v", err)
	}
}

// TestHintsOfAllNodes are added up by the node they are for.
func TestHintsOfAllNodes(t *testing.T) {
	f := foundedCluster(t, 3)
	a, b := f.Snapshot().Members[1].ID, f.Snapshot().Members[2].ID
	opts := serverOptions(t, f.Snapshot().Self, f, echo)
	at := func(s int64) *timestamppb.Timestamp { return timestamppb.New(time.Unix(s, 0)) }
	opts.Observer = observerFunc(func(req *peerv1.ObserveRequest) *peerv1.ObserveResponse {
		if !req.GetHints() {
			t.Error("hints are not asked for")
		}
		return &peerv1.ObserveResponse{Hints: []*peerv1.HintBacklog{{Target: a[:], Count: 1, Bytes: 10, OldestAt: at(9)}, {Target: b[:], Count: 2, Bytes: 20, OldestAt: at(8)}, {Target: []byte("x"), Count: 99}}}
	})
	opts.Asker = hintAsker{fakeAsker: &fakeAsker{silent: map[string]bool{"peer2": true}}, target: b, at: at(5)}
	s, _ := clientOf(t, opts)
	r, err := s.Hints(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, h := range r.GetTargets() {
		got += fmt.Sprintf("%s:%d:%d:%d", h.GetName(), h.GetCount(), h.GetBytes(), h.GetOldestAt().GetSeconds())
		for _, o := range h.GetHolders() {
			got += fmt.Sprintf(":%s=%d", o.GetName(), o.GetCount())
		}
		got += " "
	}
	if got != "node1:1:10:9:node0=1 node2:5:50:5:node0=2:node1=3 " {
		t.Errorf("targets %s", got)
	}
	if u := r.GetUnreachable(); len(u) != 1 || u[0].GetName() != "node2" {
		t.Errorf("unreachable %v", u)
	}
}

// hintAsker is a fakeAsker whose nodes keep three hints.
type hintAsker struct {
	*fakeAsker
	target ring.NodeID
	at     *timestamppb.Timestamp
}

func (a hintAsker) Observe(ctx context.Context, addr string, _ *peerv1.ObserveRequest) (*peerv1.ObserveResponse, error) {
	info, err := a.Info(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &peerv1.ObserveResponse{NodeId: info.Node[:], Hints: []*peerv1.HintBacklog{{Target: a.target[:], Count: 3, Bytes: 30, OldestAt: a.at}}}, nil
}
