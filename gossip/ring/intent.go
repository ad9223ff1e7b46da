package ring

import (
	"fmt"
	"slices"
)

// CheckIntent says why an intent should not be noted: it cannot be carried out, or it
// would give up what is not lost. alive says whether a node answers, joiner whether one
// waits to become a member. While a change is open, intents are measured by the layout
// that is to be, and by the replication factors that were asked for. The answer is nil, or one of the errors of intents with a reason and
// what to do.
//
// Growing is never refused for lack of nodes; leaving is, if fewer would remain than a
// tenant wants copies. A node is given up for lost only if others have what it held, as
// far as the level QUORUM promises that: else the change could never be committed.
func (s *State) CheckIntent(i *Intent, alive, joiner func(NodeID) bool) error {
	if s.layout == nil {
		return ErrNotFounded
	}
	if why := i.check(); why != "" {
		return fmt.Errorf("%w: intent %s: %s", ErrInvalidEntry, i.Verb, why)
	}
	if i.Verb == VerbCancel {
		return s.checkCancel(i)
	}
	n, member := s.Member(i.Node)
	if i.Verb != VerbReplicate && (!member || s.IsRetired(i.Node) && i.Verb != VerbReplace) {
		return s.gone(i.Node)
	}
	if len(s.intents) >= MaxIntents {
		return fmt.Errorf("%w: %d; cancel some or wait until they are carried out", ErrTooManyIntents, len(s.intents))
	}
	if i.Verb == VerbReplicate {
		return s.checkReplicate(i)
	}
	if open := s.ends(i.Node); open != nil && i.Verb != VerbRemove && i.Verb != VerbGiveUp {
		return fmt.Errorf("%w: %s goes already, by intent %x (%s); cancel that one first", ErrNoChange, n.Name, open.Op, open.Verb)
	}
	switch i.Verb {
	case VerbLeave:
		return s.checkLeave(n)
	case VerbRemove:
		return s.checkRemove(n, alive)
	case VerbReplace:
		return s.checkReplace(n, i.By, alive, joiner)
	case VerbGiveUp:
		return s.checkGiveUp([]NodeID{n.ID}, alive)
	default:
		return s.checkWeigh(n, i.Capacity)
	}
}

// toBe is the layout that will be in force.
func (s *State) toBe() *Layout {
	if s.change != nil {
		return s.change.Next
	}
	return s.layout
}

// nodesToBe are the nodes of the layout that will be in force.
func (s *State) nodesToBe() []LayoutNode { return s.toBe().nodes }

func (s *State) hasPlace(id NodeID) bool {
	return slices.ContainsFunc(s.nodesToBe(), func(n LayoutNode) bool { return n.ID == id })
}

func (s *State) outsider(id NodeID) (Outsider, bool) {
	if i := slices.IndexFunc(s.outside, func(o Outsider) bool { return o.ID == id }); i >= 0 {
		return s.outside[i], true
	}
	return Outsider{}, false
}

// widest is the largest replication factor that there will be, once all is done that was
// asked for, and a tenant that has it.
func (s *State) widest() (rf int, tenant string) {
	for _, t := range s.tenants {
		if n := s.factorToBe(t); n > rf {
			rf, tenant = n, t.Name
		}
	}
	return rf, tenant
}

// factorToBe is the replication factor that a tenant will have once all is done that was
// asked for.
func (s *State) factorToBe(t *TenantRecord) int {
	rf := s.Copies(t).To
	for _, i := range s.intents {
		if i.Verb == VerbReplicate && i.Tenant == t.Number {
			rf = int(i.RF)
		}
	}
	return rf
}

func (s *State) checkReplicate(i *Intent) error {
	t, ok := s.TenantByNumber(i.Tenant)
	switch {
	case s.Deleted(i.Tenant):
		return fmt.Errorf("%w: the one with number %d was deleted", ErrUnknownTenant, i.Tenant)
	case !ok:
		return fmt.Errorf("%w: number %d; see the list of tenants", ErrUnknownTenant, i.Tenant)
	case s.factorToBe(t) == int(i.RF) && t.RF == i.RF && s.Copies(t) == Same(int(t.RF)):
		return fmt.Errorf("%w: tenant %q has replication factor %d already", ErrNoChange, t.Name, i.RF)
	case s.factorToBe(t) == int(i.RF):
		return fmt.Errorf("%w: tenant %q gets replication factor %d already", ErrNoChange, t.Name, i.RF)
	case !s.mayOwnClass(t):
		return tooManyOwn(t.Name)
	}
	return nil
}

// ends gives the first open intent that takes a node out of the layout, nil for none.
func (s *State) ends(id NodeID) *IntentRecord {
	for _, i := range s.intents {
		if i.Node == id && (i.Verb == VerbLeave || i.Verb == VerbRemove || i.Verb == VerbReplace) {
			return i
		}
	}
	return nil
}

// gone says why nothing can be done with a node that has no place in the layout.
func (s *State) gone(id NodeID) error {
	if s.isLost(id) {
		return fmt.Errorf("%w: %s is given up already, and goes with the next change", ErrNoChange, id.Short())
	}
	if s.IsRetired(id) {
		return fmt.Errorf("%w: %s is retired for good", ErrUnknownNode, id.Short())
	}
	if n, ok := s.Member(id); ok {
		if o, out := s.outsider(id); out && !o.Leaving {
			return fmt.Errorf("%w: %s has no partitions: its joining was aborted", ErrNoChange, n.Name)
		}
		return fmt.Errorf("%w: %s is leaving already", ErrNoChange, n.Name)
	}
	return fmt.Errorf("%w: %s; see the list of members for their ids", ErrUnknownNode, id.Short())
}

func (s *State) checkCancel(i *Intent) error {
	at := slices.IndexFunc(s.intents, func(r *IntentRecord) bool { return r.Op == i.Cancels })
	switch {
	case at >= 0 && s.intents[at].Verb == VerbGiveUp:
		return fmt.Errorf("%w: %s is given up and retired for good", ErrNoChange, s.intents[at].Node.Short())
	case at >= 0:
		return nil
	}
	if s.change != nil {
		return fmt.Errorf("%w: intent %x is not open; if the open change carries it out, abort that", ErrNoChange, i.Cancels)
	}
	return fmt.Errorf("%w: intent %x is not open: carried out, cancelled, or never noted", ErrNoChange, i.Cancels)
}

func (s *State) checkLeave(n LayoutNode) error {
	if !s.hasPlace(n.ID) {
		return s.gone(n.ID)
	}
	remain := 0
	for _, o := range s.nodesToBe() {
		if o.ID != n.ID && !s.shrinks(o.ID) {
			remain++
		}
	}
	if rf, tenant := s.widest(); remain < rf {
		return lastCopies(n.Name, remain, rf, tenant)
	}
	return nil
}

// shrinks says whether an open intent takes a node away without another in its place.
func (s *State) shrinks(id NodeID) bool {
	open := s.ends(id)
	return s.IsRetired(id) || open != nil && open.Verb != VerbReplace
}

func (s *State) checkRemove(n LayoutNode, alive func(NodeID) bool) error {
	switch open := s.ends(n.ID); {
	case open != nil && open.Verb != VerbLeave:
		return fmt.Errorf("%w: %s goes already, by intent %x (%s)", ErrNoChange, n.Name, open.Op, open.Verb)
	case alive(n.ID):
		return fmt.Errorf("%w: %s would lose what only it holds; let it leave, or stop it first", ErrNodeAlive, n.Name)
	case s.hasPlace(n.ID) && len(s.nodesToBe()) == 1:
		return fmt.Errorf("%w: %s is the only node; join another one first", ErrLastCopies, n.Name)
	}
	if s.change != nil && slices.Contains(s.change.Removed, n.ID) {
		return fmt.Errorf("%w: the open change removes %s already", ErrNoChange, n.Name)
	}
	return s.checkCopied(n, alive)
}

// checkCopied says whether so many others that are alive have what a node has that those
// who take its place can copy it.
func (s *State) checkCopied(n LayoutNode, alive func(NodeID) bool) error {
	if err := s.checkSources(s.toBe(), s.copies(), []NodeID{n.ID}, false, alive); err != nil {
		return err
	}
	if s.change == nil || s.change.Stage != Proposed {
		return nil
	}
	// A tenant that gets another replication factor has its data with the old owners until
	// the change is committed, and may be left with them.
	changing := slices.DeleteFunc(s.copies(), func(n Copies) bool { return n.From == n.To })
	return s.checkSources(s.layout, changing, []NodeID{n.ID}, false, alive)
}

func (s *State) checkReplace(n LayoutNode, by NodeID, alive, joiner func(NodeID) bool) error {
	switch {
	case !s.hasPlace(n.ID):
		return s.gone(n.ID)
	case alive(n.ID):
		return fmt.Errorf("%w: %s would lose what only it holds; let it leave, or stop it first", ErrNodeAlive, n.Name)
	case s.IsRetired(by):
		return fmt.Errorf("%w: %s is retired for good; join a node with an empty data directory and name that", ErrReplacement, by.Short())
	case s.hasPlace(by):
		return fmt.Errorf("%w: %s has partitions of its own; name a node that waits to join", ErrReplacement, by.Short())
	}
	if slices.ContainsFunc(s.intents, func(r *IntentRecord) bool { return r.By == by }) {
		return fmt.Errorf("%w: %s is to replace another node already", ErrReplacement, by.Short())
	}
	o, outside := s.outsider(by)
	switch {
	case outside && o.Leaving:
		return fmt.Errorf("%w: %s is leaving; name a node that waits to join", ErrReplacement, o.Name)
	case !joiner(by) && !(outside && alive(by)):
		return fmt.Errorf("%w: %s does not wait to join; start it first", ErrNotWaiting, by.Short())
	}
	return s.checkCopied(n, alive)
}

func (s *State) checkWeigh(n LayoutNode, capacity uint32) error {
	at := slices.IndexFunc(s.nodesToBe(), func(o LayoutNode) bool { return o.ID == n.ID })
	if at < 0 {
		return s.gone(n.ID)
	}
	now := s.nodesToBe()[at].Capacity
	for _, i := range s.intents {
		if i.Verb == VerbWeigh && i.Node == n.ID {
			now = i.Capacity
		}
	}
	if now == capacity {
		return fmt.Errorf("%w: %s has capacity %d already", ErrNoChange, n.Name, capacity)
	}
	return nil
}
