package rpc

import (
	"cmp"
	"context"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// RingAdmin changes the ring. Its errors are classified like all others.
type RingAdmin interface {
	// PlanChange returns what would be proposed now, nil if there is nothing to do.
	PlanChange() (*ring.Plan, error)
	// CommitPlan proposes it, and returns once that is chosen.
	CommitPlan(ctx context.Context) error
	// AbortChange ends the change that is open, and returns once that is chosen.
	AbortChange(ctx context.Context, reason string) error
	// Check says why an intent cannot be had, nil if it can.
	Check(i ring.Intent) error
	// Intend notes what is wanted, and returns what names it once that is chosen.
	Intend(ctx context.Context, i ring.Intent) (op [16]byte, err error)
	// CheckGiveUp says why lost nodes cannot be given up together, nil if they can.
	CheckGiveUp(lost []ring.NodeID) error
	// GiveUp gives up the first of them, and returns what names that once it is chosen.
	GiveUp(ctx context.Context, lost []ring.NodeID) (op [16]byte, err error)
	// CheckRecover says why the vote cannot be given to those that are left.
	CheckRecover(ctx context.Context, lost []ring.NodeID) error
	// Recover does it, and returns once all of them have agreed.
	Recover(ctx context.Context, lost []ring.NodeID) error
	// AutoApply says that changes begin by themselves.
	AutoApply() bool
}

// maxReasonBytes bounds the reason of an abort.
const maxReasonBytes = ring.MaxReasonLen

// ringAdmin is who changes the ring, or why nobody does.
func (s *Server) ringAdmin() (RingAdmin, *schema.Snapshot, error) {
	snap := s.Follow()
	if s.opts.Ring == nil {
		return nil, nil, &coord.Error{Code: errcode.Unavailable, Outcome: errcode.NotApplied, Message: "this node makes no changes of the ring"}
	}
	if snap.Layout == nil || snap.Ring == nil {
		return nil, nil, &coord.Error{Code: errcode.Unavailable, Outcome: errcode.NotApplied, Message: "there is no ring yet; the cluster is not founded"}
	}
	return s.opts.Ring, snap, nil
}

// joiners are the nodes that wait to become members, sorted by name.
func joiners(snap *schema.Snapshot) []schema.Member {
	list := slices.Clone(snap.Joiners)
	slices.SortFunc(list, func(a, b schema.Member) int { return cmp.Or(cmp.Compare(a.Name, b.Name), a.ID.Compare(b.ID)) })
	return list
}

// target is a node that a request names.
type target struct {
	id   ring.NodeID
	name string
}

// members are the nodes that a request can name, sorted by name. Those that wait to
// join are none, and may have the name of one that is lost.
func members(snap *schema.Snapshot) []target {
	var all []target
	for _, n := range snap.Ring.Members() {
		all = append(all, target{n.ID, n.Name})
	}
	slices.SortFunc(all, func(a, b target) int { return cmp.Or(cmp.Compare(a.name, b.name), a.id.Compare(b.id)) })
	return all
}

// resolve finds the node that text names: by its id, by its name, or by the beginning
// of either that no other has. field is what the request calls it.
func resolve(all []target, field, text string) (target, error) {
	if text == "" {
		return target{}, invalid(field + " is missing: the name or id of a node")
	}
	pick := func(match func(target) bool) (found []target) {
		for _, t := range all {
			if match(t) {
				found = append(found, t)
			}
		}
		return found
	}
	for _, match := range []func(target) bool{
		func(t target) bool { return t.id.String() == text },
		func(t target) bool { return t.name == text },
		func(t target) bool { return strings.HasPrefix(t.id.String(), text) || strings.HasPrefix(t.name, text) },
	} {
		switch found := pick(match); len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return target{}, invalid(field + ": " + strconv.Quote(text) + " is ambiguous: it can be " + listed(found))
		}
	}
	return target{}, invalid(field + ": there is no node " + strconv.Quote(text) + "; there is " + listed(all))
}

// maxListed bounds the nodes that an error names.
const maxListed = 20

func listed(all []target) string {
	var parts []string
	for i, t := range all {
		if i == maxListed {
			parts = append(parts, "and "+strconv.Itoa(len(all)-i)+" more")
			break
		}
		parts = append(parts, t.name+" ("+t.id.Short()+")")
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// intend checks an intent and, unless it is only to be checked, has it noted.
func (s *Server) intend(ctx context.Context, admin RingAdmin, i ring.Intent, checkOnly bool) (*pairdbv1.NodeChange, error) {
	i.CreatedAtMs = s.opts.Now().UnixMilli()
	if err := admin.Check(i); err != nil {
		return nil, err
	}
	if checkOnly {
		return s.changeMessage(s.opts.Metadata.Snapshot(), asked(i, "")), nil
	}
	op, err := admin.Intend(ctx, i)
	if err != nil {
		return nil, err
	}
	id := hex.EncodeToString(op[:])
	s.opts.Logger.Info("a change of the ring was asked for", "verb", i.Verb.String(), "node", i.Node.String(), "by", i.By.String(), "capacity", i.Capacity, "id", id)
	snap := s.Follow()
	return s.changeMessage(snap, s.book.note(asked(i, id), snap)), nil
}

// Decommission implements pairdbv1.ClusterServer.
func (c *clusterService) Decommission(ctx context.Context, req *pairdbv1.DecommissionRequest) (*pairdbv1.NodeChange, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	return c.s.Decommission(ctx, req)
}

// Decommission has a node leave.
func (s *Server) Decommission(ctx context.Context, req *pairdbv1.DecommissionRequest) (*pairdbv1.NodeChange, error) {
	admin, snap, err := s.ringAdmin()
	if err != nil {
		return nil, err
	}
	node, err := resolve(members(snap), "node", req.GetNode())
	if err != nil {
		return nil, err
	}
	return s.intend(ctx, admin, ring.Intent{Verb: ring.VerbLeave, Node: node.id}, req.GetCheckOnly())
}

// Replace implements pairdbv1.ClusterServer.
func (c *clusterService) Replace(ctx context.Context, req *pairdbv1.ReplaceRequest) (*pairdbv1.NodeChange, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	return c.s.Replace(ctx, req)
}

// Replace gives the place of a lost node to one that waits to join.
func (s *Server) Replace(ctx context.Context, req *pairdbv1.ReplaceRequest) (*pairdbv1.NodeChange, error) {
	admin, snap, err := s.ringAdmin()
	if err != nil {
		return nil, err
	}
	dead, err := resolve(members(snap), "dead", req.GetDead())
	if err != nil {
		return nil, err
	}
	by, err := s.newcomer(snap, req.GetBy())
	if err != nil {
		return nil, err
	}
	if by.id == dead.id {
		return nil, invalid("by: " + by.name + " cannot take its own place; name another node that waits to join")
	}
	i := ring.Intent{Verb: ring.VerbReplace, Node: dead.id, By: by.id}
	if !req.GetAcceptLoss() || snap.Ring.IsRetired(dead.id) || !snap.Ring.MustGiveUp(dead.id, snap.Report) {
		return s.intend(ctx, admin, i, req.GetCheckOnly())
	}
	return s.replaceLost(ctx, admin, snap, i, req.GetCheckOnly())
}

// waiting are the nodes that could be taken in: those that wait to join, and those that
// an abort turned away.
func (s *Server) waiting(snap *schema.Snapshot) []target {
	var all []target
	for _, j := range joiners(snap) {
		all = append(all, target{j.ID, j.Name})
	}
	for _, o := range snap.Ring.Outsiders() {
		if !o.Leaving && !slices.ContainsFunc(all, func(t target) bool { return t.id == o.ID }) {
			all = append(all, target{o.ID, o.Name})
		}
	}
	return all
}

// newcomer finds who takes the place of another among the nodes that wait to join: the
// one that text names, or the only one if it is empty.
func (s *Server) newcomer(snap *schema.Snapshot, text string) (target, error) {
	waiting := s.waiting(snap)
	switch {
	case len(waiting) == 0:
		return target{}, &coord.Error{Code: errcode.PreconditionFailed, Outcome: errcode.NotApplied, Message: "no node waits to join that could take its place; start one with --join first"}
	case text != "":
		return resolve(waiting, "by", text)
	case len(waiting) > 1:
		return target{}, invalid("by is missing: several nodes wait to join: " + listed(waiting))
	}
	return waiting[0], nil
}

// Weigh implements pairdbv1.ClusterServer.
func (c *clusterService) Weigh(ctx context.Context, req *pairdbv1.WeighRequest) (*pairdbv1.NodeChange, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	return c.s.Weigh(ctx, req)
}

// Weigh gives a node another share.
func (s *Server) Weigh(ctx context.Context, req *pairdbv1.WeighRequest) (*pairdbv1.NodeChange, error) {
	admin, snap, err := s.ringAdmin()
	if err != nil {
		return nil, err
	}
	if n := req.GetCapacity(); n < 1 || n > ring.MaxCapacity {
		return nil, invalid("capacity: " + strconv.FormatUint(uint64(n), 10) + ", want 1 to " + strconv.Itoa(ring.MaxCapacity))
	}
	node, err := resolve(members(snap), "node", req.GetNode())
	if err != nil {
		return nil, err
	}
	return s.intend(ctx, admin, ring.Intent{Verb: ring.VerbWeigh, Node: node.id, Capacity: req.GetCapacity()}, req.GetCheckOnly())
}

// turnedAway says that a node has no partitions since an abort: it is taken in again when
// somebody says so.
func turnedAway(snap *schema.Snapshot, id ring.NodeID) bool {
	return slices.ContainsFunc(snap.Ring.Outsiders(), func(o ring.Outsider) bool { return o.ID == id })
}

// Accept has a node that waits to join become a member: it is one by itself where
// changes begin by themselves, else what is planned is begun.
func (s *Server) Accept(ctx context.Context, text string) (*pairdbv1.NodeChange, error) {
	admin, snap, err := s.ringAdmin()
	if err != nil {
		return nil, err
	}
	waiting := s.waiting(snap)
	node, err := resolve(waiting, "node_id", text)
	if err != nil {
		if m, merr := resolve(members(snap), "node_id", text); merr == nil {
			return nil, &coord.Error{Code: errcode.NodeInUse, Outcome: errcode.NotApplied, Message: m.name + " is a member already"}
		}
		return nil, err
	}
	if !admin.AutoApply() || turnedAway(snap, node.id) {
		if err := admin.CommitPlan(ctx); err != nil {
			return nil, err
		}
		snap = s.Follow()
	}
	c, ok := s.book.find(node.id.String())
	if !ok {
		c = joining(node.id, node.name, s.opts.Now())
	}
	return s.changeMessage(snap, c), nil
}

// CommitChange implements pairdbv1.ClusterServer.
func (c *clusterService) CommitChange(ctx context.Context, _ *pairdbv1.CommitChangeRequest) (*pairdbv1.CommitChangeResponse, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	admin, _, err := c.s.ringAdmin()
	if err != nil {
		return nil, err
	}
	if err := admin.CommitPlan(ctx); err != nil {
		return nil, err
	}
	return &pairdbv1.CommitChangeResponse{Ring: c.s.ringStatus(c.s.opts.Metadata.Snapshot())}, nil
}

// AbortChange implements pairdbv1.ClusterServer.
func (c *clusterService) AbortChange(ctx context.Context, req *pairdbv1.AbortChangeRequest) (*pairdbv1.AbortChangeResponse, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	admin, snap, err := c.s.ringAdmin()
	if err != nil {
		return nil, err
	}
	failed := func(why string) error {
		return &coord.Error{Code: errcode.PreconditionFailed, Outcome: errcode.NotApplied, Message: why}
	}
	switch {
	case len(req.GetReason()) > maxReasonBytes:
		return nil, invalid("reason: at most " + strconv.Itoa(maxReasonBytes) + " bytes")
	case req.GetId() != "":
		if err := c.s.cancel(ctx, admin, snap, req.GetId()); err != nil {
			return nil, err
		}
		return &pairdbv1.AbortChangeResponse{Ring: c.s.ringStatus(c.s.opts.Metadata.Snapshot())}, nil
	case snap.Change == nil:
		return nil, failed("no change is under way")
	case snap.Change.Stage != ring.Proposed:
		return nil, failed("it is too late: the new owners are being read already, and the change can only be finished")
	}
	if err := admin.AbortChange(ctx, cmp.Or(req.GetReason(), "asked for by an operator")); err != nil {
		return nil, err
	}
	return &pairdbv1.AbortChangeResponse{Ring: c.s.ringStatus(c.s.opts.Metadata.Snapshot())}, nil
}

// cancel takes back an intent that is not begun.
func (s *Server) cancel(ctx context.Context, admin RingAdmin, snap *schema.Snapshot, id string) error {
	intents := snap.Ring.Intents()
	at := slices.IndexFunc(intents, func(i *ring.IntentRecord) bool { return hex.EncodeToString(i.Op[:]) == id })
	if at < 0 {
		return &coord.Error{
			Code: errcode.PreconditionFailed, Outcome: errcode.NotApplied,
			Message: "nothing that waits has the id " + strconv.Quote(clip(id, 100)) + "; pairdb cluster plan lists what does",
		}
	}
	i := ring.Intent{Verb: ring.VerbCancel, Cancels: intents[at].Op, CreatedAtMs: s.opts.Now().UnixMilli()}
	if err := admin.Check(i); err != nil {
		return err
	}
	_, err := admin.Intend(ctx, i)
	return err
}

// ringStatus says how the ring is.
func (s *Server) ringStatus(snap *schema.Snapshot) *pairdbv1.RingStatus {
	st := &pairdbv1.RingStatus{Version: uint64(snap.Version), FinalizedVersion: uint64(snap.Version), Stage: ring.Stable.String()}
	if c := snap.Change; c != nil {
		st.Changing, st.Stage, st.FinalizedVersion = true, c.Stage.String(), uint64(c.ProposedAt-1)
	}
	st.OpenIntents = uint32(len(waitingJoiners(snap)))
	if snap.Ring != nil {
		st.OpenIntents += uint32(len(snap.Ring.Intents()))
		st.WaitingFor = waitedFor(snap)
	}
	return st
}

// waitingJoiners are the nodes that wait to join and that no change takes in yet.
func waitingJoiners(snap *schema.Snapshot) []schema.Member {
	return slices.DeleteFunc(joiners(snap), func(m schema.Member) bool { return placed(snap, m.ID) })
}

// placed says that a node is in the layout, or in the one that is to be.
func placed(snap *schema.Snapshot, id ring.NodeID) bool {
	if snap.Layout != nil {
		if _, in := snap.Layout.Node(id); in {
			return true
		}
	}
	if snap.Change != nil {
		_, in := snap.Change.Next.Node(id)
		return in
	}
	return false
}

// waitedFor names the nodes that the open change waits for, sorted.
func waitedFor(snap *schema.Snapshot) []string {
	_, ids := snap.Ring.MayCommit(snap.Report)
	if snap.Change != nil && snap.Change.Stage == ring.Committed {
		_, ids = snap.Ring.MayFinalize(snap.Report)
	}
	var names []string
	for _, id := range ids {
		names = append(names, nameIn(snap, id))
	}
	slices.Sort(names)
	return names
}

// nameIn is what a node is called, or the beginning of its id.
func nameIn(snap *schema.Snapshot, id ring.NodeID) string {
	if m, ok := snap.Member(id); ok && m.Name != "" {
		return m.Name
	}
	if snap.Ring != nil {
		if n, ok := snap.Ring.Member(id); ok {
			return n.Name
		}
	}
	return id.Short()
}
