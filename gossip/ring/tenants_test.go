package ring

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// tenant creates a tenant of so many copies and gives its number.
func (l *log) tenant(name string, rf uint8) TenantNumber {
	l.t.Helper()
	l.next(KindTenantCreate, func(e *Entry) { e.Tenant = &TenantCreate{Name: name, RF: rf, Policy: 1, CreatedAtMs: 2000} })
	return l.LastTenant()
}

func (l *log) replicate(t TenantNumber, rf uint8) [16]byte {
	l.t.Helper()
	return l.intent(Intent{Verb: VerbReplicate, Tenant: t, RF: rf, CreatedAtMs: 3000 + int64(rf)})
}

func (l *log) remove(t TenantNumber) {
	l.t.Helper()
	l.next(KindTenantDelete, func(e *Entry) { e.Delete = &TenantDelete{Number: t} })
}

func (l *log) byNumber(n TenantNumber) TenantRecord {
	l.t.Helper()
	t, ok := l.TenantByNumber(n)
	if !ok {
		l.t.Fatalf("there is no tenant %d", n)
	}
	return *t
}

func TestFactorChanges(t *testing.T) {
	s, _ := founded(t, 5, 0)
	l := &log{t, s}
	a, b := l.tenant("a", 5), l.tenant("b", 5)
	op := l.replicate(a, 2)
	p := l.mustPlan()
	if want := []Factor{{a, 2, 3002}}; !slices.Equal(p.Factors, want) || !slices.Equal(p.Closes, [][16]byte{op}) {
		t.Fatalf("%+v", p)
	}
	if !slices.Equal(p.Layout.table, l.layout.table) || p.Layout.version != l.version+1 {
		t.Fatal("a plan that changes factors only has another table, or is of another version")
	}
	before := l.State
	l.propose(p)
	if got := l.byNumber(a); got.RF != 5 || got.Born != 5 || got.Class() != OwnClass(a, 5) || l.Copies(&got) != (Copies{5, 2}) || got.Version != l.version {
		t.Errorf("proposed: %+v", got)
	}
	if got := l.byNumber(b); got.Class() != SharedClass(5) || l.Copies(&got) != Same(5) {
		t.Errorf("another tenant: %+v", got)
	}
	if got, _ := before.TenantByNumber(a); got.Born != 0 {
		t.Error("an earlier state has changed")
	}
	for part := range Partition(64) {
		if l.layout.PV(part) != l.version {
			t.Fatalf("partition %d stays at %s", part, l.layout.PV(part))
		}
	}
	aborted := mustNext(t, l.State, stepEntry(l.State, KindAbort))
	if got, _ := aborted.TenantByNumber(a); got.RF != 5 || got.Class() != OwnClass(a, 5) || aborted.Copies(got) != Same(5) || got.UpdatedAtMs != 0 {
		t.Errorf("aborted: %+v", got)
	}
	l.step(KindCommit)
	l.step(KindFinalize)
	if got := l.byNumber(a); got.RF != 2 || got.Class() != OwnClass(a, 5) || l.Copies(&got) != Same(2) || got.UpdatedAtMs != 3002 || got.Version != l.version {
		t.Errorf("finalised: %+v", got)
	}
	l.replicate(a, 5)
	l.change(l.mustPlan())
	if got := l.byNumber(a); got.RF != 5 || got.Class() != OwnClass(a, 5) {
		t.Errorf("back again: %+v; what is confirmed of it is not what is confirmed of the others", got)
	}
	if p, err := l.Plan(nil); p != nil || err != nil {
		t.Errorf("after that: %+v, %v", p, err)
	}
}

func TestTenantDelete(t *testing.T) {
	s, all := founded(t, 4, 0)
	l := &log{t, s}
	a, b := l.tenant("a", 3), l.tenant("b", 2)
	l.replicate(a, 4)
	l.intent(Intent{Verb: VerbWeigh, Node: all[0].ID, Capacity: 7})
	if l.Deleted(0) || l.Deleted(a) || l.Deleted(b+1) {
		t.Error("deleted before anything was")
	}
	before := l.layout
	l.remove(a)
	if _, ok := l.Tenant("a"); ok || !l.Deleted(a) || l.Deleted(b) || l.Deleted(b+1) || l.LastTenant() != b {
		t.Error("it is there, or another one is not")
	}
	if l.layout != before || len(l.Intents()) != 1 || l.Intents()[0].Verb != VerbWeigh {
		t.Errorf("the layout or another intent is touched: %v", l.Intents())
	}
	for _, n := range []TenantNumber{a, b + 1} {
		checkVoid(t, l.State, mustNext(t, l.State, &Entry{Version: l.version + 1, Kind: KindTenantDelete, Delete: &TenantDelete{Number: n}}))
	}
	checkVoid(t, l.State, mustNext(t, l.State, &Entry{Version: l.version + 1, Kind: KindIntent, Intent: &Intent{Verb: VerbReplicate, Tenant: a, RF: 2}}))
	if again := l.tenant("a", 1); again != b+1 || l.Deleted(again) || !l.Deleted(a) {
		t.Errorf("the name is given to number %d", again)
	}
}

func TestCheckDelete(t *testing.T) {
	s, _ := founded(t, 3, 0)
	l := &log{t, s}
	a := l.tenant("a", 3)
	for name, want := range map[string]error{"a": nil, "b": ErrUnknownTenant, DefaultTenantName: ErrDefaultTenant} {
		got, err := l.CheckDelete(name)
		if !errors.Is(err, want) || want == nil && (err != nil || got.Number != a) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if _, err := (&State{}).CheckDelete("a"); !errors.Is(err, ErrNotFounded) {
		t.Error(err)
	}
}

// TestDeleteInAnOpenChange: the change goes on, for whoever else is in it.
func TestDeleteInAnOpenChange(t *testing.T) {
	for _, stage := range []Stage{Proposed, Committed} {
		for _, end := range []Kind{KindAbort, KindFinalize} {
			if stage == Committed && end == KindAbort {
				continue
			}
			t.Run(fmt.Sprintf("%s, then %s", stage, end), func(t *testing.T) {
				s, _ := founded(t, 5, 0)
				l := &log{t, s}
				a, b := l.tenant("a", 5), l.tenant("b", 5)
				l.replicate(a, 1)
				kept := l.replicate(b, 2)
				l.propose(l.mustPlan())
				if stage == Committed {
					l.step(KindCommit)
				}
				l.remove(a)
				if stage == Proposed && end == KindFinalize {
					l.step(KindCommit)
				}
				l.next(end, func(e *Entry) { e.Step = &Step{Change: l.Change().ID, Reopens: end == KindAbort} })
				if l.Change() != nil || !l.Deleted(a) {
					t.Fatal("the change is open, or the tenant is back")
				}
				switch got := l.byNumber(b); end {
				case KindFinalize:
					if got.RF != 2 || len(l.Intents()) != 0 {
						t.Errorf("%+v, intents %v", got, l.Intents())
					}
				default:
					if got.RF != 5 || len(l.Intents()) != 1 || l.Intents()[0].Op != kept {
						t.Errorf("%+v, intents %v: the intent of a tenant that is gone is open again", got, l.Intents())
					}
				}
			})
		}
	}
}

func TestVoidFactors(t *testing.T) {
	s, _ := founded(t, 3, 0)
	l := &log{t, s}
	a, gone := l.tenant("a", 3), l.tenant("gone", 3)
	l.remove(gone)
	v := l.version + 1
	for name, f := range map[string][]Factor{
		"of a tenant that is gone":  {{gone, 2, 0}},
		"of one that is not yet":    {{gone + 1, 2, 0}},
		"the one that it has":       {{a, 3, 0}},
		"one good and one that was": {{a, 2, 0}, {gone, 2, 0}},
	} {
		e := &Entry{Version: v, Kind: KindPropose, Propose: &Propose{Parent: l.layout.version, Layout: l.layout.At(v), Factors: f}}
		if n := mustNext(t, l.State, e); n.Change() != nil {
			t.Errorf("%s: a change is open", name)
		} else {
			checkVoid(t, l.State, n)
		}
	}
}

func TestOwnClassesAreBounded(t *testing.T) {
	s, _ := founded(t, 3, 0)
	l := &log{t, s}
	var all []TenantNumber
	for i := range MaxOwnClasses + 2 {
		all = append(all, l.tenant(fmt.Sprintf("t%d", i), 3))
	}
	some, last := all[:MaxOwnClasses-1], all[MaxOwnClasses-1]
	for _, n := range some {
		l.replicate(n, 2)
	}
	l.change(l.mustPlan())
	l.replicate(last, 2)
	over := Intent{Verb: VerbReplicate, Tenant: all[MaxOwnClasses], RF: 2}
	nobody := func(NodeID) bool { return false }
	refused := func() {
		t.Helper()
		err := l.CheckIntent(&over, nobody, nobody)
		if !errors.Is(err, ErrOwnClasses) || !strings.Contains(err.Error(), `256, and tenant "t256" would be one more; delete`) {
			t.Errorf("one too many: %v", err)
		}
		checkVoid(t, l.State, mustNext(t, l.State, &Entry{Version: l.version + 1, Kind: KindIntent, Op: [16]byte{9}, Intent: &over}))
	}
	refused()
	if err := l.CheckIntent(&Intent{Verb: VerbReplicate, Tenant: last, RF: 1}, nobody, nobody); err != nil {
		t.Errorf("one that was asked for already: %v", err)
	}
	l.change(l.mustPlan())
	refused()
	if err := l.CheckIntent(&Intent{Verb: VerbReplicate, Tenant: last, RF: 3}, nobody, nobody); err != nil {
		t.Errorf("one that has a class: %v", err)
	}
	v := l.version + 1
	checkVoid(t, l.State, mustNext(t, l.State, &Entry{Version: v, Kind: KindPropose, Propose: &Propose{
		Parent: l.layout.version, Layout: l.layout.At(v), Factors: []Factor{{over.Tenant, 2, 0}},
	}}))
	l.remove(some[0])
	if err := l.CheckIntent(&over, nobody, nobody); err != nil {
		t.Errorf("with room for one: %v", err)
	}
	// A proposal that nobody asked for takes the room.
	l.replicate(over.Tenant, 2)
	v = l.version + 1
	l.next(KindPropose, func(e *Entry) {
		e.Propose = &Propose{Parent: l.layout.version, Layout: l.layout.At(v), Factors: []Factor{{all[MaxOwnClasses+1], 1, 0}}}
	})
	l.step(KindAbort)
	if p, err := l.Plan(nil); p != nil || err != nil {
		t.Fatalf("no room, and planned: %+v, %v", p, err)
	}
	l.remove(all[MaxOwnClasses+1])
	l.change(l.mustPlan())
	if got := l.byNumber(over.Tenant); got.RF != 2 {
		t.Errorf("%+v", got)
	}
}
