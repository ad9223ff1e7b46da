package rpc

import (
	"cmp"
	"context"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pairdb/pairdb/api/errcode"
	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

const (
	// askTimeout is how long a node is waited for when all are asked.
	askTimeout = 2 * time.Second
	// askAtOnce bounds how many are asked at a time.
	askAtOnce = 16
	// maxKeyBytes is the limit of a key.
	maxKeyBytes = 1024
)

// Asker asks another node for its figures and what happened to it. *MetaClient is one.
type Asker interface {
	Info(ctx context.Context, addr string) (NodeInfo, error)
	// Observe asks for its events and traffic.
	Observe(ctx context.Context, addr string, req *peerv1.ObserveRequest) (*peerv1.ObserveResponse, error)
	// Scrub asks for its scrub.
	Scrub(ctx context.Context, addr string, start bool) (*peerv1.ScrubResponse, error)
	// StartRepair has it begin rounds of what it drives.
	StartRepair(ctx context.Context, addr string, what *pairdbv1.StartRepairRequest) (*peerv1.StartRepairResponse, error)
	// Drain has it send its clients away or serve them again, or asks how far that is.
	Drain(ctx context.Context, addr string, begin, undo bool) (*peerv1.DrainResponse, error)
}

// clusterService is the service Cluster.
type clusterService struct {
	pairdbv1.UnimplementedClusterServer
	s     *Server
	meta  Metadata
	local func() NodeInfo
	asker Asker
}

// report is what is known of all nodes: figures of those that answered, and why
// the others did not.
type report struct {
	snap    *schema.Snapshot
	figures map[ring.NodeID]NodeInfo
	silent  map[ring.NodeID]string
}

// ask asks every member that gossip has not given up.
func (c *clusterService) ask(ctx context.Context) report {
	snap := c.meta.Snapshot()
	figures, silent := askMembers(ctx, snap, func(*schema.Member) bool { return true }, c.local,
		func(ctx context.Context, m *schema.Member) (NodeInfo, ring.NodeID, error) {
			info, err := c.asker.Info(ctx, m.Addresses.Peer)
			return info, info.Node, err
		})
	return report{snap: snap, figures: figures, silent: silent}
}

// askMembers asks the members that are wanted and that gossip has not given up, this
// node by local and the others over the network, for at most askTimeout. It returns
// what they answered, and why the others did not.
func askMembers[T any](ctx context.Context, snap *schema.Snapshot, want func(*schema.Member) bool, local func() T, remote func(context.Context, *schema.Member) (T, ring.NodeID, error)) (answers map[ring.NodeID]T, silent map[ring.NodeID]string) {
	answers, silent = make(map[ring.NodeID]T), make(map[ring.NodeID]string)
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var (
		mu sync.Mutex
		g  errgroup.Group
	)
	g.SetLimit(askAtOnce)
	for i := range snap.Members {
		m := &snap.Members[i]
		switch {
		case !want(m):
		case m.ID == snap.Self:
			answer := local()
			mu.Lock()
			answers[m.ID] = answer
			mu.Unlock()
		case snap.Retired(m.ID):
			mu.Lock()
			silent[m.ID] = "it is given up for lost"
			mu.Unlock()
		case m.Liveness == schema.Dead || m.Liveness == schema.Left:
			mu.Lock()
			silent[m.ID] = "gossip says that it is " + m.Liveness.String()
			mu.Unlock()
		default:
			g.Go(func() error {
				answer, id, err := remote(ctx, m)
				if err == nil && id != m.ID {
					err = fmt.Errorf("node %s answers at %s", id.Short(), m.Addresses.Peer)
				}
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					silent[m.ID] = err.Error()
					return nil
				}
				answers[m.ID] = answer
				return nil
			})
		}
	}
	// The jobs return no errors; what they found is in the maps.
	_ = g.Wait()
	return answers, silent
}

// up says that a node serves, as far as can be told from here.
func (r *report) up(id ring.NodeID) bool {
	_, answered := r.figures[id]
	m, ok := r.snap.Member(id)
	return answered && !(ok && m.Withdrawn)
}

// state is the word for a node in NodeStatus.
func (r *report) state(id ring.NodeID) string {
	m, ok := r.snap.Member(id)
	_, answered := r.figures[id]
	switch {
	case !ok:
		return "down"
	case r.snap.Retired(id):
		return "lost"
	case id == r.snap.Self:
	case m.Liveness != schema.Alive && m.Liveness != schema.Suspect && givenUp(r.snap, id):
		return "lost"
	case m.Liveness == schema.Left:
		return "left"
	case m.Liveness == schema.Suspect:
		return "suspect"
	case m.Liveness != schema.Alive:
		return "down"
	case !answered:
		return "suspect"
	}
	switch place := placeOf(r.snap, id); {
	case m.Withdrawn:
		return "withdrawn"
	case place == "up" && (m.Drained || r.figures[id].Draining):
		return "drained"
	}
	return placeOf(r.snap, id)
}

// placeOf is the word for what a node that answers is to the ring.
func placeOf(snap *schema.Snapshot, id ring.NodeID) string {
	if snap.Layout == nil {
		return "waiting"
	}
	_, in := snap.Layout.Node(id)
	if snap.Change != nil {
		switch _, stays := snap.Change.Next.Node(id); {
		case stays && !in:
			return "joining"
		case in && !stays:
			return "leaving"
		}
	}
	if snap.Ring != nil {
		if in && slices.ContainsFunc(snap.Ring.Intents(), func(i *ring.IntentRecord) bool { return i.Verb == ring.VerbLeave && i.Node == id }) {
			return "leaving"
		}
		if slices.ContainsFunc(snap.Ring.Outsiders(), func(o ring.Outsider) bool { return o.ID == id && o.Leaving }) {
			return "draining"
		}
	}
	if in {
		return "up"
	}
	return "waiting"
}

// Status implements pairdbv1.ClusterServer.
func (c *clusterService) Status(ctx context.Context, _ *pairdbv1.StatusRequest) (*pairdbv1.StatusResponse, error) {
	r := c.ask(ctx)
	v := judge(r.snap, r.up)
	resp := &pairdbv1.StatusResponse{
		Verdict: v.word, Reason: v.reason,
		Ring: c.s.ringStatus(r.snap),
	}
	if !r.snap.ClusterID.IsZero() {
		resp.ClusterId = r.snap.ClusterID.String()
	}
	shares := sharesOf(r.snap)
	for i := range r.snap.Members {
		m := &r.snap.Members[i]
		if r.snap.Retired(m.ID) {
			if _, named := r.snap.Ring.Member(m.ID); !named {
				continue // it was a node of the cluster
			}
		}
		info := r.figures[m.ID]
		resp.Nodes = append(resp.Nodes, &pairdbv1.NodeStatus{
			NodeId: m.ID.String(), Name: m.Name, State: r.state(m.ID), Zone: m.Zone, Capacity: m.Capacity,
			Addresses: &pairdbv1.NodeAddresses{
				Grpc: m.Addresses.GRPC, Peer: m.Addresses.Peer, Http: m.Addresses.HTTP, Gossip: m.Addresses.Gossip,
			},
			Partitions: shares[m.ID].all, Bytes: info.Bytes, Incarnation: max(m.Incarnation, info.Incarnation),
			RepairedAt: timestamp(info.RepairedAt), Hints: info.Hints, QuarantinedPartitions: info.Quarantined,
		})
		if why, ok := r.silent[m.ID]; ok {
			resp.Unreachable = append(resp.Unreachable, unreachable(m, why))
		}
	}
	for _, m := range joiners(r.snap) {
		if _, known := r.snap.Member(m.ID); known {
			continue
		}
		resp.Nodes = append(resp.Nodes, &pairdbv1.NodeStatus{
			NodeId: m.ID.String(), Name: m.Name, State: "waiting", Zone: m.Zone, Capacity: m.Capacity, Incarnation: m.Incarnation,
			Addresses: &pairdbv1.NodeAddresses{
				Grpc: m.Addresses.GRPC, Peer: m.Addresses.Peer, Http: m.Addresses.HTTP, Gossip: m.Addresses.Gossip,
			},
		})
	}
	slices.SortFunc(resp.Nodes, func(a, b *pairdbv1.NodeStatus) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.NodeId, b.NodeId))
	})
	return resp, nil
}

// timestamp is t on the wire: unset for none.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func unreachable(m *schema.Member, why string) *pairdbv1.UnreachableNode {
	return &pairdbv1.UnreachableNode{NodeId: m.ID.String(), Name: m.Name, Reason: clip(why, maxCauseBytes)}
}

// Members implements pairdbv1.ClusterServer.
func (c *clusterService) Members(context.Context, *pairdbv1.MembersRequest) (*pairdbv1.MembersResponse, error) {
	snap := c.meta.Snapshot()
	resp := new(pairdbv1.MembersResponse)
	for i := range snap.Members {
		m := &snap.Members[i]
		liveness := m.Liveness
		switch {
		case m.ID == snap.Self:
			liveness = schema.Alive
		case liveness == schema.LivenessUnknown:
			liveness = schema.Dead // not heard of since this node started
		}
		resp.Members = append(resp.Members, &pairdbv1.Member{
			NodeId: m.ID.String(), Name: m.Name, Liveness: liveness.String(), Address: m.Addresses.Gossip,
		})
		if liveness != schema.Alive {
			resp.Unreachable = append(resp.Unreachable, unreachable(m, "gossip says that it is "+m.Liveness.String()))
		}
	}
	slices.SortFunc(resp.Members, func(a, b *pairdbv1.Member) int { return cmp.Compare(a.Name, b.Name) })
	return resp, nil
}

// Ring implements pairdbv1.ClusterServer.
func (c *clusterService) Ring(ctx context.Context, req *pairdbv1.RingRequest) (*pairdbv1.RingResponse, error) {
	snap := c.meta.Snapshot()
	if snap.Layout == nil {
		return nil, &coord.Error{Code: errcode.Unavailable, Message: "there is no ring yet; the cluster is not founded"}
	}
	if len(req.GetKey()) > 0 {
		return c.place(ctx, req)
	}
	resp := &pairdbv1.RingResponse{
		RingVersion: uint64(snap.Version), Partitions: uint32(snap.Layout.Partitions()),
	}
	shares := sharesOf(snap)
	for _, n := range snap.Layout.Nodes() {
		s := shares[n.ID]
		resp.Nodes = append(resp.Nodes, &pairdbv1.RingNode{
			NodeId: n.ID.String(), Name: n.Name, FirstPartitions: s.first, Partitions: s.all,
		})
	}
	slices.SortFunc(resp.Nodes, func(a, b *pairdbv1.RingNode) int { return cmp.Compare(a.Name, b.Name) })
	return resp, nil
}

// place says where a key lives.
func (c *clusterService) place(ctx context.Context, req *pairdbv1.RingRequest) (*pairdbv1.RingResponse, error) {
	key := req.GetKey()
	if len(key) > maxKeyBytes {
		return nil, &coord.Error{
			Code:    errcode.KeyTooLarge,
			Message: "the key has " + strconv.Itoa(len(key)) + " bytes, at most " + strconv.Itoa(maxKeyBytes) + " are possible",
		}
	}
	name := tenantOf(ctx, req.GetTenantId())
	if err := schema.ValidateTenantID(name); err != nil {
		return nil, err
	}
	tenant, snap, err := findTenant(ctx, c.meta, name)
	if err != nil {
		return nil, err
	}
	l := snap.Layout
	token := uint64(ring.KeyToken(tenant.Number, key))
	p := l.PartitionOf(ring.Token(token))
	partition := uint32(p)
	resp := &pairdbv1.RingResponse{
		Key: key, Token: &token, Partition: &partition,
		RingVersion: uint64(l.PV(p)), Partitions: uint32(l.Partitions()),
	}
	shares := sharesOf(snap)
	node := func(id ring.NodeID) *pairdbv1.RingNode {
		return &pairdbv1.RingNode{NodeId: id.String(), Name: nameIn(snap, id), FirstPartitions: shares[id].first, Partitions: shares[id].all}
	}
	sets := snap.Sets(nil, p, tenant.Copies())
	for _, id := range readers(&sets) {
		resp.Owners = append(resp.Owners, node(id))
	}
	if sets.Stage != ring.Stable {
		for _, id := range snap.Change.Next.Owners(nil, p, tenant.RF) {
			resp.NextOwners = append(resp.NextOwners, node(id))
		}
	}
	return resp, nil
}

// readers are the owners that are read, which stand first.
func readers(s *ring.Sets) []ring.NodeID { return s.Owners[:bits.OnesCount16(s.R1)] }
