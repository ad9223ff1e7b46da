package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// named is a node of a cluster in a test: id, name and peer address by number.
func named(i int) (ring.NodeID, string, string) {
	return ring.NodeID{byte(i + 1)}, fmt.Sprintf("node%d", i), fmt.Sprintf("peer%d", i)
}

// foundedCluster is a cluster of n nodes seen by node 0, with the tenants
// default (RF 3) and wide (RF 5).
func foundedCluster(t *testing.T, n int) *fakeCluster {
	t.Helper()
	var nodes []ring.LayoutNode
	self, _, _ := named(0)
	s := schema.Snapshot{ClusterID: testCluster, Self: self, Version: 7, Ready: true}
	for i := range n {
		id, name, peer := named(i)
		nodes = append(nodes, ring.LayoutNode{ID: id, Name: name, Zone: "z", Capacity: 1})
		s.Members = append(s.Members, schema.Member{
			ID: id, Name: name, Zone: "z", Capacity: 1, Liveness: schema.Alive, Incarnation: 2,
			Addresses: schema.Addresses{GRPC: "grpc", Peer: peer, HTTP: "http", Gossip: "gossip" + name},
		})
	}
	layout, err := ring.NewLayout(64, nodes)
	if err != nil {
		t.Fatal(err)
	}
	s.Layout = layout
	f := new(fakeCluster)
	f.snap.Store(schema.Build(s, []*schema.Tenant{
		{Number: 1, Name: "default", RF: 3, Policy: schema.PolicyLWW},
		{Number: 2, Name: "wide", RF: 5, Policy: schema.PolicySiblings},
	}))
	return f
}

// with changes the liveness of members.
func (f *fakeCluster) with(t *testing.T, liveness map[int]schema.Liveness) {
	t.Helper()
	members := slices.Clone(f.Snapshot().Members)
	for i, l := range liveness {
		id, _, _ := named(i)
		for j := range members {
			if members[j].ID == id {
				members[j].Liveness = l
			}
		}
	}
	f.snap.Store(f.Snapshot().WithMembers(members))
}

// withdraw marks a node as withdrawn.
func (f *fakeCluster) withdraw(i int) {
	id, _, _ := named(i)
	members := slices.Clone(f.Snapshot().Members)
	for j := range members {
		members[j].Withdrawn = members[j].ID == id
	}
	f.snap.Store(f.Snapshot().WithMembers(members))
}

// fakeAsker answers for every node but the silent ones.
type fakeAsker struct {
	mu     sync.Mutex
	silent map[string]bool
	asked  []string
	wrong  string
}

func (a *fakeAsker) Info(_ context.Context, addr string) (NodeInfo, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, addr)
	if a.silent[addr] {
		return NodeInfo{}, errors.New("no route to it")
	}
	var i int
	if _, err := fmt.Sscanf(addr, "peer%d", &i); err != nil {
		return NodeInfo{}, err
	}
	id, _, _ := named(i)
	if addr == a.wrong {
		id = ring.NodeID{0xff}
	}
	return NodeInfo{Node: id, Bytes: uint64(1000 + i), Keys: uint64(i), Incarnation: 3, RepairedAt: time.Unix(1000, 0), Hints: 7, Quarantined: 2}, nil
}

// Observe answers with one event and one hot key, as the node of that number.
func (a *fakeAsker) Observe(_ context.Context, addr string, req *peerv1.ObserveRequest) (*peerv1.ObserveResponse, error) {
	info, err := a.Info(context.Background(), addr)
	if err != nil {
		return nil, err
	}
	return observed(int(info.Keys), info.Node, req), nil
}

// Scrub answers as the node of that number, which has read as many bytes.
func (a *fakeAsker) Scrub(_ context.Context, addr string, start bool) (*peerv1.ScrubResponse, error) {
	info, err := a.Info(context.Background(), addr)
	if err != nil {
		return nil, err
	}
	return &peerv1.ScrubResponse{NodeId: info.Node[:], Scrub: &pairdbv1.NodeScrub{BytesDone: info.Bytes, Running: start}}, nil
}

// StartRepair begins a run named after the node.
func (a *fakeAsker) StartRepair(ctx context.Context, addr string, what *pairdbv1.StartRepairRequest) (*peerv1.StartRepairResponse, error) {
	info, err := a.Info(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &peerv1.StartRepairResponse{NodeId: info.Node[:], Run: &pairdbv1.RepairRun{Id: fmt.Sprint("run", info.Keys), TenantId: what.GetTenantId(), Partition: what.Partition, Spans: 10}}, nil
}

func TestStatus(t *testing.T) {
	for name, c := range map[string]struct {
		nodes       int
		liveness    map[int]schema.Liveness
		silent      map[string]bool
		withdrawn   int // which node has withdrawn, from 1; 0: none
		wrong       string
		verdict     string
		reason      string
		states      []string
		unreachable []string
	}{
		"all well": {nodes: 3, verdict: "healthy", reason: "All 3 nodes are up.", states: []string{"up", "up", "up"}},
		"one dead": {
			nodes: 5, liveness: map[int]schema.Liveness{1: schema.Dead},
			verdict: "degraded", reason: "Down: node1. Every partition has a quorum.",
			states: []string{"up", "down", "up", "up", "up"}, unreachable: []string{"node1"},
		},
		"one does not answer": {
			nodes: 5, silent: map[string]bool{"peer2": true},
			verdict: "degraded", reason: "node2", states: []string{"up", "up", "suspect", "up", "up"}, unreachable: []string{"node2"},
		},
		"one has withdrawn": {
			nodes: 3, withdrawn: 3, verdict: "degraded", reason: "Down: node2 (withdrawn). Every partition has a quorum.",
			states: []string{"up", "up", "withdrawn"},
		},
		"this one has withdrawn": {
			nodes: 3, withdrawn: 1, verdict: "degraded", reason: "Down: node0 (withdrawn).", states: []string{"withdrawn", "up", "up"},
		},
		"one suspected": {
			nodes: 3, liveness: map[int]schema.Liveness{1: schema.Suspect},
			verdict: "healthy", reason: "up", states: []string{"up", "suspect", "up"},
		},
		"two of three": {
			nodes: 3, liveness: map[int]schema.Liveness{1: schema.Dead, 2: schema.Left},
			verdict: "unhealthy", reason: "64 of 64 partitions have no quorum at replication factor 3",
			states: []string{"up", "down", "left"}, unreachable: []string{"node1", "node2"},
		},
		"another node at the address": {
			nodes: 3, wrong: "peer1", verdict: "degraded", reason: "node1", states: []string{"up", "suspect", "up"}, unreachable: []string{"node1"},
		},
		"alone": {nodes: 1, verdict: "healthy", reason: "All 1 nodes are up.", states: []string{"up"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := foundedCluster(t, c.nodes)
			f.with(t, c.liveness)
			if c.withdrawn > 0 {
				f.withdraw(c.withdrawn - 1)
			}
			asker := &fakeAsker{silent: c.silent, wrong: c.wrong}
			opts := serverOptions(t, f.Snapshot().Self, f, echo)
			opts.Asker = asker
			s, conn := clientOf(t, opts)
			r, err := pairdbv1.NewClusterClient(conn).Status(testContext(t), &pairdbv1.StatusRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if r.GetVerdict() != c.verdict || !strings.Contains(r.GetReason(), c.reason) {
				t.Errorf("%s: %s", r.GetVerdict(), r.GetReason())
			}
			if r.GetClusterId() != testCluster.String() || r.GetRing().GetVersion() != 7 || r.GetRing().GetFinalizedVersion() != 7 || r.GetRing().GetChanging() {
				t.Errorf("%v", r)
			}
			var states, silent []string
			partitions := uint32(0)
			for i, n := range r.GetNodes() {
				states = append(states, n.GetState())
				partitions += n.GetPartitions()
				answered := i > 0 && n.GetBytes() == uint64(1000+i) && n.GetIncarnation() == 3
				if i == 0 {
					answered = n.GetBytes() == 4
				}
				isSilent := slices.ContainsFunc(r.GetUnreachable(), func(u *pairdbv1.UnreachableNode) bool { return u.GetNodeId() == n.GetNodeId() })
				if answered == isSilent {
					t.Errorf("node %s: bytes %d, unreachable %v", n.GetName(), n.GetBytes(), isSilent)
				}
			}
			for _, u := range r.GetUnreachable() {
				silent = append(silent, u.GetName())
				if u.GetReason() == "" {
					t.Errorf("%s: no reason", u.GetName())
				}
			}
			slices.Sort(silent)
			if !slices.Equal(states, c.states) || !slices.Equal(silent, c.unreachable) {
				t.Errorf("states %q, unreachable %q", states, silent)
			}
			if want := uint32(64 * min(c.nodes, 5)); partitions != want {
				t.Errorf("%d partitions in all, want %d", partitions, want)
			}
			if slices.Contains(asker.asked, "peer0") {
				t.Error("the node asked itself over the network")
			}
			figures := s.Figures(testContext(t))
			if len(figures) != c.nodes-len(c.unreachable) || figures[f.Snapshot().Self].Keys != 5 {
				t.Errorf("figures %v", figures)
			}
		})
	}
}

func TestBeforeFounding(t *testing.T) {
	f := clusterOf(nodeB)
	snap := *f.Snapshot()
	snap.ClusterID = ring.ClusterID{}
	f.snap.Store(schema.Build(snap, nil))
	_, conn := clientOf(t, serverOptions(t, nodeB, f, echo))
	c := pairdbv1.NewClusterClient(conn)
	r, err := c.Status(testContext(t), &pairdbv1.StatusRequest{})
	if err != nil || r.GetVerdict() != "unhealthy" || r.GetClusterId() != "" || len(r.GetNodes()) != 1 || r.GetNodes()[0].GetState() != "waiting" {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := c.Ring(testContext(t), &pairdbv1.RingRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("ring: %v", err)
	}
}

func TestMembersAndRing(t *testing.T) {
	f := foundedCluster(t, 4)
	f.with(t, map[int]schema.Liveness{2: schema.Dead, 3: schema.LivenessUnknown})
	_, conn := clientOf(t, serverOptions(t, f.Snapshot().Self, f, echo))
	c := pairdbv1.NewClusterClient(conn)
	ctx := testContext(t)
	m, err := c.Members(ctx, &pairdbv1.MembersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range m.GetMembers() {
		got = append(got, x.GetName()+" "+x.GetLiveness()+" "+x.GetAddress())
	}
	want := []string{"node0 alive gossipnode0", "node1 alive gossipnode1", "node2 dead gossipnode2", "node3 dead gossipnode3"}
	if !slices.Equal(got, want) || len(m.GetUnreachable()) != 2 {
		t.Errorf("members %q, unreachable %v", got, m.GetUnreachable())
	}

	layout, err := c.Ring(ctx, &pairdbv1.RingRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first, all := uint32(0), uint32(0)
	for _, n := range layout.GetNodes() {
		first += n.GetFirstPartitions()
		all += n.GetPartitions()
	}
	if layout.GetPartitions() != 64 || first != 64 || all != 64*4 || layout.GetRingVersion() != 7 || layout.Key != nil || layout.Token != nil {
		t.Errorf("layout %v", layout)
	}

	for _, tenant := range []string{"", "wide"} {
		key, err := c.Ring(ctx, &pairdbv1.RingRequest{Key: []byte("some key"), TenantId: tenant})
		if err != nil {
			t.Fatal(err)
		}
		number, rf := ring.TenantNumber(1), 3
		if tenant == "wide" {
			number, rf = 2, 4
		}
		l := f.Snapshot().Layout
		token := ring.KeyToken(number, []byte("some key"))
		p := l.PartitionOf(token)
		if key.GetToken() != uint64(token) || key.Partition == nil || key.GetPartition() != uint32(p) || string(key.GetKey()) != "some key" || len(key.GetOwners()) != rf {
			t.Errorf("place %v", key)
		}
		for i, id := range l.Owners(nil, p, rf) {
			if key.GetOwners()[i].GetNodeId() != id.String() || key.GetOwners()[i].GetName() == "" {
				t.Errorf("owner %d: %v", i, key.GetOwners()[i])
			}
		}
	}
	for _, bad := range []struct {
		req  *pairdbv1.RingRequest
		code errcode.Code
	}{
		{&pairdbv1.RingRequest{Key: make([]byte, 1025)}, errcode.KeyTooLarge},
		{&pairdbv1.RingRequest{Key: []byte("k"), TenantId: "nobody"}, errcode.TenantNotFound},
		{&pairdbv1.RingRequest{Key: []byte("k"), TenantId: "Upper"}, errcode.InvalidTenantID},
	} {
		_, err := c.Ring(ctx, bad.req)
		if info, _ := details(t, err); errcode.Code(info.GetReason()) != bad.code {
			t.Errorf("got %v, want %s", err, bad.code)
		}
	}
}

func TestTenants(t *testing.T) {
	f := foundedCluster(t, 3)
	f.late = map[string]*schema.Tenant{"fresh": {Number: 9, Name: "fresh", RF: 1, Policy: schema.PolicyLWW}}
	made := time.UnixMilli(1700000000123).UTC()
	f.create = func(ctx context.Context, name string, rf int, p schema.ConflictPolicy) (schema.Tenant, error) {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("no deadline")
		}
		if name == "taken" {
			return schema.Tenant{}, fmt.Errorf("create: %w", &coord.Error{Code: errcode.TenantExists, Outcome: errcode.NotApplied})
		}
		if name == "broken" {
			return schema.Tenant{}, errors.New("disk on fire at /var/lib")
		}
		return schema.Tenant{Number: 3, Name: name, RF: rf, Policy: p, CreatedAt: made, UpdatedAt: made}, nil
	}
	opts := serverOptions(t, f.Snapshot().Self, f, echo)
	opts.Logger = nil
	_, conn := clientOf(t, opts)
	c := pairdbv1.NewTenantsClient(conn)
	// No deadline of the client's: the server sets one.
	got, err := c.Create(context.Background(), &pairdbv1.CreateTenantRequest{TenantId: "acme"})
	if err != nil || got.GetReplicationFactor() != 3 || got.GetConflictPolicy() != pairdbv1.ConflictPolicy_CONFLICT_POLICY_LWW ||
		!got.GetCreatedAt().AsTime().Equal(made) || !got.GetUpdatedAt().AsTime().Equal(made) || got.GetUnderReplicated() {
		t.Errorf("created %v, %v", got, err)
	}
	rf := func(n uint32) *uint32 { return &n }
	ctx := testContext(t)
	got, err = c.Create(ctx, &pairdbv1.CreateTenantRequest{
		TenantId: "wide2", ReplicationFactor: rf(7), ConflictPolicy: pairdbv1.ConflictPolicy_CONFLICT_POLICY_SIBLINGS,
	})
	if err != nil || got.GetReplicationFactor() != 7 || got.GetConflictPolicy() != pairdbv1.ConflictPolicy_CONFLICT_POLICY_SIBLINGS || !got.GetUnderReplicated() {
		t.Errorf("created %v, %v", got, err)
	}
	for _, bad := range []struct {
		req  *pairdbv1.CreateTenantRequest
		code errcode.Code
	}{
		{&pairdbv1.CreateTenantRequest{}, errcode.InvalidTenantID},
		{&pairdbv1.CreateTenantRequest{TenantId: "Acme"}, errcode.InvalidTenantID},
		{&pairdbv1.CreateTenantRequest{TenantId: "a", ReplicationFactor: rf(0)}, errcode.InvalidReplicationFactor},
		{&pairdbv1.CreateTenantRequest{TenantId: "a", ReplicationFactor: rf(8)}, errcode.InvalidReplicationFactor},
		{&pairdbv1.CreateTenantRequest{TenantId: "a", ReplicationFactor: rf(1<<32 - 1)}, errcode.InvalidReplicationFactor},
		{&pairdbv1.CreateTenantRequest{TenantId: "a", ConflictPolicy: 9}, errcode.InvalidArgument},
		{&pairdbv1.CreateTenantRequest{TenantId: "taken"}, errcode.TenantExists},
		{&pairdbv1.CreateTenantRequest{TenantId: "broken"}, errcode.Internal},
	} {
		_, err := c.Create(ctx, bad.req)
		info, _ := details(t, err)
		want := errcode.NotApplied
		if bad.code == errcode.Internal {
			want = errcode.Indeterminate // nobody knows
		}
		if got := info.GetMetadata()[errcode.MetaOutcome]; got != string(want) {
			t.Errorf("%v: outcome %q, want %q", bad.req, got, want)
		}
		if errcode.Code(info.GetReason()) != bad.code || strings.Contains(err.Error(), "/var/lib") {
			t.Errorf("%v: got %v, want %s", bad.req, err, bad.code)
		}
	}
	for _, name := range []string{"default", "fresh"} {
		if got, err := c.Get(ctx, &pairdbv1.GetTenantRequest{TenantId: name}); err != nil || got.GetTenantId() != name {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	_, err = c.Get(ctx, &pairdbv1.GetTenantRequest{TenantId: "nobody"})
	if info, _ := details(t, err); status.Code(err) != codes.NotFound || errcode.Code(info.GetReason()) != errcode.TenantNotFound {
		t.Errorf("got %v", err)
	}
	list, err := c.List(ctx, &pairdbv1.ListTenantsRequest{})
	if err != nil || len(list.GetTenants()) != 2 || list.GetTenants()[0].GetTenantId() != "default" || !list.GetTenants()[1].GetUnderReplicated() {
		t.Errorf("list %v, %v", list, err)
	}
}
