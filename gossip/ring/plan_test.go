package ring

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// founded is a state of that many nodes, and the nodes that could join it.
func founded(t testing.TB, n, more int) (*State, []LayoutNode) {
	t.Helper()
	all := testNodes(0, slices.Repeat([]uint32{100}, n+more)...)
	l := mustLayout(t, 64, all[:n])
	s, err := (&State{}).Next(&Entry{Version: 1, Kind: KindFound, Op: [16]byte{1}, Found: &Found{
		ClusterID: ClusterID{1}, ClusterName: "test", Founder: l.Nodes()[0].ID, Layout: l, TokenKeyID: 1,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return s, all
}

func opOf(v Version) [16]byte { return [16]byte{byte(v >> 8), byte(v), 7} }

// log appends entries to a state.
type log struct {
	t testing.TB
	*State
}

func (l *log) next(kind Kind, set func(e *Entry)) *Entry {
	l.t.Helper()
	e := &Entry{Version: l.Version() + 1, Kind: kind, Op: opOf(l.Version() + 1)}
	set(e)
	l.State = apply(l.t, l.State, e)
	return e
}

func (l *log) intent(i Intent) [16]byte {
	l.t.Helper()
	return l.next(KindIntent, func(e *Entry) { e.Intent = &i }).Op
}

func (l *log) step(kind Kind) {
	l.t.Helper()
	l.next(kind, func(e *Entry) { e.Step = &Step{Change: l.Change().ID} })
}

func (l *log) mustPlan(joiners ...LayoutNode) *Plan {
	l.t.Helper()
	p, err := l.Plan(joiners)
	if err != nil {
		l.t.Fatal(err)
	}
	if p == nil {
		l.t.Fatal("nothing to do")
	}
	return p
}

func (l *log) propose(p *Plan) {
	l.t.Helper()
	l.next(KindPropose, func(e *Entry) {
		e.Propose = &Propose{Parent: l.Layout().Version(), Layout: p.Layout, Removed: p.Removed, Closes: p.Closes, Factors: p.Factors}
	})
	if l.Change() == nil {
		l.t.Fatal("the plan is void in the state it was made from")
	}
}

// change carries a plan out.
func (l *log) change(p *Plan) {
	l.t.Helper()
	l.propose(p)
	l.step(KindCommit)
	l.step(KindFinalize)
}

func (l *log) ids() (ids []NodeID) {
	for _, n := range l.Layout().Nodes() {
		ids = append(ids, n.ID)
	}
	return ids
}

func (l *log) wantNodes(want ...LayoutNode) {
	l.t.Helper()
	var ids []NodeID
	for _, n := range want {
		ids = append(ids, n.ID)
	}
	slices.SortFunc(ids, NodeID.Compare)
	if !slices.Equal(l.ids(), ids) {
		l.t.Fatalf("the layout has %v, want %v", l.ids(), ids)
	}
}

func TestPlanOfNothing(t *testing.T) {
	s, all := founded(t, 3, 1)
	if p, err := s.Plan(nil); p != nil || err != nil {
		t.Fatalf("nothing to do: %+v, %v", p, err)
	}
	if p, err := s.Plan(all[:2]); p != nil || err != nil {
		t.Fatalf("joiners that are members: %+v, %v", p, err)
	}
	if _, err := (&State{}).Plan(all); !errors.Is(err, ErrNotFounded) {
		t.Errorf("before founding: %v", err)
	}
}

func TestPlanComposesAllThatIsWanted(t *testing.T) {
	s, all := founded(t, 6, 3)
	l := &log{t, s}
	leave := l.intent(Intent{Verb: VerbLeave, Node: all[0].ID})
	replace := l.intent(Intent{Verb: VerbReplace, Node: all[1].ID, By: all[7].ID})
	weigh := l.intent(Intent{Verb: VerbWeigh, Node: all[2].ID, Capacity: 300})
	remove := l.intent(Intent{Verb: VerbRemove, Node: all[3].ID})
	p := l.mustPlan(all[6:]...)
	if want := sortedOps(leave, replace, weigh, remove); !slices.Equal(p.Closes, want) || len(p.Void)+len(p.Waits)+len(p.Refused) != 0 {
		t.Fatalf("closes %x, want %x; void %v, waits %v, refused %v", p.Closes, want, p.Void, p.Waits, p.Refused)
	}
	removed := []NodeID{all[1].ID, all[3].ID}
	slices.SortFunc(removed, NodeID.Compare)
	if !slices.Equal(p.Removed, removed) {
		t.Errorf("removed %v, want %v", p.Removed, removed)
	}
	checkMoves(t, l.State, p)
	l.change(p)
	l.wantNodes(all[2], all[4], all[5], all[6], all[7], all[8])
	if n, _ := l.Layout().Node(all[2].ID); n.Capacity != 300 {
		t.Errorf("capacity %d", n.Capacity)
	}
	if len(l.Intents()) != 0 || !l.IsRetired(all[1].ID) || !l.IsRetired(all[3].ID) || l.IsRetired(all[0].ID) {
		t.Errorf("intents %v, retired %v", l.Intents(), l.Retired())
	}
	if o := l.Outsiders(); len(o) != 1 || o[0].ID != all[0].ID || !o[0].Leaving || o[0].Since != l.Version() {
		t.Errorf("outsiders %+v", o)
	}
	if p, err := l.Plan(nil); p != nil || err != nil {
		t.Errorf("after the change: %+v, %v", p, err)
	}
}

func sortedOps(ops ...[16]byte) [][16]byte {
	slices.SortFunc(ops, func(a, b [16]byte) int { return slices.Compare(a[:], b[:]) })
	return ops
}

func checkMoves(t *testing.T, s *State, p *Plan) {
	t.Helper()
	before, after := prefixCounts(s.Layout(), 3), prefixCounts(p.Layout, 3)
	gains, gives := 0, 0
	for i, m := range p.Moves {
		if i > 0 && p.Moves[i-1].Node.ID.Compare(m.Node.ID) >= 0 {
			t.Error("moves are out of order")
		}
		if m.Before != before[m.Node.ID] || m.After != after[m.Node.ID] || m.After-m.Before != m.Gains-m.Gives {
			t.Errorf("%+v: holds %d, will hold %d", m, before[m.Node.ID], after[m.Node.ID])
		}
		gains, gives = gains+m.Gains, gives+m.Gives
	}
	if copies, _ := moved(s.Layout(), p.Layout, 3); gains != copies || gives != copies {
		t.Errorf("%d gained, %d given, %d copies move", gains, gives, copies)
	}
}

func TestPlanReplacesInPlace(t *testing.T) {
	for _, outsider := range []bool{false, true} {
		s, all := founded(t, 5, 2)
		l := &log{t, s}
		by, joiners := all[5], all[5:]
		by.Name = all[2].Name // the machine comes back under its name, with an empty disk
		joiners[0] = by
		if outsider {
			by = all[6]
			l.propose(l.mustPlan(by))
			l.step(KindAbort)
			joiners = nil
		}
		l.intent(Intent{Verb: VerbReplace, Node: all[2].ID, By: by.ID})
		before := l.Layout()
		if !outsider {
			joiners = joiners[:1]
		}
		p := l.mustPlan(joiners...)
		l.change(p)
		for part := range before.Partitions() {
			old, now := before.Owners(nil, Partition(part), MaxRF), l.Layout().Owners(nil, Partition(part), MaxRF)
			for i, id := range old {
				if id == all[2].ID {
					id = by.ID
				}
				if now[i] != id {
					t.Fatalf("partition %d: owner %d is %s, want %s", part, i, now[i].Short(), id.Short())
				}
			}
		}
		if !l.IsRetired(all[2].ID) || len(l.Outsiders()) != 0 {
			t.Errorf("retired %v, outsiders %v", l.Retired(), l.Outsiders())
		}
	}
}

// TestPlanGivesThePlaceToTheReplacement: not to a joiner that is as good.
func TestPlanGivesThePlaceToTheReplacement(t *testing.T) {
	for _, capacity := range []uint32{100, 90} {
		s, all := founded(t, 6, 2)
		l := &log{t, s}
		by, other := &all[6], &all[7]
		if other.ID.Compare(by.ID) > 0 {
			by, other = other, by
		}
		by.Capacity = capacity
		l.intent(Intent{Verb: VerbReplace, Node: all[2].ID, By: by.ID})
		p := l.mustPlan(*by, *other)
		places, taken := 0, map[NodeID]int{}
		for part := range Partition(64) {
			if l.Layout().IsOwner(all[2].ID, part, 3) {
				places++
				for _, id := range p.Layout.Owners(nil, part, 3) {
					taken[id]++
				}
			}
		}
		if 4*taken[by.ID] < 3*places {
			t.Errorf("capacity %d: of %d places the replacement has %d, the other joiner %d", capacity, places, taken[by.ID], taken[other.ID])
		}
	}
}

func TestPlanLeavesAsLongAsEnoughRemain(t *testing.T) {
	s, all := founded(t, 5, 1)
	l := &log{t, s}
	var ops [][16]byte
	for i := range 4 {
		ops = append(ops, l.intent(Intent{Verb: VerbLeave, Node: all[i].ID}))
	}
	p := l.mustPlan(all[5])
	if !slices.Equal(p.Closes, sortedOps(ops[:3]...)) || len(p.Waits) != 1 || p.Waits[0].Intent.Op != ops[3] || !errors.Is(p.Waits[0].Why, ErrLastCopies) {
		t.Fatalf("closes %x, waits %v", p.Closes, p.Waits)
	}
	l.change(p)
	l.wantNodes(all[3], all[4], all[5])
	if len(l.Intents()) != 1 || l.Intents()[0].Op != ops[3] {
		t.Errorf("open intents %v", l.Intents())
	}
	if p, err := l.Plan(nil); p != nil || err != nil {
		t.Errorf("an intent that waits is nothing to do: %+v, %v", p, err)
	}
}

func TestPlanRefusesJoiners(t *testing.T) {
	s, all := founded(t, 4, 4)
	l := &log{t, s}
	l.intent(Intent{Verb: VerbLeave, Node: all[0].ID})
	l.intent(Intent{Verb: VerbRemove, Node: all[1].ID})
	l.change(l.mustPlan(all[4]))
	l.wantNodes(all[2], all[3], all[4])
	taken, out, bad := all[5], all[6], all[7]
	taken.Name, out.Name, bad.Capacity = all[2].Name, all[0].Name, 0
	for why, n := range map[string]LayoutNode{
		"retired for good": all[1], "is leaving": all[0], `is called "n3" already`: taken, "has not handed over": out, "capacity 0": bad,
	} {
		good := all[7]
		if n.ID == good.ID {
			good = all[5]
		}
		p := l.mustPlan(n, good)
		if len(p.Refused) != 1 || p.Refused[0].Node.ID != n.ID || !errors.Is(p.Refused[0].Why, ErrJoiner) || !strings.Contains(p.Refused[0].Why.Error(), why) || len(p.Layout.Nodes()) != 4 {
			t.Errorf("%s: refused %v of %d nodes", why, p.Refused, len(p.Layout.Nodes()))
		}
		if p, err := l.Plan([]LayoutNode{n}); p != nil || err != nil {
			t.Errorf("%s alone is nothing to do: %+v, %v", why, p, err)
		}
	}
	twins := l.mustPlan(all[5], LayoutNode{ID: NodeID{1}, Name: all[5].Name, Capacity: 1})
	if len(twins.Refused) != 1 || len(twins.Layout.Nodes()) != 4 {
		t.Errorf("two joiners of one name: refused %v", twins.Refused)
	}
}

func TestPlanListsWhatIsVoid(t *testing.T) {
	s, all := founded(t, 5, 1)
	l := &log{t, s}
	l.intent(Intent{Verb: VerbRemove, Node: all[0].ID})
	p := l.mustPlan()
	weigh := Intent{Verb: VerbWeigh, Node: all[0].ID, Capacity: 7}
	replace := Intent{Verb: VerbReplace, Node: all[1].ID, By: all[2].ID}
	same := Intent{Verb: VerbWeigh, Node: all[1].ID, Capacity: all[1].Capacity}
	void := [][16]byte{}
	l.propose(p)
	void = append(void, l.intent(weigh), l.intent(replace), l.intent(same))
	if _, err := l.Plan(nil); !errors.Is(err, ErrChangeOpen) {
		t.Errorf("while a change is open: %v", err)
	}
	l.step(KindCommit)
	l.step(KindFinalize)
	p = l.mustPlan()
	if p.Layout != nil || len(p.Closes) != 0 || len(p.Void) != 3 {
		t.Fatalf("%+v", p)
	}
	for _, v := range p.Void {
		if !slices.Contains(void, v.Intent.Op) || v.Why == nil {
			t.Errorf("void: %+v", v)
		}
		l.intent(Intent{Verb: VerbCancel, Cancels: v.Intent.Op})
	}
	if p, err := l.Plan(nil); p != nil || err != nil || len(l.Intents()) != 0 {
		t.Errorf("after cancelling: %+v, %v", p, err)
	}
}

func TestPlanRemovesAnOutsiderThatIsLost(t *testing.T) {
	s, all := founded(t, 4, 1)
	l := &log{t, s}
	l.propose(l.mustPlan(all[4])) // the joiner dies
	l.step(KindAbort)
	l.intent(Intent{Verb: VerbRemove, Node: all[4].ID})
	before := AppendLayout(nil, l.Layout())
	p := l.mustPlan()
	if copies, _ := moved(l.Layout(), p.Layout, MaxRF); copies != 0 || !slices.Equal(p.Removed, []NodeID{all[4].ID}) {
		t.Fatalf("%d copies move, %v is removed", copies, p.Removed)
	}
	l.change(p)
	if len(l.Outsiders()) != 0 || !l.IsRetired(all[4].ID) {
		t.Errorf("outsiders %v, retired %v", l.Outsiders(), l.Retired())
	}
	if slices.Equal(before, AppendLayout(nil, l.Layout())) || l.Layout().PV(0) != 4-1 {
		t.Errorf("layout %s, version of a partition that nobody touched since the abort: %s", l.Layout().Version(), l.Layout().PV(0))
	}
}
