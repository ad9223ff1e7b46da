package ring

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawEntry draws the next entry: often one that has an effect.
func drawEntry(t *rapid.T, s *State, all []LayoutNode) *Entry {
	v := s.Version() + 1
	e := &Entry{Version: v, Op: opOf(v)}
	tenant := func() TenantNumber {
		return TenantNumber(rapid.Uint32Range(1, uint32(s.LastTenant())+1).Draw(t, "number"))
	}
	rf := func() uint8 { return uint8(rapid.IntRange(1, MaxRF).Draw(t, "rf")) }
	id := func(what string) NodeID { return rapid.SampledFrom(all).Draw(t, what).ID }
	e.Kind = rapid.SampledFrom([]Kind{
		KindTenantCreate, KindPropose, KindPropose, KindCommit, KindCommit, KindAbort, KindFinalize, KindFinalize, KindRetire, KindIntent, KindIntent, KindTenantDelete, KindTenantDelete, KindRecover,
	}).Draw(t, "kind")
	switch e.Kind {
	case KindTenantCreate:
		e := createEntry(v, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "tenant"))
		e.Tenant.RF = rf()
		return e
	case KindTenantDelete:
		e.Delete = &TenantDelete{Number: max(tenant(), 2)}
		if c := s.Change(); c != nil && len(c.Factors) > 0 && rapid.Bool().Draw(t, "meanwhile") {
			e.Delete.Number = max(c.Factors[0].Tenant, 2)
		}
	case KindPropose:
		p, err := s.Plan(drawNodes(t, all))
		if err == nil && p != nil && p.Layout != nil && rapid.Bool().Draw(t, "planned") {
			return proposeOf(s, p)
		}
		l, err := s.Layout().Rebalance(v, drawNodes(t, all))
		if err != nil {
			t.Fatal(err)
		}
		e.Propose = &Propose{Parent: s.Layout().Version(), Layout: l}
		for _, n := range s.Members() {
			if _, in := l.Node(n.ID); !in && rapid.Bool().Draw(t, "removed") {
				e.Propose.Removed = append(e.Propose.Removed, n.ID)
			}
		}
		if rapid.Bool().Draw(t, "factors") {
			e.Propose.Factors = []Factor{{Tenant: tenant(), RF: rf(), AskedAtMs: 1}}
		}
	case KindCommit, KindAbort, KindFinalize:
		e.Step = &Step{Change: [16]byte{99}}
		if s.Change() != nil {
			e.Step.Change = s.Change().ID
		}
		e.Step.Reopens = e.Kind == KindAbort && rapid.Bool().Draw(t, "reopens")
	case KindRetire:
		e.Retire = &Retire{Node: id("retired")}
	case KindIntent:
		i := &Intent{Verb: rapid.SampledFrom([]Verb{
			VerbLeave, VerbRemove, VerbReplace, VerbWeigh, VerbCancel, VerbReplicate, VerbReplicate, VerbGiveUp,
		}).Draw(t, "verb")}
		switch i.Node = id("node"); i.Verb {
		case VerbReplicate:
			i.Node, i.Tenant, i.RF = NodeID{}, tenant(), rf()
		case VerbReplace:
			if i.By = id("by"); i.By == i.Node {
				i.By = NodeID{1}
			}
		case VerbWeigh:
			i.Capacity = rapid.Uint32Range(1, 5).Draw(t, "capacity")
		case VerbCancel:
			i.Node, i.Cancels = NodeID{}, [16]byte{99}
			if len(s.Intents()) > 0 {
				i.Cancels = s.Intents()[0].Op
			}
		}
		e.Intent = i
	case KindRecover:
		lost := []NodeID{id("lost"), id("lost"), id("lost"), id("lost")}
		if r, err := s.Recovery(lost); err == nil {
			e.Recover = r
			break
		}
		slices.SortFunc(lost, NodeID.Compare)
		e.Recover = &Recover{Lost: slices.Compact(lost), Voters: []NodeID{{77}}}
	}
	return e
}

// TestLogLaws: whatever the log says, states never change, reading it again leads to the
// same, entries survive their encoding, plans are never void, and nobody is two things at once.
func TestLogLaws(t *testing.T) {
	finalized, refactored, deletedMeanwhile := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		all := testNodes(rapid.IntRange(0, 3).Draw(t, "zones"), slices.Repeat([]uint32{1}, 9)...)
		l, err := NewLayout(8, drawNodes(t, all))
		if err != nil {
			t.Fatal(err)
		}
		s := mustNext(t, &State{}, &Entry{Version: 1, Kind: KindFound, Op: [16]byte{1}, Found: &Found{
			ClusterID: ClusterID{1}, ClusterName: "test", Founder: l.Nodes()[0].ID, Layout: l, TokenKeyID: 1,
		}})
		for _, name := range []string{"a", "b"} {
			s = mustNext(t, s, createEntry(s.Version()+1, name))
		}
		states, dumps, log := []*State{s}, []string{dump(s)}, [][]byte{}
		for range rapid.IntRange(20, 40).Draw(t, "entries") {
			e := drawEntry(t, s, all)
			b := AppendEntry(nil, e)
			e, err := DecodeEntry(b)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(AppendEntry(nil, e), b) {
				t.Fatal("an entry changes on the way")
			}
			log = append(log, b)
			s = mustNext(t, s, e)
			if e.Kind == KindFinalize && s.Layout().Version() == e.Version {
				finalized++
				if len(states[len(states)-1].Change().Factors) > 0 {
					refactored++
				}
			}
			if c := s.Change(); c != nil && slices.ContainsFunc(c.Factors, func(f Factor) bool { return s.Deleted(f.Tenant) }) {
				deletedMeanwhile++
			}
			checkState(t, s)
			checkTenants(t, states[len(states)-1], s)
			checkPlan(t, s, all)
			states, dumps = append(states, s), append(dumps, dump(s))
		}
		again := states[0]
		for i, b := range log {
			e, err := DecodeEntry(b)
			if err != nil {
				t.Fatal(err)
			}
			if again = mustNext(t, again, e); dump(again) != dumps[i+1] {
				t.Fatalf("entry %s leads elsewhere when it is read again:\n%s\nwas\n%s", e.Version, dump(again), dumps[i+1])
			}
		}
		for i, s := range states {
			if dump(s) != dumps[i] {
				t.Fatalf("state %s has changed:\n%s\nwas\n%s", s.Version(), dump(s), dumps[i])
			}
		}
	})
	if finalized == 0 || refactored == 0 || deletedMeanwhile == 0 {
		t.Errorf("%d changes were finalised, %d of them of factors, and %d times a tenant was deleted under way", finalized, refactored, deletedMeanwhile)
	}
}

func checkState(t *rapid.T, s *State) {
	rising := func(ids []NodeID) bool {
		return slices.IsSortedFunc(ids, NodeID.Compare) && len(slices.Compact(slices.Clone(ids))) == len(ids)
	}
	var outside, members []NodeID
	for _, o := range s.Outsiders() {
		outside = append(outside, o.ID)
		if _, in := s.Layout().Node(o.ID); in || s.IsRetired(o.ID) || o.Since == 0 || o.Since > s.Version() {
			t.Fatalf("outsider %+v", o)
		}
	}
	for _, m := range s.Members() {
		members = append(members, m.ID)
		if got, ok := s.Member(m.ID); !ok || got.ID != m.ID || s.IsRetired(m.ID) != slices.Contains(s.Lost(), m) {
			t.Fatalf("member %+v", m)
		}
	}
	if len(s.Voters()) == 0 || !rising(s.Voters()) || slices.ContainsFunc(s.Voters(), func(id NodeID) bool { _, ok := s.Member(id); return !ok }) {
		t.Fatalf("voters %v", s.Voters())
	}
	for _, v := range s.Voters() {
		_, in := s.Layout().Node(v)
		if c := s.Change(); !in && (c == nil || c.Stage != Committed || !slices.ContainsFunc(c.Next.Nodes(), func(n LayoutNode) bool { return n.ID == v })) {
			t.Fatalf("%s votes and owns nothing", v)
		}
	}
	if !rising(outside) || !rising(members) || !rising(s.Retired()) || len(s.Intents()) > MaxIntents {
		t.Fatal("out of order, or twice")
	}
	for p := range Partition(8) {
		if pv := s.Layout().PV(p); pv == 0 || pv > s.Version() {
			t.Fatalf("partition %d is at %s of %s", p, pv, s.Version())
		}
	}
}

// checkTenants: of what is so of tenants for ever. A class never changes but once, from a
// shared one to the tenant's own; a replication factor changes with a FINALIZE only;
// numbers rise, and none comes back; and whoever the open change or an intent is about is
// known.
func checkTenants(t *rapid.T, before, s *State) {
	seen := map[TenantNumber]bool{}
	for i, r := range s.Tenants() {
		if i > 0 && s.Tenants()[i-1].Name >= r.Name || seen[r.Number] || r.Number == 0 || r.Number > s.LastTenant() || s.Deleted(r.Number) || !r.Class().Valid() {
			t.Fatalf("tenant %+v of %d", r, s.LastTenant())
		}
		seen[r.Number] = true
		was, ok := before.TenantByNumber(r.Number)
		switch {
		case !ok:
			if r.Number <= before.LastTenant() || r.Born != 0 {
				t.Fatalf("a new tenant: %+v", r)
			}
			continue
		case before.Deleted(r.Number):
			t.Fatalf("tenant %d is back", r.Number)
		}
		ended := before.Change() != nil && s.Change() == nil && s.Layout().Version() == s.Version()
		if was.RF != r.RF && (!ended || before.Copies(was).To != int(r.RF)) || was.RF != r.RF && r.Born == 0 {
			t.Fatalf("%+v became %+v", was, r)
		}
		if was.Class() != r.Class() && (was.Born != 0 || r.Born != was.RF || s.Change() == nil) {
			t.Fatalf("class %s became %s", was.Class(), r.Class())
		}
		if n := s.Copies(r); (n.From != n.To || r.Class() != was.Class()) && !s.Change().Touches(0) {
			t.Fatalf("%+v changes its factor, and the change touches only some partitions", n)
		}
	}
	if _, ok := s.TenantByNumber(DefaultTenant); !ok || s.LastTenant() < before.LastTenant() || s.ownClasses() > MaxOwnClasses {
		t.Fatal("the default tenant is gone, numbers go back, or there are too many classes")
	}
	for _, i := range s.Intents() {
		if i.Verb == VerbReplicate && !seen[i.Tenant] {
			t.Fatalf("intent %+v is of no tenant", i)
		}
	}
	// Those of one class want the same.
	wants := map[Class]Copies{}
	for _, r := range s.Tenants() {
		if n, ok := wants[r.Class()]; ok && n != s.Copies(r) {
			t.Fatalf("two tenants of class %s want %+v and %+v", r.Class(), n, s.Copies(r))
		}
		wants[r.Class()] = s.Copies(r)
	}
}

// checkPlan: a plan is never void, and whoever cannot join is not in it.
func checkPlan(t *rapid.T, s *State, joiners []LayoutNode) {
	p, err := s.Plan(joiners)
	if s.Change() != nil {
		if !errors.Is(err, ErrChangeOpen) {
			t.Fatalf("plan while a change is open: %v", err)
		}
		return
	}
	if errors.Is(err, ErrLastCopies) && len(s.Lost()) == len(s.Layout().Nodes()) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if p == nil || p.Layout == nil {
		awaited := func(n LayoutNode) bool {
			return slices.ContainsFunc(s.Intents(), func(i *IntentRecord) bool { return i.Verb == VerbReplace && i.Node == n.ID })
		}
		if slices.ContainsFunc(s.Lost(), func(n LayoutNode) bool { return !awaited(n) }) {
			t.Fatalf("%v were given up, and the plan leaves them", s.Lost())
		}
		return
	}
	for _, n := range p.Layout.Nodes() {
		if s.IsRetired(n.ID) {
			t.Fatalf("%s is retired, and in the plan", n.Name)
		}
	}
	e := proposeOf(s, p)
	if err := e.Check(); err != nil {
		t.Fatal(err)
	}
	n := mustNext(t, s, e)
	if n.Change() == nil || len(n.Intents())+len(p.Closes) != len(s.Intents()) {
		t.Fatalf("the plan is void, or closes what it does not carry out: %+v", p)
	}
	for _, r := range p.Refused {
		if _, in := p.Layout.Node(r.Node.ID); in {
			t.Fatalf("%s is refused and taken in", r.Node.Name)
		}
	}
	for _, v := range slices.Concat(p.Void, p.Waits) {
		if slices.Contains(p.Closes, v.Intent.Op) || v.Why == nil {
			t.Fatalf("intent %x is void or waits, and is carried out", v.Intent.Op)
		}
	}
}
