package rpc

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

const (
	// maxEvents bounds the events of one node in an answer, maxHotKeys the keys of
	// each kind.
	maxEvents  = 1000
	maxHotKeys = 256
)

// Observer tells what this node did and what happened to it. The server fills in
// the node's id and name.
type Observer interface {
	Observe(req *peerv1.ObserveRequest) *peerv1.ObserveResponse
}

// observeService is the service Observe.
type observeService struct {
	pairdbv1.UnimplementedObserveServer
	s *Server
}

// Events implements pairdbv1.ObserveServer.
func (o *observeService) Events(ctx context.Context, req *pairdbv1.EventsRequest) (*pairdbv1.EventsResponse, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	return o.s.Events(ctx, req)
}

// Traffic implements pairdbv1.ObserveServer.
func (o *observeService) Traffic(ctx context.Context, req *pairdbv1.TrafficRequest) (*pairdbv1.TrafficResponse, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	return o.s.Traffic(ctx, req)
}

// observe asks one node, or all if only is "".
func (s *Server) observe(ctx context.Context, only string, req func(ring.NodeID) *peerv1.ObserveRequest) (*schema.Snapshot, map[ring.NodeID]*peerv1.ObserveResponse, map[ring.NodeID]string, error) {
	snap := s.opts.Metadata.Snapshot()
	want := func(m *schema.Member) bool { return only == "" || m.Name == only || m.ID.String() == only }
	if !slices.ContainsFunc(snap.Members, func(m schema.Member) bool { return want(&m) }) {
		return nil, nil, nil, invalid("node: there is no node " + strconv.Quote(only))
	}
	answers, silent := askMembers(ctx, snap, want,
		func() *peerv1.ObserveResponse { return s.observeLocal(req(s.opts.Self)) },
		func(ctx context.Context, m *schema.Member) (*peerv1.ObserveResponse, ring.NodeID, error) {
			r, err := s.opts.Asker.Observe(ctx, m.Addresses.Peer, req(m.ID))
			var id ring.NodeID
			copy(id[:], r.GetNodeId())
			return r, id, err
		})
	return snap, answers, silent, nil
}

func (s *Server) observeLocal(req *peerv1.ObserveRequest) *peerv1.ObserveResponse {
	r := s.opts.Observer.Observe(req)
	if req.GetRepairs() {
		r.Repairs = s.repairs()
	}
	if req.GetTransfers() {
		r.Transfers = s.transferReport()
	}
	if req.GetChanges() {
		r.Changes = s.changes()
	}
	r.NodeId = s.opts.Self[:]
	return r
}

// nodeName names a member.
func nodeName(m *schema.Member) *pairdbv1.NodeName {
	return &pairdbv1.NodeName{NodeId: m.ID.String(), Name: m.Name}
}

func silentNodes(snap *schema.Snapshot, silent map[ring.NodeID]string) []*pairdbv1.UnreachableNode {
	var out []*pairdbv1.UnreachableNode
	for i := range snap.Members {
		if why, ok := silent[snap.Members[i].ID]; ok {
			out = append(out, unreachable(&snap.Members[i], why))
		}
	}
	return out
}

// eventPlace is where the events of one node go on: behind a number in one of its lives. Of a
// node that has not answered yet incarnation is 0, which no life has, and number is since
// when its events are wanted, in milliseconds.
type eventPlace struct {
	incarnation, number uint64
}

// query is what a node is to tell from there on, or from since on without a place.
func (at eventPlace) query(since *timestamppb.Timestamp, limit uint32) *peerv1.EventQuery {
	if at.incarnation == 0 && at.number > 0 {
		since, at.number = timestamppb.New(time.UnixMilli(int64(at.number))), 0
	}
	return &peerv1.EventQuery{Incarnation: at.incarnation, Number: at.number, Since: since, Limit: limit}
}

// Events asks the members for their events.
func (s *Server) Events(ctx context.Context, req *pairdbv1.EventsRequest) (*pairdbv1.EventsResponse, error) {
	places, err := parseCursor(req.GetCursor())
	switch limit := req.GetLimit(); {
	case err != nil:
		return nil, err
	case limit > maxEvents:
		return nil, invalid("limit: at most " + strconv.Itoa(maxEvents))
	case req.GetSince() != nil && !req.GetSince().IsValid():
		return nil, invalid("since: no valid time")
	case req.GetSince() != nil && req.GetCursor() != "":
		return nil, invalid("since does not go with a cursor")
	}
	limit := cmp.Or(req.GetLimit(), maxEvents)
	snap, answers, silent, err := s.observe(ctx, req.GetNode(), func(id ring.NodeID) *peerv1.ObserveRequest {
		return &peerv1.ObserveRequest{Events: places[id].query(req.GetSince(), limit)}
	})
	if err != nil {
		return nil, err
	}
	resp := &pairdbv1.EventsResponse{Unreachable: silentNodes(snap, silent)}
	next := make(map[ring.NodeID]eventPlace, len(snap.Members))
	for i := range snap.Members {
		m := &snap.Members[i]
		r, ok := answers[m.ID]
		if !ok {
			if at, ok := places[m.ID]; ok {
				next[m.ID] = at
			} else if ms := req.GetSince().AsTime().UnixMilli(); req.GetSince() != nil && ms > 0 {
				next[m.ID] = eventPlace{number: uint64(ms)}
			}
			continue
		}
		next[m.ID] = eventPlace{r.GetIncarnation(), r.GetNumber()}
		name := nodeName(m)
		for _, e := range r.GetEvents() {
			e.Node = name
			resp.Events = append(resp.Events, e)
		}
	}
	// Another node was asked before, and may know members that this one has not heard of.
	for _, id := range slices.SortedFunc(maps.Keys(places), ring.NodeID.Compare) {
		if _, known := snap.Member(id); !known && !snap.Retired(id) && len(next) < maxPlaces {
			next[id] = places[id]
		}
	}
	slices.SortStableFunc(resp.Events, func(a, b *pairdbv1.Event) int { return compareTimes(a.GetTime(), b.GetTime()) })
	resp.NextCursor = formatCursor(next)
	return resp, nil
}

func compareTimes(a, b *timestamppb.Timestamp) int { return a.AsTime().Compare(b.AsTime()) }

// maxPlaces bounds the nodes of a cursor.
const maxPlaces = 2 * ring.MaxNodes

// formatCursor writes a place for each node: its id, incarnation and number.
func formatCursor(places map[ring.NodeID]eventPlace) string {
	parts := make([]string, 0, len(places))
	for id, at := range places {
		parts = append(parts, fmt.Sprintf("%s.%d.%d", id, at.incarnation, at.number))
	}
	slices.Sort(parts)
	return strings.Join(parts, "_")
}

func parseCursor(s string) (map[ring.NodeID]eventPlace, error) {
	places := make(map[ring.NodeID]eventPlace)
	if s == "" {
		return places, nil
	}
	for i, part := range strings.Split(s, "_") {
		f := strings.Split(part, ".")
		if len(f) != 3 || i >= maxPlaces {
			return nil, invalid("cursor: it is not one that an answer had")
		}
		id, err := ring.ParseNodeID(f[0])
		incarnation, err2 := strconv.ParseUint(f[1], 10, 64)
		number, err3 := strconv.ParseUint(f[2], 10, 64)
		if err != nil || err2 != nil || err3 != nil {
			return nil, invalid("cursor: it is not one that an answer had")
		}
		places[id] = eventPlace{incarnation, number}
	}
	return places, nil
}

// Traffic asks the members for their traffic.
func (s *Server) Traffic(ctx context.Context, req *pairdbv1.TrafficRequest) (*pairdbv1.TrafficResponse, error) {
	if req.GetHotKeys() > maxHotKeys {
		return nil, invalid("hot_keys: at most " + strconv.Itoa(maxHotKeys))
	}
	ask := uint32(0)
	if req.GetHotKeys() > 0 {
		ask = maxHotKeys // what is hot on one node may be the next one's last
	}
	snap, answers, silent, err := s.observe(ctx, req.GetNode(), func(ring.NodeID) *peerv1.ObserveRequest {
		return &peerv1.ObserveRequest{Traffic: &peerv1.TrafficQuery{HotKeys: ask}}
	})
	if err != nil {
		return nil, err
	}
	resp := &pairdbv1.TrafficResponse{Unreachable: silentNodes(snap, silent)}
	var reports []*peerv1.ObserveResponse
	for i := range snap.Members {
		m := &snap.Members[i]
		r, ok := answers[m.ID]
		if !ok || r.GetTraffic() == nil {
			continue
		}
		reports = append(reports, r)
		r.GetTraffic().Node = nodeName(m)
		resp.Nodes = append(resp.Nodes, r.GetTraffic())
	}
	slices.SortFunc(resp.Nodes, func(a, b *pairdbv1.NodeTraffic) int { return cmp.Compare(a.GetNode().GetName(), b.GetNode().GetName()) })
	resp.HotKeys = mergeHotKeys(reports, int(req.GetHotKeys()), func(n uint32) string {
		if t, ok := snap.TenantByNumber(ring.TenantNumber(n)); ok {
			return t.Name
		}
		return "tenant " + strconv.FormatUint(uint64(n), 10)
	})
	return resp, nil
}

// mergeHotKeys adds up what the nodes say of each key, and returns the n hottest of
// reads and of writes. A key that a node does not list may have up to the node's
// floor there, which makes the estimate less certain and not higher than it may be.
func mergeHotKeys(reports []*peerv1.ObserveResponse, n int, tenant func(uint32) string) []*pairdbv1.HotKey {
	type sum struct {
		key              *peerv1.KeyRate
		low, high, noise float64 // noise squared
		floors           float64 // of the nodes that list it
	}
	var total, floor [2]float64
	sums := make(map[string]*sum)
	kind := func(write bool) int {
		if write {
			return 1
		}
		return 0
	}
	for _, r := range reports {
		floors := [2]float64{r.GetReadFloor(), r.GetWriteFloor()}
		for i := range floors {
			floor[i] += floors[i]
		}
		total[0] += r.GetTraffic().GetReadsPerSecond()
		total[1] += r.GetTraffic().GetWritesPerSecond()
		for _, k := range r.GetHotKeys() {
			id := string(append(binary.BigEndian.AppendUint32([]byte{byte(kind(k.GetWrite()))}, k.GetTenant()), k.GetKey()...))
			s := sums[id]
			if s == nil {
				s = &sum{key: k}
				sums[id] = s
			}
			s.low += k.GetLow()
			s.high += k.GetHigh()
			s.noise += k.GetNoise() * k.GetNoise()
			s.floors += floors[kind(k.GetWrite())]
		}
	}
	var keys [2][]*pairdbv1.HotKey
	for _, s := range sums {
		i := kind(s.key.GetWrite())
		high := s.high + max(0, floor[i]-s.floors)
		k := &pairdbv1.HotKey{
			TenantId: tenant(s.key.GetTenant()), Key: s.key.GetKey(), Kind: [2]string{"read", "write"}[i],
			PerSecond: (s.low + high) / 2, PerSecondError: (high-s.low)/2 + math.Sqrt(s.noise),
		}
		if total[i] > 0 {
			k.Share = min(1, k.PerSecond/total[i])
		}
		keys[i] = append(keys[i], k)
	}
	order := func(a, b *pairdbv1.HotKey) int {
		return cmp.Or(cmp.Compare(b.GetPerSecond(), a.GetPerSecond()), cmp.Compare(a.GetTenantId(), b.GetTenantId()),
			cmp.Compare(string(a.GetKey()), string(b.GetKey())), cmp.Compare(a.GetKind(), b.GetKind()))
	}
	var out []*pairdbv1.HotKey
	for _, of := range keys {
		slices.SortFunc(of, order)
		out = append(out, of[:min(n, len(of))]...)
	}
	slices.SortFunc(out, order)
	return out
}
