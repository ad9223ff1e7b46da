package rpc

import (
	"cmp"
	"context"
	"encoding/hex"
	"slices"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/schema"
)

// PlanChange implements pairdbv1.ClusterServer.
func (c *clusterService) PlanChange(ctx context.Context, _ *pairdbv1.PlanChangeRequest) (*pairdbv1.PlanChangeResponse, error) {
	admin, snap, err := c.s.ringAdmin()
	if err != nil {
		return nil, err
	}
	resp := &pairdbv1.PlanChangeResponse{RingVersion: uint64(snap.Version), AutoApply: admin.AutoApply(), Changing: snap.Change != nil}
	if snap.Change != nil {
		// The layout that a plan would start from is not there yet.
		resp.Carries = c.s.openChanges(snap)
		return resp, nil
	}
	plan, err := admin.PlanChange()
	if err != nil {
		return nil, err
	}
	if plan == nil {
		return resp, nil
	}
	r := c.ask(ctx)
	for i := range snap.Members {
		if why, ok := r.silent[snap.Members[i].ID]; ok {
			resp.Unreachable = append(resp.Unreachable, unreachable(&snap.Members[i], why))
		}
	}
	each := bytesPerCopy(snap, &r)
	for _, m := range plan.Moves {
		n := &pairdbv1.PlannedNode{
			NodeId: m.Node.ID.String(), Name: m.Node.Name, Zone: m.Node.Zone,
			Before: uint32(m.Before), After: uint32(m.After), Gains: uint32(m.Gains), Gives: uint32(m.Gives),
			GainsBytes: uint64(float64(m.Gains) * each),
		}
		if plan.Layout != nil {
			in, _ := plan.Layout.Node(m.Node.ID)
			n.Capacity = in.Capacity
		}
		resp.MovingCopies += uint64(m.Gains)
		resp.MovingBytes += n.GetGainsBytes()
		resp.Nodes = append(resp.Nodes, n)
	}
	slices.SortFunc(resp.Nodes, func(a, b *pairdbv1.PlannedNode) int {
		return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetNodeId(), b.GetNodeId()))
	})
	for _, i := range snap.Ring.Intents() {
		if found, ok := c.s.book.find(hex.EncodeToString(i.Op[:])); ok && slices.Contains(plan.Closes, i.Op) {
			resp.Carries = append(resp.Carries, c.s.changeMessage(snap, found))
		}
	}
	if plan.Layout != nil {
		for _, n := range plan.Layout.Nodes() {
			if _, in := snap.Layout.Node(n.ID); !in {
				// One that was turned away waits again, whatever became of it before, and
				// for somebody to say so.
				resp.AutoApply = resp.GetAutoApply() && !turnedAway(snap, n.ID)
				resp.Carries = append(resp.Carries, c.s.changeMessage(snap, joining(n.ID, n.Name, c.s.opts.Now())))
			}
		}
	}
	cannot := func(id string, why error) {
		if found, ok := c.s.book.find(id); ok {
			m := c.s.changeMessage(snap, found)
			m.WaitsFor = clip(why.Error(), maxCauseBytes)
			resp.Cannot = append(resp.Cannot, m)
		}
	}
	for _, v := range slices.Concat(plan.Void, plan.Waits) {
		cannot(hex.EncodeToString(v.Intent.Op[:]), v.Why)
	}
	for _, r := range plan.Refused {
		cannot(r.Node.ID.String(), r.Why)
	}
	return resp, nil
}

// openChanges are what is asked for and not begun: intents, and nodes that wait to join.
func (s *Server) openChanges(snap *schema.Snapshot) (out []*pairdbv1.NodeChange) {
	for _, i := range snap.Ring.Intents() {
		if c, ok := s.book.find(hex.EncodeToString(i.Op[:])); ok {
			out = append(out, s.changeMessage(snap, c))
		}
	}
	for _, j := range waitingJoiners(snap) {
		if c, ok := s.book.find(j.ID.String()); ok {
			out = append(out, s.changeMessage(snap, c))
		}
	}
	return out
}

// bytesPerCopy is what one copy of a partition has on the average, going by the nodes
// that answer.
func bytesPerCopy(snap *schema.Snapshot, r *report) float64 {
	var bytes, copies float64
	shares := sharesOf(snap)
	for _, n := range snap.Layout.Nodes() {
		if f, ok := r.figures[n.ID]; ok {
			bytes += float64(f.Bytes)
			copies += float64(shares[n.ID].all)
		}
	}
	if copies == 0 {
		return 0
	}
	return bytes / copies
}
