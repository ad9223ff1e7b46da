package ring

import (
	"fmt"
	"slices"
)

// CheckIntent says why an intent should not be noted: it cannot be carried out, or it
// would give up what is not lost. alive says whether a node answers, joiner whether one
// waits to become a member. While a change is open, intents are measured by the layout
// that is to be. The answer is nil, or one of the errors of intents with a reason and
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
	if !member {
		return s.gone(i.Node)
	}
	if len(s.intents) >= MaxIntents {
		return fmt.Errorf("%w: %d; cancel some or wait until they are carried out", ErrTooManyIntents, len(s.intents))
	}
	if open := s.ends(i.Node); open != nil && i.Verb != VerbRemove {
		return fmt.Errorf("%w: %s goes already, by intent %x (%s); cancel that one first", ErrNoChange, n.Name, open.Op, open.Verb)
	}
	switch i.Verb {
	case VerbLeave:
		return s.checkLeave(n)
	case VerbRemove:
		return s.checkRemove(n, alive)
	case VerbReplace:
		return s.checkReplace(n, i.By, alive, joiner)
	default:
		return s.checkWeigh(n, i.Capacity)
	}
}

// nodesToBe are the nodes of the layout that will be in force.
func (s *State) nodesToBe() []LayoutNode {
	if s.change != nil {
		return s.change.Next.nodes
	}
	return s.layout.nodes
}

func (s *State) hasPlace(id NodeID) bool {
	return slices.ContainsFunc(s.nodesToBe(), func(n LayoutNode) bool { return n.ID == id })
}

func (s *State) outsider(id NodeID) (Outsider, bool) {
	if i := slices.IndexFunc(s.outside, func(o Outsider) bool { return o.ID == id }); i >= 0 {
		return s.outside[i], true
	}
	return Outsider{}, false
}

// widest is the largest replication factor there is, and a tenant that has it.
func (s *State) widest() (rf int, tenant string) {
	for _, t := range s.tenants {
		if int(t.RF) > rf {
			rf, tenant = int(t.RF), t.Name
		}
	}
	return rf, tenant
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
	if slices.ContainsFunc(s.intents, func(r *IntentRecord) bool { return r.Op == i.Cancels }) {
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
	return open != nil && open.Verb != VerbReplace
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
	return s.checkSources(n, alive)
}

// checkSources says whether so many of the other owners of what a node has are alive
// that those who take its place can copy from them.
func (s *State) checkSources(n LayoutNode, alive func(NodeID) bool) error {
	l := s.layout
	if s.change != nil {
		l = s.change.Next
	}
	up := make([]bool, len(l.nodes))
	for i, o := range l.nodes {
		up[i] = o.ID != n.ID && alive(o.ID)
	}
	factors := s.factors()
	for p := range l.Partitions() {
		for rf := 1; rf <= MaxRF; rf++ {
			if !factors[rf] || !l.IsOwner(n.ID, Partition(p), rf) {
				continue
			}
			live, down := 0, ""
			row := l.row(Partition(p), rf)
			for _, i := range row {
				switch {
				case up[i]:
					live++
				case l.nodes[i].ID != n.ID:
					down = l.nodes[i].Name
				}
			}
			switch need := Meeting(len(row)); {
			case live >= need:
			case down != "":
				return fmt.Errorf("%w: partition %d has %d of its %d owners alive without %s, and %d are needed; start %s first",
					ErrSourcesLost, p, live, len(row), n.Name, need, down)
			default:
				return fmt.Errorf("%w: %s is the only owner of partition %d for a tenant with %d copies; start it again",
					ErrSourcesLost, n.Name, p, rf)
			}
		}
	}
	return nil
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
		return fmt.Errorf("%w: %s does not wait to join; start it first", ErrReplacement, by.Short())
	}
	return s.checkSources(n, alive)
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
