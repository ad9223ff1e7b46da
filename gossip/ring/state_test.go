package ring

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func foundEntry(t testing.TB) *Entry {
	l := mustLayout(t, 8, testNodes(0, 1, 1, 1))
	return &Entry{Version: 1, Kind: KindFound, Op: [16]byte{1}, Found: &Found{
		ClusterID: ClusterID{1}, ClusterName: "test", Founder: l.Nodes()[0].ID, Layout: l,
		TokenKeyID: 1, TokenKey: [32]byte{5}, CreatedAtMs: 1000,
	}}
}

func createEntry(v Version, name string) *Entry {
	return &Entry{
		Version: v, Kind: KindTenantCreate, Op: [16]byte{byte(v)},
		Tenant: &TenantCreate{Name: name, RF: 3, Policy: 1, CreatedAtMs: 2000},
	}
}

func apply(t testing.TB, s *State, e *Entry) *State {
	t.Helper()
	n, err := s.Next(e)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStateFoundsAndCreates(t *testing.T) {
	s0 := &State{}
	s1 := apply(t, s0, foundEntry(t))
	d, ok := s1.Tenant(DefaultTenantName)
	if !ok || d.Number != 1 || d.RF != 3 || d.Policy != 1 || d.Version != 1 {
		t.Fatalf("default tenant: %+v", d)
	}
	if s0.Layout() != nil || s0.Voters() != nil || s0.Version() != 0 {
		t.Error("Next changed its receiver")
	}
	s2 := apply(t, s1, createEntry(2, "a"))
	s3 := apply(t, s2, createEntry(3, "a")) // void
	s4 := apply(t, s3, createEntry(4, "b"))
	if s3.Version() != 3 || len(s3.Tenants()) != 2 {
		t.Errorf("a void create takes its slot and nothing else: version %d, %d tenants", s3.Version(), len(s3.Tenants()))
	}
	a, _ := s4.Tenant("a")
	b, _ := s4.Tenant("b")
	if a.Version != 2 || a.Number != 2 || b.Number != 3 || b.Version != 4 {
		t.Errorf("a = %+v, b = %+v", a, b)
	}
	if _, ok := s2.Tenant("b"); ok || len(s2.Tenants()) != 2 {
		t.Error("a later state shows in an earlier one")
	}
	if k := s4.TokenKeys(); len(k) != 1 || k[0].Key != [32]byte{5} {
		t.Errorf("token keys %v", k)
	}
}

func TestStateRefuses(t *testing.T) {
	s1 := apply(t, &State{}, foundEntry(t))
	again := foundEntry(t)
	again.Version = 2
	first := createEntry(1, "a")
	for name, c := range map[string]struct {
		s *State
		e *Entry
		w error
	}{
		"gap":             {s1, createEntry(3, "a"), ErrInvalidEntry},
		"repeat":          {s1, createEntry(1, "a"), ErrInvalidEntry},
		"second founding": {s1, again, ErrInvalidEntry},
		"create first":    {&State{}, first, ErrInvalidEntry},
		"unknown kind":    {s1, &Entry{Version: 2, Kind: 77}, ErrUnknownKind},
		"no content":      {s1, &Entry{Version: 2, Kind: KindTenantCreate}, ErrInvalidEntry},
		"bad name":        {s1, createEntry(2, "A"), ErrInvalidEntry},
	} {
		if _, err := c.s.Next(c.e); !errors.Is(err, c.w) {
			t.Errorf("%s: %v, want %v", name, err, c.w)
		}
	}
}

// entriesOfAllKinds are valid entries, one of each kind and of each verb.
func entriesOfAllKinds(t testing.TB) []*Entry {
	l := mustRebalance(t, mustLayout(t, 8, testNodes(0, 1, 1, 1)), testNodes(2, 1, 2, 3, 4))
	op := [16]byte{3}
	all := []*Entry{foundEntry(t), createEntry(2, "abc-9")}
	for _, e := range []Entry{
		{Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l}},
		{Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l, Removed: []NodeID{{1}, {2}}, Closes: [][16]byte{{4}, {5}, {6}}}},
		{Kind: KindCommit, Step: &Step{Change: op}},
		{Kind: KindAbort, Step: &Step{Change: op, Reason: "it took too long"}},
		{Kind: KindAbort, Step: &Step{Change: op, Reopens: true, Reason: strings.Repeat("x", MaxReasonLen)}},
		{Kind: KindFinalize, Step: &Step{Change: op}},
		{Kind: KindRetire, Retire: &Retire{Node: NodeID{1}}},
		{Kind: KindIntent, Intent: &Intent{Verb: VerbLeave, Node: NodeID{1}, CreatedAtMs: 5}},
		{Kind: KindIntent, Intent: &Intent{Verb: VerbRemove, Node: NodeID{1}}},
		{Kind: KindIntent, Intent: &Intent{Verb: VerbReplace, Node: NodeID{1}, By: NodeID{2}}},
		{Kind: KindIntent, Intent: &Intent{Verb: VerbWeigh, Node: NodeID{1}, Capacity: MaxCapacity}},
		{Kind: KindIntent, Intent: &Intent{Verb: VerbCancel, Cancels: op}},
		{Kind: KindIntent, Intent: &Intent{Verb: VerbReplicate, Tenant: 1, RF: 7, CreatedAtMs: 5}},
		{Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l, Removed: []NodeID{{1}}, Closes: [][16]byte{{4}}, Factors: []Factor{{1, 1, 5}, {1 << 31, MaxRF, 0}}}},
		{Kind: KindTenantDelete, Delete: &TenantDelete{Number: 1<<32 - 1, DeletedAtMs: 5}},
		{Kind: KindIntent, Intent: &Intent{Verb: VerbGiveUp, Node: NodeID{1}}},
		{Kind: KindRecover, Recover: &Recover{Lost: []NodeID{{1}, {2}}, Voters: []NodeID{{3}}, CreatedAtMs: 5}},
	} {
		e.Version, e.Op = 2, op
		all = append(all, &e)
	}
	return all
}

// TestEntryCheck: each part of an entry that can be wrong.
func TestEntryCheck(t *testing.T) {
	l := mustRebalance(t, mustLayout(t, 8, testNodes(0, 1, 1, 1)), testNodes(0, 1, 1))
	in, op := l.Nodes()[0].ID, [16]byte{3}
	for name, e := range map[string]Entry{
		"layout of another version": {Version: 3, Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l}},
		"no layout":                 {Kind: KindPropose, Propose: &Propose{Parent: 1}},
		"no parent":                 {Kind: KindPropose, Propose: &Propose{Layout: l}},
		"a parent to come":          {Kind: KindPropose, Propose: &Propose{Parent: 2, Layout: l}},
		"removes who stays":         {Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l, Removed: []NodeID{in}}},
		"removes nobody":            {Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l, Removed: []NodeID{{}}}},
		"removes out of order":      {Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l, Removed: []NodeID{{2}, {1}}}},
		"removes one twice":         {Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l, Removed: []NodeID{{2}, {2}}}},
		"removes too many":          {Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l, Removed: make([]NodeID, MaxNodes+1)}},
		"closes nothing":            {Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l, Closes: [][16]byte{{}}}},
		"closes one twice":          {Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l, Closes: [][16]byte{{1}, {1}}}},
		"closes too many":           {Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l, Closes: make([][16]byte, MaxIntents+1)}},
		"step of nothing":           {Kind: KindCommit, Step: &Step{}},
		"long reason":               {Kind: KindAbort, Step: &Step{Change: op, Reason: strings.Repeat("x", MaxReasonLen+1)}},
		"a commit that reopens":     {Kind: KindCommit, Step: &Step{Change: op, Reopens: true}},
		"a final one that reopens":  {Kind: KindFinalize, Step: &Step{Change: op, Reopens: true}},
		"retires nobody":            {Kind: KindRetire, Retire: &Retire{}},
		"no verb":                   {Kind: KindIntent, Intent: &Intent{Node: in}},
		"a verb to come":            {Kind: KindIntent, Intent: &Intent{Verb: 8, Node: in}},
		"another one":               {Kind: KindIntent, Intent: &Intent{Verb: 8, Tenant: 1, RF: 1}},
		"nobody leaves":             {Kind: KindIntent, Intent: &Intent{Verb: VerbLeave}},
		"leaves and cancels":        {Kind: KindIntent, Intent: &Intent{Verb: VerbLeave, Node: in, Cancels: op}},
		"leaves with a successor":   {Kind: KindIntent, Intent: &Intent{Verb: VerbLeave, Node: in, By: NodeID{1}}},
		"leaves with a capacity":    {Kind: KindIntent, Intent: &Intent{Verb: VerbLeave, Node: in, Capacity: 1}},
		"replaced by nobody":        {Kind: KindIntent, Intent: &Intent{Verb: VerbReplace, Node: in}},
		"replaced by itself":        {Kind: KindIntent, Intent: &Intent{Verb: VerbReplace, Node: in, By: in}},
		"no capacity":               {Kind: KindIntent, Intent: &Intent{Verb: VerbWeigh, Node: in}},
		"absurd capacity":           {Kind: KindIntent, Intent: &Intent{Verb: VerbWeigh, Node: in, Capacity: MaxCapacity + 1}},
		"cancels nothing":           {Kind: KindIntent, Intent: &Intent{Verb: VerbCancel}},
		"cancels a node":            {Kind: KindIntent, Intent: &Intent{Verb: VerbCancel, Cancels: op, Node: in}},
		"cancels with a successor":  {Kind: KindIntent, Intent: &Intent{Verb: VerbCancel, Cancels: op, By: in}},
		"changes no tenant":         {Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l, Factors: []Factor{{0, 1, 0}}}},
		"tenants out of order":      {Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l, Factors: []Factor{{2, 1, 0}, {1, 1, 0}}}},
		"a tenant twice":            {Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l, Factors: []Factor{{2, 1, 0}, {2, 2, 0}}}},
		"no copies":                 {Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l, Factors: []Factor{{2, 0, 0}}}},
		"more copies than a row":    {Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l, Factors: []Factor{{2, MaxRF + 1, 0}}}},
		"changes too many tenants":  {Kind: KindPropose, Propose: &Propose{Parent: 1, Layout: l, Factors: make([]Factor, MaxOwnClasses+1)}},
		"replicates no tenant":      {Kind: KindIntent, Intent: &Intent{Verb: VerbReplicate, RF: 1}},
		"replicates to nothing":     {Kind: KindIntent, Intent: &Intent{Verb: VerbReplicate, Tenant: 1}},
		"replicates to too much":    {Kind: KindIntent, Intent: &Intent{Verb: VerbReplicate, Tenant: 1, RF: MaxRF + 1}},
		"replicates a node":         {Kind: KindIntent, Intent: &Intent{Verb: VerbReplicate, Tenant: 1, RF: 1, Node: in}},
		"replicates and replaces":   {Kind: KindIntent, Intent: &Intent{Verb: VerbReplicate, Tenant: 1, RF: 1, By: in}},
		"replicates and weighs":     {Kind: KindIntent, Intent: &Intent{Verb: VerbReplicate, Tenant: 1, RF: 1, Capacity: 1}},
		"replicates and cancels":    {Kind: KindIntent, Intent: &Intent{Verb: VerbReplicate, Tenant: 1, RF: 1, Cancels: op}},
		"a tenant leaves":           {Kind: KindIntent, Intent: &Intent{Verb: VerbLeave, Node: in, Tenant: 1}},
		"leaves with a factor":      {Kind: KindIntent, Intent: &Intent{Verb: VerbLeave, Node: in, RF: 1}},
		"cancels with a factor":     {Kind: KindIntent, Intent: &Intent{Verb: VerbCancel, Cancels: op, RF: 1}},
		"deletes no tenant":         {Kind: KindTenantDelete, Delete: &TenantDelete{}},
		"deletes the default one":   {Kind: KindTenantDelete, Delete: &TenantDelete{Number: DefaultTenant}},
		"deletes and creates":       {Kind: KindTenantDelete, Delete: &TenantDelete{Number: 2}, Tenant: &TenantCreate{Name: "a", RF: 1, Policy: 1}},
		"gives up nobody":           {Kind: KindIntent, Intent: &Intent{Verb: VerbGiveUp}},
		"gives up for another":      {Kind: KindIntent, Intent: &Intent{Verb: VerbGiveUp, Node: in, By: NodeID{1}}},
		"recovers without loss":     {Kind: KindRecover, Recover: &Recover{Voters: []NodeID{in}}},
		"recovers without voters":   {Kind: KindRecover, Recover: &Recover{Lost: []NodeID{in}}},
		"loses out of order":        {Kind: KindRecover, Recover: &Recover{Lost: []NodeID{{2}, {1}}, Voters: []NodeID{in}}},
		"votes twice":               {Kind: KindRecover, Recover: &Recover{Lost: []NodeID{{1}}, Voters: []NodeID{in, in}}},
		"too many voters":           {Kind: KindRecover, Recover: &Recover{Lost: []NodeID{{99}}, Voters: []NodeID{{1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}}}},
		"the lost vote":             {Kind: KindRecover, Recover: &Recover{Lost: []NodeID{in}, Voters: []NodeID{in}}},
		"content of another kind":   {Kind: KindRetire, Step: &Step{Change: op}},
		"two contents":              {Kind: KindRetire, Retire: &Retire{Node: in}, Step: &Step{Change: op}},
	} {
		if e.Version == 0 {
			e.Version = 2
		}
		if err := e.Check(); !errors.Is(err, ErrInvalidEntry) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLargestEntryDecodes: the largest proposal there can be is within the bound.
func TestLargestEntryDecodes(t *testing.T) {
	nodes := testNodes(0, slices.Repeat([]uint32{1}, MaxNodes)...)
	p := &Propose{Parent: 1}
	for i := range nodes {
		nodes[i].Name = fmt.Sprintf("%063d", i)
		nodes[i].Zone = nodes[i].Name[:62] + "z"
		p.Removed = append(p.Removed, NodeID{0, byte(i >> 8), byte(i), 1})
	}
	for i := range MaxIntents {
		p.Closes = append(p.Closes, [16]byte{byte(i), 1})
	}
	for i := range MaxOwnClasses {
		p.Factors = append(p.Factors, Factor{Tenant: TenantNumber(i + 1), RF: 1})
	}
	slices.SortFunc(nodes, func(a, b LayoutNode) int { return a.ID.Compare(b.ID) })
	p.Layout = &Layout{version: 2, shift: shiftFor(MaxPartitions), nodes: nodes, width: MaxRF, voters: []NodeID{nodes[0].ID}}
	for i := range MaxPartitions {
		for k := range MaxRF {
			p.Layout.table = append(p.Layout.table, uint16((i+k)%MaxNodes))
		}
		p.Layout.pv = append(p.Layout.pv, Version(1+i%2))
	}
	b := AppendEntry(nil, &Entry{Version: 2, Kind: KindPropose, Propose: p})
	if e, err := DecodeEntry(b); err != nil || len(e.Propose.Removed) != MaxNodes {
		t.Errorf("%d bytes, at most %d: %v", len(b), MaxEntryBytes, err)
	}
}

func TestEntryCodec(t *testing.T) {
	for _, e := range entriesOfAllKinds(t) {
		b := AppendEntry(nil, e)
		got, err := DecodeEntry(b)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(AppendEntry(nil, got), b) || got.Op != e.Op {
			t.Errorf("%s changed on the way", e.Kind)
		}
		for i := 0; i < len(b); i += 1 + i/64 {
			if _, err := DecodeEntry(b[:i]); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s cut at %d: %v", e.Kind, i, err)
			}
		}
		if _, err := DecodeEntry(append(b[:len(b):len(b)], 0)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("trailing byte: %v", err)
		}
		b[0] = 9
		if _, err := DecodeEntry(b); !errors.Is(err, ErrNewerFormat) {
			t.Errorf("newer format: %v", err)
		}
		b[0], b[1] = e.format(), 99
		if _, err := DecodeEntry(b); !errors.Is(err, ErrUnknownKind) {
			t.Errorf("unknown kind: %v", err)
		}
	}
	bad := createEntry(2, "abc")
	bad.Tenant.RF = 8
	if _, err := DecodeEntry(AppendEntry(nil, bad)); !errors.Is(err, ErrInvalidEntry) {
		t.Errorf("RF 8: %v", err)
	}
}

// TestEntryFormats: an entry has one encoding, so the format that has room for
// replication factors is refused where there are none, and the other way round.
func TestEntryFormats(t *testing.T) {
	for _, e := range entriesOfAllKinds(t) {
		b := AppendEntry(nil, e)
		want := byte(entryFormat)
		if e.Propose != nil && len(e.Propose.Factors) > 0 {
			want = factorsFormat
		}
		if b[0] != want {
			t.Errorf("%s: format %d, want %d", e.Kind, b[0], want)
		}
		b[0] = entryFormat + factorsFormat - b[0]
		if _, err := DecodeEntry(b); err == nil {
			t.Errorf("%s: taken in format %d", e.Kind, b[0])
		}
		b[0] = 0
		if _, err := DecodeEntry(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s in format 0: %v", e.Kind, err)
		}
		if e.Propose == nil || len(e.Propose.Factors) > 0 {
			continue
		}
		// A list of factors of length zero, where one belongs.
		at := 1 + 1 + 8 + 16 + 8 + 2 + 16*len(e.Propose.Removed) + 2 + 16*len(e.Propose.Closes)
		b[0] = factorsFormat
		if _, err := DecodeEntry(slices.Insert(b, at, 0, 0)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("no factors in the format for them: %v", err)
		}
	}
}

func TestTenantNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "0": true, "a-b_c": true, "": false, "-a": false, "_a": false, "A": false, "a b": false, "ä": false,
		fmt.Sprintf("%063d", 1): true, fmt.Sprintf("%064d", 1): false,
	} {
		if ValidTenantName(name) != ok {
			t.Errorf("ValidTenantName(%q) = %v", name, !ok)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for _, e := range entriesOfAllKinds(f) {
		f.Add(AppendEntry(nil, e))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEntry(b)
		if err != nil {
			return
		}
		if err := e.Check(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(AppendEntry(nil, e), b) {
			t.Fatal("two encodings of one entry")
		}
	})
}
