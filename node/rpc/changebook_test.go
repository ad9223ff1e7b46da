package rpc

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
)

func TestAbort(t *testing.T) {
	c := newRing(t, 3)
	c.wait(member(3))
	s, client := c.serve(&fakeAsker{})
	ctx := testContext(t)
	join := layoutNode(3).ID.String()
	joins := func(state string) {
		t.Helper()
		if st, err := client.ChangeStatus(ctx, &pairdbv1.ChangeStatusRequest{Id: join}); err != nil || st.GetState() != state || st.GetVerb() != "join" {
			t.Errorf("want %s: %v, %v", state, st, err)
		}
	}
	joins("waiting")
	c.propose(nil, nil, layoutNode(0), layoutNode(1), layoutNode(2), layoutNode(3))
	c.wait()
	joins("moving")
	if r, err := client.AbortChange(ctx, &pairdbv1.AbortChangeRequest{}); err != nil || r.GetRing().GetChanging() || c.reason != "asked for by an operator" {
		t.Errorf("%v, %v, %q", r, err, c.reason)
	}
	joins("aborted")
	c.wait(member(3))
	joins("waiting") // it tries again
	change := c.propose(nil, nil, layoutNode(0), layoutNode(1), layoutNode(2), layoutNode(3))
	c.step(ring.KindCommit, change)
	_, err := client.AbortChange(ctx, &pairdbv1.AbortChangeRequest{Reason: "changed my mind"})
	refused(t, err, errcode.PreconditionFailed, "too late")
	joins("switching")
	c.step(ring.KindFinalize, change)
	joins("done")
	// Who founded has joined, too, whether or not that is remembered.
	if st, err := s.ChangeStatus(ctx, &pairdbv1.ChangeStatusRequest{Id: layoutNode(1).ID.String()}); err != nil || st.GetState() != "done" || st.GetName() != "node1" {
		t.Errorf("%v, %v", st, err)
	}
}

// TestIntentsThatDoNotMove covers how the other verbs end.
func TestIntentsThatDoNotMove(t *testing.T) {
	c := newRing(t, 4)
	c.wait(member(4))
	_, client := c.serve(&fakeAsker{})
	ctx := testContext(t)
	state := func(m *pairdbv1.NodeChange) string {
		t.Helper()
		st, err := client.ChangeStatus(ctx, &pairdbv1.ChangeStatusRequest{Id: m.GetId()})
		if err != nil {
			t.Fatal(err)
		}
		return st.GetState()
	}
	heavy, err := client.Weigh(ctx, &pairdbv1.WeighRequest{Node: "node1", Capacity: 300})
	if err != nil || heavy.GetCapacity() != 300 {
		t.Fatalf("%v, %v", heavy, err)
	}
	replaced, err := client.Replace(ctx, &pairdbv1.ReplaceRequest{Dead: "node2"})
	if err != nil || replaced.GetByName() != "node4" || replaced.GetByNodeId() != member(4).ID.String() {
		t.Fatalf("%v, %v", replaced, err)
	}
	removed, err := client.Remove(ctx, &pairdbv1.RemoveRequest{Node: "node3", AcceptLoss: true})
	if err != nil {
		t.Fatal(err)
	}
	cancelled, err := client.Decommission(ctx, &pairdbv1.DecommissionRequest{Node: "node1"})
	if err != nil {
		t.Fatal(err)
	}
	intents := c.state.Intents()
	if _, err := client.AbortChange(ctx, &pairdbv1.AbortChangeRequest{Id: cancelled.GetId()}); err != nil || len(c.state.Intents()) != 3 {
		t.Errorf("taken back: %v, %d are left", err, len(c.state.Intents()))
	}
	if got := state(cancelled); got != "aborted" {
		t.Errorf("what was cancelled is %s", got)
	}
	more := layoutNode(1)
	more.Capacity = 300
	gone := []ring.NodeID{layoutNode(2).ID, layoutNode(3).ID}
	change := c.propose(gone, [][16]byte{intents[0].Op, intents[1].Op, intents[2].Op}, layoutNode(0), more, layoutNode(4))
	want := func(word string) {
		t.Helper()
		for _, m := range []*pairdbv1.NodeChange{heavy, replaced, removed} {
			if got := state(m); got != word {
				t.Errorf("%s is %s, want %s", m.GetVerb(), got, word)
			}
		}
	}
	want("moving")
	c.step(ring.KindCommit, change)
	want("switching")
	c.step(ring.KindFinalize, change)
	want("done")
}

func TestPlanAndAccept(t *testing.T) {
	c := newRing(t, 3)
	c.auto = false
	_, client := c.serve(&fakeAsker{silent: map[string]bool{"peer2": true}})
	ctx := testContext(t)
	if p, err := client.PlanChange(ctx, &pairdbv1.PlanChangeRequest{}); err != nil || len(p.GetNodes()) != 0 || p.GetAutoApply() || p.GetRingVersion() != 1 {
		t.Errorf("nothing to do: %v, %v", p, err)
	}
	c.wait(member(3), member(4))
	leave := c.add(&ring.Entry{Kind: ring.KindIntent, Intent: &ring.Intent{Verb: ring.VerbLeave, Node: layoutNode(1).ID, CreatedAtMs: 5}})
	void := c.add(&ring.Entry{Kind: ring.KindIntent, Intent: &ring.Intent{Verb: ring.VerbRemove, Node: layoutNode(2).ID, CreatedAtMs: 6}})
	intents := c.state.Intents()
	to, err := c.state.Layout().Rebalance(9, []ring.LayoutNode{layoutNode(0), layoutNode(2), layoutNode(3)})
	if err != nil {
		t.Fatal(err)
	}
	c.plan = &ring.Plan{
		Layout: to,
		Moves:  []ring.NodeMove{{Node: layoutNode(3), After: 10, Gains: 10}, {Node: layoutNode(1), Before: 16, Gives: 16}},
		Closes: [][16]byte{leave}, Void: []ring.VoidIntent{{Intent: intents[1], Why: ring.ErrNodeAlive}},
		Refused: []ring.RefusedJoiner{{Node: layoutNode(4), Why: ring.ErrJoiner}},
	}
	if void != intents[1].Op {
		t.Fatal("the intents are in another order")
	}
	p, err := client.PlanChange(ctx, &pairdbv1.PlanChangeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	// Node 0 has 4 bytes, node 1 has 1001, in 16 copies each; node 2 is silent.
	if n := p.GetNodes(); len(n) != 2 || n[0].GetName() != "node1" || n[0].GetGives() != 16 || n[0].GetCapacity() != 0 || n[1].GetGains() != 10 ||
		n[1].GetGainsBytes() != 314 || p.GetMovingBytes() != 314 || p.GetMovingCopies() != 10 {
		t.Errorf("nodes %v", p)
	}
	if len(p.GetUnreachable()) != 1 || len(p.GetCarries()) != 2 || p.GetCarries()[0].GetVerb() != "leave" || p.GetCarries()[1].GetVerb() != "join" ||
		p.GetCarries()[1].GetWaitsFor() != "pairdb cluster commit" || len(p.GetCannot()) != 2 || p.GetCannot()[0].GetWaitsFor() != "the node is alive" || p.GetCannot()[1].GetName() != "node4" {
		t.Errorf("carries %v, cannot %v", p.GetCarries(), p.GetCannot())
	}
	if r, err := client.CommitChange(ctx, &pairdbv1.CommitChangeRequest{}); err != nil || c.commits != 1 || r.GetRing().GetVersion() != 3 {
		t.Errorf("%v, %v", r, err)
	}
	s, _ := c.serve(&fakeAsker{})
	if m, err := s.Accept(ctx, "node3"); err != nil || c.commits != 2 || m.GetVerb() != "join" || m.GetId() != member(3).ID.String() {
		t.Errorf("%v, %v", m, err)
	}
	c.auto = true
	if _, err := s.Accept(ctx, "node3"); err != nil || c.commits != 2 {
		t.Errorf("it is accepted by itself: %v", err)
	}
	_, err = s.Accept(ctx, "node1")
	refused(t, err, errcode.NodeInUse, "member already")
	c.propose(nil, nil, layoutNode(0), layoutNode(1), layoutNode(2), layoutNode(3))
	if p, err := client.PlanChange(ctx, &pairdbv1.PlanChangeRequest{}); err != nil || !p.GetChanging() || len(p.GetCarries()) != 3 {
		t.Errorf("while a change is under way: %v, %v", p, err)
	}
	// The joiner is turned away: it is taken in again only when somebody says so.
	c.add(&ring.Entry{Kind: ring.KindAbort, Step: &ring.Step{Change: c.state.Change().ID}})
	for _, again := range []bool{false, true} {
		c.plan = &ring.Plan{Layout: c.state.Layout()}
		if again {
			c.plan.Layout = to
		}
		if p, err := client.PlanChange(ctx, &pairdbv1.PlanChangeRequest{}); err != nil || p.GetAutoApply() == again {
			t.Errorf("one that was turned away, %v: %v, %v", again, p, err)
		}
	}
}

// bookAsker knows changes that this node does not.
type bookAsker struct {
	*fakeAsker
	changes []*pairdbv1.NodeChange
	report  *peerv1.TransferReport
}

func (a *bookAsker) Observe(ctx context.Context, addr string, req *peerv1.ObserveRequest) (*peerv1.ObserveResponse, error) {
	r, err := a.fakeAsker.Observe(ctx, addr, req)
	if err == nil && req.GetChanges() {
		r.Changes = a.changes
	}
	if err == nil && req.GetTransfers() {
		r.Transfers = a.report
	}
	return r, err
}

func TestChangeKnownElsewhere(t *testing.T) {
	c := newRing(t, 3)
	id := strings.Repeat("0b", 16)
	_, client := c.serve(&bookAsker{fakeAsker: &fakeAsker{silent: map[string]bool{"peer2": true}}, changes: []*pairdbv1.NodeChange{{Id: "other"}, {Id: id, Verb: "leave", State: "done"}}})
	st, err := client.ChangeStatus(testContext(t), &pairdbv1.ChangeStatusRequest{Id: id})
	if err != nil || st.GetState() != "done" || len(st.GetUnreachable()) != 1 {
		t.Errorf("%v, %v", st, err)
	}
}

func TestBookForgets(t *testing.T) {
	c := newRing(t, 3)
	b := &changeBook{now: time.Now}
	c.wait(member(3))
	for i := range 3 * maxEnded {
		b.note(nodeChange{id: fmt.Sprint(i), verb: "leave", node: layoutNode(1).ID}, c.meta.Snapshot())
	}
	b.follow(c.meta.Snapshot())
	if n := len(b.list()); n != maxEnded+1 {
		t.Errorf("%d are remembered", n)
	}
	if _, ok := b.find("299"); !ok {
		t.Error("the newest is forgotten")
	}
	if _, ok := b.find("0"); ok {
		t.Error("the oldest is remembered")
	}
	b.follow(clusterOf(nodeB).Snapshot()) // before the founding there is nothing to learn
}

// TestBookIgnoresAnOldRing: who took a snapshot before an intent was noted and shows it
// late does not have the intent called aborted, nor does one whose ring is older than what
// the change has come to since.
func TestBookIgnoresAnOldRing(t *testing.T) {
	c := newRing(t, 4)
	b := &changeBook{now: time.Now}
	state := func(id string) string {
		t.Helper()
		found, ok := b.find(id)
		if !ok {
			t.Fatalf("%s is not known", id)
		}
		return found.state
	}
	before := c.meta.Snapshot()
	op := c.add(&ring.Entry{Kind: ring.KindIntent, Intent: &ring.Intent{Verb: ring.VerbLeave, Node: layoutNode(3).ID, CreatedAtMs: 5}})
	intent := c.state.Intents()[0].Intent
	id := fmt.Sprintf("%x", op)
	if got := b.note(asked(intent, id), c.meta.Snapshot()); got.state != "waiting" {
		t.Errorf("just noted: %s", got.state)
	}
	b.follow(before)
	if got := state(id); got != "waiting" {
		t.Errorf("looked at with the ring as it was before: %s", got)
	}
	noted := c.meta.Snapshot()
	change := c.propose(nil, [][16]byte{op}, layoutNode(0), layoutNode(1), layoutNode(2))
	b.follow(c.meta.Snapshot())
	b.follow(noted)
	if got := state(id); got != "moving" {
		t.Errorf("looked at with the ring as it was when it was noted: %s", got)
	}
	c.step(ring.KindCommit, change)
	c.step(ring.KindFinalize, change)
	// Noted late, when the change that carries it out is over.
	late := &changeBook{now: time.Now}
	late.follow(c.meta.Snapshot())
	if got := late.note(asked(intent, id), c.meta.Snapshot()); got.state != "cleaning" {
		t.Errorf("noted when it is carried out already: %s", got.state)
	}
	// Noted with a ring that others have seen go on: the next look says how far it is.
	late = &changeBook{now: time.Now}
	late.follow(c.meta.Snapshot())
	late.note(asked(intent, id), noted)
	late.follow(c.meta.Snapshot())
	if found, _ := late.find(id); found.state != "cleaning" {
		t.Errorf("noted with an older ring: %s", found.state)
	}
}

// TestJoinerOfAnAbortedChangeWaits: the members give a change up because of another node,
// and what it was to do is done later.
func TestJoinerOfAnAbortedChangeWaits(t *testing.T) {
	c := newRing(t, 3)
	b := &changeBook{now: time.Now}
	change := c.propose(nil, nil, layoutNode(0), layoutNode(1), layoutNode(2), layoutNode(3))
	b.follow(c.meta.Snapshot())
	c.add(&ring.Entry{Kind: ring.KindAbort, Step: &ring.Step{Change: change, Reopens: true}})
	b.follow(c.meta.Snapshot())
	if found, ok := b.find(layoutNode(3).ID.String()); !ok || found.state != "waiting" {
		t.Errorf("%v, %s", ok, found.state)
	}
}
