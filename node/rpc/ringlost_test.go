package rpc

import (
	"fmt"
	"slices"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
)

// single gives the cluster a tenant with one copy.
func (c *ringCluster) single() {
	c.add(&ring.Entry{Kind: ring.KindTenantCreate, Tenant: &ring.TenantCreate{Name: "single", RF: 1, Policy: 1}})
}

// TestLostNodesAreGivenUp: whose data others have is removed, whose data nobody else has
// is given up, and the answer has what goes with it.
func TestLostNodesAreGivenUp(t *testing.T) {
	c := newRing(t, 3)
	_, client := c.serve(&fakeAsker{})
	ctx := testContext(t)
	if m, err := client.Remove(ctx, &pairdbv1.RemoveRequest{Node: "node2", AcceptLoss: true}); err != nil || len(m.GetGivenUp()) != 0 || c.state.Intents()[0].Verb != ring.VerbRemove {
		t.Errorf("with three copies: %v, %v", m, err)
	}
	c = newRing(t, 3)
	c.single()
	_, client = c.serve(&fakeAsker{})
	checked, err := client.Remove(ctx, &pairdbv1.RemoveRequest{Node: "node2", AlsoLost: []string{"node1", "node2"}, AcceptLoss: true, CheckOnly: true})
	if err != nil || len(checked.GetGivenUp()) != 2 || len(checked.GetGivenUp()[1].GetPartitions()) != 16 || len(c.state.Intents()) != 0 || len(c.lost) != 2 {
		t.Errorf("two are checked: %v, %v", checked, err)
	}
	m, err := client.Remove(ctx, &pairdbv1.RemoveRequest{Node: "node2", AcceptLoss: true})
	if err != nil || m.GetVerb() != "remove" || len(m.GetGivenUp()) != 1 {
		t.Fatalf("%v, %v", m, err)
	}
	g := m.GetGivenUp()[0]
	if g.GetReplicationFactor() != 1 || !slices.Equal(g.GetTenantIds(), []string{"single"}) || len(g.GetPartitions()) == 0 || !slices.Equal(g.GetPartitions(), g.GetEmptyPartitions()) {
		t.Errorf("given up: %v", g)
	}
	if !c.state.IsRetired(layoutNode(2).ID) {
		t.Error("it is not retired")
	}
	state := func(want string) {
		t.Helper()
		if st, err := client.ChangeStatus(ctx, &pairdbv1.ChangeStatusRequest{Id: m.GetId()}); err != nil || st.GetState() != want {
			t.Errorf("%v, %v, want %s", st, err, want)
		}
	}
	state("waiting")
	st, err := client.Status(ctx, &pairdbv1.StatusRequest{})
	if err != nil || !slices.ContainsFunc(st.GetNodes(), func(n *pairdbv1.NodeStatus) bool { return n.GetName() == "node2" && n.GetState() == "lost" }) {
		t.Errorf("status: %v, %v", st.GetNodes(), err)
	}
	change := c.propose([]ring.NodeID{layoutNode(2).ID}, [][16]byte{c.state.Intents()[0].Op}, layoutNode(0), layoutNode(1))
	state("moving")
	c.step(ring.KindCommit, change)
	c.step(ring.KindFinalize, change)
	state("done")
}

// TestLostNodeIsReplacedWithLoss: only if that is accepted.
func TestLostNodeIsReplacedWithLoss(t *testing.T) {
	c := newRing(t, 3)
	c.single()
	c.wait(member(3))
	_, client := c.serve(&fakeAsker{})
	ctx := testContext(t)
	m, err := client.Replace(ctx, &pairdbv1.ReplaceRequest{Dead: "node2", AcceptLoss: true, CheckOnly: true})
	if err != nil || len(m.GetGivenUp()) != 1 || len(c.state.Intents()) != 0 {
		t.Errorf("checked: %v, %v", m, err)
	}
	m, err = client.Replace(ctx, &pairdbv1.ReplaceRequest{Dead: "node2", AcceptLoss: true})
	verbs := []ring.Verb{}
	for _, i := range c.state.Intents() {
		verbs = append(verbs, i.Verb)
	}
	if err != nil || m.GetVerb() != "replace" || m.GetByName() != "node3" || len(m.GetGivenUp()) != 1 || !slices.Equal(verbs, []ring.Verb{ring.VerbGiveUp, ring.VerbReplace}) {
		t.Errorf("%v, %v, %v", m, err, verbs)
	}
}

func TestRecover(t *testing.T) {
	c := newRing(t, 3)
	c.single()
	_, client := c.serve(&fakeAsker{})
	ctx := testContext(t)
	for name, x := range map[string]struct {
		req   *pairdbv1.RecoverRequest
		code  errcode.Code
		words string
	}{
		"loss not accepted": {&pairdbv1.RecoverRequest{Lost: []string{"node1", "node2"}}, errcode.InvalidArgument, "accept_loss"},
		"nobody":            {&pairdbv1.RecoverRequest{AcceptLoss: true}, errcode.InvalidArgument, "lost is missing"},
		"unknown":           {&pairdbv1.RecoverRequest{Lost: []string{"x"}, AcceptLoss: true}, errcode.InvalidArgument, "no node"},
		"a majority":        {&pairdbv1.RecoverRequest{Lost: []string{"node1"}, AcceptLoss: true}, errcode.PreconditionFailed, "majority"},
		"all":               {&pairdbv1.RecoverRequest{Lost: []string{"node0", "node1", "node2"}, AcceptLoss: true}, errcode.PreconditionFailed, "no node is left"},
	} {
		_, err := client.Recover(ctx, x.req)
		t.Run(name, func(t *testing.T) { refused(t, err, x.code, x.words) })
	}
	c.refuse = fmt.Errorf("%w: node1", ring.ErrNodeAlive)
	_, err := client.Recover(ctx, &pairdbv1.RecoverRequest{Lost: []string{"node1", "node2"}, AcceptLoss: true})
	refused(t, err, errcode.NodeInUse, "node1")
	c.refuse = nil
	for _, check := range []bool{true, false} {
		if len(c.state.Retired()) != 0 {
			t.Fatal("a check has done it")
		}
		r, err := client.Recover(ctx, &pairdbv1.RecoverRequest{Lost: []string{"node2", "node1"}, AcceptLoss: true, CheckOnly: check})
		if err != nil || len(r.GetLost()) != 2 || r.GetLost()[0].GetName() != "node1" || len(r.GetVoters()) != 1 || r.GetVoters()[0].GetName() != "node0" ||
			len(r.GetLeft()) != 1 || len(r.GetGivenUp()) != 2 || r.GetRing() == nil {
			t.Errorf("check %t: %v, %v", check, r, err)
		}
	}
	if len(c.state.Retired()) != 2 {
		t.Errorf("retired: %v", c.state.Retired())
	}
}
