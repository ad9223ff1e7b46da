package ring

import (
	"errors"
	"slices"
	"testing"
)

// TestPlanOfFactors: all that is wanted is one change, and the last of what was asked of
// a tenant counts.
func TestPlanOfFactors(t *testing.T) {
	s, all := founded(t, 5, 1)
	l := &log{t, s}
	a, b, c := l.tenant("a", 3), l.tenant("b", 5), l.tenant("c", 1)
	ops := sortedOps(
		l.replicate(b, 1), l.replicate(a, 5), l.replicate(b, 2), l.replicate(c, 2),
		l.replicate(c, 1), // as it is
		l.intent(Intent{Verb: VerbLeave, Node: all[0].ID}),
	)
	p := l.mustPlan(all[5])
	if want := []Factor{{a, 5, 3005}, {b, 2, 3002}}; !slices.Equal(p.Factors, want) || !slices.Equal(p.Closes, ops) || len(p.Void)+len(p.Waits) != 0 {
		t.Fatalf("%+v", p)
	}
	l.change(p)
	l.wantNodes(all[1:]...)
	for n, want := range map[TenantNumber]TenantRecord{a: {RF: 5, Born: 3}, b: {RF: 2, Born: 5}, c: {RF: 1}} {
		if got := l.byNumber(n); got.RF != want.RF || got.Born != want.Born {
			t.Errorf("tenant %d: RF %d, born with %d, want %d and %d", n, got.RF, got.Born, want.RF, want.Born)
		}
	}
}

// TestPlanOfTheFactorThatThereIs has nothing to do but to cancel.
func TestPlanOfTheFactorThatThereIs(t *testing.T) {
	s, _ := founded(t, 3, 0)
	l := &log{t, s}
	a := l.tenant("a", 3)
	first, second := l.replicate(a, 2), l.replicate(a, 3)
	p := l.mustPlan()
	if p.Layout != nil || len(p.Factors)+len(p.Closes) != 0 || len(p.Void) != 2 || p.Void[0].Intent.Op != first || p.Void[1].Intent.Op != second {
		t.Fatalf("%+v", p)
	}
	for _, v := range p.Void {
		if !errors.Is(v.Why, ErrNoChange) {
			t.Error(v.Why)
		}
	}
}

// TestPlanLeavesGoByTheFactorToBe: a node leaves in the same change in which the widest
// tenant gets fewer copies, and does not in the one in which it gets more.
func TestPlanLeavesGoByTheFactorToBe(t *testing.T) {
	s, all := founded(t, 5, 0)
	for _, c := range []struct {
		from, to uint8
		leaves   bool
	}{{5, 4, true}, {5, 1, true}, {2, 5, false}, {2, 7, false}, {7, 5, false}} {
		l := &log{t, s}
		l.replicate(l.tenant("a", c.from), c.to)
		l.intent(Intent{Verb: VerbLeave, Node: all[0].ID})
		p := l.mustPlan()
		if leaves := len(p.Closes) == 2; leaves != c.leaves || len(p.Factors) != 1 || leaves == (len(p.Waits) == 1) {
			t.Errorf("from %d to %d: %+v", c.from, c.to, p)
		}
		for _, w := range p.Waits {
			if !errors.Is(w.Why, ErrLastCopies) {
				t.Error(w.Why)
			}
		}
		l.change(p)
	}
}

// TestMovesOfFactors: of the tenant that changes, if nothing else does.
func TestMovesOfFactors(t *testing.T) {
	s, all := founded(t, 5, 1)
	l := &log{t, s}
	l.tenant("wide", 4)
	a := l.tenant("a", 3)
	l.replicate(a, 2)
	sum := func(p *Plan) (before, after, gains, gives int) {
		for _, m := range p.Moves {
			before, after, gains, gives = before+m.Before, after+m.After, gains+m.Gains, gives+m.Gives
		}
		return before, after, gains, gives
	}
	if before, after, gains, gives := sum(l.mustPlan()); before != 3*64 || after != 2*64 || gains != 0 || gives != 64 {
		t.Errorf("from 3 to 2 copies: %d, %d, %d, %d", before, after, gains, gives)
	}
	if before, after, gains, gives := sum(l.mustPlan(all[5])); before != 4*64 || after != 4*64 || gains == 0 || gains != gives {
		t.Errorf("and a joiner: %d, %d, %d, %d", before, after, gains, gives)
	}
	l.replicate(a, 5)
	if before, after, gains, gives := sum(l.mustPlan()); before != 3*64 || after != 5*64 || gains != 2*64 || gives != 0 {
		t.Errorf("from 3 to 5 copies: %d, %d, %d, %d", before, after, gains, gives)
	}
	l.replicate(a, 7)
	if before, after, gains, gives := sum(l.mustPlan()); before != 3*64 || after != 5*64 || gains != 2*64 || gives != 0 {
		t.Errorf("from 3 to 7 copies at 5 nodes: %d, %d, %d, %d", before, after, gains, gives)
	}
}
