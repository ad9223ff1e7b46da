package rpc

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// resolveAll finds several nodes, each once; the first one stays the first.
func resolveAll(all []target, field string, texts []string) ([]ring.NodeID, error) {
	var ids []ring.NodeID
	for _, text := range texts {
		t, err := resolve(all, field, text)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(ids, t.id) {
			ids = append(ids, t.id)
		}
	}
	return ids, nil
}

// Remove implements pairdbv1.ClusterServer.
func (c *clusterService) Remove(ctx context.Context, req *pairdbv1.RemoveRequest) (*pairdbv1.NodeChange, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	return c.s.Remove(ctx, req)
}

// Remove gives up a lost node.
func (s *Server) Remove(ctx context.Context, req *pairdbv1.RemoveRequest) (*pairdbv1.NodeChange, error) {
	admin, snap, err := s.ringAdmin()
	if err != nil {
		return nil, err
	}
	if !req.GetAcceptLoss() {
		return nil, invalid("accept_loss is not set: what the node alone had is lost when it is removed")
	}
	lost, err := resolveAll(members(snap), "node", append([]string{req.GetNode()}, req.GetAlsoLost()...))
	if err != nil {
		return nil, err
	}
	if len(lost) > 1 || snap.Ring.MustGiveUp(lost[0], snap.Report) {
		return s.giveUp(ctx, admin, snap, lost, req.GetCheckOnly())
	}
	return s.intend(ctx, admin, ring.Intent{Verb: ring.VerbRemove, Node: lost[0]}, req.GetCheckOnly())
}

// giveUp gives up the first of some lost nodes: what only it has is lost. The others are
// lost, too, and those that are not given up yet are to be next.
func (s *Server) giveUp(ctx context.Context, admin RingAdmin, snap *schema.Snapshot, lost []ring.NodeID, checkOnly bool) (*pairdbv1.NodeChange, error) {
	left := slices.DeleteFunc(slices.Clone(lost[1:]), snap.Ring.IsRetired)
	lost = append([]ring.NodeID{lost[0]}, left...)
	if err := admin.CheckGiveUp(lost); err != nil {
		return nil, err
	}
	i := ring.Intent{Verb: ring.VerbGiveUp, Node: lost[0], CreatedAtMs: s.opts.Now().UnixMilli()}
	if checkOnly {
		// What goes with all of them: nobody is asked about each alone.
		m := s.changeMessage(snap, asked(i, ""))
		m.GivenUp = s.lossOf(snap, lost)
		return m, nil
	}
	loss := s.lossOf(snap, lost[:1])
	op, err := admin.GiveUp(ctx, lost)
	if err != nil {
		return nil, err
	}
	s.opts.Logger.Warn("a lost node was given up, with what only it had", "node", i.Node.String(), "given_up", lossText(loss), "id", hex.EncodeToString(op[:]))
	snap = s.Follow()
	m := s.changeMessage(snap, s.book.note(asked(i, hex.EncodeToString(op[:])), snap))
	m.GivenUp = loss
	return m, nil
}

// replaceLost gives up a lost node and has another take its place. If only the first is
// noted the node goes, and its partitions go to all others.
func (s *Server) replaceLost(ctx context.Context, admin RingAdmin, snap *schema.Snapshot, i ring.Intent, checkOnly bool) (*pairdbv1.NodeChange, error) {
	// It may be refused only for what is given up.
	if err := admin.Check(i); err != nil && !errors.Is(err, ring.ErrSourcesLost) {
		return nil, err
	}
	gone, err := s.giveUp(ctx, admin, snap, []ring.NodeID{i.Node}, checkOnly)
	if err != nil {
		return nil, err
	}
	m := s.changeMessage(snap, asked(i, ""))
	if !checkOnly {
		if m, err = s.intend(ctx, admin, i, false); err != nil {
			return nil, fmt.Errorf("%s is given up, but its replacement is not noted; say it again: %w", gone.GetName(), err)
		}
	}
	m.GivenUp = gone.GetGivenUp()
	return m, nil
}

// lossOf is what goes with lost nodes, on the wire.
func (s *Server) lossOf(snap *schema.Snapshot, lost []ring.NodeID) (all []*pairdbv1.GivenUp) {
	list := func(ps []ring.Partition) []uint32 {
		out := make([]uint32, len(ps))
		for i, p := range ps {
			out[i] = uint32(p)
		}
		return out
	}
	for _, l := range snap.Ring.LossOf(lost) {
		all = append(all, &pairdbv1.GivenUp{
			ReplicationFactor: uint32(l.RF), TenantIds: l.Tenants, Partitions: list(l.Partitions), EmptyPartitions: list(l.Empty),
		})
	}
	return all
}

// lossText is that in a line of a log.
func lossText(all []*pairdbv1.GivenUp) string {
	var parts []string
	for _, g := range all {
		names := g.GetTenantIds()
		if more := len(names) - maxListed; more > 0 {
			names = append(slices.Clone(names[:maxListed]), fmt.Sprintf("and %d more", more))
		}
		parts = append(parts, fmt.Sprintf("%d partitions of tenants with %d copies (%s), %d of them without any copy left",
			len(g.GetPartitions()), g.GetReplicationFactor(), strings.Join(names, ", "), len(g.GetEmptyPartitions())))
	}
	return cmp.Or(strings.Join(parts, "; "), "nothing")
}

// Recover implements pairdbv1.ClusterServer.
func (c *clusterService) Recover(ctx context.Context, req *pairdbv1.RecoverRequest) (*pairdbv1.RecoverResponse, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	admin, snap, err := c.s.ringAdmin()
	if err != nil {
		return nil, err
	}
	switch {
	case !req.GetAcceptLoss():
		return nil, invalid("accept_loss is not set: what only the lost nodes had, and had decided, is given up")
	case len(req.GetLost()) == 0:
		return nil, invalid("lost is missing: the names or ids of all nodes that are lost")
	}
	lost, err := resolveAll(members(snap), "lost", req.GetLost())
	if err != nil {
		return nil, err
	}
	if err := admin.CheckRecover(ctx, lost); err != nil {
		return nil, err
	}
	resp := &pairdbv1.RecoverResponse{Lost: c.s.nodes(snap, lost), Left: c.s.nodes(snap, snap.Ring.Survivors(lost)), GivenUp: c.s.lossOf(snap, lost)}
	if r, err := snap.Ring.Recovery(lost); err == nil {
		resp.Voters = c.s.nodes(snap, r.Voters)
	}
	if !req.GetCheckOnly() {
		c.s.opts.Logger.Warn("the vote is to be given to the members that are left", "lost", listed(targets(snap, lost)), "given_up", lossText(resp.GetGivenUp()))
		if err := admin.Recover(ctx, lost); err != nil {
			return nil, err
		}
		snap = c.s.opts.Metadata.Snapshot()
		resp.Voters = c.s.nodes(snap, snap.Ring.Voters())
	}
	resp.Ring = c.s.ringStatus(snap)
	return resp, nil
}

func targets(snap *schema.Snapshot, ids []ring.NodeID) []target {
	var all []target
	for _, id := range ids {
		all = append(all, target{id, nameIn(snap, id)})
	}
	slices.SortFunc(all, func(a, b target) int { return cmp.Or(cmp.Compare(a.name, b.name), a.id.Compare(b.id)) })
	return all
}

// nodes are nodes on the wire, sorted by name.
func (s *Server) nodes(snap *schema.Snapshot, ids []ring.NodeID) (all []*pairdbv1.TransferNode) {
	for _, t := range targets(snap, ids) {
		all = append(all, &pairdbv1.TransferNode{NodeId: t.id.String(), Name: t.name})
	}
	return all
}
