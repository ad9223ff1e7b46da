package ring

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A member that is given up (VerbGiveUp, KindRecover) is retired at once, though the
// layout names it until a change has taken it out. Until then it is an owner that is
// counted, and waited for by nobody.

// Why a recovery is refused.
var (
	// ErrVotersLeft: so many voters are left that the log goes on without it.
	ErrVotersLeft = errors.New("a majority of the voters is left")
	// ErrNobodyLeft: no node is left that has any of the data.
	ErrNobodyLeft = errors.New("no node is left that owns anything")
)

// Lost are the nodes of the layout in force, and of the one that is to be, that were
// given up, sorted by id. The next change takes them out.
func (s *State) Lost() []LayoutNode {
	if s.layout == nil || len(s.retired) == 0 {
		return nil
	}
	var lost []LayoutNode
	for _, n := range s.Members() {
		if s.IsRetired(n.ID) {
			lost = append(lost, n)
		}
	}
	return lost
}

// isLost says whether a node of a layout was given up.
func (s *State) isLost(id NodeID) bool {
	_, named := s.Member(id)
	return named && s.IsRetired(id)
}

// Sources is how many of the owners of a partition have to take part so that nothing is
// missed that a quorum of them has acknowledged, as far as it is to be had: so many that
// they meet every quorum, or all that are not given up, if those are fewer.
func (s *State) Sources(owners []NodeID) int {
	if len(s.retired) == 0 {
		return Meeting(len(owners))
	}
	left := 0
	for _, id := range owners {
		if !s.IsRetired(id) {
			left++
		}
	}
	return min(Meeting(len(owners)), left)
}

// giveUp retires a member at once. A node of a layout stays there until a change takes
// it out; one without partitions is gone.
func (s *State) giveUp(id NodeID) {
	s.retired = insertID(s.retired, id)
	s.outside = slices.DeleteFunc(slices.Clone(s.outside), func(o Outsider) bool { return o.ID == id })
}

// remains says whether, with these nodes given up, one is left in the layout in force or
// in the one that is to be.
func (s *State) remains(ids ...NodeID) bool {
	left := func(n LayoutNode) bool { return !s.IsRetired(n.ID) && !slices.Contains(ids, n.ID) }
	return slices.ContainsFunc(s.layout.nodes, left) || s.change != nil && slices.ContainsFunc(s.change.Next.nodes, left)
}

// Loss is what is given up with some nodes, for one replication factor.
type Loss struct {
	RF int
	// Tenants are the names of those that have it, sorted.
	Tenants []string
	// Partitions are those of which fewer owners remain than meet every quorum, rising:
	// the newest acknowledged writes may be gone. Empty are those among them of which
	// no owner remains: all is gone.
	Partitions, Empty []Partition
}

// LossOf says what is given up with some nodes, beyond what is given up already: nothing
// if quorums can be met without them. Once a change is committed the new owners have all
// there is, so it goes by them.
func (s *State) LossOf(ids []NodeID) []Loss {
	if s.layout == nil {
		return nil
	}
	l := s.layout
	if s.change != nil && s.change.Stage == Committed {
		l = s.change.Next
	}
	named, gone := make([]bool, len(l.nodes)), make([]bool, len(l.nodes))
	for i, n := range l.nodes {
		named[i] = slices.Contains(ids, n.ID) && !s.IsRetired(n.ID)
		gone[i] = named[i] || s.IsRetired(n.ID)
	}
	var all []Loss
	for rf, tenants := range s.tenantsByCopies(l) {
		if len(tenants) == 0 {
			continue
		}
		loss := Loss{RF: rf, Tenants: tenants}
		for p := range l.Partitions() {
			left, hit := 0, false
			row := l.row(Partition(p), rf)
			for _, i := range row {
				hit = hit || named[i]
				if !gone[i] {
					left++
				}
			}
			if !hit || left >= Meeting(len(row)) {
				continue
			}
			loss.Partitions = append(loss.Partitions, Partition(p))
			if left == 0 {
				loss.Empty = append(loss.Empty, Partition(p))
			}
		}
		if len(loss.Partitions) > 0 {
			all = append(all, loss)
		}
	}
	return all
}

// copiesIn is how many copies of the layout in force, or of the one that is to be, those
// tenants have.
func (s *State) copiesIn(l *Layout, n Copies) int {
	if l == s.layout {
		return n.From
	}
	return n.To
}

// tenantsByCopies are the names of the tenants, sorted, by the copies that they have in a
// layout.
func (s *State) tenantsByCopies(l *Layout) (names [MaxRF + 1][]string) {
	for _, t := range s.tenants {
		rf := s.copiesIn(l, s.Copies(t))
		names[rf] = append(names[rf], t.Name)
	}
	return names
}

// MustGiveUp says whether a lost node can only be removed or replaced by giving it up:
// nobody else has all of what it had, or the change that is committed waits for it.
// Otherwise the others go on without it, and it may even come back until they do.
func (s *State) MustGiveUp(id NodeID, report func(NodeID) Report) bool {
	_, waiting := s.MayFinalize(report)
	return slices.Contains(waiting, id) || len(s.LossOf([]NodeID{id})) > 0
}

// checkGiveUp says why nodes should not be given up, all at once: one of them is no
// member, or answers, or somebody is away who is not named and has what is left.
func (s *State) checkGiveUp(ids []NodeID, alive func(NodeID) bool) error {
	for _, id := range ids {
		n, member := s.Member(id)
		switch {
		case !member, s.IsRetired(id):
			return s.gone(id)
		case alive(id):
			return fmt.Errorf("%w: %s would lose what only it holds; let it leave, or stop it first", ErrNodeAlive, n.Name)
		}
	}
	if !s.remains(ids...) {
		return fmt.Errorf("%w: without them no node is left; join another one first", ErrLastCopies)
	}
	for _, l := range s.inForce() {
		if err := s.checkSources(l, s.copies(), ids, true, alive); err != nil {
			return err
		}
	}
	return nil
}

// inForce are the layouts whose owners are read: both, once a change is committed.
func (s *State) inForce() []*Layout {
	if s.change != nil && s.change.Stage == Committed {
		return []*Layout{s.layout, s.change.Next}
	}
	return []*Layout{s.layout}
}

// checkSources says whether so many of the other owners of what some nodes have are
// alive that those who take their place can copy from them. lossy says that the nodes are
// given up: what is left then is enough, but all that takes part in that has to be alive.
// It is about tenants that want copies, and l is the layout in force or the one to be.
func (s *State) checkSources(l *Layout, copies []Copies, ids []NodeID, lossy bool, alive func(NodeID) bool) error {
	named, up, gone := make([]bool, len(l.nodes)), make([]bool, len(l.nodes)), make([]bool, len(l.nodes))
	var names []string
	for i, n := range l.nodes {
		named[i] = slices.Contains(ids, n.ID)
		gone[i] = named[i] && lossy || s.IsRetired(n.ID)
		up[i] = !gone[i] && !named[i] && alive(n.ID)
		if named[i] {
			names = append(names, n.Name)
		}
	}
	without := strings.Join(names, ", ")
	for p := range l.Partitions() {
		for _, c := range copies {
			rf := s.copiesIn(l, c)
			left, live, hit, down := 0, 0, false, ""
			row := l.row(Partition(p), rf)
			for _, i := range row {
				hit = hit || named[i]
				switch {
				case gone[i]:
				case up[i]:
					left, live = left+1, live+1
				default:
					left++
					if !named[i] {
						down = l.nodes[i].Name
					}
				}
			}
			switch need := min(Meeting(len(row)), left); {
			case !hit, live >= need:
			case down != "" && lossy:
				return fmt.Errorf("%w: partition %d has %d of its %d owners alive without %s, and %d are needed; start %s first, or give it up with them if it is lost for good",
					ErrSourcesLost, p, live, len(row), without, need, down)
			case down != "":
				return fmt.Errorf("%w: partition %d has %d of its %d owners alive without %s, and %d are needed; start %s first, or give up both with what only they have",
					ErrSourcesLost, p, live, len(row), without, need, down)
			default:
				return fmt.Errorf("%w: nobody but %s is left that owns partition %d for a tenant with %d copies; start it again, or give it up with what only it has%s",
					ErrSourcesLost, without, p, rf, s.orAbort(l))
			}
		}
	}
	return nil
}

// CheckGiveUp says why nodes cannot be given up together, nil if they can. See
// CheckIntent; with VerbGiveUp that is about one of them alone.
func (s *State) CheckGiveUp(ids []NodeID, alive func(NodeID) bool) error {
	switch {
	case s.layout == nil:
		return ErrNotFounded
	case len(s.intents)+len(ids) > MaxIntents:
		return fmt.Errorf("%w: %d; cancel some or wait until they are carried out", ErrTooManyIntents, len(s.intents))
	}
	return s.checkGiveUp(ids, alive)
}

// orAbort is what else helps if l would leave too few owners.
func (s *State) orAbort(l *Layout) string {
	if s.change != nil && s.change.Stage == Proposed && l == s.change.Next {
		return "; or abort the change that is open"
	}
	return ""
}
