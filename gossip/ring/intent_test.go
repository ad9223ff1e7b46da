package ring

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckIntent(t *testing.T) {
	s, all := founded(t, 5, 4)
	l := &log{t, s}
	// Node 0 has left, node 1 is retired, node 5 was turned away.
	l.intent(Intent{Verb: VerbLeave, Node: all[0].ID})
	l.intent(Intent{Verb: VerbRemove, Node: all[1].ID})
	l.change(l.mustPlan(all[6]))
	l.propose(l.mustPlan(all[5]))
	l.step(KindAbort)
	open := l.intent(Intent{Verb: VerbWeigh, Node: all[2].ID, Capacity: 200})
	l.intent(Intent{Verb: VerbRemove, Node: all[3].ID})
	// In the layout: 2, 3 (to be removed, and back again), 4 (dead), 6. Waiting: 7, 8.
	alive := func(id NodeID) bool { return id != all[4].ID && id != all[0].ID }
	joiner := func(id NodeID) bool { return id == all[7].ID || id == all[8].ID }
	for name, c := range map[string]struct {
		i    Intent
		want error
		says string
	}{
		"leave, too few":         {Intent{Verb: VerbLeave, Node: all[2].ID}, ErrLastCopies, `without n3 there are 2 nodes, and tenant "default" wants 3 copies; join another node first`},
		"leave, a stranger":      {Intent{Verb: VerbLeave, Node: all[7].ID}, ErrUnknownNode, "see the list of members"},
		"leave, retired":         {Intent{Verb: VerbLeave, Node: all[1].ID}, ErrUnknownNode, "retired for good"},
		"leave twice":            {Intent{Verb: VerbLeave, Node: all[0].ID}, ErrNoChange, "is leaving already"},
		"leave, turned away":     {Intent{Verb: VerbLeave, Node: all[5].ID}, ErrNoChange, "its joining was aborted"},
		"leave, being removed":   {Intent{Verb: VerbLeave, Node: all[3].ID}, ErrNoChange, "(remove); cancel that one first"},
		"remove, alive":          {Intent{Verb: VerbRemove, Node: all[2].ID}, ErrNodeAlive, "let it leave, or stop it first"},
		"remove, dead":           {Intent{Verb: VerbRemove, Node: all[4].ID}, nil, ""},
		"remove twice":           {Intent{Verb: VerbRemove, Node: all[3].ID}, ErrNoChange, "goes already"},
		"remove a dead leaver":   {Intent{Verb: VerbRemove, Node: all[0].ID}, nil, ""},
		"remove an outsider":     {Intent{Verb: VerbRemove, Node: all[5].ID}, ErrNodeAlive, "stop it first"},
		"replace":                {Intent{Verb: VerbReplace, Node: all[4].ID, By: all[7].ID}, nil, ""},
		"replace by an outsider": {Intent{Verb: VerbReplace, Node: all[4].ID, By: all[5].ID}, nil, ""},
		"replace, alive":         {Intent{Verb: VerbReplace, Node: all[2].ID, By: all[7].ID}, ErrNodeAlive, "stop it first"},
		"replace by a stranger":  {Intent{Verb: VerbReplace, Node: all[4].ID, By: NodeID{1}}, ErrNotWaiting, "does not wait to join; start it first"},
		"replace by a member":    {Intent{Verb: VerbReplace, Node: all[4].ID, By: all[6].ID}, ErrReplacement, "has partitions of its own"},
		"replace by a retired":   {Intent{Verb: VerbReplace, Node: all[4].ID, By: all[1].ID}, ErrReplacement, "empty data directory"},
		"replace by a leaver":    {Intent{Verb: VerbReplace, Node: all[4].ID, By: all[0].ID}, ErrReplacement, "is leaving"},
		"replace a leaver":       {Intent{Verb: VerbReplace, Node: all[0].ID, By: all[7].ID}, ErrNoChange, "is leaving already"},
		"weigh":                  {Intent{Verb: VerbWeigh, Node: all[2].ID, Capacity: 100}, nil, ""},
		"weigh as asked for":     {Intent{Verb: VerbWeigh, Node: all[2].ID, Capacity: 200}, ErrNoChange, "capacity 200 already"},
		"weigh as it is":         {Intent{Verb: VerbWeigh, Node: all[4].ID, Capacity: 100}, ErrNoChange, "capacity 100 already"},
		"weigh nothing":          {Intent{Verb: VerbWeigh, Node: all[4].ID}, ErrInvalidEntry, "capacity 0"},
		"weigh too much":         {Intent{Verb: VerbWeigh, Node: all[4].ID, Capacity: MaxCapacity + 1}, ErrInvalidEntry, "capacity"},
		"cancel":                 {Intent{Verb: VerbCancel, Cancels: open}, nil, ""},
		"cancel the unknown":     {Intent{Verb: VerbCancel, Cancels: [16]byte{99}}, ErrNoChange, "is not open"},
		"no verb":                {Intent{Node: all[2].ID}, ErrInvalidEntry, "verb 0"},
	} {
		err := l.CheckIntent(&c.i, alive, joiner)
		if !errors.Is(err, c.want) || c.want == nil && err != nil || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := (&State{}).CheckIntent(&Intent{Verb: VerbLeave, Node: all[0].ID}, alive, joiner); !errors.Is(err, ErrNotFounded) {
		t.Errorf("before founding: %v", err)
	}
}

// TestCheckIntentWantsSources: a node is given up only if so many of its fellow owners
// are alive that nothing acknowledged can be lost.
func TestCheckIntentWantsSources(t *testing.T) {
	s, all := founded(t, 5, 1)
	joiner := func(id NodeID) bool { return id == all[5].ID }
	remove, replace := &Intent{Verb: VerbRemove, Node: all[0].ID}, &Intent{Verb: VerbReplace, Node: all[0].ID, By: all[5].ID}
	check := func(s *State, want error, says string, down ...LayoutNode) {
		t.Helper()
		alive := func(id NodeID) bool {
			for _, n := range down {
				if n.ID == id {
					return false
				}
			}
			return id != all[0].ID
		}
		for _, i := range []*Intent{remove, replace} {
			err := s.CheckIntent(i, alive, joiner)
			if !errors.Is(err, want) || want == nil && err != nil || err != nil && !strings.Contains(err.Error(), says) {
				t.Errorf("%s with %d more down: %v, want %v", i.Verb, len(down), err, want)
			}
		}
	}
	check(s, nil, "")
	check(s, ErrSourcesLost, "has 1 of its 3 owners alive without n1, and 2 are needed; start n2 first", all[1])
	single := createEntry(2, "single")
	single.Tenant.RF = 1
	check(mustNext(t, s, single), ErrSourcesLost, "nobody but n1 is left that owns partition")
	two, _ := founded(t, 2, 0)
	check(two, nil, "")
}

// TestCheckIntentGoesByTheLayoutToBe: while a change is open.
func TestCheckIntentGoesByTheLayoutToBe(t *testing.T) {
	s, all := founded(t, 4, 1)
	l := &log{t, s}
	dead := func(NodeID) bool { return false }
	alive := func(id NodeID) bool { return id != all[0].ID && id != all[1].ID && id != all[2].ID }
	l.intent(Intent{Verb: VerbLeave, Node: all[0].ID})
	carried := l.Intents()[0].Op
	l.intent(Intent{Verb: VerbRemove, Node: all[1].ID})
	l.propose(l.mustPlan(all[4]))
	for name, c := range map[string]struct {
		i    Intent
		want error
	}{
		"leave again":        {Intent{Verb: VerbLeave, Node: all[0].ID}, ErrNoChange},
		"remove again":       {Intent{Verb: VerbRemove, Node: all[1].ID}, ErrNoChange},
		"a leaver that died": {Intent{Verb: VerbRemove, Node: all[0].ID}, nil},
		"weigh the joiner":   {Intent{Verb: VerbWeigh, Node: all[4].ID, Capacity: 7}, nil},
		"too few would be":   {Intent{Verb: VerbLeave, Node: all[4].ID}, ErrLastCopies},
		"replaced by joiner": {Intent{Verb: VerbReplace, Node: all[2].ID, By: all[4].ID}, ErrReplacement},
		"cancel the carried": {Intent{Verb: VerbCancel, Cancels: carried}, ErrNoChange},
	} {
		if err := l.CheckIntent(&c.i, alive, dead); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestCheckIntentOfTheLastNode(t *testing.T) {
	s, all := founded(t, 1, 0)
	dead := func(NodeID) bool { return false }
	for _, v := range []Verb{VerbLeave, VerbRemove} {
		if err := s.CheckIntent(&Intent{Verb: v, Node: all[0].ID}, dead, dead); !errors.Is(err, ErrLastCopies) {
			t.Errorf("%s: %v", v, err)
		}
	}
	l := &log{t, s}
	l.intent(Intent{Verb: VerbRemove, Node: all[0].ID})
	if p, err := l.Plan(nil); p != nil || err != nil {
		t.Errorf("the last node is removed: %+v, %v", p, err)
	}
	for range MaxIntents {
		l.intent(Intent{Verb: VerbWeigh, Node: all[0].ID, Capacity: 7})
	}
	if err := l.CheckIntent(&Intent{Verb: VerbWeigh, Node: all[0].ID, Capacity: 8}, dead, dead); !errors.Is(err, ErrTooManyIntents) {
		t.Error(err)
	}
}

func TestCheckReplicate(t *testing.T) {
	s, _ := founded(t, 3, 0)
	l := &log{t, s}
	a, b, gone := l.tenant("a", 3), l.tenant("b", 3), l.tenant("gone", 3)
	l.remove(gone)
	nobody := func(NodeID) bool { return false }
	check := func(n TenantNumber, rf uint8, want error, says string) {
		t.Helper()
		err := l.CheckIntent(&Intent{Verb: VerbReplicate, Tenant: n, RF: rf}, nobody, nobody)
		if !errors.Is(err, want) || want == nil && err != nil || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("tenant %d, RF %d: %v, want %v", n, rf, err, want)
		}
	}
	check(a, 7, nil, "") // growing is not refused for lack of nodes
	check(a, 1, nil, "")
	check(DefaultTenant, 1, nil, "")
	check(a, 3, ErrNoChange, `tenant "a" has replication factor 3 already`)
	check(gone, 1, ErrUnknownTenant, "was deleted")
	check(gone+1, 1, ErrUnknownTenant, "see the list of tenants")
	check(0, 1, ErrInvalidEntry, "too little")
	check(a, 0, ErrInvalidEntry, "replication factor 0, want 1..7")
	check(a, 8, ErrInvalidEntry, "replication factor 8, want 1..7")
	l.replicate(a, 2)
	check(a, 2, ErrNoChange, "gets replication factor 2 already")
	check(a, 3, nil, "") // not wanted any more
	l.propose(l.mustPlan())
	check(a, 2, ErrNoChange, "gets replication factor 2 already")
	check(a, 3, nil, "")
	check(b, 2, nil, "")
	for range MaxIntents {
		l.replicate(b, 2)
	}
	check(a, 3, ErrTooManyIntents, "256; cancel some")
	if err := (&State{}).CheckIntent(&Intent{Verb: VerbReplicate, Tenant: a, RF: 1}, nobody, nobody); !errors.Is(err, ErrNotFounded) {
		t.Errorf("before founding: %v", err)
	}
}

// TestLeavingGoesByTheFactorToBe: what was asked for counts, and what is under way.
func TestLeavingGoesByTheFactorToBe(t *testing.T) {
	s, all := founded(t, 5, 0)
	l := &log{t, s}
	a := l.tenant("a", 2)
	nobody := func(NodeID) bool { return false }
	check := func(want error, says string) {
		t.Helper()
		err := l.CheckIntent(&Intent{Verb: VerbLeave, Node: all[0].ID}, nobody, nobody)
		if !errors.Is(err, want) || want == nil && err != nil || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	check(nil, "")
	l.replicate(a, 5)
	check(ErrLastCopies, `without n1 there are 4 nodes, and tenant "a" wants 5 copies`)
	l.propose(l.mustPlan())
	check(ErrLastCopies, `tenant "a" wants 5 copies`)
	l.step(KindCommit)
	l.step(KindFinalize)
	check(ErrLastCopies, `tenant "a" wants 5 copies`)
	l.replicate(a, 4)
	check(nil, "")
	l.propose(l.mustPlan())
	check(nil, "")
}

// TestSourcesOfAFactorChange: a node is not given up for lost if that would leave nothing
// to copy from, be the change carried out or aborted.
func TestSourcesOfAFactorChange(t *testing.T) {
	s, all := founded(t, 4, 0)
	for _, c := range []struct {
		from, to  uint8
		proposed  error
		says      string
		committed error
	}{
		{1, 3, ErrSourcesLost, "give it up with what only it has", nil},
		{3, 1, ErrSourcesLost, "give it up with what only it has; or abort the change that is open", ErrSourcesLost},
		{3, 2, nil, "", nil},
	} {
		l := &log{t, s}
		l.replicate(l.tenant("a", c.from), c.to)
		l.propose(l.mustPlan())
		lost := func(id NodeID) bool { return id != all[0].ID }
		remove := &Intent{Verb: VerbRemove, Node: all[0].ID}
		err := l.CheckIntent(remove, lost, lost)
		if !errors.Is(err, c.proposed) || c.proposed == nil && err != nil || err != nil && !strings.HasSuffix(err.Error(), c.says) {
			t.Errorf("%d to %d, proposed: %v, want %v", c.from, c.to, err, c.proposed)
		}
		l.step(KindCommit)
		if err := l.CheckIntent(remove, lost, lost); !errors.Is(err, c.committed) || c.committed == nil && err != nil {
			t.Errorf("%d to %d, committed: %v, want %v", c.from, c.to, err, c.committed)
		}
	}
}
