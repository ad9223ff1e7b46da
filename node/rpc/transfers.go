package rpc

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pairdb/pairdb/api/errcode"
	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// The kinds and states of transfers, as Transfer has them.
const (
	TransferGain    = "gain"
	TransferCleanup = "cleanup"
	TransferWaiting = "waiting"
	TransferRunning = "running"
	TransferDone    = "done"
)

// Transfer is what this node fetches or hands over of one span.
type Transfer struct {
	// ID names it on this node.
	ID string
	// Kind is TransferGain or TransferCleanup.
	Kind      string
	Partition ring.Partition
	// Copies is how many copies the tenants have that it is about.
	Copies int
	// From is where it comes from, To where it goes; zero for all owners.
	From []ring.NodeID
	To   ring.NodeID
	// KeysDone and BytesDone are moved; BytesTotal is an estimate, 0 for unknown.
	KeysDone, BytesDone, BytesTotal int64
	// State is TransferWaiting, TransferRunning or TransferDone.
	State string
	// Error is what went wrong last, empty for nothing.
	Error string
}

// Bounds of what a node tells of its transfers.
const (
	maxTransfers     = 1000
	maxDoneTransfers = 100
)

// transferReport is what is moved to and from this node, for others.
func (s *Server) transferReport() *peerv1.TransferReport {
	return reportOf(s.opts.Transfers())
}

// reportOf adds up transfers and lists the first of them.
func reportOf(all []Transfer) *peerv1.TransferReport {
	r := new(peerv1.TransferReport)
	done := 0
	// From the newest, so that the last ones that ended are those that are listed.
	all = slices.Clone(all)
	slices.Reverse(all)
	slices.SortStableFunc(all, func(a, b Transfer) int { return cmp.Compare(turn(a.State), turn(b.State)) })
	known := true
	for i := range all {
		t := &all[i]
		if t.Kind == TransferGain {
			r.KeysDone += uint64(max(t.KeysDone, 0))
		}
		if t.State == TransferDone {
			if done++; done > maxDoneTransfers {
				continue
			}
		} else {
			if t.State == TransferRunning {
				r.Running++
			} else {
				r.Waiting++
			}
			if t.Kind == TransferGain {
				r.GainsLeft++
			}
			r.BytesDone += uint64(max(t.BytesDone, 0))
			r.BytesTotal += uint64(max(t.BytesTotal, 0))
			known = known && t.BytesTotal > 0
		}
		if len(r.Transfers) < maxTransfers {
			r.Transfers = append(r.Transfers, t.message())
		}
	}
	if !known {
		r.BytesTotal = 0 // a part of it would be no estimate of the whole
	}
	return r
}

// turn is the order in which transfers are listed.
func turn(state string) int {
	switch state {
	case TransferRunning:
		return 0
	case TransferDone:
		return 2
	}
	return 1
}

func (t *Transfer) message() *pairdbv1.Transfer {
	m := &pairdbv1.Transfer{
		Id: t.ID, Kind: t.Kind, Partition: uint32(t.Partition), ReplicationFactor: uint32(t.Copies),
		KeysDone: uint64(max(t.KeysDone, 0)), BytesDone: uint64(max(t.BytesDone, 0)), BytesTotal: uint64(max(t.BytesTotal, 0)),
		State: t.State, Error: clip(t.Error, maxCauseBytes),
	}
	for _, id := range t.From {
		m.From = append(m.From, &pairdbv1.TransferNode{NodeId: id.String()})
	}
	if !t.To.IsZero() {
		m.To = &pairdbv1.TransferNode{NodeId: t.To.String()}
	}
	return m
}

// moving is what all nodes move, as far as they answer.
type moving struct {
	snap    *schema.Snapshot
	answers map[ring.NodeID]*peerv1.ObserveResponse
	silent  map[ring.NodeID]string
	// met says that gossip has had the time to meet all that are there.
	met bool
}

func (s *Server) moving(ctx context.Context, changes bool) (moving, error) {
	snap, answers, silent, err := s.observe(ctx, "", func(ring.NodeID) *peerv1.ObserveRequest {
		return &peerv1.ObserveRequest{Transfers: true, Changes: changes}
	})
	return moving{snap, answers, silent, s.opts.Now().Sub(s.began) > metWithin}, err
}

// metWithin is how long gossip may take, from the start of this node, to meet a member that
// is there.
const metWithin = time.Minute

// gone says that a node is not waited for: it does not answer, and gossip knows that it is
// not there, or has not met it for as long as this node runs.
func (m *moving) gone(n *schema.Member) bool {
	if _, answers := m.answers[n.ID]; answers {
		return false
	}
	return m.snap.Retired(n.ID) || n.Liveness == schema.Dead || n.Liveness == schema.Left || n.Liveness == schema.LivenessUnknown && m.met
}

// mute names the nodes that were asked and did not answer, though they may be there.
func (m *moving) mute() (names []string) {
	for i := range m.snap.Members {
		n := &m.snap.Members[i]
		if _, silent := m.silent[n.ID]; silent && !m.gone(n) {
			names = append(names, nameIn(m.snap, n.ID))
		}
	}
	return names
}

// spans counts what the open change moves, and what of it has been moved. A node that
// does not answer and has not said that it is done has moved nothing.
func (m *moving) spans() (all, done uint64) {
	snap := m.snap
	if snap.Change == nil || snap.Layout == nil {
		return 0, 0
	}
	for _, n := range snap.Change.Next.Nodes() {
		gains := uint64(0)
		for p := range snap.Layout.Partitions() {
			for _, c := range snap.Classes() {
				if snap.Change.Gains(snap.Layout, n.ID, ring.Partition(p), c.Copies) {
					gains++
				}
			}
		}
		all += gains
		if snap.Change.Stage == ring.Committed || snap.Report(n.ID).Synced >= snap.Change.ProposedAt {
			done += gains
			continue
		}
		if a, ok := m.answers[n.ID]; ok && a.GetTransfers() != nil && snap.Report(n.ID).Acked >= snap.Change.ProposedAt {
			done += gains - min(gains, a.GetTransfers().GetGainsLeft())
		}
	}
	return all, done
}

// sum adds up what the nodes say; bytes in all are 0 if one does not know.
func (m *moving) sum() *peerv1.TransferReport {
	total := new(peerv1.TransferReport)
	known := true
	for i := range m.snap.Members {
		r := m.answers[m.snap.Members[i].ID].GetTransfers()
		total.Running += r.GetRunning()
		total.Waiting += r.GetWaiting()
		total.KeysDone += r.GetKeysDone()
		total.BytesDone += r.GetBytesDone()
		total.BytesTotal += r.GetBytesTotal()
		known = known && (r.GetRunning()+r.GetWaiting() == 0 || r.GetBytesTotal() > 0)
	}
	if !known {
		total.BytesTotal = 0
	}
	return total
}

// unlooked counts the nodes that have neither said that they hold nothing of what the last
// change took from them, nor list it: they have not heard of that change, have not looked
// yet, or do not answer. Until they have, that nothing is listed says nothing. One that is
// gone is not waited for.
func (m *moving) unlooked() (n uint64) {
	snap := m.snap
	if snap.Layout == nil || snap.Change != nil {
		return 0 // a change that is open is told in other words
	}
	last := ring.Version(0)
	for p := range snap.Layout.Partitions() {
		last = max(last, snap.Layout.PV(ring.Partition(p)))
	}
	if last <= 1 {
		return 0 // it is as it was founded
	}
	for i := range snap.Members {
		node := &snap.Members[i]
		r := m.answers[node.ID].GetTransfers() // nothing of one that does not answer
		if !m.gone(node) && node.CleanVersion < last && r.GetRunning()+r.GetWaiting() == 0 {
			n++
		}
	}
	return n
}

// Transfers implements pairdbv1.ClusterServer.
func (c *clusterService) Transfers(ctx context.Context, req *pairdbv1.TransfersRequest) (*pairdbv1.TransfersResponse, error) {
	return c.s.TransfersOf(ctx, req)
}

// TransfersOf asks all members what they move.
func (s *Server) TransfersOf(ctx context.Context, req *pairdbv1.TransfersRequest) (*pairdbv1.TransfersResponse, error) {
	m, err := s.moving(ctx, false)
	if err != nil {
		return nil, err
	}
	sum := m.sum()
	resp := &pairdbv1.TransfersResponse{
		Running: sum.GetRunning(), Waiting: sum.GetWaiting() + m.unlooked(), BytesDone: sum.GetBytesDone(), BytesTotal: sum.GetBytesTotal(),
		Ring: s.ringStatus(m.snap), Unreachable: silentNodes(m.snap, m.silent),
	}
	resp.Spans, resp.SpansDone = m.spans()
	for i := range m.snap.Members {
		for _, t := range m.answers[m.snap.Members[i].ID].GetTransfers().GetTransfers() {
			if t.GetState() == TransferDone && !req.GetAll() {
				continue
			}
			for _, n := range t.GetFrom() {
				nameTransferNode(m.snap, n)
			}
			nameTransferNode(m.snap, t.GetTo())
			resp.Transfers = append(resp.Transfers, t)
		}
	}
	slices.SortStableFunc(resp.Transfers, func(a, b *pairdbv1.Transfer) int { return cmp.Compare(turn(a.GetState()), turn(b.GetState())) })
	return resp, nil
}

func nameTransferNode(snap *schema.Snapshot, n *pairdbv1.TransferNode) {
	if n == nil {
		return
	}
	id, err := ring.ParseNodeID(n.GetNodeId())
	if err != nil {
		return // a newer node's word for something else
	}
	n.Name = nameIn(snap, id)
}

// changes are what this node knows of changes of nodes, for others.
func (s *Server) changes() []*pairdbv1.NodeChange {
	snap := s.Follow()
	var out []*pairdbv1.NodeChange
	for _, c := range s.book.list() {
		out = append(out, s.changeMessage(snap, c))
	}
	return out
}

// ChangeStatus implements pairdbv1.ClusterServer.
func (c *clusterService) ChangeStatus(ctx context.Context, req *pairdbv1.ChangeStatusRequest) (*pairdbv1.NodeChange, error) {
	return c.s.ChangeStatus(ctx, req)
}

// ChangeStatus says how far a change of a node is, going by what this node knows of it,
// else by what another does.
func (s *Server) ChangeStatus(ctx context.Context, req *pairdbv1.ChangeStatusRequest) (*pairdbv1.NodeChange, error) {
	id := req.GetId()
	if _, err := ring.ParseNodeID(id); err != nil {
		return nil, invalid("id: " + strconv.Quote(clip(id, 100)) + " is none: 32 lower-case hexadecimal digits")
	}
	snap := s.Follow()
	var found *pairdbv1.NodeChange
	if c, ok := s.book.find(id); ok {
		found = s.changeMessage(snap, c)
		if c.ended() {
			return found, nil
		}
	}
	m, err := s.moving(ctx, found == nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(m.snap.Members) && found == nil; i++ {
		for _, c := range m.answers[m.snap.Members[i].ID].GetChanges() {
			if c.GetId() == id {
				found = c
			}
		}
	}
	if found == nil {
		found = s.memberJoined(m.snap, id)
	}
	if mute := m.mute(); found == nil && len(mute) > 0 {
		return nil, &coord.Error{
			Code: errcode.Unavailable, Outcome: errcode.NotApplied,
			Message: "no node that answers knows a change " + id + ", and these do not answer: " + strings.Join(mute, ", "),
		}
	}
	if found == nil {
		return nil, &coord.Error{Code: errcode.MigrationNotFound, Message: "no node that answers knows a change " + id}
	}
	found.Unreachable = silentNodes(m.snap, m.silent)
	s.addProgress(found, &m)
	return found, nil
}

// memberJoined is the joining of a node that is a member: it has ended, whether or not
// anybody remembers it.
func (s *Server) memberJoined(snap *schema.Snapshot, id string) *pairdbv1.NodeChange {
	if snap.Layout == nil {
		return nil
	}
	for _, n := range snap.Layout.Nodes() {
		if n.ID.String() == id {
			c := nodeChange{id: id, verb: verbJoin, node: n.ID, name: n.Name, state: changeDone}
			return s.changeMessage(snap, c)
		}
	}
	return nil
}

// addProgress says how much of what a change is part of has been moved.
func (s *Server) addProgress(c *pairdbv1.NodeChange, m *moving) {
	switch c.GetState() {
	case changeMoving, changeSwitching:
		sum := m.sum()
		c.Spans, c.SpansDone = m.spans()
		c.KeysDone, c.BytesDone, c.BytesTotal = sum.GetKeysDone(), sum.GetBytesDone(), sum.GetBytesTotal()
		if c.GetSpans() > 0 {
			c.Percent = 100 * float64(c.GetSpansDone()) / float64(c.GetSpans())
		}
	case changeCleaning:
		c.Percent = 100
	}
	if c.GetState() == changeMoving && c.GetSpansDone() > 0 && c.GetBegunAt() != nil {
		now := s.opts.Now()
		took := now.Sub(c.GetBegunAt().AsTime())
		left := float64(c.GetSpans()-c.GetSpansDone()) / float64(c.GetSpansDone()) * float64(took)
		// Beyond a year it says nothing, and would not be a time any more.
		if took > 0 && left < float64(maxEstimate) {
			c.EstimatedEnd = timestamppb.New(now.Add(time.Duration(left)))
		}
	}
}

// maxEstimate bounds how far ahead an end is estimated.
const maxEstimate = 365 * 24 * time.Hour
