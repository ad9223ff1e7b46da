package ring

import (
	"math/bits"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// phases are the states around a change: before it, proposed, committed and finalised,
// and aborted.
type phases struct {
	before, proposed, committed, final, aborted *State
	// tenants are some of many replication factors, which the change may change.
	tenants []TenantNumber
}

func mustNext(t interface{ Fatal(...any) }, s *State, e *Entry) *State {
	n, err := s.Next(e)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func stepEntry(s *State, kind Kind) *Entry {
	return &Entry{Version: s.Version() + 1, Kind: kind, Op: opOf(s.Version() + 1), Step: &Step{Change: s.Change().ID}}
}

func proposeEntry(s *State, l *Layout) *Entry {
	v := s.Version() + 1
	return &Entry{Version: v, Kind: KindPropose, Op: opOf(v), Propose: &Propose{Parent: s.Layout().Version(), Layout: l}}
}

func phasesOf(t interface{ Fatal(...any) }, s *State, l *Layout, factors ...Factor) phases {
	ph := phases{before: s}
	e := proposeEntry(s, l)
	e.Propose.Factors = factors
	ph.proposed = mustNext(t, s, e)
	if ph.proposed.Change() == nil {
		t.Fatal("the proposal is void")
	}
	ph.committed = mustNext(t, ph.proposed, stepEntry(ph.proposed, KindCommit))
	ph.final = mustNext(t, ph.committed, stepEntry(ph.committed, KindFinalize))
	ph.aborted = mustNext(t, ph.proposed, stepEntry(ph.proposed, KindAbort))
	return ph
}

// drawPhases draws a cluster and a change of it: of its nodes, of replication factors, or
// of both.
func drawPhases(t *rapid.T) phases {
	all := testNodes(rapid.IntRange(0, 3).Draw(t, "zones"), slices.Repeat([]uint32{1}, 10)...)
	l, err := NewLayout(8, drawNodes(t, all))
	if err != nil {
		t.Fatal(err)
	}
	s, tenants := withTenants(t, l)
	var factors []Factor
	if rapid.Bool().Draw(t, "factors") {
		for i, n := range tenants {
			if to := uint8(rapid.IntRange(1, MaxRF).Draw(t, "to")); int(to) != i+1 {
				factors = append(factors, Factor{Tenant: n, RF: to})
			}
		}
	}
	next := s.Layout().At(s.Version() + 1)
	if len(factors) == 0 || rapid.Bool().Draw(t, "nodes") {
		if next, err = s.Layout().Rebalance(s.Version()+1, drawNodes(t, all)); err != nil {
			t.Fatal(err)
		}
	}
	ph := phasesOf(t, s, next, factors...)
	ph.tenants = tenants
	return ph
}

// withTenants founds a cluster with a tenant of each replication factor.
func withTenants(t interface{ Fatal(...any) }, l *Layout) (s *State, tenants []TenantNumber) {
	s = mustNext(t, &State{}, &Entry{Version: 1, Kind: KindFound, Op: [16]byte{1}, Found: &Found{
		ClusterID: ClusterID{1}, ClusterName: "test", Founder: l.Nodes()[0].ID, Layout: l, TokenKeyID: 1,
	}})
	for rf := 1; rf <= MaxRF; rf++ {
		e := createEntry(s.Version()+1, "t"+string(rune('0'+rf)))
		e.Tenant.RF = uint8(rf)
		s = mustNext(t, s, e)
		tenants = append(tenants, s.LastTenant())
	}
	return s, tenants
}

func copiesOf(s *State, n TenantNumber) Copies {
	t, _ := s.TenantByNumber(n)
	return s.Copies(t)
}

func sets(s *State, p Partition, n TenantNumber) Sets {
	return SetsOf(s.Layout(), s.Change(), make([]NodeID, 0, MaxOwners), p, copiesOf(s, n))
}

// members are the nodes of a mask, sorted.
func (s Sets) members(mask uint16) (ids []NodeID) {
	for i, id := range s.Owners {
		if mask>>i&1 != 0 {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, NodeID.Compare)
	return ids
}

func sortedOwners(l *Layout, p Partition, rf int) []NodeID {
	ids := l.Owners(nil, p, rf)
	slices.SortFunc(ids, NodeID.Compare)
	return ids
}

// TestSetsByPhase: who is written and read in each phase, as the protocol has it.
func TestSetsByPhase(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ph := drawPhases(t)
		for p := range Partition(8) {
			for _, tenant := range ph.tenants {
				rf, to := copiesOf(ph.before, tenant).From, copiesOf(ph.final, tenant).From
				o, n := sortedOwners(ph.before.Layout(), p, rf), sortedOwners(ph.final.Layout(), p, to)
				var none []NodeID
				same := slices.Equal(o, n)
				for _, c := range []struct {
					name           string
					s              *State
					stage          Stage
					w1, w2, r1, r2 []NodeID
				}{
					{"before", ph.before, Stable, o, none, o, none},
					{"proposed", ph.proposed, Proposed, o, n, o, n},
					{"committed", ph.committed, Committed, o, n, n, o},
					{"final", ph.final, Stable, n, none, n, none},
					{"aborted", ph.aborted, Stable, o, none, o, none},
				} {
					if same {
						c.stage, c.w1, c.w2, c.r1, c.r2 = Stable, o, none, o, none
					}
					got := sets(c.s, p, tenant)
					if got.Stage != c.stage || !slices.Equal(got.members(got.W1), c.w1) || !slices.Equal(got.members(got.W2), c.w2) ||
						!slices.Equal(got.members(got.R1), c.r1) || !slices.Equal(got.members(got.R2), c.r2) {
						t.Fatalf("%s, partition %d, from %d to %d copies: %+v of old %v and new %v", c.name, p, rf, to, got, o, n)
					}
					if all := got.W1 | got.W2; all != uint16(1)<<len(got.Owners)-1 || got.R1 != uint16(1)<<bits.OnesCount16(got.R1)-1 {
						t.Fatalf("%s: owners that are in no set, or readers that are not first: %+v", c.name, got)
					}
					distinct := slices.Clone(got.Owners)
					slices.SortFunc(distinct, NodeID.Compare)
					if len(slices.Compact(distinct)) != len(got.Owners) {
						t.Fatalf("%s: an owner is there twice", c.name)
					}
				}
			}
		}
	})
}

func TestSetsAllocateNothing(t *testing.T) {
	s, all := founded(t, 4, 2)
	next := mustRebalance(t, s.Layout(), all)
	ph := phasesOf(t, s, next)
	buf := make([]NodeID, 0, MaxOwners)
	for _, s := range []*State{ph.before, ph.proposed, ph.committed} {
		if n := testing.AllocsPerRun(50, func() {
			for p := range Partition(64) {
				SetsOf(s.Layout(), s.Change(), buf[:0], p, Same(7))
			}
		}); n != 0 {
			t.Errorf("version %s: %v allocations", s.Version(), n)
		}
	}
}

// TestWhoGains: new owners, and all owners to be if they are fewer than before.
func TestWhoGains(t *testing.T) {
	shrunk := false
	rapid.Check(t, func(t *rapid.T) {
		ph := drawPhases(t)
		old, next := ph.before.Layout(), ph.final.Layout()
		for p := range Partition(8) {
			for _, tenant := range ph.tenants {
				copies := copiesOf(ph.proposed, tenant)
				o, n := old.Owners(nil, p, copies.From), next.Owners(nil, p, copies.To)
				shrunk = shrunk || len(n) < len(o)
				for _, id := range slices.Concat(o, n) {
					want := slices.Contains(n, id) && (!slices.Contains(o, id) || len(n) < len(o))
					if got := ph.proposed.Change().Gains(ph.proposed.Layout(), id, p, copies); got != want {
						t.Fatalf("partition %d, %+v: %s gains: %v; of %v becoming %v", p, copies, id.Short(), got, o, n)
					}
				}
			}
		}
		if ph.before.Change().Gains(old, old.Nodes()[0].ID, 0, Same(3)) {
			t.Fatal("somebody gains while no change is open")
		}
	})
	if !shrunk {
		t.Error("no partition ever got fewer owners")
	}
}

func reports(m map[NodeID]Report) func(NodeID) Report { return func(id NodeID) Report { return m[id] } }

func ids(nodes ...LayoutNode) (ids []NodeID) {
	for _, n := range nodes {
		ids = append(ids, n.ID)
	}
	slices.SortFunc(ids, NodeID.Compare)
	return ids
}

func TestMayCommit(t *testing.T) {
	s, all := founded(t, 3, 2)
	l := &log{t, s}
	if ok, waiting := l.MayCommit(reports(nil)); ok || waiting != nil {
		t.Error("a change may be committed, and there is none")
	}
	l.propose(l.mustPlan(all[3:]...)) // five nodes, five voters
	v := l.Version()
	said := map[NodeID]Report{}
	check := func(want bool, waits ...LayoutNode) {
		t.Helper()
		ok, waiting := l.MayCommit(reports(said))
		slices.SortFunc(waiting, NodeID.Compare)
		if ok != want || !slices.Equal(waiting, ids(waits...)) {
			t.Errorf("%v waiting for %v, want %v and %v", ok, waiting, want, ids(waits...))
		}
	}
	check(false, all...)
	said[all[3].ID] = Report{Acked: v, Synced: v}
	check(false, all[0], all[1], all[2], all[4])
	said[all[4].ID] = Report{Acked: v, Synced: v - 1} // of an earlier change
	said[all[0].ID] = Report{Acked: v}
	check(false, all[4])
	said[all[4].ID] = Report{Acked: v, Synced: v}
	check(true)
	said[all[0].ID] = Report{Acked: v - 1}
	check(false, all[0], all[1], all[2])
	said[all[0].ID] = Report{Acked: v}
	l.step(KindCommit)
	if ok, _ := l.MayCommit(reports(said)); ok {
		t.Error("it may be committed twice")
	}
}

// TestMayCommitGoesByTheFactorsThatThereAre: a row that changes behind the owners of
// every tenant makes nobody wait, until there is a tenant with more copies.
func TestMayCommitGoesByTheFactorsThatThereAre(t *testing.T) {
	s, _ := founded(t, 6, 0)
	next := mustRebalance(t, s.Layout(), s.Layout().Nodes())
	next.table = slices.Clone(next.table)
	next.table[3], next.table[4] = next.table[4], next.table[3]
	gainer := next.nodes[next.table[3]].ID
	s = mustNext(t, s, proposeEntry(s, next))
	said := func(NodeID) Report { return Report{Acked: s.Version()} }
	if ok, waiting := s.MayCommit(said); !ok {
		t.Fatalf("waits for %v", waiting)
	}
	s = mustNext(t, s, createEntry(3, "wide"))
	if ok, _ := s.MayCommit(said); !ok {
		t.Fatal("a tenant with three copies makes it wait")
	}
	four := createEntry(4, "wider")
	four.Tenant.RF = 4
	s = mustNext(t, s, four)
	if ok, waiting := s.MayCommit(said); ok || !slices.Equal(waiting, []NodeID{gainer}) {
		t.Fatalf("%v, waits for %v, want %s", ok, waiting, gainer.Short())
	}
}

func TestMayFinalize(t *testing.T) {
	s, all := founded(t, 3, 1)
	l := &log{t, s}
	l.propose(l.mustPlan(all[3]))
	said := map[NodeID]Report{}
	for _, n := range all {
		said[n.ID] = Report{Acked: l.Version()}
	}
	if ok, waiting := l.MayFinalize(reports(said)); ok || waiting != nil {
		t.Error("it may be finalised before it is committed")
	}
	l.step(KindCommit)
	v := l.Version()
	said[all[3].ID] = Report{Acked: v} // no old owner
	said[all[0].ID] = Report{Acked: v}
	ok, waiting := l.MayFinalize(reports(said))
	slices.SortFunc(waiting, NodeID.Compare)
	if ok || !slices.Equal(waiting, ids(all[1], all[2])) {
		t.Errorf("one of three old owners knows: %v, waiting for %v", ok, waiting)
	}
	said[all[1].ID] = Report{Acked: v}
	if ok, waiting := l.MayFinalize(reports(said)); !ok || waiting != nil {
		t.Errorf("two of three old owners know: %v, waiting for %v", ok, waiting)
	}
}

// TestMeeting: so many leave no quorum, and one fewer does.
func TestMeeting(t *testing.T) {
	for n := 1; n <= MaxRF; n++ {
		if m := Meeting(n); n-m >= Majority(n) || n-(m-1) < Majority(n) {
			t.Errorf("of %d owners %d meet every quorum", n, m)
		}
	}
}

func TestMayRetire(t *testing.T) {
	s, all := founded(t, 4, 1)
	l := &log{t, s}
	l.intent(Intent{Verb: VerbLeave, Node: all[0].ID})
	l.change(l.mustPlan())
	since := l.Version()
	l.propose(l.mustPlan(all[4]))
	l.step(KindAbort)
	at := func(v Version) func(NodeID) Report { return func(NodeID) Report { return Report{Clean: v} } }
	for id, want := range map[NodeID]bool{all[0].ID: true, all[1].ID: false, all[4].ID: false} {
		if got := l.MayRetire(id, at(l.Version())); got != want {
			t.Errorf("%s may be retired: %v", id.Short(), got)
		}
	}
	if l.MayRetire(all[0].ID, at(since-1)) || !l.MayRetire(all[0].ID, at(since)) {
		t.Error("a leaver is retired once it is clean since it left, and not before")
	}
}

func TestCleanCountsEverybodyElse(t *testing.T) {
	s, all := founded(t, 4, 2)
	l := &log{t, s}
	none := reports(nil)
	if !l.Clean(0, 3, none) {
		t.Error("nobody else ever had anything of a founded cluster")
	}
	l.propose(l.mustPlan(all[4], all[5]))
	if l.Clean(0, 3, func(NodeID) Report { return Report{Clean: 1000} }) {
		t.Error("a partition is clean while it moves")
	}
	l.step(KindAbort)
	v := l.Version()
	said := map[NodeID]Report{}
	for _, n := range all {
		if !l.Layout().IsOwner(n.ID, 0, 3) {
			if l.Clean(0, 3, reports(said)) {
				t.Errorf("it is clean without %s", n.Name)
			}
			said[n.ID] = Report{Clean: v}
		}
	}
	if !l.Clean(0, 3, reports(said)) {
		t.Error("all others say that they hold nothing, and it is not clean")
	}
	said[all[4].ID] = Report{Clean: v - 1}
	if l.Clean(0, 3, reports(said)) {
		t.Error("an outsider's report from before it lost the partition counts")
	}
	l.intent(Intent{Verb: VerbRemove, Node: all[4].ID})
	l.change(l.mustPlan())
	if !l.Clean(0, 3, reports(said)) {
		t.Error("one that is retired still counts")
	}
}

// TestGuardsAreMonotone: reports only grow, and what was allowed stays so. Whoever acts
// on old reports is right.
func TestGuardsAreMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ph := drawPhases(t)
		first, last := uint64(ph.before.Version()), uint64(ph.final.Version())
		early, late := map[NodeID]Report{}, map[NodeID]Report{}
		for _, m := range ph.proposed.Members() {
			draw := func(what string) (Version, Version) {
				v := rapid.Uint64Range(first, last).Draw(t, what)
				return Version(v), Version(rapid.Uint64Range(v, last).Draw(t, what+" later"))
			}
			var a, b Report
			a.Acked, b.Acked = draw("acked")
			a.Synced, b.Synced = draw("synced")
			a.Clean, b.Clean = draw("clean")
			early[m.ID], late[m.ID] = a, b
		}
		for _, s := range []*State{ph.before, ph.proposed, ph.committed, ph.final, ph.aborted} {
			guards := []func(func(NodeID) Report) bool{
				func(r func(NodeID) Report) bool {
					ok, waiting := s.MayCommit(r)
					if c := s.Change(); ok != (c != nil && c.Stage == Proposed && len(waiting) == 0) {
						t.Fatalf("may be committed: %v, waiting for %v", ok, waiting)
					}
					return ok
				},
				func(r func(NodeID) Report) bool {
					ok, waiting := s.MayFinalize(r)
					if c := s.Change(); ok != (c != nil && c.Stage == Committed && len(waiting) == 0) {
						t.Fatalf("may be finalised: %v, waiting for %v", ok, waiting)
					}
					return ok
				},
				func(r func(NodeID) Report) bool { return s.Clean(0, 1, r) },
				func(r func(NodeID) Report) bool { return s.Clean(0, 3, r) },
			}
			for _, m := range s.Members() {
				guards = append(guards, func(r func(NodeID) Report) bool { return s.MayRetire(m.ID, r) })
			}
			for i, guard := range guards {
				if guard(reports(early)) && !guard(reports(late)) {
					t.Fatalf("guard %d of version %s closes again", i, s.Version())
				}
			}
		}
	})
}
