package rpc

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pairdb/pairdb/api/errcode"
	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// SafeToStop implements pairdbv1.ClusterServer.
func (c *clusterService) SafeToStop(ctx context.Context, req *pairdbv1.SafeToStopRequest) (*pairdbv1.SafeToStopResponse, error) {
	return c.s.SafeToStop(ctx, req)
}

// SafeToStop asks all members how they are, and says whether a node can be stopped.
func (s *Server) SafeToStop(ctx context.Context, req *pairdbv1.SafeToStopRequest) (*pairdbv1.SafeToStopResponse, error) {
	snap := s.opts.Metadata.Snapshot()
	node, err := nodeOrSelf(snap, req.GetNode())
	if err != nil {
		return nil, err
	}
	r := s.cluster.ask(ctx)
	v := stopView{snap: r.snap, target: node.id, up: r.up, figures: r.figures, silent: r.silent}
	_, answers, silent, err := s.observe(ctx, "", func(ring.NodeID) *peerv1.ObserveRequest { return &peerv1.ObserveRequest{Hints: true} })
	if err != nil {
		return nil, err
	}
	for i := range r.snap.Members {
		id := r.snap.Members[i].ID
		if _, mute := silent[id]; mute {
			v.mute = append(v.mute, id)
		}
		for _, b := range answers[id].GetHints() {
			var to ring.NodeID
			if copy(to[:], b.GetTarget()) == len(to) && b.GetCount() > 0 {
				v.owed = append(v.owed, owed{by: id, to: to, count: b.GetCount()})
			}
		}
	}
	resp := &pairdbv1.SafeToStopResponse{NodeId: node.id.String(), Name: node.name, Reasons: v.reasons()}
	resp.Safe = len(resp.GetReasons()) == 0
	return resp, nil
}

// nodeOrSelf finds the member that text names, this node if it is empty.
func nodeOrSelf(snap *schema.Snapshot, text string) (target, error) {
	if text == "" {
		return target{snap.Self, nameIn(snap, snap.Self)}, nil
	}
	if snap.Ring == nil {
		return target{}, &coord.Error{Code: errcode.Unavailable, Outcome: errcode.NotApplied, Message: "there is no ring yet; the cluster is not founded"}
	}
	return resolve(members(snap), "node", text)
}

// stopView is what is known of the nodes when one of them is to be stopped.
type stopView struct {
	snap    *schema.Snapshot
	target  ring.NodeID
	up      func(ring.NodeID) bool
	figures map[ring.NodeID]NodeInfo
	// silent is why nodes did not answer; mute are those that did not say what they owe.
	silent map[ring.NodeID]string
	mute   []ring.NodeID
	owed   []owed
}

// owed is how many writes a node keeps for another that lacks them.
type owed struct {
	by, to ring.NodeID
	count  uint64
}

// reasons are why the target must not be stopped now, none if it may.
func (v *stopView) reasons() []*pairdbv1.StopReason {
	if v.snap.Layout == nil || v.snap.Ring == nil || !v.snap.Ready {
		return []*pairdbv1.StopReason{{Kind: "layout", Text: "the node that was asked is no part of a ready cluster", Next: "wait until pairdb health says that it serves"}}
	}
	if !placed(v.snap, v.target) {
		if slices.ContainsFunc(v.snap.Ring.Outsiders(), func(o ring.Outsider) bool { return o.ID == v.target && v.snap.Report(o.ID).Clean < o.Since }) {
			return []*pairdbv1.StopReason{v.reason("change", "%s owns nothing any more and hands over what it still holds", "wait until it is done: pairdb transfers --watch", v.target)}
		}
		return nil // nothing of it is read
	}
	var all []*pairdbv1.StopReason
	for _, r := range []*pairdbv1.StopReason{v.quorum(), v.change()} {
		if r != nil {
			all = append(all, r)
		}
	}
	return append(append(all, v.neighbours()...), v.hints()...)
}

// reason is one about nodes, which stand for the %s in text.
func (v *stopView) reason(kind, text, next string, nodes ...ring.NodeID) *pairdbv1.StopReason {
	var names []string
	for _, id := range nodes {
		names = append(names, nameIn(v.snap, id))
	}
	slices.Sort(names)
	if strings.Contains(text, "%s") {
		text = fmt.Sprintf(text, strings.Join(names, ", "))
	}
	return &pairdbv1.StopReason{Kind: kind, Text: text, Next: next, Nodes: names}
}

// quorum is about partitions that would have no majority of their owners without the
// target, for each replication factor in use.
func (v *stopView) quorum() *pairdbv1.StopReason {
	without := func(up func(ring.NodeID) bool) func(ring.NodeID) bool {
		return func(id ring.NodeID) bool { return id != v.target && up(id) }
	}
	everybody := func(ring.NodeID) bool { return true }
	for _, copies := range copiesOf(v.snap) {
		n := withoutQuorum(v.snap, copies, without(v.up))
		if n == 0 || n == withoutQuorum(v.snap, copies, v.up) && !v.owns(copies) {
			continue
		}
		text := fmt.Sprintf("%d of %d partitions would have no majority of their owners at replication factor %d (%s)", n, v.snap.Layout.Partitions(), copies.From, tenantsOf(v.snap, copies))
		next := "wait until the nodes that are down are up: pairdb status"
		if withoutQuorum(v.snap, copies, without(everybody)) > 0 {
			next = "waiting does not help: there are too few copies. Add nodes, use a higher replication factor, or accept that some requests fail while it is away"
		}
		return v.reason("quorum", text, next, v.target)
	}
	return nil
}

// owns says that the target owns something at a replication factor.
func (v *stopView) owns(copies ring.Copies) bool {
	for p := range v.snap.Layout.Partitions() {
		if slices.Contains(v.snap.Sets(nil, ring.Partition(p), copies).Owners, v.target) {
			return true
		}
	}
	return false
}

// maxTenants bounds the tenants that a reason names.
const maxTenants = 5

func tenantsOf(snap *schema.Snapshot, copies ring.Copies) string {
	var names []string
	for _, t := range snap.Tenants() {
		if t.Copies() == copies {
			names = append(names, t.Name)
		}
	}
	slices.Sort(names)
	if n := len(names); n > maxTenants {
		names = append(names[:maxTenants], fmt.Sprintf("and %d more", n-maxTenants))
	}
	if len(names) == 0 {
		return "no tenant"
	}
	return "tenant " + strings.Join(names, ", ")
}

// change is about a change of the ring, which the target has a part in.
func (v *stopView) change() *pairdbv1.StopReason {
	if v.snap.Change == nil {
		return nil
	}
	return v.reason("change", "owners of partitions change, and the node has a part in that", "wait until it is done: pairdb transfers --watch. Or end it: pairdb cluster abort")
}

// neighbours are about other nodes that own what the target owns.
func (v *stopView) neighbours() []*pairdbv1.StopReason {
	shares := make(map[ring.NodeID]bool)
	for _, copies := range copiesOf(v.snap) {
		for p := range v.snap.Layout.Partitions() {
			sets := v.snap.Sets(nil, ring.Partition(p), copies)
			if slices.Contains(sets.Owners, v.target) {
				for _, id := range sets.Owners {
					shares[id] = true
				}
			}
		}
	}
	delete(shares, v.target)
	var down, lost, draining, damaged, unverified, older []ring.NodeID
	spans := 0
	check := func(id ring.NodeID, info NodeInfo) {
		switch {
		case info.Unverified == nil:
			older = append(older, id)
		case *info.Unverified > 0:
			unverified, spans = append(unverified, id), max(spans, int(*info.Unverified))
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(shares), ring.NodeID.Compare) {
		info := v.figures[id]
		m, known := v.snap.Member(id)
		drained := info.Draining || known && m.Drained
		switch {
		case v.snap.Ring.IsRetired(id):
			lost = append(lost, id)
			continue
		case !v.up(id), !info.Ready && !drained:
			down = append(down, id)
			continue
		case drained:
			draining = append(draining, id)
		}
		if info.Quarantined > 0 {
			damaged = append(damaged, id)
		}
		check(id, info)
	}
	if info, answers := v.figures[v.target]; answers {
		check(v.target, info)
	}
	var all []*pairdbv1.StopReason
	add := func(kind, text, next string, nodes []ring.NodeID) {
		if len(nodes) > 0 {
			all = append(all, v.reason(kind, text, next, nodes...))
		}
	}
	add("down", "nodes that own the same partitions do not serve: %s", "start them, or wait until pairdb status says that they are up", down)
	add("change", "nodes that own the same partitions are given up for lost, and others have not taken their place yet: %s", "wait until it is done: pairdb transfers --watch. If no change begins, pairdb cluster plan says why", lost)
	add("draining", "nodes that own the same partitions are drained: %s", "restart them, or pairdb node drain --undo", draining)
	add("quarantined", "nodes that own the same partitions fetch damaged ones again: %s", "wait until QUARANTINED in pairdb status is 0", damaged)
	add("unverified", fmt.Sprintf("owners of up to %d spans have not been found equal since one of them was away, as these nodes know it: %%s", spans), "wait for the rounds that are under way; pairdb repair --wait has all compared now, and says what keeps them", unverified)
	add("unverified", "nodes do not say whether what they own has been compared: %s; they run another version", "make sure with pairdb repair --wait that all owners are equal", older)
	return all
}

// hints are about writes that nodes of the ring lack.
func (v *stopView) hints() []*pairdbv1.StopReason {
	var all []*pairdbv1.StopReason
	counts := make(map[ring.NodeID]uint64)
	keepers := make(map[ring.NodeID][]ring.NodeID)
	for _, o := range v.owed {
		// Hints for a node that is gone for good wait for nothing but their window.
		if placed(v.snap, o.to) && !v.snap.Ring.IsRetired(o.to) {
			counts[o.to] += o.count
			keepers[o.to] = append(keepers[o.to], o.by)
		}
	}
	for _, to := range slices.SortedFunc(maps.Keys(counts), func(a, b ring.NodeID) int {
		return cmp.Compare(nameIn(v.snap, a), nameIn(v.snap, b))
	}) {
		text := fmt.Sprintf("%d writes wait to be delivered to %s; these nodes keep hints of them: %%s", counts[to], nameIn(v.snap, to))
		all = append(all, v.reason("hints", text, "wait until pairdb hints is empty", keepers[to]...))
	}
	var mute []ring.NodeID
	for _, id := range v.mute {
		if _, silent := v.silent[id]; !silent && placed(v.snap, id) {
			mute = append(mute, id)
		}
	}
	if len(mute) > 0 {
		all = append(all, v.reason("hints", "nodes do not say whether they keep hints: %s", "ask again", mute...))
	}
	return all
}
