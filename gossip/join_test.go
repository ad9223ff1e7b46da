package gossip

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// awaitJoiners waits until a member has exactly these nodes waiting to be members.
func (n *testNode) awaitJoiners(t *testing.T, want ...*testNode) {
	t.Helper()
	var names []string
	for _, w := range want {
		names = append(names, w.opts.Name)
	}
	slices.Sort(names)
	deadline := time.After(20 * time.Second)
	for {
		changed := n.Changed()
		var got []string
		for _, m := range n.Snapshot().Joiners {
			got = append(got, m.Name)
		}
		slices.Sort(got)
		if slices.Equal(got, names) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s has %v waiting, want %v", n.opts.Name, got, names)
		}
	}
}

// TestJoinersWait: nodes that meet a founded cluster, whether they were to join it or to
// found one with others, are known to all members as such and are no members. They are
// bound to it. Who is gone is forgotten.
func TestJoinersWait(t *testing.T) {
	f := newFabric()
	nodes := cluster(t, f, 3)
	join := func(name string, expect int) *testNode {
		return launch(t, f, nodeOptions(t, f, name, func(o *Options) {
			o.Join, o.BootstrapExpect, o.JoinTimeout = []string{nodes[1].GossipAddress()}, expect, time.Second
		}))
	}
	a, b := join("a", 0), join("b", 3)
	for _, n := range nodes {
		n.awaitJoiners(t, a, b)
		if s := n.Snapshot(); len(s.Members) != 3 || s.Version != 1 {
			t.Errorf("%s took them in: %+v", n.opts.Name, s.Members)
		}
	}
	if a.Snapshot().Ready || a.Snapshot().Layout != nil {
		t.Error("a node that waits takes itself for a member")
	}
	b.stop()
	for _, n := range nodes {
		n.awaitJoiners(t, a)
	}
	select {
	case err := <-a.Fatal():
		t.Errorf("a node that waits ends: %v", err)
	case <-time.After(1200 * time.Millisecond): // beyond its JoinTimeout
	}
	for name, c := range map[string]struct {
		edit func(*Options)
		want error
	}{
		"found another": {func(o *Options) { o.Bootstrap, o.BootstrapExpect, o.Join = true, 0, nil }, ErrJoining},
		"nothing":       {func(o *Options) { o.BootstrapExpect, o.Join = 0, nil }, ErrNoBootstrap},
	} {
		o := b.opts
		c.edit(&o)
		if _, err := tryLaunch(f, o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b = b.again(t, nil)
	for _, n := range nodes {
		n.awaitJoiners(t, a, b)
	}
	// All members forget who waits; it shows itself again.
	nodes[0].stop()
	nodes[0] = nodes[0].again(t, nil)
	nodes[0].awaitJoiners(t, a, b)
}

// heard is told of each line of a log that has a word.
type heard struct {
	word string
	said chan string
}

func (h heard) Write(b []byte) (int, error) {
	if strings.Contains(string(b), h.word) {
		select {
		case h.said <- string(b):
		default: // it was said before
		}
	}
	return len(b), nil
}

// TestTwinIsToldWhyItWaits: of two nodes that would join under one name one waits for
// nothing. It says so, and what to do.
func TestTwinIsToldWhyItWaits(t *testing.T) {
	f := newFabric()
	nodes := cluster(t, f, 1)
	h := heard{"this node cannot join", make(chan string, 1)}
	for range 2 {
		launch(t, f, nodeOptions(t, f, "twin", func(o *Options) {
			o.Join, o.Logger = []string{nodes[0].GossipAddress()}, slog.New(slog.NewTextHandler(h, nil))
		}))
	}
	select {
	case line := <-h.said:
		if !strings.Contains(line, "level=WARN") || !strings.Contains(line, "start it with another --name") {
			t.Errorf("it says %s", line)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("neither says anything")
	}
}

// TestFourthNodeJoins: real memberlist; the node comes by itself, is a member and ready,
// and is written of in the log. Barriers hold what is acknowledged.
func TestFourthNodeJoins(t *testing.T) {
	f := newFabric()
	quickly := func(o *Options) {
		patient(o)
		o.AutoApply, o.Settle, o.stagger = true, 200*time.Millisecond, 500*time.Millisecond
	}
	nodes := clusterOf(t, f, 3, quickly)
	entered, hold := make(chan struct{}, 1), make(chan struct{})
	var once sync.Once
	release := func() { once.Do(func() { close(hold) }) }
	defer release()
	late := launch(t, f, nodeOptions(t, f, "n4", func(o *Options) {
		quickly(o)
		o.Join = []string{nodes[2].GossipAddress()}
		o.Barrier = func() {
			select {
			case entered <- struct{}{}:
			default: // the first one is enough
			}
			<-hold
		}
	}))
	late.awaitReady(t)
	id, _, _ := late.Identity()
	for _, n := range append(nodes, late) {
		n.await(t, "the change", func(s *schema.Snapshot) bool {
			_, member := s.Member(id)
			return s.Change != nil && s.Change.Stage == ring.Proposed && member && len(s.Members) == 4 && allAlive(s)
		})
	}
	at := late.Snapshot().Change.ProposedAt
	select {
	case <-entered:
	case <-time.After(20 * time.Second):
		t.Fatal("no barrier was waited for")
	}
	if m, _ := nodes[0].Snapshot().Member(id); m.AckedVersion != 0 {
		t.Errorf("acknowledged %d while the barrier holds", m.AckedVersion)
	}
	release()
	for _, n := range nodes {
		n.await(t, "its acknowledgement", func(s *schema.Snapshot) bool { return s.Report(id).Acked >= at })
	}
	if err := late.SetSynced(at + 100); err == nil {
		t.Error("a report of what is not in the log yet")
	}
	if err := nodes[0].AbortChange(t.Context(), "not so fast"); err != nil {
		t.Fatal(err)
	}
	for _, n := range append(nodes, late) {
		n.await(t, "the abort", func(s *schema.Snapshot) bool { return s.Change == nil && len(s.Ring.Outsiders()) == 1 })
	}
	if err := nodes[1].AbortChange(t.Context(), "again"); !errors.Is(err, ring.ErrNoChange) {
		t.Errorf("an abort of nothing: %v", err)
	}
	// What was aborted is not begun again by itself; another joiner is.
	other := launch(t, f, nodeOptions(t, f, "n5", func(o *Options) {
		quickly(o)
		o.Join = []string{nodes[0].GossipAddress()}
	}))
	other.awaitReady(t)
	gain := func(n *testNode) {
		n.await(t, "a change", func(s *schema.Snapshot) bool { return s.Change != nil && s.Change.Stage == ring.Proposed })
		if err := n.SetSynced(n.Snapshot().Change.ProposedAt); err != nil {
			t.Error(err)
		}
	}
	gain(other)
	for _, n := range append(nodes, other, late) {
		n.await(t, "the end", func(s *schema.Snapshot) bool {
			_, in := s.Layout.Node(other.self)
			return in && s.Change == nil
		})
	}
	// A member goes: it leaves when it is clean.
	id2 := nodes[2].self
	if _, err := nodes[1].Intend(t.Context(), ring.Intent{Verb: ring.VerbRemove, Node: id2}); !errors.Is(err, ring.ErrNodeAlive) {
		t.Errorf("the removal of a node that is alive: %v", err)
	}
	op, err := nodes[1].Intend(t.Context(), ring.Intent{Verb: ring.VerbLeave, Node: id2})
	if err != nil || op == [16]byte{} {
		t.Fatalf("%x, %v", op, err)
	}
	for _, n := range []*testNode{nodes[0], nodes[1], other} {
		gain(n)
	}
	nodes[2].await(t, "that it has no place", func(s *schema.Snapshot) bool {
		_, in := s.Layout.Node(id2)
		return !in && s.Change == nil
	})
	if err := nodes[2].SetClean(nodes[2].Snapshot().Version); err != nil {
		t.Fatal(err)
	}
	if err := nodes[2].awaitFatal(t); !errors.Is(err, ErrRetired) {
		t.Errorf("it ends with %v", err)
	}
	nodes[2].stop()
	nodes[0].await(t, "its end", func(s *schema.Snapshot) bool { _, there := s.Member(id2); return !there && s.Ring.IsRetired(id2) })
	if _, err := tryLaunch(f, nodes[2].opts); !errors.Is(err, ErrRetired) {
		t.Errorf("a retired node starts: %v", err)
	}
	// A joined node comes back without being told anything, at another address.
	other.stop()
	other = other.again(t, func(o *Options) { o.Join, o.BindPort = nil, 0 })
	other.awaitReady(t)
	other.await(t, "the others", func(s *schema.Snapshot) bool { return len(s.Members) == 4 && allAlive(s) })
}

// TestPlanIsCommittedByHand: without AutoApply a joiner waits until it is told to.
func TestPlanIsCommittedByHand(t *testing.T) {
	f := newFabric()
	nodes := clusterOf(t, f, 1, func(o *Options) { o.Settle = time.Millisecond })
	if p, err := nodes[0].PlanChange(); p != nil || err != nil {
		t.Errorf("nothing to do: %+v, %v", p, err)
	}
	if err := nodes[0].CommitPlan(t.Context()); !errors.Is(err, ring.ErrNoChange) {
		t.Errorf("nothing to do: %v", err)
	}
	late := launch(t, f, nodeOptions(t, f, "late", func(o *Options) { o.Join = []string{nodes[0].GossipAddress()} }))
	nodes[0].awaitJoiners(t, late)
	p, err := nodes[0].PlanChange()
	if err != nil || p == nil || len(p.Layout.Nodes()) != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	if err := nodes[0].CommitPlan(t.Context()); err != nil {
		t.Fatal(err)
	}
	late.awaitReady(t)
	if _, err := late.PlanChange(); !errors.Is(err, ring.ErrChangeOpen) {
		t.Errorf("a plan while a change is open: %v", err)
	}
	if err := late.SetSynced(late.Snapshot().Change.ProposedAt); err != nil {
		t.Fatal(err)
	}
	late.await(t, "the end", func(s *schema.Snapshot) bool { return s.Change == nil && len(s.Layout.Nodes()) == 2 })
}

// TestPlanDoesNotRemoveWhoIsBack: a node was given up for lost and answers again before a
// change has begun. An operator who begins it does not retire a node that is alive.
func TestPlanDoesNotRemoveWhoIsBack(t *testing.T) {
	f := newFabric()
	nodes := clusterOf(t, f, 3, func(o *Options) { o.Settle = time.Hour })
	lost := nodes[2]
	lost.stop()
	nodes[0].await(t, "it is gone", func(s *schema.Snapshot) bool { return !s.Alive(lost.self) })
	if _, err := nodes[0].Intend(t.Context(), ring.Intent{Verb: ring.VerbRemove, Node: lost.self}); err != nil {
		t.Fatal(err)
	}
	back := lost.again(t, nil)
	back.awaitReady(t)
	nodes[0].await(t, "it is back", func(s *schema.Snapshot) bool { return s.Alive(lost.self) })
	if err := nodes[0].CommitPlan(t.Context()); !errors.Is(err, ring.ErrNodeAlive) {
		t.Errorf("a node that is alive is removed: %v", err)
	}
}
