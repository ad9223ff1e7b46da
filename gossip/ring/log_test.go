package ring

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func stageOf(s *State) Stage {
	if s.Change() == nil {
		return Stable
	}
	return s.Change().Stage
}

// TestStepsHaveTheirStage: in each stage, what every step does; all others are void.
func TestStepsHaveTheirStage(t *testing.T) {
	s, all := founded(t, 4, 1)
	ph := phasesOf(t, s, mustRebalance(t, s.Layout(), all))
	id := ph.proposed.Change().ID
	for _, c := range []struct {
		s    *State
		kind Kind
		want Stage
		void bool
	}{
		{ph.before, KindCommit, Stable, true},
		{ph.before, KindAbort, Stable, true},
		{ph.before, KindFinalize, Stable, true},
		{ph.proposed, KindCommit, Committed, false},
		{ph.proposed, KindAbort, Stable, false},
		{ph.proposed, KindFinalize, Proposed, true},
		{ph.committed, KindCommit, Committed, true},
		{ph.committed, KindAbort, Committed, true},
		{ph.committed, KindFinalize, Stable, false},
		{ph.final, KindCommit, Stable, true},
		{ph.final, KindAbort, Stable, true},
		{ph.final, KindFinalize, Stable, true},
		{ph.aborted, KindCommit, Stable, true},
	} {
		e := &Entry{Version: c.s.Version() + 1, Kind: c.kind, Step: &Step{Change: id}}
		n := mustNext(t, c.s, e)
		if stageOf(n) != c.want || (n.Layout().PV(0) == e.Version) == c.void {
			t.Errorf("%s after %s: %s, partition at %s", c.kind, stageOf(c.s), stageOf(n), n.Layout().PV(0))
		}
		if c.void {
			checkVoid(t, c.s, n)
		}
		e.Step = &Step{Change: [16]byte{99}}
		checkVoid(t, c.s, mustNext(t, c.s, e))
	}
	if c := ph.committed.Change(); c.ProposedAt != 2 || c.CommittedAt != 3 || ph.proposed.Change().CommittedAt != 0 {
		t.Errorf("%+v", c)
	}
	if ph.final.Layout().Version() != 4 || ph.aborted.Layout().Version() != 1 {
		t.Errorf("layouts %s and %s", ph.final.Layout().Version(), ph.aborted.Layout().Version())
	}
}

// checkVoid: nothing but the version is new.
func checkVoid(t *testing.T, before, after *State) {
	t.Helper()
	a, b := dump(before), dump(after)
	_, a, _ = strings.Cut(a, "\n")
	_, b, _ = strings.Cut(b, "\n")
	if a != b || after.Version() != before.Version()+1 {
		t.Errorf("a void entry changes\n%s\ninto\n%s", a, b)
	}
}

// dump writes all that a state says.
func dump(s *State) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s %s %s %d\n", s.version, s.clusterID, s.clusterName, s.founder, s.lastTenant)
	layout := func(l *Layout) {
		if l != nil {
			fmt.Fprintf(&b, "%s %v %v %v %v\n", l.version, l.nodes, l.table, l.voters, l.pv)
		}
	}
	layout(s.layout)
	if c := s.change; c != nil {
		fmt.Fprintf(&b, "%x %s %s %s %v %v %v\n", c.ID, c.Stage, c.ProposedAt, c.CommittedAt, c.Removed, c.Factors, c.touched)
		layout(c.Next)
		for _, i := range c.Carries {
			fmt.Fprintf(&b, "carries %+v\n", *i)
		}
	}
	for _, t := range s.tenants {
		fmt.Fprintf(&b, "%+v\n", *t)
	}
	for _, i := range s.intents {
		fmt.Fprintf(&b, "%+v\n", *i)
	}
	fmt.Fprintf(&b, "%v %v %v %v %v\n", s.tokenKeys, s.outside, s.retired, s.voters, s.recoveredAt)
	return b.String()
}

// TestPartitionVersions: every step of a change moves the versions of what it touches,
// and of nothing else.
func TestPartitionVersions(t *testing.T) {
	s, all := founded(t, 9, 1)
	s = mustNext(t, s, createEntry(2, "a"))
	ph := phasesOf(t, s, mustRebalance(t, &Layout{
		version: 2, shift: s.layout.shift, nodes: s.layout.nodes, width: s.layout.width, table: s.layout.table, voters: s.layout.voters, pv: s.layout.pv,
	}, all))
	touched := 0
	for p := range Partition(64) {
		moves := !slices.Equal(ph.before.Layout().Owners(nil, p, MaxRF), ph.final.Layout().Owners(nil, p, MaxRF))
		if moves {
			touched++
		}
		for s, v := range map[*State]Version{ph.before: 1, ph.proposed: 3, ph.committed: 4, ph.final: 5, ph.aborted: 4} {
			if !moves {
				v = 1
			}
			if got := s.Layout().PV(p); got != v {
				t.Errorf("partition %d at version %s: %s, want %s", p, s.Version(), got, v)
			}
		}
		if ph.proposed.Change().Touches(p) != moves {
			t.Errorf("partition %d: touched %v", p, !moves)
		}
	}
	if touched == 0 || touched == 64 {
		t.Errorf("%d of 64 partitions move", touched)
	}
	if got, err := DecodeLayout(AppendLayout(nil, ph.final.Layout())); err != nil || !slices.Equal(got.pv, ph.final.layout.pv) {
		t.Errorf("the finalised layout loses the versions of its partitions: %v", err)
	}
}

func TestVoidProposals(t *testing.T) {
	s, all := founded(t, 5, 2)
	l := &log{t, s}
	l.intent(Intent{Verb: VerbLeave, Node: all[0].ID})
	l.intent(Intent{Verb: VerbRemove, Node: all[1].ID})
	l.change(l.mustPlan(all[5]))
	v := l.Version() + 1
	with := func(nodes ...LayoutNode) *Layout {
		n, err := l.Layout().Rebalance(v, append(slices.Clone(l.Layout().Nodes()), nodes...))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	smaller, err := NewLayout(32, all[2:6])
	if err != nil {
		t.Fatal(err)
	}
	smaller.version = v
	good := Propose{Parent: l.Layout().Version(), Layout: with(all[6])}
	for name, p := range map[string]Propose{
		"another layout is in force": {Parent: good.Parent - 1, Layout: good.Layout},
		"a retired node":             {Parent: good.Parent, Layout: with(all[1])},
		"a node that leaves":         {Parent: good.Parent, Layout: with(all[0])},
		"removes a stranger":         {Parent: good.Parent, Layout: good.Layout, Removed: []NodeID{{1}}},
		"removes a retired one":      {Parent: good.Parent, Layout: good.Layout, Removed: []NodeID{all[1].ID}},
		"other partitions":           {Parent: good.Parent, Layout: smaller},
	} {
		t.Run(name, func(t *testing.T) {
			checkVoid(t, l.State, mustNext(t, l.State, &Entry{Version: v, Kind: KindPropose, Propose: &p}))
		})
	}
	first := l.next(KindPropose, func(e *Entry) { e.Propose = &good })
	if l.Change() == nil || l.Change().ID != first.Op {
		t.Fatal("a good proposal is void")
	}
	second := good
	second.Layout = &Layout{}
	*second.Layout = *good.Layout
	second.Layout.version = v + 1
	checkVoid(t, l.State, mustNext(t, l.State, &Entry{Version: v + 1, Kind: KindPropose, Op: [16]byte{8}, Propose: &second}))
}

// TestTurnedAwayJoinersMayComeAgain: an aborted joiner stays a member without
// partitions, because of what it may hold, and can be given some again.
func TestTurnedAwayJoinersMayComeAgain(t *testing.T) {
	s, all := founded(t, 3, 2)
	l := &log{t, s}
	for round := range 2 {
		l.propose(l.mustPlan(all[3:]...))
		l.step(KindAbort)
		if o := l.Outsiders(); len(o) != 2 || o[0].Leaving || o[0].Since != l.Version() || o[1].Since != l.Version() {
			t.Fatalf("round %d: %+v", round, o)
		}
		l.wantNodes(all[:3]...)
		if _, ok := l.Member(all[4].ID); !ok || len(l.Members()) != 5 {
			t.Error("a joiner that was turned away is no member")
		}
	}
	l.change(l.mustPlan(all[3]))
	if o := l.Outsiders(); len(o) != 1 || o[0].ID != all[4].ID {
		t.Errorf("outsiders %+v", o)
	}
	l.wantNodes(all[:4]...)
}

func TestRetire(t *testing.T) {
	s, all := founded(t, 4, 1)
	l := &log{t, s}
	retire := func(id NodeID) *Entry {
		return &Entry{Version: l.Version() + 1, Kind: KindRetire, Retire: &Retire{Node: id}}
	}
	l.intent(Intent{Verb: VerbLeave, Node: all[0].ID})
	l.change(l.mustPlan())
	for _, id := range []NodeID{all[1].ID, all[4].ID} { // with partitions, and unknown
		checkVoid(t, l.State, mustNext(t, l.State, retire(id)))
	}
	l.State = mustNext(t, l.State, retire(all[0].ID))
	if _, member := l.Member(all[0].ID); member || !l.IsRetired(all[0].ID) || len(l.Outsiders()) != 0 {
		t.Error("it is not retired")
	}
	checkVoid(t, l.State, mustNext(t, l.State, retire(all[0].ID)))
	l.propose(l.mustPlan(all[4]))
	l.step(KindAbort)
	l.propose(l.mustPlan(all[4])) // an outsider that comes again
	checkVoid(t, l.State, mustNext(t, l.State, retire(all[4].ID)))
}

func TestIntentsOfTheLog(t *testing.T) {
	s, all := founded(t, 5, 1)
	l := &log{t, s}
	ops := func() (ops [][16]byte) {
		for _, i := range l.Intents() {
			ops = append(ops, i.Op)
		}
		return ops
	}
	first := l.intent(Intent{Verb: VerbLeave, Node: all[0].ID})
	second := l.intent(Intent{Verb: VerbWeigh, Node: all[1].ID, Capacity: 7})
	l.intent(Intent{Verb: VerbLeave, Node: all[5].ID}) // no member: void
	if got := ops(); !slices.Equal(got, [][16]byte{first, second}) || l.Intents()[1].Version != 3 {
		t.Fatalf("open: %x", got)
	}
	l.intent(Intent{Verb: VerbCancel, Cancels: [16]byte{99}})
	l.propose(l.mustPlan())
	third := l.intent(Intent{Verb: VerbWeigh, Node: all[2].ID, Capacity: 7})
	if got := ops(); !slices.Equal(got, [][16]byte{third}) || len(l.Change().Carries) != 2 {
		t.Fatalf("while they are carried out: open %x", got)
	}
	over := mustNext(t, l.State, stepEntry(l.State, KindAbort))
	if len(over.Intents()) != 1 {
		t.Errorf("aborted: open %v", over.Intents())
	}
	l.next(KindAbort, func(e *Entry) { e.Step = &Step{Change: l.Change().ID, Reopens: true} })
	if got := ops(); !slices.Equal(got, [][16]byte{first, second, third}) {
		t.Errorf("opened again: %x", got)
	}
	l.intent(Intent{Verb: VerbCancel, Cancels: second})
	if got := ops(); !slices.Equal(got, [][16]byte{first, third}) {
		t.Errorf("cancelled: %x", got)
	}
}

func TestIntentsAreBounded(t *testing.T) {
	s, all := founded(t, 3, 0)
	l := &log{t, s}
	for range MaxIntents + 1 {
		l.intent(Intent{Verb: VerbWeigh, Node: all[0].ID, Capacity: 7})
	}
	if len(l.Intents()) != MaxIntents {
		t.Errorf("%d intents", len(l.Intents()))
	}
	all256 := l.mustPlan()
	if len(all256.Closes) != MaxIntents {
		t.Fatalf("closes %d", len(all256.Closes))
	}
	l.propose(all256)
	b := AppendEntry(nil, proposeOf(l.State, all256))
	if _, err := DecodeEntry(b); err != nil {
		t.Error(err)
	}
	l.intent(Intent{Verb: VerbWeigh, Node: all[0].ID, Capacity: 9})
	l.next(KindAbort, func(e *Entry) { e.Step = &Step{Change: l.Change().ID, Reopens: true} })
	if len(l.Intents()) != MaxIntents {
		t.Errorf("%d intents after an abort", len(l.Intents()))
	}
}

func proposeOf(s *State, p *Plan) *Entry {
	return &Entry{Version: p.Layout.Version(), Kind: KindPropose, Op: [16]byte{1}, Propose: &Propose{
		Parent: s.Layout().Version(), Layout: p.Layout, Removed: p.Removed, Closes: p.Closes, Factors: p.Factors,
	}}
}

// TestCancelledIntentIsNotCarriedOut: a plan that was made before an intent was
// cancelled, and comes into the log behind that, is void.
func TestCancelledIntentIsNotCarriedOut(t *testing.T) {
	for _, verb := range []Verb{VerbLeave, VerbRemove} {
		s, all := founded(t, 5, 1)
		l := &log{t, s}
		op := l.intent(Intent{Verb: verb, Node: all[0].ID})
		p := l.mustPlan()
		l.intent(Intent{Verb: VerbCancel, Cancels: op})
		v := l.Version() + 1
		late := &Entry{Version: v, Kind: KindPropose, Op: [16]byte{9}, Propose: &Propose{
			Parent: l.Layout().Version(), Layout: p.Layout.At(v), Removed: p.Removed, Closes: p.Closes,
		}}
		checkVoid(t, l.State, mustNext(t, l.State, late))
	}
}
