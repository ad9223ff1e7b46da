package clienttest

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

const (
	clusterID = "0123456789abcdef0123456789abcdef"
	actor     = 7
	maxKey    = 1024
	maxValue  = 10 << 20
)

// Store is what the servers of one pretended cluster share: keys with their
// values, and tenants. A context is "seen-N" and covers the writes up to the N-th
// of all. It is safe for concurrent use.
type Store struct {
	mu struct {
		sync.Mutex
		// values are by tenant, NUL, key: several only for a tenant that keeps
		// siblings, the latest first.
		values  map[string][]stored
		keyed   map[string]*pairdbv1.Dot // by tenant, NUL, key, NUL, idempotency key
		tenants map[string]*pairdbv1.Tenant
		nodes   []string // endpoints, in the order of their start
		counter uint64
		ahead   time.Duration // of the clock that values expire by
		repair  *pairdbv1.RepairRun
		changed changed
		drain   *pairdbv1.NodeDrain
	}
}

type stored struct {
	value   []byte
	dot     *pairdbv1.Dot
	written time.Time
	expires time.Time // zero for never
}

// NewStore returns an empty store with the tenant "default".
func NewStore() *Store {
	s := &Store{}
	s.mu.values = make(map[string][]stored)
	s.mu.keyed = make(map[string]*pairdbv1.Dot)
	s.mu.tenants = map[string]*pairdbv1.Tenant{"default": newTenant("default", 3, pairdbv1.ConflictPolicy_CONFLICT_POLICY_LWW)}
	return s
}

// Value returns what is stored, the latest of several values, for a test to look
// at.
func (s *Store) Value(tenant, key string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.liveLocked(tenant, key)
	if len(v) == 0 {
		return nil, false
	}
	return bytes.Clone(v[0].value), true
}

// SetValue stores a value behind the API's back, as a write without a context.
func (s *Store) SetValue(tenant, key string, value []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.putLocked(tenant, key, stored{value: value}, 0)
}

// Len returns the number of keys over all tenants.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.values)
}

func (s *Store) addNode(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.nodes = append(s.mu.nodes, addr)
}

// putLocked stores a value and returns its dot and how many values are beside
// it.
func (s *Store) putLocked(tenant, key string, v stored, seen uint64) (dot *pairdbv1.Dot, beside int) {
	kept := s.supersedeLocked(tenant, key, seen)
	s.mu.counter++
	dot = &pairdbv1.Dot{Actor: actor, Counter: s.mu.counter}
	v.value, v.dot, v.written = bytes.Clone(v.value), dot, time.Unix(1_700_000_000, 0)
	s.mu.values[tenant+"\x00"+key] = append([]stored{v}, kept...)
	return dot, len(kept)
}

// supersedeLocked returns the values of a key without those that a write with
// the context replaces.
func (s *Store) supersedeLocked(tenant, key string, seen uint64) []stored {
	if s.mu.tenants[tenant].GetConflictPolicy() != pairdbv1.ConflictPolicy_CONFLICT_POLICY_SIBLINGS {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.mu.values[tenant+"\x00"+key]), func(v stored) bool { return v.dot.GetCounter() <= seen })
}

// seen reads the context of a write, or of its condition; none is 0.
func seen(token, match []byte) (uint64, error) {
	if len(match) > 0 {
		token = match
	}
	if len(token) == 0 {
		return 0, nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(string(token), "seen-"), 10, 64)
	if err != nil {
		return 0, Fail(errcode.InvalidArgument, "the context token is not one of this cluster's", nil)
	}
	return n, nil
}

func (s *Store) checkLocked(tenant string, key []byte) error {
	switch {
	case len(key) == 0:
		return Fail(errcode.InvalidKey, "the key is empty", nil)
	case len(key) > maxKey:
		return Fail(errcode.KeyTooLarge, "the key is too long", nil)
	case s.mu.tenants[tenant] == nil:
		return Fail(errcode.TenantNotFound, fmt.Sprintf("there is no tenant %q", tenant), nil)
	}
	return nil
}

func newTenant(id string, rf uint32, policy pairdbv1.ConflictPolicy) *pairdbv1.Tenant {
	at := timestamppb.New(time.Unix(1_700_000_000, 0))
	return &pairdbv1.Tenant{TenantId: id, ReplicationFactor: rf, ConflictPolicy: policy, CreatedAt: at, UpdatedAt: at}
}

type kvService struct {
	pairdbv1.UnimplementedKVServer
	store  *Store
	server *Server
}

func (k kvService) Put(_ context.Context, req *pairdbv1.PutRequest) (*pairdbv1.PutResponse, error) {
	s := k.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkLocked(req.GetTenantId(), req.GetKey()); err != nil {
		return nil, err
	}
	if len(req.GetValue()) > maxValue {
		return nil, Fail(errcode.ValueTooLarge, "the value is too large", nil)
	}
	covered, err := seen(req.GetContext(), req.GetIfMatch())
	if err != nil {
		return nil, err
	}
	expires, err := s.expiryLocked(req)
	if err != nil {
		return nil, err
	}
	beside := 0
	dot, again, err := s.keyedLocked(req, func() (dot *pairdbv1.Dot, err error) {
		if err := s.judgeLocked(req, req.GetIfAbsent(), covered); err != nil {
			return nil, err
		}
		if req.GetIfAbsent() {
			covered = s.mu.counter
		}
		dot, beside = s.putLocked(req.GetTenantId(), string(req.GetKey()), stored{value: req.GetValue(), expires: expires}, covered)
		return dot, nil
	})
	if err != nil {
		return nil, err
	}
	resp := &pairdbv1.PutResponse{Dot: dot, Acks: 2, Consistency: level(req.GetConsistency()), IsDuplicate: again}
	if beside == 0 {
		resp.Context, resp.VectorClock = token(dot), clock(dot)
	}
	return resp, nil
}

func (k kvService) Get(_ context.Context, req *pairdbv1.GetRequest) (*pairdbv1.GetResponse, error) {
	s := k.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkLocked(req.GetTenantId(), req.GetKey()); err != nil {
		return nil, err
	}
	values := s.liveLocked(req.GetTenantId(), string(req.GetKey()))
	if len(values) == 0 {
		return nil, Fail(errcode.KeyNotFound, "no value is stored under the key", nil)
	}
	resp := &pairdbv1.GetResponse{Key: req.GetKey(), Context: token(values[0].dot), VectorClock: clock(values[0].dot)}
	resp.Siblings = siblings(values, true)
	return resp, nil
}

func siblings(values []stored, withValue bool) []*pairdbv1.Sibling {
	var wire []*pairdbv1.Sibling
	for _, v := range values {
		s := &pairdbv1.Sibling{Dot: v.dot, WrittenAt: timestamppb.New(v.written)}
		if withValue {
			s.Value = v.value
		}
		if !v.expires.IsZero() {
			s.ExpiresAt = timestamppb.New(v.expires)
		}
		wire = append(wire, s)
	}
	return wire
}

func (k kvService) Delete(_ context.Context, req *pairdbv1.DeleteRequest) (*pairdbv1.DeleteResponse, error) {
	s := k.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkLocked(req.GetTenantId(), req.GetKey()); err != nil {
		return nil, err
	}
	covered, err := seen(req.GetContext(), req.GetIfMatch())
	if err != nil {
		return nil, err
	}
	if len(req.GetContext())+len(req.GetIfMatch()) == 0 {
		covered = s.mu.counter
	}
	dot, again, err := s.keyedLocked(req, func() (*pairdbv1.Dot, error) {
		if err := s.judgeLocked(req, false, covered); err != nil {
			return nil, err
		}
		at := req.GetTenantId() + "\x00" + string(req.GetKey())
		if kept := s.supersedeLocked(req.GetTenantId(), string(req.GetKey()), covered); len(kept) > 0 {
			s.mu.values[at] = kept
		} else {
			delete(s.mu.values, at)
		}
		s.mu.counter++
		return &pairdbv1.Dot{Actor: actor, Counter: s.mu.counter}, nil
	})
	if err != nil {
		return nil, err
	}
	return &pairdbv1.DeleteResponse{
		Context: token(dot), Dot: dot, VectorClock: clock(dot), Acks: 2, Consistency: level(req.GetConsistency()), IsDuplicate: again,
	}, nil
}

// keyedLocked makes a write, or finds the one with the same idempotency key.
func (s *Store) keyedLocked(req interface {
	GetTenantId() string
	GetKey() []byte
	GetIdempotencyKey() []byte
}, write func() (*pairdbv1.Dot, error),
) (dot *pairdbv1.Dot, again bool, err error) {
	if len(req.GetIdempotencyKey()) == 0 {
		dot, err = write()
		return dot, false, err
	}
	id := req.GetTenantId() + "\x00" + string(req.GetKey()) + "\x00" + string(req.GetIdempotencyKey())
	if dot, ok := s.mu.keyed[id]; ok {
		return dot, true, nil
	}
	if dot, err = write(); err == nil {
		s.mu.keyed[id] = dot
	}
	return dot, false, err
}

func token(d *pairdbv1.Dot) []byte { return fmt.Appendf(nil, "seen-%d", d.GetCounter()) }

func clock(d *pairdbv1.Dot) []*pairdbv1.ClockEntry {
	return []*pairdbv1.ClockEntry{{Actor: d.GetActor(), Counter: d.GetCounter()}}
}

func level(c pairdbv1.Consistency) pairdbv1.Consistency {
	if c == pairdbv1.Consistency_CONSISTENCY_UNSPECIFIED {
		return pairdbv1.Consistency_CONSISTENCY_QUORUM
	}
	return c
}

type clusterService struct {
	pairdbv1.UnimplementedClusterServer
	store *Store
}

// identity makes up the id and name of the i-th node.
func identity(i int) (id, name string) {
	return fmt.Sprintf("%032x", i+1), fmt.Sprintf("n%d", i+1)
}

func (c clusterService) Status(context.Context, *pairdbv1.StatusRequest) (*pairdbv1.StatusResponse, error) {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &pairdbv1.StatusResponse{
		ClusterId: clusterID, Verdict: "healthy", Reason: "every owner of every partition is up",
		Ring: &pairdbv1.RingStatus{Version: 2, FinalizedVersion: 2},
	}
	for i, addr := range s.mu.nodes {
		id, name := identity(i)
		resp.Nodes = append(resp.Nodes, &pairdbv1.NodeStatus{
			NodeId: id, Name: name, State: "up", Capacity: 100, Partitions: 1024, Bytes: 1 << 20, Incarnation: 1,
			Addresses: &pairdbv1.NodeAddresses{Grpc: addr, Peer: "127.0.0.1:2", Http: "127.0.0.1:3", Gossip: "127.0.0.1:4"},
		})
	}
	return resp, nil
}

// Hints implements pairdbv1.ClusterServer: the first node keeps three hints for one
// that is away.
func (c clusterService) Hints(context.Context, *pairdbv1.HintsRequest) (*pairdbv1.HintsResponse, error) {
	id, name := identity(0)
	at := timestamppb.New(time.Unix(1_700_000_000, 0))
	return &pairdbv1.HintsResponse{
		Targets: []*pairdbv1.HintTarget{{
			NodeId: "ff", Name: "n-away", Count: 3, Bytes: 300, OldestAt: at,
			Holders: []*pairdbv1.HintHolder{{NodeId: id, Name: name, Count: 3, Bytes: 300, OldestAt: at}},
		}},
		Unreachable: []*pairdbv1.UnreachableNode{{NodeId: "ff", Name: "n-away", Reason: "no route to it"}},
	}, nil
}

// StartRepair implements pairdbv1.ClusterServer. Each question for the status finds
// four of the ten spans of a run more done; one of the tenant "torn" ends with an
// owner that is down.
func (c clusterService) StartRepair(_ context.Context, req *pairdbv1.StartRepairRequest) (*pairdbv1.StartRepairResponse, error) {
	if req.GetPartition() >= 1024 {
		return nil, status.Error(codes.InvalidArgument, "partition: there are 1024, numbered from 0")
	}
	id, name := identity(0)
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.store.mu.repair = &pairdbv1.RepairRun{
		Id: "r1", NodeId: id, Name: name, TenantId: req.GetTenantId(), Partition: req.Partition, Spans: 10,
		StartedAt: timestamppb.New(time.Unix(1_700_000_000, 0)),
	}
	return &pairdbv1.StartRepairResponse{Runs: []*pairdbv1.RepairRun{proto.CloneOf(c.store.mu.repair)}}, nil
}

// RepairStatus implements pairdbv1.ClusterServer.
func (c clusterService) RepairStatus(context.Context, *pairdbv1.RepairStatusRequest) (*pairdbv1.RepairStatusResponse, error) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	r := c.store.mu.repair
	if r == nil {
		return &pairdbv1.RepairStatusResponse{}, nil
	}
	r.Done = min(r.GetDone()+4, r.GetSpans())
	r.Confirmed, r.KeysDiffered, r.RowsSent, r.Bytes = r.GetDone(), 5, 6, 7000
	if r.GetDone() == r.GetSpans() {
		r.EndedAt = timestamppb.New(time.Unix(1_700_000_002, 0))
		if r.GetTenantId() == "torn" {
			r.Confirmed, r.Error = 8, "n-away is down"
		}
	}
	return &pairdbv1.RepairStatusResponse{Runs: []*pairdbv1.RepairRun{proto.CloneOf(r)}}, nil
}

func (c clusterService) Members(context.Context, *pairdbv1.MembersRequest) (*pairdbv1.MembersResponse, error) {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &pairdbv1.MembersResponse{}
	for i := range s.mu.nodes {
		id, name := identity(i)
		resp.Members = append(resp.Members, &pairdbv1.Member{NodeId: id, Name: name, Liveness: "alive", Address: "127.0.0.1:4"})
	}
	return resp, nil
}

// routed is how many partitions the routes have.
const routed = 16

// Routes implements pairdbv1.ClusterServer: partition p belongs to up to three
// nodes from the one at p modulo their number.
func (c clusterService) Routes(_ context.Context, req *pairdbv1.RoutesRequest) (*pairdbv1.RoutesResponse, error) {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.mu.nodes)
	resp := &pairdbv1.RoutesResponse{Etag: uint64(n), TenantNumber: 1, Replicas: uint32(min(n, 3))}
	if resp.Etag == req.GetKnownEtag() {
		return &pairdbv1.RoutesResponse{Etag: resp.Etag}, nil
	}
	for i, addr := range s.mu.nodes {
		id, _ := identity(i)
		resp.Nodes = append(resp.Nodes, &pairdbv1.RouteNode{NodeId: id, Address: addr, Alive: true})
	}
	for p := range routed {
		for i := range resp.Replicas {
			resp.Owners = append(resp.Owners, (uint32(p)+i)%uint32(n))
		}
	}
	return resp, nil
}

func (c clusterService) Ring(_ context.Context, req *pairdbv1.RingRequest) (*pairdbv1.RingResponse, error) {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &pairdbv1.RingResponse{RingVersion: 2, Partitions: 1024}
	var all []*pairdbv1.RingNode
	for i := range s.mu.nodes {
		id, name := identity(i)
		all = append(all, &pairdbv1.RingNode{NodeId: id, Name: name, FirstPartitions: 1024 / uint32(len(s.mu.nodes)), Partitions: 1024})
	}
	if len(req.GetKey()) == 0 {
		resp.Nodes = all
		return resp, nil
	}
	if err := s.checkLocked(req.GetTenantId(), req.GetKey()); err != nil {
		return nil, err
	}
	h := fnv.New64a()
	h.Write(req.GetKey())
	resp.Key, resp.Token, resp.Partition = req.GetKey(), proto.Uint64(h.Sum64()), proto.Uint32(uint32(h.Sum64()>>54))
	resp.Owners = all
	return resp, nil
}
