package ring

import (
	"cmp"
	"fmt"
	"slices"
)

// TokenKey is a key for context tokens, as the log made it.
type TokenKey struct {
	ID  uint8
	Key [32]byte
}

// State is what the log up to one version says. It is an immutable value: Next
// makes a new one. The zero State stands before the first entry.
type State struct {
	version     Version
	clusterID   ClusterID
	clusterName string
	founder     NodeID
	layout      *Layout
	tenants     []*TenantRecord // sorted by name
	// lastTenant is the highest number given out; numbers are never reused.
	lastTenant TenantNumber
	tokenKeys  []TokenKey // newest first
	change     *Change
	outside    []Outsider      // sorted by id
	retired    []NodeID        // sorted
	intents    []*IntentRecord // in the order of the log
	// voters are those that a recovery named, at recoveredAt; nil: those of the layout.
	voters      []NodeID
	recoveredAt Version
}

// IntentRecord is an open intent as the log knows it.
type IntentRecord struct {
	Op [16]byte
	Intent
	// Version is the entry that made it.
	Version Version
}

// Version is the last entry applied; 0 if none.
func (s *State) Version() Version { return s.version }

// ClusterID is zero before founding.
func (s *State) ClusterID() ClusterID { return s.clusterID }

// ClusterName is empty before founding.
func (s *State) ClusterName() string { return s.clusterName }

// Founder is who founded the cluster; zero before that.
func (s *State) Founder() NodeID { return s.founder }

// Layout is the finalised layout, with the versions that partitions have by now. It
// is nil before founding.
func (s *State) Layout() *Layout { return s.layout }

// Change is the change that is open, nil if none is.
func (s *State) Change() *Change { return s.change }

// Outsiders are the members without partitions, sorted by id. The caller must not
// change it.
func (s *State) Outsiders() []Outsider { return s.outside }

// Retired are the nodes that were members and never will be again, sorted. The caller
// must not change it.
func (s *State) Retired() []NodeID { return s.retired }

// IsRetired says whether id was a member and never will be again.
func (s *State) IsRetired(id NodeID) bool {
	_, ok := slices.BinarySearchFunc(s.retired, id, NodeID.Compare)
	return ok
}

// Intents are the open intents in the order of the log. The caller must not change it.
func (s *State) Intents() []*IntentRecord { return s.intents }

// Member finds a member: a node of the layout, of the layout that is to be, or one
// without partitions.
func (s *State) Member(id NodeID) (LayoutNode, bool) {
	if s.layout == nil {
		return LayoutNode{}, false
	}
	if n, ok := s.layout.Node(id); ok {
		return n, true
	}
	if s.change != nil {
		if n, ok := s.change.Next.Node(id); ok {
			return n, true
		}
	}
	i := slices.IndexFunc(s.outside, func(o Outsider) bool { return o.ID == id })
	if i < 0 {
		return LayoutNode{}, false
	}
	return s.outside[i].LayoutNode, true
}

// Members are all members, sorted by id.
func (s *State) Members() []LayoutNode {
	if s.layout == nil {
		return nil
	}
	all := slices.Clone(s.layout.nodes)
	add := func(n LayoutNode) {
		if !slices.ContainsFunc(all, func(o LayoutNode) bool { return o.ID == n.ID }) {
			all = append(all, n)
		}
	}
	if s.change != nil {
		for _, n := range s.change.Next.nodes {
			add(n)
		}
	}
	for _, o := range s.outside {
		add(o.LayoutNode)
	}
	slices.SortFunc(all, func(a, b LayoutNode) int { return a.ID.Compare(b.ID) })
	return all
}

// Tenants gives the tenants sorted by name. The caller must not change it.
func (s *State) Tenants() []*TenantRecord { return s.tenants }

// TokenKeys gives the keys for context tokens, newest first. The caller must not
// change it.
func (s *State) TokenKeys() []TokenKey { return s.tokenKeys }

// Voters gives the nodes that vote on the next entry, none before founding. The
// caller must not change it.
func (s *State) Voters() []NodeID {
	if s.layout == nil {
		return nil
	}
	if s.voters != nil {
		return s.voters
	}
	return s.layout.voters
}

// Next gives the state after e, which must be the entry after s. An entry that
// came too late to have its effect, such as the second create of one name, is
// void: it takes its place in the log and changes nothing but the version.
// An entry that cannot stand there is an error, and s goes on unchanged.
func (s *State) Next(e *Entry) (*State, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	if e.Version != s.version+1 {
		return nil, fmt.Errorf("%w %d: the log is at %d", ErrInvalidEntry, e.Version, s.version)
	}
	n := *s
	n.version = e.Version
	switch e.Kind {
	case KindFound:
		f := e.Found
		n.clusterID, n.clusterName, n.founder, n.layout = f.ClusterID, f.ClusterName, f.Founder, f.Layout
		n.tokenKeys = []TokenKey{{ID: f.TokenKeyID, Key: f.TokenKey}}
		n.addTenant(&TenantRecord{Name: DefaultTenantName, RF: DefaultTenantRF, Policy: 1, CreatedAtMs: f.CreatedAtMs})
	case KindTenantCreate:
		t := e.Tenant
		n.addTenant(&TenantRecord{Name: t.Name, RF: t.RF, Policy: t.Policy, CreatedAtMs: t.CreatedAtMs})
	case KindPropose:
		n.propose(e)
	case KindCommit:
		if c := n.at(e, Proposed); c != nil {
			next := *c
			next.Stage, next.CommittedAt = Committed, e.Version
			n.change, n.layout = &next, n.layout.withPV(c.touched, e.Version)
		}
	case KindAbort:
		if c := n.at(e, Proposed); c != nil {
			n.change, n.layout = nil, n.layout.withPV(c.touched, e.Version)
			n.settleOutside(c.Next, Outsider{Reopened: e.Step.Reopens}, nil)
			if e.Step.Reopens {
				n.reopen(c.Carries)
			}
		}
	case KindFinalize:
		if c := n.at(e, Committed); c != nil {
			next := *c.Next
			next.pv = n.layout.pv
			next.version = e.Version
			old := n.layout
			n.change, n.layout = nil, next.withPV(c.touched, e.Version)
			n.settleOutside(old, Outsider{Leaving: true}, c.Removed)
			n.settleVoters(c)
			n.settleFactors(c.Factors)
		}
	case KindRetire:
		n.retire(e.Retire.Node)
	case KindIntent:
		n.intend(e)
	case KindTenantDelete:
		n.deleteTenant(e.Delete.Number)
	case KindRecover:
		n.recover(e)
	}
	return &n, nil
}

// at gives the open change if e is a step of it from that stage.
func (s *State) at(e *Entry, from Stage) *Change {
	if c := s.change; c != nil && c.ID == e.Step.Change && c.Stage == from {
		return c
	}
	return nil
}

// propose opens a change, unless it is void: one is open, the layout is another one
// by now, a node of it is retired or leaves, a removed one is no member, an intent that
// it carries out is not wanted any more, or a replication factor cannot be changed like
// that.
func (s *State) propose(e *Entry) {
	p := e.Propose
	goes := func(id NodeID) bool {
		o, outside := s.outsider(id)
		return s.IsRetired(id) || outside && o.Leaving
	}
	member := func(id NodeID) bool { _, ok := s.Member(id); return ok }
	open := func(op [16]byte) bool {
		return slices.ContainsFunc(s.intents, func(i *IntentRecord) bool { return i.Op == op })
	}
	if s.change != nil || p.Parent != s.layout.version || p.Layout.Partitions() != s.layout.Partitions() ||
		slices.ContainsFunc(p.Layout.nodes, func(n LayoutNode) bool { return goes(n.ID) }) ||
		slices.ContainsFunc(p.Removed, func(id NodeID) bool { return !member(id) }) ||
		slices.ContainsFunc(p.Closes, func(op [16]byte) bool { return !open(op) }) ||
		!s.mayRefactor(p.Factors) {
		return
	}
	c := &Change{
		ID: e.Op, Stage: Proposed, ProposedAt: e.Version, Next: p.Layout, Removed: p.Removed, Factors: p.Factors,
		touched: touchedBy(s.layout, p.Layout),
	}
	if len(p.Factors) > 0 {
		s.splitClasses(p.Factors)
		for part := range c.touched {
			c.touched[part] = true
		}
	}
	s.layout = s.layout.withPV(c.touched, e.Version)
	var left []*IntentRecord
	for _, i := range s.intents {
		if slices.Contains(p.Closes, i.Op) {
			c.Carries = append(c.Carries, i)
		} else {
			left = append(left, i)
		}
	}
	s.change, s.intents = c, left
}

// reopen puts intents back in their place in the order of the log, as far as there is
// room. Those of a tenant that is gone are gone with it.
func (s *State) reopen(intents []*IntentRecord) {
	all := slices.DeleteFunc(slices.Concat(intents, s.intents), func(i *IntentRecord) bool { return s.Deleted(i.Tenant) })
	slices.SortStableFunc(all, func(a, b *IntentRecord) int { return cmp.Compare(a.Version, b.Version) })
	s.intents = all[:min(len(all), MaxIntents)]
}

// settleOutside notes who of the nodes of another layout has no place in the one that is
// in force now, and forgets those that have one. Removed nodes are retired, as those are that were given up. Whoever was in force before leaves;
// a joiner that was turned away may come again. as says what they are from now on, but for
// node and version.
func (s *State) settleOutside(from *Layout, as Outsider, removed []NodeID) {
	in := s.layout
	for _, id := range removed {
		s.retired = insertID(s.retired, id)
	}
	s.outside = slices.DeleteFunc(slices.Clone(s.outside), func(o Outsider) bool {
		_, ok := in.index(o.ID)
		return ok || s.IsRetired(o.ID)
	})
	for _, n := range from.nodes {
		_, stays := in.index(n.ID)
		known := slices.IndexFunc(s.outside, func(o Outsider) bool { return o.ID == n.ID })
		switch {
		case stays, s.IsRetired(n.ID):
		case known >= 0:
			s.outside[known].Since, s.outside[known].Reopened = s.version, as.Reopened
		default:
			s.outside = append(s.outside, Outsider{LayoutNode: n, Leaving: as.Leaving, Reopened: as.Reopened, Since: s.version})
		}
	}
	slices.SortFunc(s.outside, func(a, b Outsider) int { return a.ID.Compare(b.ID) })
}

func (s *State) retire(id NodeID) {
	i := slices.IndexFunc(s.outside, func(o Outsider) bool { return o.ID == id })
	if i < 0 || s.change != nil && slices.ContainsFunc(s.change.Next.nodes, func(n LayoutNode) bool { return n.ID == id }) {
		return
	}
	s.outside = slices.Delete(slices.Clone(s.outside), i, i+1)
	s.retired = insertID(s.retired, id)
}

func insertID(ids []NodeID, id NodeID) []NodeID {
	at, there := slices.BinarySearchFunc(ids, id, NodeID.Compare)
	if there {
		return ids
	}
	return slices.Insert(slices.Clone(ids), at, id)
}

// intend notes an intent, or ends one. It is void if its node is no member or its tenant
// does not exist, or if there are too many.
func (s *State) intend(e *Entry) {
	i := e.Intent
	if i.Verb == VerbCancel {
		s.intents = slices.DeleteFunc(slices.Clone(s.intents), func(r *IntentRecord) bool { return r.Op == i.Cancels })
		return
	}
	about := func() bool {
		if i.Verb == VerbReplicate {
			t, ok := s.TenantByNumber(i.Tenant)
			return ok && s.mayOwnClass(t)
		}
		_, ok := s.Member(i.Node)
		return ok
	}
	if len(s.intents) >= MaxIntents || !about() {
		return
	}
	if i.Verb == VerbGiveUp {
		if s.IsRetired(i.Node) || !s.remains(i.Node) {
			return
		}
		s.giveUp(i.Node)
	}
	s.intents = append(slices.Clone(s.intents), &IntentRecord{Op: e.Op, Intent: *i, Version: e.Version})
}
