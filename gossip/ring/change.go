package ring

import "slices"

// Stage says how far a change of the layout is.
type Stage uint8

// The stages, in order. A change that is aborted goes back to Stable.
const (
	// Stable: no change is open. Owners are written and read.
	Stable Stage = iota
	// Proposed: old and new owners are written, the old ones are read, and what is
	// read is confirmed by the new ones. The new ones fetch what they lack.
	Proposed
	// Committed: both are written, the new ones are read, and the old ones confirm.
	Committed
)

// String names the stage.
func (s Stage) String() string {
	switch s {
	case Stable:
		return "stable"
	case Proposed:
		return "proposed"
	case Committed:
		return "committed"
	default:
		return "unknown"
	}
}

// Change is the change of the layout that is open: from its PROPOSE to its FINALIZE
// or ABORT. It is immutable. A nil Change changes nothing.
type Change struct {
	// ID is the Op of the entry that proposed it.
	ID [16]byte
	// Stage is Proposed or Committed.
	Stage Stage
	// ProposedAt and CommittedAt are the entries that brought it here, 0 for not yet.
	ProposedAt, CommittedAt Version
	// Next is the layout that is to be. Its partition versions mean nothing yet.
	Next *Layout
	// Removed are members that go for good with the change because they are lost,
	// sorted.
	Removed []NodeID
	// Factors are the replication factors that it changes, sorted by tenant.
	Factors []Factor
	// Carries are the intents that it carries out, in the order of the log.
	Carries []*IntentRecord

	touched []bool // by partition
}

// Factor is a replication factor that a change gives to a tenant.
type Factor struct {
	Tenant TenantNumber
	RF     uint8
	// AskedAtMs is the wall clock of who asked for it, in Unix milliseconds.
	AskedAtMs int64
}

// Copies says how many copies a tenant with the replication factor rf wants before and
// after the change.
func (c *Change) Copies(t TenantNumber, rf int) Copies {
	n := Same(rf)
	if c == nil {
		return n
	}
	if f, ok := factorOf(c.Factors, t); ok {
		n.To = int(f.RF)
	}
	return n
}

// Touches says whether the change moves owners of p for some replication factor. One that
// changes replication factors touches all partitions.
func (c *Change) Touches(p Partition) bool {
	return c != nil && int(p) < len(c.touched) && c.touched[p]
}

// touchedBy says which rows differ between two layouts of as many partitions.
func touchedBy(old, next *Layout) []bool {
	touched := make([]bool, old.Partitions())
	for p := range touched {
		a, b := old.row(Partition(p), MaxRF), next.row(Partition(p), MaxRF)
		touched[p] = len(a) != len(b)
		for i := 0; i < len(a) && !touched[p]; i++ {
			touched[p] = old.nodes[a[i]].ID != next.nodes[b[i]].ID
		}
	}
	return touched
}

// MaxOwners bounds the owners of a key while a change is open: old and new ones.
const MaxOwners = 2 * MaxRF

// Sets says who owns a partition for one replication factor. While a change moves
// that, there are two sets of owners, and an operation needs its level in both.
type Sets struct {
	// Stage is Stable if old and new owners are the same nodes.
	Stage Stage
	// Owners are all of them, those of R1 first, in the order of preference.
	Owners []NodeID
	// W1 and W2 are who must be written, R1 is who is read and R2 who confirms what
	// was read, each with a bit for an index into Owners. W1 are the old owners. W2
	// and R2 are 0 while the partition is stable.
	W1, W2, R1, R2 uint16
}

// SetsOf gives the owners of p for a tenant that wants that many copies, under a
// finalised layout and the change that is open, nil for none. Owners are appended to
// dst, which needs room for MaxOwners if nothing is to be allocated.
func SetsOf(l *Layout, c *Change, dst []NodeID, p Partition, n Copies) Sets {
	if !c.Touches(p) || sameOwners(l, c.Next, p, n) {
		owners := l.Owners(dst, p, n.From)
		all := uint16(1)<<len(owners) - 1
		return Sets{Owners: owners, W1: all, R1: all}
	}
	first, second := l, c.Next
	if c.Stage == Committed {
		first, second = second, first
		n.From, n.To = n.To, n.From
	}
	s := Sets{Stage: c.Stage, Owners: first.Owners(dst, p, n.From)}
	a, b := uint16(1)<<len(s.Owners)-1, uint16(0)
	for _, i := range second.row(p, n.To) {
		id := second.nodes[i].ID
		at := slices.Index(s.Owners, id)
		if at < 0 {
			at = len(s.Owners)
			s.Owners = append(s.Owners, id)
		}
		b |= 1 << at
	}
	s.R1, s.R2 = a, b
	s.W1, s.W2 = a, b
	if c.Stage == Committed {
		s.W1, s.W2 = b, a
	}
	return s
}

// sameOwners says whether two layouts name the same nodes, in whatever order.
func sameOwners(a, b *Layout, p Partition, n Copies) bool {
	x, y := a.row(p, n.From), b.row(p, n.To)
	if len(x) != len(y) {
		return false
	}
	for _, i := range x {
		if !b.IsOwner(a.nodes[i].ID, p, n.To) {
			return false
		}
	}
	return true
}

// Gains says whether id must bring its copy of p level with the old owners before
// the change may be committed: who becomes an owner, and all that stay if there will
// be fewer owners, since each of them may have missed what the others were told.
func (c *Change) Gains(l *Layout, id NodeID, p Partition, n Copies) bool {
	if !c.Touches(p) || !c.Next.IsOwner(id, p, n.To) {
		return false
	}
	return !l.IsOwner(id, p, n.From) || len(c.Next.row(p, n.To)) < len(l.row(p, n.From))
}

// withPV is l with the versions of some partitions set to v.
func (l *Layout) withPV(touched []bool, v Version) *Layout {
	n := *l
	n.pv = slices.Clone(l.pv)
	for p, t := range touched {
		if t {
			n.pv[p] = v
		}
	}
	return &n
}

// Outsider is a member without partitions: one that leaves, or whose joining was
// aborted. It hands over what it still holds, and then it may be retired.
type Outsider struct {
	LayoutNode
	// Leaving says that it is not to be given partitions again.
	Leaving bool
	// Reopened says that its joining was aborted so that what was to be done is done
	// later. What an operator has aborted is not.
	Reopened bool
	// Since is the entry that took its partitions.
	Since Version
}

// Report is what a node says of itself, durably before it is said. Each only grows.
type Report struct {
	// Acked is the last entry under which all that it does is done.
	Acked Version
	// Synced is the ProposedAt of the last change for which it has fetched all that
	// it gains.
	Synced Version
	// Clean is an entry at which it held nothing of what it did not own.
	Clean Version
}

// Copies says how many copies a tenant wants.
func (s *State) Copies(t *TenantRecord) Copies { return s.change.Copies(t.Number, int(t.RF)) }

// copies are what there is among the tenants, each once.
func (s *State) copies() (all []Copies) {
	var in [MaxRF + 1][MaxRF + 1]bool
	for _, t := range s.tenants {
		n := s.Copies(t)
		if !in[n.From][n.To] {
			in[n.From][n.To] = true
			all = append(all, n)
		}
	}
	return all
}

// MayCommit says whether the open change may be committed, going by what the nodes
// report, and else for whom it waits. All that gain have to be synced, and a majority
// of the voters to be must know of the change.
func (s *State) MayCommit(report func(NodeID) Report) (ok bool, waiting []NodeID) {
	c := s.change
	if c == nil || c.Stage != Proposed {
		return false, nil
	}
	copies := s.copies()
	for _, n := range c.Next.nodes {
		if report(n.ID).Synced < c.ProposedAt && s.gainsAny(n.ID, copies) {
			waiting = append(waiting, n.ID)
		}
	}
	acked, behind := 0, []NodeID(nil)
	for _, v := range c.Next.voters {
		if report(v).Acked >= c.ProposedAt {
			acked++
		} else if !slices.Contains(waiting, v) {
			behind = append(behind, v)
		}
	}
	if acked < Majority(len(c.Next.voters)) {
		waiting = append(waiting, behind...)
	}
	return len(waiting) == 0, waiting
}

func (s *State) gainsAny(id NodeID, copies []Copies) bool {
	for p := range s.change.touched {
		for _, n := range copies {
			if s.change.Gains(s.layout, id, Partition(p), n) {
				return true
			}
		}
	}
	return false
}

// MayFinalize says whether the open change may be finalised, and else for whom it
// waits: so many old owners of each partition must know of the COMMIT that no reader
// of the old owners can find a quorum any more. Those that were given up are not waited
// for: if too few others are left, all of those must know of it.
func (s *State) MayFinalize(report func(NodeID) Report) (ok bool, waiting []NodeID) {
	c := s.change
	if c == nil || c.Stage != Committed {
		return false, nil
	}
	behind, gone := make([]bool, len(s.layout.nodes)), make([]bool, len(s.layout.nodes))
	for i, n := range s.layout.nodes {
		gone[i] = s.IsRetired(n.ID)
		behind[i] = !gone[i] && report(n.ID).Acked < c.CommittedAt
	}
	late := make([]bool, len(behind))
	copies := s.copies()
	for p, touched := range c.touched {
		if !touched {
			continue
		}
		for _, n := range copies {
			if sameOwners(s.layout, c.Next, Partition(p), n) {
				continue
			}
			row := s.layout.row(Partition(p), n.From)
			known, left := 0, len(row)
			for _, i := range row {
				switch {
				case gone[i]:
					left--
				case !behind[i]:
					known++
				}
			}
			if known < min(Meeting(len(row)), left) {
				for _, i := range row {
					late[i] = late[i] || behind[i]
				}
			}
		}
	}
	for i, l := range late {
		if l {
			waiting = append(waiting, s.layout.nodes[i].ID)
		}
	}
	return len(waiting) == 0, waiting
}

// Meeting is the smallest number of n owners that meets every quorum of them.
func Meeting(n int) int { return n - n/2 }

// MayRetire says whether a member without partitions has handed over all it had.
func (s *State) MayRetire(id NodeID, report func(NodeID) Report) bool {
	i := slices.IndexFunc(s.outside, func(o Outsider) bool { return o.ID == id })
	return i >= 0 && s.outside[i].Leaving && report(id).Clean >= s.outside[i].Since
}

// Clean says whether no member outside the owners of p can hold anything of it: each
// has reported that it holds nothing of what it does not own since the partition was
// last touched. Only then may deletes of p be collected.
func (s *State) Clean(p Partition, rf int, report func(NodeID) Report) bool {
	if s.layout == nil || s.change.Touches(p) {
		return false
	}
	pv := s.layout.PV(p)
	if pv <= 1 {
		return true // it has the owners that it was founded with
	}
	for _, n := range s.layout.nodes {
		if !s.layout.IsOwner(n.ID, p, rf) && report(n.ID).Clean < pv {
			return false
		}
	}
	for _, o := range s.outside {
		if report(o.ID).Clean < pv {
			return false
		}
	}
	return true
}
