package ring

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// sameState demands that a state comes back from its encoding as it was.
func sameState(t interface{ Fatalf(string, ...any) }, s *State) *State {
	b := AppendState(nil, s)
	got, err := DecodeState(b)
	if err != nil {
		t.Fatalf("state %s: %v\n%s", s.Version(), err, dump(s))
	}
	if dump(got) != dump(s) {
		t.Fatalf("state %s comes back as\n%s\nwas\n%s", s.Version(), dump(got), dump(s))
	}
	if !bytes.Equal(AppendState(nil, got), b) {
		t.Fatalf("state %s has two encodings", s.Version())
	}
	return got
}

// TestStateAndTailAreTheLog: wherever a log is cut, its state there and the entries
// behind it are as good as all of it.
func TestStateAndTailAreTheLog(t *testing.T) {
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		all := testNodes(rapid.IntRange(0, 3).Draw(t, "zones"), slices.Repeat([]uint32{1}, 9)...)
		l, err := NewLayout(8, drawNodes(t, all))
		if err != nil {
			t.Fatal(err)
		}
		s := mustNext(t, &State{}, &Entry{Version: 1, Kind: KindFound, Op: [16]byte{1}, Found: &Found{
			ClusterID: ClusterID{1}, ClusterName: "test", Founder: l.Nodes()[0].ID, Layout: l, TokenKeyID: 1, TokenKey: [32]byte{9},
		}})
		// cuts are the same log, each snapshotted at another entry.
		cuts := []*State{sameState(t, s)}
		for range rapid.IntRange(1, 30).Draw(t, "entries") {
			e := drawEntry(t, s, all)
			before := s
			s = mustNext(t, s, e)
			for i, c := range cuts {
				if cuts[i] = mustNext(t, c, e); dump(cuts[i]) != dump(s) {
					t.Fatalf("cut %d, entry %s (%s):\n%s\nwant\n%s", i, e.Version, e.Kind, dump(cuts[i]), dump(s))
				}
			}
			cuts = append(cuts, sameState(t, s))
			if err := s.Follows(before); err != nil {
				t.Fatal(err)
			}
			if err := s.Follows(cuts[0]); err != nil {
				t.Fatal(err)
			}
			note(seen, s)
		}
	})
	for _, what := range []string{"proposed", "committed", "carries", "removes", "partitions newer than the layout", "intents", "leaves", "reopened", "turned away", "retired"} {
		if seen[what] == 0 {
			t.Errorf("no state: %s; %v", what, seen)
		}
	}
}

// note counts what a state has that its encoding could lose.
func note(seen map[string]int, s *State) {
	count := func(what string, is bool) {
		if is {
			seen[what]++
		}
	}
	if c := s.Change(); c != nil {
		count(c.Stage.String(), true)
		count("carries", len(c.Carries) > 0)
		count("removes", len(c.Removed) > 0)
	}
	count("partitions newer than the layout", s.Change() == nil && slices.Max(s.layout.pv) > s.layout.version)
	count("intents", len(s.Intents()) > 0)
	for _, o := range s.Outsiders() {
		count("leaves", o.Leaving)
		count("reopened", o.Reopened)
		count("turned away", !o.Leaving && !o.Reopened)
	}
	count("retired", len(s.Retired()) > 0)
}

// statesOfAllKinds are some that have all that a state can have.
func statesOfAllKinds(t testing.TB) []*State {
	s, all := founded(t, 5, 3)
	l := &log{t, s}
	states := []*State{s}
	keep := func() { states = append(states, l.State) }
	l.State = apply(t, l.State, createEntry(2, "a"))
	l.intent(Intent{Verb: VerbLeave, Node: all[0].ID, CreatedAtMs: 7})
	keep()
	l.propose(l.mustPlan(all[5], all[6]))
	l.intent(Intent{Verb: VerbWeigh, Node: all[1].ID, Capacity: 7})
	keep()
	l.next(KindAbort, func(e *Entry) { e.Step = &Step{Change: l.Change().ID, Reopens: true} })
	keep()
	l.propose(l.mustPlan(all[5]))
	l.step(KindCommit)
	keep()
	l.step(KindFinalize)
	l.intent(Intent{Verb: VerbReplace, Node: all[2].ID, By: all[6].ID})
	l.next(KindRetire, func(e *Entry) { e.Retire = &Retire{Node: all[0].ID} })
	keep()
	l.propose(l.mustPlan(all[6]))
	keep()
	l.step(KindCommit)
	l.step(KindFinalize)
	l.intent(Intent{Verb: VerbReplicate, Tenant: 2, RF: 5, CreatedAtMs: 9})
	keep()
	l.propose(l.mustPlan())
	keep()
	l.step(KindCommit)
	l.step(KindFinalize)
	keep()
	l.intent(Intent{Verb: VerbGiveUp, Node: all[3].ID})
	keep()
	if r, err := l.Recovery(l.Voters()[:len(l.Voters())/2+1]); err != nil {
		t.Fatal(err)
	} else {
		l.next(KindRecover, func(e *Entry) { e.Recover = r })
	}
	keep()
	l.next(KindTenantDelete, func(e *Entry) { e.Delete = &TenantDelete{Number: 2} })
	keep()
	return states
}

func TestStateCodec(t *testing.T) {
	seen := map[string]int{}
	for _, s := range statesOfAllKinds(t) {
		note(seen, s)
		sameState(t, s)
		b := AppendState(nil, s)
		for cut := range b {
			if _, err := DecodeState(b[:cut]); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("state %s cut at %d of %d: %v", s.Version(), cut, len(b), err)
			}
		}
		if _, err := DecodeState(append(b, 0)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("with a byte left over: %v", err)
		}
		b[0]++
		if _, err := DecodeState(b); !errors.Is(err, ErrNewerFormat) {
			t.Errorf("a newer format: %v", err)
		}
	}
	if len(seen) < 8 {
		t.Errorf("too little to lose: %v", seen)
	}
}

// TestStateRefusesWhatNoLogSays: each thing that can be wrong with a state.
func TestStateRefusesWhatNoLogSays(t *testing.T) {
	states := statesOfAllKinds(t)
	proposed, aborted, committed, last := states[2], states[3], states[4], states[6]
	id := func(i byte) NodeID { return NodeID{i} }
	for name, c := range map[string]struct {
		of   *State
		harm func(s *State)
	}{
		"no version":          {last, func(s *State) { s.version = 0 }},
		"no cluster":          {last, func(s *State) { s.clusterID = ClusterID{} }},
		"a name that is none": {last, func(s *State) { s.clusterName = "-" }},
		"no founder":          {last, func(s *State) { s.founder = NodeID{} }},
		"no token key":        {last, func(s *State) { s.tokenKeys = nil }},
		"a token key twice":   {last, func(s *State) { s.tokenKeys = slices.Repeat(s.tokenKeys, 2) }},
		"a tenant to come": {last, func(s *State) {
			s.tenants = []*TenantRecord{{Number: 1, Name: "a", RF: 1, Policy: 1, Version: s.version + 1}}
		}},
		"a number not given out": {last, func(s *State) {
			s.tenants = []*TenantRecord{{Number: s.lastTenant + 1, Name: "a", RF: 1, Policy: 1, Version: 1}}
		}},
		"tenants out of order":    {last, func(s *State) { s.tenants = []*TenantRecord{s.tenants[1], s.tenants[0]} }},
		"two tenants of a number": {last, func(s *State) { s.tenants[1].Number = s.tenants[0].Number }},
		"a tenant without copies": {last, func(s *State) { s.tenants[0].RF = 0 }},
		"a policy that is none":   {last, func(s *State) { s.tenants[0].Policy = 3 }},
		"a layout to come":        {aborted, func(s *State) { s.layout.version = s.version + 1 }},
		"a partition to come":     {aborted, func(s *State) { s.layout.pv[3] = s.version + 1 }},
		"a partition of before":   {aborted, func(s *State) { s.layout.pv[3] = 0 }},
		"a stage that is none":    {committed, func(s *State) { s.change.Stage = Stable }},
		"committed never":         {committed, func(s *State) { s.change.CommittedAt = 0 }},
		"committed too early":     {committed, func(s *State) { s.change.CommittedAt = s.change.ProposedAt }},
		"committed in time":       {committed, func(s *State) { s.change.CommittedAt = s.version + 1 }},
		"proposed, and committed": {proposed, func(s *State) { s.change.CommittedAt = s.version }},
		"a layout not proposed":   {proposed, func(s *State) { s.change.Next = s.change.Next.At(s.version) }},
		"a change of other parts": {proposed, func(s *State) {
			s.change.Next = s.layout.At(s.change.ProposedAt)
			s.change.Next.pv = s.layout.pv[:32]
			s.change.Next.shift++
			s.change.Next.table = s.change.Next.table[:32*s.layout.width]
		}},
		"removes who stays":       {proposed, func(s *State) { s.change.Removed = []NodeID{s.change.Next.nodes[0].ID} }},
		"a move not touched":      {proposed, func(s *State) { s.change.touched = make([]bool, len(s.change.touched)) }},
		"carries a cancellation":  {proposed, func(s *State) { s.change.Carries[0].Verb = VerbCancel }},
		"an outsider inside":      {aborted, func(s *State) { s.outside[0].LayoutNode = s.layout.nodes[0] }},
		"outsiders out of order":  {aborted, func(s *State) { slices.Reverse(s.outside) }},
		"an outsider to come":     {aborted, func(s *State) { s.outside[0].Since = s.version + 1 }},
		"an outsider of no size":  {aborted, func(s *State) { s.outside[0].Capacity = 0 }},
		"retired out of order":    {last, func(s *State) { s.retired = []NodeID{id(2), id(1)} }},
		"retired twice":           {last, func(s *State) { s.retired = []NodeID{id(2), id(2)} }},
		"nobody is retired":       {last, func(s *State) { s.retired = []NodeID{{}} }},
		"strangers vote":          {last, func(s *State) { s.voters, s.recoveredAt = []NodeID{{77}}, 2 }},
		"a recovery of nobody":    {last, func(s *State) { s.recoveredAt = 2 }},
		"a recovery to come":      {last, func(s *State) { s.voters, s.recoveredAt = s.layout.voters, s.version+1 }},
		"voters without recovery": {last, func(s *State) { s.voters = s.layout.voters }},
		"an outsider is retired":  {aborted, func(s *State) { s.retired = []NodeID{s.outside[0].ID} }},
		"an intent to come":       {proposed, func(s *State) { s.intents[0].Version = s.version + 1 }},
		"an intent twice":         {proposed, func(s *State) { s.intents = slices.Repeat(s.intents, 2) }},
		"an intent of nobody":     {proposed, func(s *State) { s.intents[0].Node = NodeID{} }},
		"an intent of too little": {proposed, func(s *State) { s.intents[0].Capacity = 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			s := sameState(t, c.of) // of its own
			c.harm(s)
			if got, err := DecodeState(AppendState(nil, s)); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v, accepted as\n%s", err, dump(got))
			}
		})
	}
}

// TestLargestState: all that has a bound at it.
func TestLargestState(t *testing.T) {
	nodes := make([]LayoutNode, MaxNodes)
	for i := range nodes {
		nodes[i] = LayoutNode{ID: NodeID{1, byte(i >> 8), byte(i)}, Name: fmt.Sprintf("%059d%04d", 0, i), Zone: fmt.Sprintf("%063d", i%3), Capacity: MaxCapacity}
	}
	table := make([]uint16, MaxPartitions*MaxRF)
	for i := range table {
		table[i] = uint16(i % MaxNodes)
	}
	l := &Layout{version: 9, shift: shiftFor(MaxPartitions), nodes: nodes, width: MaxRF, table: table, voters: []NodeID{nodes[0].ID}}
	for p := range MaxPartitions {
		l.pv = append(l.pv, Version(1+p%2))
	}
	s := &State{version: 1 << 40, clusterID: ClusterID{1}, clusterName: "test", founder: NodeID{1}, layout: l, lastTenant: maxTenantNumber, tokenKeys: []TokenKey{{ID: 1}}}
	s.change = &Change{Stage: Proposed, ProposedAt: 10, Next: l.At(10), touched: make([]bool, MaxPartitions)}
	for i := range MaxTenants {
		s.tenants = append(s.tenants, &TenantRecord{Name: fmt.Sprintf("%063d", i), Number: TenantNumber(i + 1), RF: MaxRF, Policy: 2, Version: 5})
	}
	for i := range MaxIntents {
		r := &IntentRecord{Intent: Intent{Verb: VerbLeave, Node: nodes[0].ID}, Version: Version(i + 1)}
		s.intents, s.change.Carries = append(s.intents, r), append(s.change.Carries, r)
	}
	for i := range 100_000 {
		s.retired = append(s.retired, NodeID{2, byte(i >> 16), byte(i >> 8), byte(i)})
	}
	b := AppendState(nil, s)
	if len(b) > MaxStateBytes*3/4 {
		t.Errorf("%d bytes: little room is left for nodes that are retired", len(b))
	}
	sameState(t, s)
	if _, err := DecodeState(make([]byte, MaxStateBytes+1)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("too large: %v", err)
	}
}

func TestFollows(t *testing.T) {
	states := statesOfAllKinds(t)
	for i, s := range states {
		for j, old := range states {
			if err := s.Follows(old); (err == nil) != (i >= j) || err != nil && !errors.Is(err, ErrNoSuccessor) {
				t.Errorf("%d after %d: %v", i, j, err)
			}
		}
	}
	last := states[len(states)-1]
	for name, harm := range map[string]func(s *State){
		"another cluster":  func(s *State) { s.clusterID[0]++ },
		"another name":     func(s *State) { s.clusterName = "other" },
		"another founder":  func(s *State) { s.founder[0]++ },
		"other partitions": func(s *State) { s.layout.pv = s.layout.pv[:32] },
		"an older layout":  func(s *State) { s.layout.version = 1 },
		"a number back":    func(s *State) { s.lastTenant-- },
		"nobody retired":   func(s *State) { s.retired = nil },
		"a partition back": func(s *State) { s.layout.pv[0] = 1 },
	} {
		s := sameState(t, last)
		s.version++
		if harm(s); !errors.Is(s.Follows(last), ErrNoSuccessor) {
			t.Errorf("%s is taken for what comes next", name)
		}
	}
}

func FuzzDecodeState(f *testing.F) {
	for _, s := range statesOfAllKinds(f) {
		f.Add(AppendState(nil, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeState(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewerFormat) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if !bytes.Equal(AppendState(nil, s), b) {
			t.Fatal("two encodings of one state")
		}
		// It goes on like any other.
		members := s.Members()
		for p := range min(s.Layout().Partitions(), 64) {
			if SetsOf(s.Layout(), s.Change(), nil, Partition(p), Same(3)).Owners == nil {
				t.Fatalf("partition %d has no owner", p)
			}
		}
		if s.Version()+1 == 0 {
			return
		}
		n, err := s.Next(createEntry(s.Version()+1, "fuzz"))
		if err != nil || len(n.Members()) != len(members) || n.Follows(s) != nil {
			t.Fatalf("the next entry: %v", err)
		}
		if c := s.Change(); c != nil && c.ID != [16]byte{} {
			mustNext(t, s, stepEntry(s, KindAbort))
			mustNext(t, s, stepEntry(s, KindCommit))
			mustNext(t, s, stepEntry(s, KindFinalize))
		}
	})
}

// TestFlippedBitsOfStates: of states with some bits flipped and bytes left out, all that
// is accepted has one encoding, and goes on.
func TestFlippedBitsOfStates(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var seeds [][]byte
	for _, s := range statesOfAllKinds(t) {
		seeds = append(seeds, AppendState(nil, s))
	}
	accepted := 0
	for range 10_000 {
		b := slices.Clone(seeds[rng.IntN(len(seeds))])
		for range 1 + rng.IntN(3) {
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		}
		if rng.IntN(3) == 0 {
			i := rng.IntN(len(b))
			b = slices.Delete(b, i, i+rng.IntN(len(b)-i))
		}
		s, err := DecodeState(b)
		if err != nil {
			continue
		}
		accepted++
		if !bytes.Equal(AppendState(nil, s), b) {
			t.Fatal("two encodings of one state")
		}
		mustNext(t, s, createEntry(s.Version()+1, "next"))
	}
	if accepted < 100 {
		t.Errorf("only %d were accepted: nothing is shown", accepted)
	}
}
