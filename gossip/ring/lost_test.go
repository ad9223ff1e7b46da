package ring

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// none answers that nobody is alive, and butFor that all are except some.
func none(NodeID) bool { return false }

func butFor(down ...LayoutNode) func(NodeID) bool {
	return func(id NodeID) bool { return !slices.Contains(ids(down...), id) }
}

// single adds a tenant with one copy.
func (l *log) single() {
	l.t.Helper()
	l.next(KindTenantCreate, func(e *Entry) { e.Tenant = &TenantCreate{Name: "single", RF: 1, Policy: 1} })
}

// TestGiveUp: whoever is given up is retired with the entry, is no member that anybody
// waits for, and goes with the next change, whatever becomes of the intent.
func TestGiveUp(t *testing.T) {
	s, all := founded(t, 3, 1)
	l := &log{t, s}
	l.single()
	op := l.intent(Intent{Verb: VerbGiveUp, Node: all[1].ID})
	if !l.IsRetired(all[1].ID) || !slices.Equal(l.Lost(), []LayoutNode{all[1]}) || len(l.Intents()) != 1 {
		t.Fatalf("retired %v, lost %v, %d intents", l.Retired(), l.Lost(), len(l.Intents()))
	}
	twice := mustNext(t, l.State, &Entry{Version: l.Version() + 1, Kind: KindIntent, Op: [16]byte{8}, Intent: &Intent{Verb: VerbGiveUp, Node: all[1].ID}})
	checkVoid(t, l.State, twice)
	for verb, want := range map[Verb]error{VerbLeave: ErrNoChange, VerbRemove: ErrNoChange, VerbGiveUp: ErrNoChange} {
		if err := l.CheckIntent(&Intent{Verb: verb, Node: all[1].ID}, butFor(all[1]), none); !errors.Is(err, want) || !strings.Contains(err.Error(), "given up already") {
			t.Errorf("%s: %v, want %v", verb, err, want)
		}
	}
	if err := l.CheckIntent(&Intent{Verb: VerbCancel, Cancels: op}, none, none); !errors.Is(err, ErrNoChange) {
		t.Errorf("cancel: %v", err)
	}
	// An operator aborts the change: it goes all the same.
	p := l.mustPlan()
	if !slices.Equal(p.Removed, ids(all[1])) || !slices.Equal(p.Closes, [][16]byte{op}) {
		t.Fatalf("the plan removes %v and closes %v", p.Removed, p.Closes)
	}
	l.propose(p)
	l.step(KindAbort)
	if p = l.mustPlan(); !slices.Equal(p.Removed, ids(all[1])) {
		t.Fatalf("the plan removes %v", p.Removed)
	}
	// Another takes its place.
	alive, joiner := butFor(all[1]), func(id NodeID) bool { return id == all[3].ID }
	replace := Intent{Verb: VerbReplace, Node: all[1].ID, By: all[3].ID}
	if err := l.CheckIntent(&replace, alive, joiner); err != nil {
		t.Fatal(err)
	}
	l.intent(replace)
	l.change(l.mustPlan(all[3]))
	l.wantNodes(all[0], all[2], all[3])
	if len(l.Lost()) != 0 || len(l.Outsiders()) != 0 || !slices.Equal(l.Retired(), ids(all[1])) {
		t.Errorf("lost %v, outside %v, retired %v", l.Lost(), l.Outsiders(), l.Retired())
	}
}

// TestGiveUpWithoutPartitions: a member that has none is gone at once.
func TestGiveUpWithoutPartitions(t *testing.T) {
	s, all := founded(t, 3, 1)
	l := &log{t, s}
	l.propose(l.mustPlan(all[3]))
	l.step(KindAbort)
	l.intent(Intent{Verb: VerbGiveUp, Node: all[3].ID})
	if _, member := l.Member(all[3].ID); member || !l.IsRetired(all[3].ID) || len(l.Lost()) != 0 {
		t.Errorf("member %t, retired %v", member, l.Retired())
	}
	if p := l.mustPlan(); p.Layout != nil || len(p.Void) != 1 {
		t.Errorf("the plan is %+v", p)
	}
}

// TestCheckGiveUp: refused while one of them answers, while somebody who is not named
// has what is left and is away, and of the last node.
func TestCheckGiveUp(t *testing.T) {
	s, all := founded(t, 3, 0)
	l := &log{t, s}
	l.single()
	for name, c := range map[string]struct {
		named, down []LayoutNode
		want        error
		says        string
	}{
		"alive":       {all[:1], nil, ErrNodeAlive, "n1"},
		"one of them": {all[:2], all[:1], ErrNodeAlive, "n2"},
		"lost":        {all[:1], all[:1], nil, ""},
		"another":     {all[:1], all[:2], ErrSourcesLost, "start n2 first, or give it up with them"},
		"both":        {all[:2], all[:2], nil, ""},
		"all":         {all, all, ErrLastCopies, "no node is left"},
	} {
		err := l.CheckGiveUp(ids(c.named...), butFor(c.down...))
		if !errors.Is(err, c.want) || c.want == nil && err != nil || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := (&State{}).CheckGiveUp(nil, none); !errors.Is(err, ErrNotFounded) {
		t.Errorf("before founding: %v", err)
	}
	if err := l.CheckGiveUp([]NodeID{{99}}, none); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("a stranger: %v", err)
	}
	// Those that remain of the removed layout have to know of a change that is committed.
	last := mustNext(t, l.State, &Entry{Version: l.Version() + 1, Kind: KindIntent, Op: [16]byte{8}, Intent: &Intent{Verb: VerbGiveUp, Node: all[0].ID}})
	last = mustNext(t, last, &Entry{Version: last.Version() + 1, Kind: KindIntent, Op: [16]byte{9}, Intent: &Intent{Verb: VerbGiveUp, Node: all[1].ID}})
	void := mustNext(t, last, &Entry{Version: last.Version() + 1, Kind: KindIntent, Op: [16]byte{10}, Intent: &Intent{Verb: VerbGiveUp, Node: all[2].ID}})
	checkVoid(t, last, void)
}

// TestLossOf: what is told is what no quorum has without the nodes, of each tenant.
func TestLossOf(t *testing.T) {
	s, all := founded(t, 3, 1)
	l := &log{t, s}
	l.single()
	count := func(l Loss) [2]int { return [2]int{len(l.Partitions), len(l.Empty)} }
	one := l.LossOf(ids(all[0]))
	owned := 0
	for p := range Partition(64) {
		if l.Layout().IsOwner(all[0].ID, p, 1) {
			owned++
		}
	}
	if len(one) != 1 || one[0].RF != 1 || !slices.Equal(one[0].Tenants, []string{"single"}) || count(one[0]) != [2]int{owned, owned} {
		t.Errorf("with one of three: %+v", one)
	}
	two := l.LossOf(ids(all[0], all[1]))
	if len(two) != 2 || two[1].RF != 3 || !slices.Equal(two[1].Tenants, []string{"default"}) || count(two[1]) != [2]int{64, 0} {
		t.Errorf("with two of three: %+v", two)
	}
	l.intent(Intent{Verb: VerbGiveUp, Node: all[0].ID})
	if again := l.LossOf(ids(all[0])); again != nil {
		t.Errorf("given up twice: %+v", again)
	}
	if two = l.LossOf(ids(all[1])); len(two) != 2 || count(two[1]) != [2]int{64, 0} {
		t.Errorf("with the second of three: %+v", two)
	}
	// A change that is proposed goes by the old owners, a committed one by the new.
	s, all = founded(t, 1, 1)
	l = &log{t, s}
	l.single()
	l.intent(Intent{Verb: VerbLeave, Node: all[0].ID})
	l.next(KindTenantCreate, func(e *Entry) { e.Tenant = &TenantCreate{Name: "other", RF: 1, Policy: 1} })
	l.next(KindPropose, func(e *Entry) {
		next, err := l.Layout().Rebalance(e.Version, all[1:])
		if err != nil {
			t.Fatal(err)
		}
		e.Propose = &Propose{Parent: l.Layout().Version(), Layout: next}
	})
	if got := l.LossOf(ids(all[0])); len(got) != 2 || !slices.Equal(got[0].Tenants, []string{"other", "single"}) || len(l.LossOf(ids(all[1]))) != 0 {
		t.Errorf("proposed: %+v", got)
	}
	l.step(KindCommit)
	if got := l.LossOf(ids(all[0])); got != nil || len(l.LossOf(ids(all[1]))) != 2 {
		t.Errorf("committed: %+v", got)
	}
}

// TestSources: as many as meet every quorum, or all that are left.
func TestSources(t *testing.T) {
	s, all := founded(t, 5, 0)
	l := &log{t, s}
	for _, want := range []int{3, 3, 3, 2, 1} {
		if got := l.Sources(ids(all...)); got != want {
			t.Errorf("%d of 5 with %d given up, want %d", got, len(l.Lost()), want)
		}
		if len(l.Lost()) < 4 {
			l.intent(Intent{Verb: VerbGiveUp, Node: all[len(l.Lost())].ID})
		}
	}
	if got := l.Sources(ids(all[:4]...)); got != 0 {
		t.Errorf("%d of those that are given up", got)
	}
}

// TestFinalizeWithoutTheLost: a change is committed and its old owners die. Once they are
// given up it is completed, and not before all others know of the COMMIT.
func TestFinalizeWithoutTheLost(t *testing.T) {
	s, all := founded(t, 3, 1)
	l := &log{t, s}
	l.propose(l.mustPlan(all[3]))
	l.step(KindCommit)
	known := map[NodeID]Report{}
	wait := func(when string, want ...LayoutNode) {
		t.Helper()
		ok, waiting := l.MayFinalize(reports(known))
		slices.SortFunc(waiting, NodeID.Compare)
		want = slices.Clone(want)
		slices.SortFunc(want, func(a, b LayoutNode) int { return a.ID.Compare(b.ID) })
		if ok != (len(want) == 0) || !slices.Equal(waiting, ids(want...)) {
			t.Errorf("%s: %t, waiting for %v, want %v", when, ok, waiting, ids(want...))
		}
	}
	wait("nobody knows", all[:3]...)
	known[all[0].ID] = Report{Acked: l.Version()}
	wait("one knows", all[1], all[2])
	if !l.MustGiveUp(all[1].ID, reports(known)) {
		t.Error("the change waits for a lost node, and it need not be given up")
	}
	l.intent(Intent{Verb: VerbGiveUp, Node: all[1].ID})
	wait("one is given up", all[2])
	l.intent(Intent{Verb: VerbGiveUp, Node: all[2].ID})
	wait("two are given up")
	delete(known, all[0].ID)
	wait("the last one has to know", all[0])
	known[all[0].ID] = Report{Acked: l.Version()}
	l.step(KindFinalize)
	// They are of the layout that is in force now, and go with the next change.
	l.change(l.mustPlan())
	l.wantNodes(all[0], all[3])
}

// TestGiveUpGainer: a node that was about to own something, in each stage.
func TestGiveUpGainer(t *testing.T) {
	s, all := founded(t, 3, 1)
	l := &log{t, s}
	l.propose(l.mustPlan(all[3]))
	l.intent(Intent{Verb: VerbGiveUp, Node: all[3].ID})
	if ok, waiting := l.MayCommit(reports(nil)); ok || !slices.Contains(waiting, all[3].ID) {
		t.Errorf("may commit %t, waiting for %v", ok, waiting)
	}
	l.next(KindAbort, func(e *Entry) { e.Step = &Step{Change: l.Change().ID, Reopens: true} })
	if len(l.Lost()) != 0 || len(l.Outsiders()) != 0 || !l.IsRetired(all[3].ID) {
		t.Errorf("after ABORT: lost %v, outside %v", l.Lost(), l.Outsiders())
	}
	s, all = founded(t, 3, 1)
	l = &log{t, s}
	l.propose(l.mustPlan(all[3]))
	l.step(KindCommit)
	l.intent(Intent{Verb: VerbGiveUp, Node: all[3].ID})
	l.step(KindFinalize)
	l.change(l.mustPlan())
	l.wantNodes(all[:3]...)
}

func TestRecovery(t *testing.T) {
	s, all := founded(t, 3, 1)
	l := &log{t, s}
	for name, c := range map[string]struct {
		lost []NodeID
		want error
	}{
		"a majority is left": {ids(all[0]), ErrVotersLeft},
		"a stranger":         {[]NodeID{{99}}, ErrUnknownNode},
		"nobody is left":     {ids(all[:3]...), ErrNobodyLeft},
		"all but one":        {ids(all[2], all[1], all[2]), nil},
	} {
		if _, err := l.Recovery(c.lost); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := (&State{}).Recovery(nil); !errors.Is(err, ErrNotFounded) {
		t.Errorf("before founding: %v", err)
	}
	recover := func(lost ...LayoutNode) {
		t.Helper()
		r, err := l.Recovery(ids(lost...))
		if err != nil {
			t.Fatal(err)
		}
		l.next(KindRecover, func(e *Entry) { e.Recover = r })
	}
	early := mustNext(t, l.State, &Entry{Version: l.Version() + 1, Kind: KindRecover, Op: [16]byte{8}, Recover: &Recover{Lost: ids(all[0]), Voters: ids(all[1])}})
	checkVoid(t, l.State, early)
	recover(all[1], all[2])
	if !slices.Equal(l.Voters(), ids(all[0])) || !slices.Equal(l.Lost(), all[1:3]) || !slices.Equal(l.Survivors(nil), ids(all[0])) {
		t.Fatalf("voters %v, lost %v", l.Voters(), l.Lost())
	}
	// What follows takes the lost out, and the voters are those of the layout again.
	l.change(l.mustPlan())
	l.wantNodes(all[0])
	l.change(l.mustPlan(all[3]))
	l.wantNodes(all[0], all[3])
	if l.voters != nil || l.recoveredAt != 0 || !slices.Equal(l.Voters(), l.Layout().Voters()) {
		t.Errorf("voters %v, those of the layout %v", l.Voters(), l.Layout().Voters())
	}
}

// TestRecoveryInTheMidstOfAChange: whoever has the data votes, in each stage.
func TestRecoveryInTheMidstOfAChange(t *testing.T) {
	// One node grows to three, and its first node dies once the others have everything.
	s, all := founded(t, 1, 2)
	l := &log{t, s}
	l.propose(l.mustPlan(all[1:]...))
	if _, err := l.Recovery(ids(all[0])); !errors.Is(err, ErrNobodyLeft) {
		t.Errorf("the others have nothing yet: %v", err)
	}
	l.step(KindCommit)
	r, err := l.Recovery(ids(all[0]))
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Survivors(ids(all[0])); !slices.Equal(got, ids(all[1:]...)) || len(r.Voters) != 1 || r.Voters[0] == all[0].ID {
		t.Fatalf("%v are left, %v vote", got, r.Voters)
	}
	l.next(KindRecover, func(e *Entry) { e.Recover = r })
	if ok, waiting := l.MayFinalize(reports(nil)); !ok {
		t.Errorf("it waits for %v", waiting)
	}
	l.step(KindFinalize)
	if !slices.Equal(l.Voters(), r.Voters) {
		t.Errorf("%v vote, of whom a majority may be lost", l.Voters())
	}
	l.change(l.mustPlan())
	l.wantNodes(all[1:]...)
	if l.voters != nil {
		t.Errorf("the voters of the recovery still vote: %v", l.voters)
	}
	// All that are lost go with the change anyway: its voters are sound.
	s, all = founded(t, 4, 3)
	l = &log{t, s}
	for _, n := range all[:3] {
		l.intent(Intent{Verb: VerbLeave, Node: n.ID})
	}
	l.propose(l.mustPlan(all[4:]...))
	l.step(KindCommit)
	if r, err = l.Recovery(ids(all[:3]...)); err != nil {
		t.Fatal(err)
	}
	l.next(KindRecover, func(e *Entry) { e.Recover = r })
	l.step(KindFinalize)
	if l.voters != nil || len(l.Lost()) != 0 || len(l.Outsiders()) != 0 {
		t.Errorf("voters %v, lost %v, outside %v", l.voters, l.Lost(), l.Outsiders())
	}
}

// TestVotersThatGo: whoever loses its place with a change votes no more once that is
// complete, whoever had the vote.
func TestVotersThatGo(t *testing.T) {
	// The only voter that is left is about to leave.
	s, all := founded(t, 4, 1)
	l := &log{t, s}
	leaver, lost := l.Voters()[0], l.Voters()[1:]
	l.intent(Intent{Verb: VerbLeave, Node: leaver})
	l.propose(l.mustPlan(all[4]))
	r, err := l.Recovery(lost)
	if err != nil {
		t.Fatal(err)
	}
	l.next(KindRecover, func(e *Entry) { e.Recover = r })
	if !slices.Equal(l.Voters(), []NodeID{leaver}) && len(l.Voters()) < 3 {
		t.Fatalf("%v vote, %s leaves", l.Voters(), leaver)
	}
	l.step(KindCommit)
	l.step(KindFinalize)
	sound := func() {
		t.Helper()
		for _, v := range l.Voters() {
			if _, in := l.Layout().Node(v); !in || l.IsRetired(v) {
				t.Errorf("%s votes and has no place", v)
			}
		}
		sameState(t, l.State)
	}
	sound()
	l.next(KindRetire, func(e *Entry) { e.Retire = &Retire{Node: leaver} })
	sound()
	l.change(l.mustPlan())
	sound()
	if l.voters != nil {
		t.Errorf("voters %v, those of the layout %v", l.voters, l.Layout().Voters())
	}
	// Most of those that were to vote are given up one by one before they do.
	s, all = founded(t, 3, 3)
	l = &log{t, s}
	for _, n := range all[:3] {
		l.intent(Intent{Verb: VerbLeave, Node: n.ID})
	}
	l.propose(l.mustPlan(all[3:]...))
	l.step(KindCommit)
	for _, n := range all[3:5] {
		l.intent(Intent{Verb: VerbGiveUp, Node: n.ID})
	}
	l.step(KindFinalize)
	sound()
	l.change(l.mustPlan())
	l.wantNodes(all[5])
	sound()
}

// TestTheOnlyNodeIsGivenUp: it goes with the next change that brings another one, be it
// asked for twice.
func TestTheOnlyNodeIsGivenUp(t *testing.T) {
	s, all := founded(t, 1, 2)
	l := &log{t, s}
	l.propose(l.mustPlan(all[1]))
	l.intent(Intent{Verb: VerbGiveUp, Node: all[0].ID})
	l.next(KindAbort, func(e *Entry) { e.Step = &Step{Change: l.Change().ID, Reopens: true} })
	l.intent(Intent{Verb: VerbRemove, Node: all[0].ID})
	if p, err := l.Plan(nil); !errors.Is(err, ErrLastCopies) {
		t.Errorf("without another one: %+v, %v", p, err)
	}
	l.change(l.mustPlan(all[2]))
	l.wantNodes(all[2])
}

// TestReplacementThatDoesNotCome: who was given up waits for it, but nothing else does.
func TestReplacementThatDoesNotCome(t *testing.T) {
	s, all := founded(t, 3, 2)
	l := &log{t, s}
	l.intent(Intent{Verb: VerbGiveUp, Node: all[0].ID})
	l.intent(Intent{Verb: VerbReplace, Node: all[0].ID, By: all[3].ID})
	if p, err := l.Plan(nil); err != nil || p != nil && p.Layout != nil {
		t.Errorf("nothing else is wanted: %+v, %v", p, err)
	}
	l.change(l.mustPlan(all[4]))
	l.wantNodes(all[1], all[2], all[4])
}
