package ring

import (
	"errors"
	"fmt"
	"slices"
)

// Why an intent is refused, or void by now.
var (
	// ErrLastCopies: fewer nodes would remain than a tenant wants copies.
	ErrLastCopies = errors.New("too few nodes would remain")
	// ErrNodeAlive: the node answers, so it must not be given up for lost.
	ErrNodeAlive = errors.New("the node is alive")
	// ErrSourcesLost: too few of its fellow owners are alive to copy from.
	ErrSourcesLost = errors.New("too few owners are alive to copy from")
	// ErrUnknownNode: no member is called that.
	ErrUnknownNode = errors.New("no such member")
	// ErrNoChange: there is nothing to do, or nothing that could still be done.
	ErrNoChange = errors.New("nothing to change")
	// ErrReplacement: the node cannot take another's place.
	ErrReplacement = errors.New("unfit replacement")
	// ErrNotWaiting: the node that is to take another's place is not there.
	ErrNotWaiting = errors.New("the replacement is not there")
	// ErrTooManyIntents: the log notes no more before some are carried out.
	ErrTooManyIntents = errors.New("too many open intents")
	// ErrChangeOpen: one change of the layout at a time.
	ErrChangeOpen = errors.New("a change of the layout is open")
	// ErrNotFounded: there is no layout yet.
	ErrNotFounded = errors.New("the cluster is not founded")
	// ErrJoiner: the node cannot become a member.
	ErrJoiner = errors.New("the node cannot join")
)

// Plan is what a change would do to the layout: everything that is wanted, in one step.
// It is for the state it was made from: a PROPOSE of it has to be the next entry.
type Plan struct {
	// Layout has the version of the next entry. It is nil if nothing would change but
	// there is something void to be cancelled.
	Layout *Layout
	// Removed are lost members, sorted: they are retired with the change.
	Removed []NodeID
	// Closes are the intents that it carries out, sorted.
	Closes [][16]byte
	// Factors are the replication factors that it changes, sorted by tenant. If it changes
	// nothing else, Layout is the one in force but for its version.
	Factors []Factor
	// Moves say, for each node of the old and of the new layout, what it would hold,
	// sorted by id.
	Moves []NodeMove
	// Void are open intents that cannot be carried out any more: they should be
	// cancelled. Waits are those that cannot be carried out yet.
	Void, Waits []VoidIntent
	// Refused are joiners that cannot be taken in, sorted by id.
	Refused []RefusedJoiner
}

// NodeMove is what a plan means for a node, in copies of partitions of the tenant
// with the most copies, before or after; of those tenants whose replication factor
// changes, if nothing else does.
type NodeMove struct {
	Node LayoutNode
	// Before and After are how many it holds.
	Before, After int
	// Gains and Gives are how many come to it and leave it.
	Gains, Gives int
}

// VoidIntent is an open intent that is not part of a plan.
type VoidIntent struct {
	Intent *IntentRecord
	// Why is one of the errors of intents.
	Why error
}

// RefusedJoiner is a node that would join and cannot.
type RefusedJoiner struct {
	Node LayoutNode
	// Why is ErrJoiner with a reason.
	Why error
}

// Plan composes all that is wanted of the layout into one change: every joiner and
// every open intent that can be carried out. It is nil if there is nothing to do, and
// ErrChangeOpen while a change is open. Joiners that cannot be members are left out.
//
// Intents count in the order of the log. A node leaves only if as many remain as any
// tenant will want copies, joiners included; else its intent waits.
func (s *State) Plan(joiners []LayoutNode) (*Plan, error) {
	switch {
	case s.layout == nil:
		return nil, ErrNotFounded
	case s.change != nil:
		return nil, fmt.Errorf("%w: %x since version %s", ErrChangeOpen, s.change.ID[:4], s.change.ProposedAt)
	}
	d := newDraft(s, joiners)
	d.lost()
	d.join()
	d.replicate()
	d.waitNoMore()
	d.leave()
	return d.finish()
}

// draft is a plan while it is made.
type draft struct {
	*State
	plan Plan
	// nodes are those of the layout to be, in no order.
	nodes []LayoutNode
	// waiting are the nodes that want to join, sorted by id.
	waiting []LayoutNode
	// heirs are the nodes that take the place of lost ones.
	heirs map[NodeID]NodeID
}

func newDraft(s *State, joiners []LayoutNode) *draft {
	d := &draft{State: s, nodes: slices.Clone(s.layout.nodes), heirs: map[NodeID]NodeID{}}
	d.waiting = slices.Clone(joiners)
	slices.SortFunc(d.waiting, func(a, b LayoutNode) int { return a.ID.Compare(b.ID) })
	d.waiting = slices.CompactFunc(d.waiting, func(a, b LayoutNode) bool { return a.ID == b.ID })
	return d
}

func (d *draft) at(id NodeID) int {
	return slices.IndexFunc(d.nodes, func(n LayoutNode) bool { return n.ID == id })
}

func (d *draft) isRemoved(id NodeID) bool { return slices.Contains(d.plan.Removed, id) }

func (d *draft) closes(i *IntentRecord) { d.plan.Closes = append(d.plan.Closes, i.Op) }
func (d *draft) void(i *IntentRecord, why error) {
	d.plan.Void = append(d.plan.Void, VoidIntent{i, why})
}

func (d *draft) waits(i *IntentRecord, why error) {
	d.plan.Waits = append(d.plan.Waits, VoidIntent{i, why})
}

// lost takes out what is lost, puts replacements in place, and weighs anew. This is
// first: a joiner may have the name of a node that is lost.
func (d *draft) lost() {
	for _, i := range d.intents {
		switch i.Verb {
		case VerbRemove:
			d.remove(i)
		case VerbGiveUp:
			if d.at(i.Node) >= 0 || d.isRemoved(i.Node) {
				d.closes(i)
			} else {
				d.void(i, d.gone(i.Node))
			}
		case VerbReplace:
			d.replace(i)
		case VerbWeigh:
			d.weigh(i)
		}
	}
	// Whoever was given up goes, whatever has become of the intents.
	d.nodes = slices.DeleteFunc(d.nodes, func(n LayoutNode) bool {
		goes := d.IsRetired(n.ID) && !slices.ContainsFunc(d.plan.Waits, func(v VoidIntent) bool { return v.Intent.Node == n.ID })
		if goes {
			d.plan.Removed = append(d.plan.Removed, n.ID)
		}
		return goes
	})
}

// waitNoMore takes out those who were given up and wait for who replaces them, if the
// layout changes anyway: a layout with them is void.
func (d *draft) waitNoMore() {
	leaves := slices.ContainsFunc(d.intents, func(i *IntentRecord) bool { return i.Verb == VerbLeave })
	if !leaves && len(d.plan.Removed) == 0 && len(d.plan.Factors) == 0 && slices.Equal(d.nodes, d.layout.nodes) {
		return
	}
	d.nodes = slices.DeleteFunc(d.nodes, func(n LayoutNode) bool {
		if d.IsRetired(n.ID) {
			d.plan.Removed = append(d.plan.Removed, n.ID)
		}
		return d.IsRetired(n.ID)
	})
}

func (d *draft) remove(i *IntentRecord) {
	at := d.at(i.Node)
	_, outside := d.outsider(i.Node)
	switch {
	case d.isRemoved(i.Node):
		d.closes(i) // asked for twice
	case at < 0 && !outside:
		d.void(i, d.gone(i.Node))
	case at >= 0 && len(d.nodes) == 1 && !d.IsRetired(i.Node):
		d.waits(i, fmt.Errorf("%w: %s is the only node; join another one first", ErrLastCopies, d.nodes[at].Name))
	default:
		if at >= 0 {
			d.nodes = slices.Delete(d.nodes, at, at+1)
		}
		d.plan.Removed = append(d.plan.Removed, i.Node)
		d.closes(i)
	}
}

func (d *draft) replace(i *IntentRecord) {
	at := d.at(i.Node)
	switch {
	case d.heirs[i.Node] == i.By:
		d.closes(i) // asked for twice
		return
	case at < 0:
		d.void(i, d.gone(i.Node))
		return
	case d.IsRetired(i.By):
		d.void(i, fmt.Errorf("%w: %s is retired for good; join a node with an empty data directory and name that", ErrReplacement, i.By.Short()))
		return
	case d.at(i.By) >= 0:
		d.void(i, fmt.Errorf("%w: %s has partitions of its own; name a node that waits to join", ErrReplacement, i.By.Short()))
		return
	}
	o, outside := d.outsider(i.By)
	if outside && o.Leaving {
		d.void(i, fmt.Errorf("%w: %s is leaving; name a node that waits to join", ErrReplacement, o.Name))
		return
	}
	by := o.LayoutNode
	w := slices.IndexFunc(d.waiting, func(n LayoutNode) bool { return n.ID == i.By })
	switch {
	case w >= 0:
		by = d.waiting[w]
	case !outside:
		d.waits(i, fmt.Errorf("%w: %s does not wait to join now; start it", ErrNotWaiting, i.By.Short()))
		return
	}
	lost := d.nodes[at]
	d.nodes = slices.Delete(d.nodes, at, at+1)
	if why := d.cannotJoin(by, lost.ID); why != nil {
		d.nodes = slices.Insert(d.nodes, at, lost)
		d.waits(i, fmt.Errorf("%w: %w", ErrReplacement, why))
		return
	}
	d.waiting = slices.DeleteFunc(d.waiting, func(n LayoutNode) bool { return n.ID == by.ID })
	d.nodes = append(d.nodes, by)
	d.heirs[lost.ID] = by.ID
	d.plan.Removed = append(d.plan.Removed, lost.ID)
	d.closes(i)
}

func (d *draft) weigh(i *IntentRecord) {
	switch at := d.at(i.Node); {
	case at < 0:
		d.void(i, d.gone(i.Node))
	default:
		d.nodes[at].Capacity = i.Capacity // the last one counts
		d.closes(i)
	}
}

// join takes in the joiners that can be members.
func (d *draft) join() {
	for _, n := range d.waiting {
		if _, in := d.layout.index(n.ID); in && !d.isRemoved(n.ID) {
			continue // it is one already
		}
		if why := d.cannotJoin(n, NodeID{}); why != nil {
			d.plan.Refused = append(d.plan.Refused, RefusedJoiner{n, why})
			continue
		}
		d.nodes = append(d.nodes, n)
	}
}

// cannotJoin says why a node cannot be in the layout to be, in which instead has no
// place any more.
func (d *draft) cannotJoin(n LayoutNode, instead NodeID) error {
	if d.isRemoved(n.ID) {
		return fmt.Errorf("%w: %s is being removed for good", ErrJoiner, n.ID.Short())
	}
	if err := d.checkJoiner(n, d.nodes, func(id NodeID) bool { return id == instead || d.isRemoved(id) }); err != nil {
		return err
	}
	if len(d.nodes) >= MaxNodes {
		return fmt.Errorf("%w: a cluster has at most %d nodes", ErrJoiner, MaxNodes)
	}
	return nil
}

// checkJoiner says why a node that waits cannot become a member beside nodes of which
// those go that goes names: ErrJoiner with a reason, or nil if it can.
func (s *State) checkJoiner(n LayoutNode, nodes []LayoutNode, goes func(NodeID) bool) error {
	if s.IsRetired(n.ID) {
		return fmt.Errorf("%w: %s was a member and is retired for good; start it with an empty data directory", ErrJoiner, n.ID.Short())
	}
	if err := checkNodes([]LayoutNode{n}); err != nil {
		return fmt.Errorf("%w: %w", ErrJoiner, err)
	}
	taken := func(o LayoutNode) bool { return o.Name == n.Name && o.ID != n.ID && !goes(o.ID) }
	for _, o := range nodes {
		if taken(o) {
			return fmt.Errorf("%w: %s is called %q already; give the joiner another name", ErrJoiner, o.ID.Short(), n.Name)
		}
	}
	for _, o := range s.outside {
		switch {
		case o.ID == n.ID && o.Leaving:
			return fmt.Errorf("%w: %s is leaving; once it is retired start it with an empty data directory", ErrJoiner, n.ID.Short())
		case taken(o.LayoutNode):
			return fmt.Errorf("%w: %s is called %q and has not handed over all it held; give the joiner another name or wait", ErrJoiner, o.ID.Short(), n.Name)
		}
	}
	return nil
}

// leave takes out the nodes that shall leave, as long as enough remain.
func (d *draft) leave() {
	rf, tenant := d.widest()
	var left []NodeID
	for _, i := range d.intents {
		if i.Verb != VerbLeave {
			continue
		}
		at := d.at(i.Node)
		switch {
		case slices.Contains(left, i.Node) || d.isRemoved(i.Node):
			d.closes(i) // it goes anyway
		case at < 0:
			d.void(i, d.gone(i.Node))
		case len(d.nodes)-1 < rf:
			d.waits(i, lastCopies(d.nodes[at].Name, len(d.nodes)-1, rf, tenant))
		default:
			d.nodes = slices.Delete(d.nodes, at, at+1)
			left = append(left, i.Node)
			d.closes(i)
		}
	}
}

func lastCopies(name string, remain, rf int, tenant string) error {
	return fmt.Errorf("%w: without %s there are %d nodes, and tenant %q wants %d copies; join another node first",
		ErrLastCopies, name, remain, tenant, rf)
}

func (d *draft) finish() (*Plan, error) {
	p := &d.plan
	slices.SortFunc(p.Removed, NodeID.Compare)
	slices.SortFunc(p.Closes, func(a, b [16]byte) int { return slices.Compare(a[:], b[:]) })
	slices.SortFunc(d.nodes, func(a, b LayoutNode) int { return a.ID.Compare(b.ID) })
	onlyFactors := len(p.Removed) == 0 && slices.Equal(d.nodes, d.layout.nodes)
	if onlyFactors && len(p.Factors) == 0 {
		// What is closed asks for what is so already.
		for _, i := range d.intents {
			if slices.Contains(p.Closes, i.Op) {
				d.void(i, fmt.Errorf("%w: it is so already", ErrNoChange))
			}
		}
		p.Closes = nil
		if len(p.Void) == 0 {
			return nil, nil
		}
		return p, nil
	}
	if len(d.nodes) == 0 {
		return nil, fmt.Errorf("%w: all nodes of the layout are given up; join another one", ErrLastCopies)
	}
	if onlyFactors {
		p.Layout = d.layout.At(d.version + 1)
	} else {
		l, err := d.layout.rebalance(d.version+1, d.nodes, d.heirs)
		if err != nil {
			return nil, fmt.Errorf("plan a change of layout %s: %w", d.layout.version, err)
		}
		p.Layout = l
	}
	p.Moves = movesBetween(d.layout, p.Layout, d.widestMove(onlyFactors))
	return p, nil
}

// movesBetween says what each node of two layouts holds in both, and gains and gives.
func movesBetween(old, next *Layout, copies Copies) []NodeMove {
	all := slices.Clone(next.nodes)
	for _, n := range old.nodes {
		if _, stays := next.index(n.ID); !stays {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(a, b LayoutNode) int { return a.ID.Compare(b.ID) })
	moves := make([]NodeMove, len(all))
	at := make(map[NodeID]*NodeMove, len(all))
	for i, n := range all {
		moves[i].Node = n
		at[n.ID] = &moves[i]
	}
	for p := range old.Partitions() {
		for _, i := range old.row(Partition(p), copies.From) {
			m := at[old.nodes[i].ID]
			m.Before++
			if !next.IsOwner(m.Node.ID, Partition(p), copies.To) {
				m.Gives++
			}
		}
		for _, i := range next.row(Partition(p), copies.To) {
			m := at[next.nodes[i].ID]
			m.After++
			if !old.IsOwner(m.Node.ID, Partition(p), copies.From) {
				m.Gains++
			}
		}
	}
	return moves
}
