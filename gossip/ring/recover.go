package ring

import (
	"fmt"
	"slices"
)

// Recovery makes the entry that gives the vote to those that are left, after lost were
// lost with a majority of the voters: kind and content of it. The lost are given up, so
// LossOf says what goes with them. All members that are left have to accept the entry,
// see Survivors: whoever had learned something else in its slot would be of another
// cluster from then on. What only the lost have learned is given up with them.
//
// Errors: ErrVotersLeft, ErrNobodyLeft, ErrUnknownNode, ErrNotFounded.
func (s *State) Recovery(lost []NodeID) (*Recover, error) {
	if s.layout == nil {
		return nil, ErrNotFounded
	}
	for _, id := range lost {
		if _, member := s.Member(id); !member {
			return nil, s.gone(id)
		}
	}
	if left := len(s.votersLeft(lost)); left >= Majority(len(s.Voters())) {
		return nil, fmt.Errorf("%w: %d of %d; name all nodes that are lost, and if these are all remove or replace them", ErrVotersLeft, left, len(s.Voters()))
	}
	r := &Recover{Lost: slices.Clone(lost)}
	slices.SortFunc(r.Lost, NodeID.Compare)
	r.Lost = slices.Compact(r.Lost)
	// Once a change is committed the new owners have everything, and the old ones go.
	from := s.layout
	if s.change != nil && s.change.Stage == Committed {
		from = s.change.Next
	}
	left := s.nodesLeft(from, lost)
	if len(left) == 0 {
		return nil, fmt.Errorf("%w: there is nothing to go on with; found a new cluster with empty data directories", ErrNobodyLeft)
	}
	r.Voters = pickVoters(left, s.Voters())
	return r, nil
}

// votersLeft are the voters that are not retired, without some.
func (s *State) votersLeft(lost []NodeID) (left []NodeID) {
	for _, id := range s.Voters() {
		if !s.IsRetired(id) && !slices.Contains(lost, id) {
			left = append(left, id)
		}
	}
	return left
}

// Survivors are the members that are left without some, sorted: all of them have to
// accept a recovery.
func (s *State) Survivors(lost []NodeID) (left []NodeID) {
	for _, n := range s.Members() {
		if !s.IsRetired(n.ID) && !slices.Contains(lost, n.ID) {
			left = append(left, n.ID)
		}
	}
	return left
}

// recover gives the vote to those that are left. It is void if a majority of the voters
// is left, or if one of those that are to vote is no member.
func (s *State) recover(e *Entry) {
	r := e.Recover
	member := func(id NodeID) bool { _, ok := s.Member(id); return ok }
	if s.layout == nil || len(s.votersLeft(r.Lost)) >= Majority(len(s.Voters())) ||
		slices.ContainsFunc(r.Lost, func(id NodeID) bool { return !member(id) }) ||
		slices.ContainsFunc(r.Voters, func(id NodeID) bool { return !member(id) || s.IsRetired(id) }) {
		return
	}
	for _, id := range r.Lost {
		s.giveUp(id)
	}
	s.voters, s.recoveredAt = r.Voters, s.version
}

// settleVoters gives the vote to the voters of the layout that is in force now, unless
// that is of before a recovery: its voters may be lost then. Who was to vote till then
// has to have a place in it and to be left, or others have the vote that are.
func (s *State) settleVoters(c *Change) {
	lost := slices.ContainsFunc(s.layout.nodes, func(n LayoutNode) bool { return s.IsRetired(n.ID) })
	if c.ProposedAt > s.recoveredAt || !lost {
		s.voters, s.recoveredAt = nil, 0
	}
	goes := func(id NodeID) bool { _, in := s.layout.index(id); return !in }
	left := s.nodesLeft(s.layout, nil)
	switch {
	case len(left) == 0:
		s.voters, s.recoveredAt = nil, 0 // nobody can vote on anything
	case len(s.votersLeft(nil)) < Majority(len(s.Voters())), slices.ContainsFunc(s.Voters(), goes):
		s.voters, s.recoveredAt = pickVoters(left, s.Voters()), s.version
	}
}

// nodesLeft are the nodes of a layout that are not given up, without some.
func (s *State) nodesLeft(l *Layout, lost []NodeID) (left []LayoutNode) {
	for _, n := range l.nodes {
		if !s.IsRetired(n.ID) && !slices.Contains(lost, n.ID) {
			left = append(left, n)
		}
	}
	return left
}
