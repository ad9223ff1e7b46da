package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// ringCluster is a cluster whose log a test writes, seen by node 0, and its RingAdmin.
type ringCluster struct {
	t    *testing.T
	meta *fakeCluster

	mu      sync.Mutex
	state   *ring.State
	joiners []schema.Member
	reports map[ring.NodeID]ring.Report
	plan    *ring.Plan
	auto    bool
	refuse  error
	reason  string // of the last abort
	checked []ring.Intent
	lost    []ring.NodeID // of the last check
	commits int
}

func member(i int) schema.Member {
	id, name, peer := named(i)
	return schema.Member{
		ID: id, Name: name, Zone: "z", Capacity: 100, Liveness: schema.Alive, Incarnation: 2,
		Addresses: schema.Addresses{GRPC: "grpc", Peer: peer, HTTP: "http", Gossip: "gossip" + name},
	}
}

func layoutNode(i int) ring.LayoutNode {
	id, name, _ := named(i)
	return ring.LayoutNode{ID: id, Name: name, Zone: "z", Capacity: 100}
}

// newRing is a cluster that nodes 0 to n-1 have founded, with one tenant of RF 3.
func newRing(t *testing.T, n int) *ringCluster {
	t.Helper()
	c := &ringCluster{t: t, meta: new(fakeCluster), state: new(ring.State), reports: map[ring.NodeID]ring.Report{}, auto: true}
	var nodes []ring.LayoutNode
	for i := range n {
		nodes = append(nodes, layoutNode(i))
	}
	l, err := ring.NewLayout(16, nodes)
	if err != nil {
		t.Fatal(err)
	}
	c.add(&ring.Entry{Kind: ring.KindFound, Found: &ring.Found{ClusterID: testCluster, ClusterName: "c", Founder: nodes[0].ID, Layout: l, TokenKeyID: 1, TokenKey: [32]byte{1}}})
	return c
}

// add appends an entry to the log and shows the snapshot behind it.
func (c *ringCluster) add(e *ring.Entry) [16]byte {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	e.Version = c.state.Version() + 1
	if e.Op == [16]byte{} {
		e.Op = [16]byte{0xee, byte(e.Version)}
	}
	next, err := c.state.Next(e)
	if err != nil {
		c.t.Fatal(err)
	}
	c.state = next
	c.showLocked()
	return e.Op
}

func (c *ringCluster) showLocked() {
	self, _, _ := named(0)
	s := schema.Snapshot{
		ClusterID: testCluster, Self: self, Version: c.state.Version(), Ready: true,
		Layout: c.state.Layout(), Change: c.state.Change(), Ring: c.state, Joiners: c.joiners,
	}
	for _, n := range c.state.Members() {
		m := member(int(n.ID[0]) - 1)
		r := c.reports[n.ID]
		m.AckedVersion, m.SyncedVersion, m.CleanVersion = r.Acked, r.Synced, r.Clean
		s.Members = append(s.Members, m)
	}
	var tenants []*schema.Tenant
	for _, t := range c.state.Tenants() {
		n := c.state.Copies(t)
		tenants = append(tenants, &schema.Tenant{Number: t.Number, Name: t.Name, RF: n.From, NextRF: n.To, Born: int(t.Born), Policy: schema.PolicyLWW})
	}
	c.meta.snap.Store(schema.Build(s, tenants))
}

// wait has these nodes wait to join.
func (c *ringCluster) wait(joiners ...schema.Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.joiners = joiners
	c.showLocked()
}

// report has a node say how far it is.
func (c *ringCluster) report(i int, r ring.Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, _, _ := named(i)
	c.reports[id] = r
	c.showLocked()
}

// propose opens a change to a layout of those nodes.
func (c *ringCluster) propose(removed []ring.NodeID, closes [][16]byte, nodes ...ring.LayoutNode) [16]byte {
	c.t.Helper()
	l, err := c.state.Layout().Rebalance(c.state.Version()+1, nodes)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.add(&ring.Entry{Kind: ring.KindPropose, Propose: &ring.Propose{Parent: c.state.Layout().Version(), Layout: l, Removed: removed, Closes: closes}})
}

func (c *ringCluster) step(k ring.Kind, change [16]byte) {
	c.t.Helper()
	c.add(&ring.Entry{Kind: k, Step: &ring.Step{Change: change}})
}

func (c *ringCluster) PlanChange() (*ring.Plan, error) { return c.plan, c.refuse }

func (c *ringCluster) CommitPlan(context.Context) error {
	c.commits++
	return c.refuse
}

func (c *ringCluster) AbortChange(_ context.Context, reason string) error {
	c.reason = reason
	if c.refuse == nil {
		c.add(&ring.Entry{Kind: ring.KindAbort, Step: &ring.Step{Change: c.state.Change().ID, Reason: reason}})
	}
	return c.refuse
}

func (c *ringCluster) Check(i ring.Intent) error {
	c.checked = append(c.checked, i)
	return c.refuse
}

func (c *ringCluster) Intend(_ context.Context, i ring.Intent) ([16]byte, error) {
	return c.add(&ring.Entry{Kind: ring.KindIntent, Intent: &i}), nil
}

func (c *ringCluster) CheckGiveUp(lost []ring.NodeID) error {
	c.lost = lost
	return c.refuse
}

func (c *ringCluster) GiveUp(_ context.Context, lost []ring.NodeID) ([16]byte, error) {
	return c.add(&ring.Entry{Kind: ring.KindIntent, Intent: &ring.Intent{Verb: ring.VerbGiveUp, Node: lost[0]}}), nil
}

func (c *ringCluster) CheckRecover(_ context.Context, lost []ring.NodeID) error {
	c.lost = lost
	if _, err := c.state.Recovery(lost); err != nil {
		return err
	}
	return c.refuse
}

func (c *ringCluster) Recover(_ context.Context, lost []ring.NodeID) error {
	r, err := c.state.Recovery(lost)
	if err == nil {
		c.add(&ring.Entry{Kind: ring.KindRecover, Recover: r})
	}
	return err
}

func (c *ringCluster) AutoApply() bool { return c.auto }

// serve is a server of node 0 with that ring.
func (c *ringCluster) serve(asker Asker, transfers ...Transfer) (*Server, pairdbv1.ClusterClient) {
	c.t.Helper()
	opts := serverOptions(c.t, c.meta.Snapshot().Self, c.meta, echo)
	opts.Ring, opts.Asker = c, asker
	opts.Transfers = func() []Transfer { return transfers }
	s, conn := clientOf(c.t, opts)
	return s, pairdbv1.NewClusterClient(conn)
}

// refused checks that err has a code and that its message has all words.
func refused(t *testing.T, err error, code errcode.Code, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("it was taken, want %s", code)
		return
	}
	for _, w := range append(words, string(code)) {
		if !strings.Contains(detailsOf(t, err), w) {
			t.Errorf("%v does not say %q", err, w)
		}
	}
}

// detailsOf is an error with its code, of a call or not.
func detailsOf(t *testing.T, err error) string {
	t.Helper()
	var typed *coord.Error
	if errors.As(err, &typed) {
		return string(typed.Code) + " " + typed.Message
	}
	info, _ := details(t, err)
	return info.GetReason() + " " + err.Error()
}

func TestResolveNode(t *testing.T) {
	all := []target{{ring.NodeID{0xab, 1}, "rack1-a"}, {ring.NodeID{0xab, 2}, "rack1-b"}, {ring.NodeID{0xcd}, "rack"}, {ring.NodeID{0xef}, "ab"}}
	for text, want := range map[string]string{
		"rack": "rack", "rack1-a": "rack1-a", "rack1-b": "rack1-b", "cd": "rack", all[1].id.String(): "rack1-b", "ab02": "rack1-b", "ab": "ab",
	} {
		if got, err := resolve(all, "node", text); err != nil || got.name != want {
			t.Errorf("%q is %v, %v; want %s", text, got, err, want)
		}
	}
	for text, words := range map[string][]string{
		"":       {"node is missing"},
		"rack1":  {"ambiguous", "rack1-a", "rack1-b"},
		"ab0":    {"ambiguous", "rack1-a"},
		"nobody": {`no node "nobody"`, "rack1-a", "rack (cd"},
		"RACK":   {"no node"},
	} {
		_, err := resolve(all, "node", text)
		refused(t, err, errcode.InvalidArgument, words...)
	}
	var many []target
	for i := range 30 {
		many = append(many, target{ring.NodeID{byte(i)}, fmt.Sprint("n", i)})
	}
	_, err := resolve(many, "node", "x")
	refused(t, err, errcode.InvalidArgument, "and 10 more")
	_, err = resolve(nil, "node", "x")
	refused(t, err, errcode.InvalidArgument, "there is none")
}

// TestDecommissionIsFollowed asks one node to have another leave, and for each step what
// has become of it.
func TestDecommissionIsFollowed(t *testing.T) {
	c := newRing(t, 4)
	_, client := c.serve(&bookAsker{fakeAsker: &fakeAsker{}, report: new(peerv1.TransferReport)}, Transfer{ID: "g1", Kind: TransferGain, KeysDone: 5, BytesDone: 50, BytesTotal: 200, State: TransferRunning})
	ctx := testContext(t)
	checked, err := client.Decommission(ctx, &pairdbv1.DecommissionRequest{Node: "node3", CheckOnly: true})
	if err != nil || checked.GetId() != "" || checked.GetName() != "node3" || checked.GetVerb() != "leave" || len(c.state.Intents()) != 0 {
		t.Errorf("only checked: %v, %v", checked, err)
	}
	asked, err := client.Decommission(ctx, &pairdbv1.DecommissionRequest{Node: "node3"})
	if err != nil || asked.GetState() != "waiting" || len(asked.GetId()) != 32 || asked.GetAskedAt() == nil {
		t.Fatalf("%v, %v", asked, err)
	}
	if i := c.state.Intents()[0]; i.Verb != ring.VerbLeave || i.Node != layoutNode(3).ID || i.CreatedAtMs == 0 {
		t.Errorf("intent %+v", i)
	}
	look := func(state string, spansDone uint64, percent float64) *pairdbv1.NodeChange {
		t.Helper()
		st, err := client.ChangeStatus(ctx, &pairdbv1.ChangeStatusRequest{Id: asked.GetId()})
		if err != nil {
			t.Fatal(err)
		}
		if st.GetState() != state || st.GetSpansDone() != spansDone || st.GetPercent() != percent || st.GetName() != "node3" {
			t.Errorf("want %s: %v", state, st)
		}
		return st
	}
	node := func(name string) string {
		t.Helper()
		st, err := client.Status(ctx, &pairdbv1.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range st.GetNodes() {
			if n.GetName() == name {
				return n.GetState()
			}
		}
		return "none"
	}
	look("waiting", 0, 0)
	if got := node("node3"); got != "leaving" {
		t.Errorf("node3 is %s", got)
	}
	change := c.propose(nil, [][16]byte{c.state.Intents()[0].Op}, layoutNode(0), layoutNode(1), layoutNode(2))
	at := c.state.Change().ProposedAt
	st := look("moving", 0, 0)
	if st.GetSpans() == 0 || !strings.Contains(st.GetWaitsFor(), "node0, node1, node2") || st.GetBytesDone() != 50 || st.GetBegunAt() == nil {
		t.Errorf("moving: %v", st)
	}
	all := st.GetSpans()
	for i := range 3 {
		c.report(i, ring.Report{Acked: at})
	}
	// Those that answer and have nothing left but what node 0 tells have done the rest.
	st = look("moving", all-1, 100*float64(all-1)/float64(all))
	if st.GetEstimatedEnd() == nil {
		t.Errorf("no end is estimated: %v", st)
	}
	for i := range 3 {
		c.report(i, ring.Report{Acked: at, Synced: at})
	}
	look("moving", all, 100)
	c.step(ring.KindCommit, change)
	if st := look("switching", all, 100); !strings.Contains(st.GetWaitsFor(), "old owners") {
		t.Errorf("switching: %v", st)
	}
	c.step(ring.KindFinalize, change)
	if st := look("cleaning", 0, 100); !strings.Contains(st.GetWaitsFor(), "node3") {
		t.Errorf("cleaning: %v", st)
	}
	if got := node("node3"); got != "draining" {
		t.Errorf("node3 is %s", got)
	}
	c.add(&ring.Entry{Kind: ring.KindRetire, Retire: &ring.Retire{Node: layoutNode(3).ID}})
	if st := look("done", 0, 100); st.GetEndedAt() == nil || st.GetWaitsFor() != "" {
		t.Errorf("done: %v", st)
	}
	if got := node("node3"); got != "none" {
		t.Errorf("node3 is %s", got)
	}
}

// TestStatusDuringChange says what is under way, and a verdict for old and new owners.
func TestStatusDuringChange(t *testing.T) {
	c := newRing(t, 3)
	c.wait(member(3), member(4))
	silent := &fakeAsker{silent: map[string]bool{}}
	_, client := c.serve(silent)
	ctx := testContext(t)
	status := func() *pairdbv1.StatusResponse {
		t.Helper()
		st, err := client.Status(ctx, &pairdbv1.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	states := func(st *pairdbv1.StatusResponse) (all []string) {
		for _, n := range st.GetNodes() {
			all = append(all, n.GetState())
		}
		return all
	}
	st := status()
	if !slices.Equal(states(st), []string{"up", "up", "up", "waiting", "waiting"}) || st.GetRing().GetOpenIntents() != 2 || st.GetRing().GetStage() != "stable" {
		t.Errorf("two wait: %v", st)
	}
	change := c.propose(nil, nil, layoutNode(0), layoutNode(1), layoutNode(2), layoutNode(3), layoutNode(4))
	st = status()
	r := st.GetRing()
	if !slices.Equal(states(st), []string{"up", "up", "up", "joining", "joining"}) || r.GetOpenIntents() != 0 || r.GetStage() != "proposed" || !r.GetChanging() ||
		r.GetFinalizedVersion() != 1 || !slices.Equal(r.GetWaitingFor(), []string{"node0", "node1", "node2", "node3", "node4"}) {
		// All five: the first three would vote, and have not said that they know.
		t.Errorf("two join: %v", st)
	}
	if st.GetVerdict() != "healthy" || st.GetReason() != "All 5 nodes are up. A change of the ring is under way." {
		t.Errorf("%s: %s", st.GetVerdict(), st.GetReason())
	}
	silent.mu.Lock()
	silent.silent["peer3"] = true
	silent.mu.Unlock()
	if st := status(); st.GetVerdict() != "degraded" || !strings.Contains(st.GetReason(), "node3") {
		t.Errorf("%s: %s", st.GetVerdict(), st.GetReason())
	}
	silent.mu.Lock()
	silent.silent["peer4"] = true
	silent.mu.Unlock()
	if st := status(); st.GetVerdict() != "unhealthy" {
		t.Errorf("new owners have no quorum: %s: %s", st.GetVerdict(), st.GetReason())
	}
	c.step(ring.KindCommit, change)
	if r := status().GetRing(); r.GetStage() != "committed" || r.GetFinalizedVersion() != 1 {
		t.Errorf("%v", r)
	}
}

// TestRoutesFollowChange: those that are read are routes, and the others are shown.
func TestRoutesFollowChange(t *testing.T) {
	c := newRing(t, 3)
	_, client := c.serve(&fakeAsker{})
	ctx := testContext(t)
	routes := func() *pairdbv1.RoutesResponse {
		t.Helper()
		r, err := client.Routes(ctx, &pairdbv1.RoutesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.GetOwners()) != 16*int(r.GetReplicas()) {
			t.Errorf("%d owners of %d", len(r.GetOwners()), r.GetReplicas())
		}
		return r
	}
	used := func(r *pairdbv1.RoutesResponse) map[string]bool {
		seen := map[string]bool{}
		for _, i := range r.GetOwners() {
			seen[r.GetNodes()[i].GetNodeId()] = true
		}
		return seen
	}
	place := func() (owners, next int) {
		t.Helper()
		for i := range 64 {
			r, err := client.Ring(ctx, &pairdbv1.RingRequest{Key: fmt.Append(nil, "k", i)})
			if err != nil {
				t.Fatal(err)
			}
			owners += len(r.GetOwners())
			if len(r.GetNextOwners()) > 0 {
				next++
			}
		}
		return owners, next
	}
	stable := routes()
	if owners, next := place(); owners != 3*64 || next != 0 {
		t.Errorf("stable: %d owners, %d with new ones", owners, next)
	}
	newcomer := layoutNode(3).ID.String()
	change := c.propose(nil, nil, layoutNode(0), layoutNode(1), layoutNode(2), layoutNode(3))
	proposed := routes()
	if len(proposed.GetNodes()) != 4 || used(proposed)[newcomer] || proposed.GetEtag() == stable.GetEtag() {
		t.Errorf("proposed: %v", proposed)
	}
	if owners, next := place(); owners != 3*64 || next == 0 {
		t.Errorf("proposed: %d owners, %d with new ones", owners, next)
	}
	c.step(ring.KindCommit, change)
	committed := routes()
	if !used(committed)[newcomer] || committed.GetEtag() == proposed.GetEtag() {
		t.Errorf("committed: %v", committed)
	}
	c.step(ring.KindFinalize, change)
	if final := routes(); len(final.GetNodes()) != 4 || !used(final)[newcomer] {
		t.Errorf("finalised: %v", final)
	}
}

// call makes one call of the service.
type ringCall func(context.Context, pairdbv1.ClusterClient) error

func TestRingRefusals(t *testing.T) {
	decommission := func(node string) ringCall {
		return func(ctx context.Context, c pairdbv1.ClusterClient) error {
			_, err := c.Decommission(ctx, &pairdbv1.DecommissionRequest{Node: node})
			return err
		}
	}
	replace := func(req *pairdbv1.ReplaceRequest) ringCall {
		return func(ctx context.Context, c pairdbv1.ClusterClient) error {
			_, err := c.Replace(ctx, req)
			return err
		}
	}
	remove := func(node string, accept bool) ringCall {
		return func(ctx context.Context, c pairdbv1.ClusterClient) error {
			_, err := c.Remove(ctx, &pairdbv1.RemoveRequest{Node: node, AcceptLoss: accept})
			return err
		}
	}
	weigh := func(node string, n uint32) ringCall {
		return func(ctx context.Context, c pairdbv1.ClusterClient) error {
			_, err := c.Weigh(ctx, &pairdbv1.WeighRequest{Node: node, Capacity: n})
			return err
		}
	}
	abort := func(reason string) ringCall {
		return func(ctx context.Context, c pairdbv1.ClusterClient) error {
			_, err := c.AbortChange(ctx, &pairdbv1.AbortChangeRequest{Reason: reason})
			return err
		}
	}
	status := func(id string) ringCall {
		return func(ctx context.Context, c pairdbv1.ClusterClient) error {
			_, err := c.ChangeStatus(ctx, &pairdbv1.ChangeStatusRequest{Id: id})
			return err
		}
	}
	two := []schema.Member{member(3), member(4)}
	for name, x := range map[string]struct {
		call    ringCall
		joiners []schema.Member
		refuse  error
		code    errcode.Code
		words   []string
	}{
		"unknown node":        {call: decommission("nobody"), code: errcode.InvalidArgument, words: []string{"node1"}},
		"ambiguous node":      {call: decommission("node"), code: errcode.InvalidArgument, words: []string{"ambiguous"}},
		"no node":             {call: decommission(""), code: errcode.InvalidArgument, words: []string{"missing"}},
		"guarded":             {call: decommission("node1"), refuse: &coord.Error{Code: errcode.NodeInUse, Message: "too few"}, code: errcode.NodeInUse, words: []string{"too few"}},
		"nobody to replace":   {call: replace(&pairdbv1.ReplaceRequest{Dead: "node1"}), code: errcode.PreconditionFailed, words: []string{"--join"}},
		"several to replace":  {call: replace(&pairdbv1.ReplaceRequest{Dead: "node1"}), joiners: two, code: errcode.InvalidArgument, words: []string{"node3", "node4"}},
		"unknown replacement": {call: replace(&pairdbv1.ReplaceRequest{Dead: "node1", By: "node2"}), joiners: two, code: errcode.InvalidArgument, words: []string{"by"}},
		"unknown dead":        {call: replace(&pairdbv1.ReplaceRequest{Dead: "x"}), joiners: two, code: errcode.InvalidArgument, words: []string{"dead"}},
		"loss not accepted":   {call: remove("node1", false), code: errcode.InvalidArgument, words: []string{"accept_loss"}},
		"unknown to remove":   {call: remove("x", true), code: errcode.InvalidArgument},
		"no capacity":         {call: weigh("node1", 0), code: errcode.InvalidArgument, words: []string{"1 to 10000"}},
		"too much capacity":   {call: weigh("node1", ring.MaxCapacity+1), code: errcode.InvalidArgument},
		"unknown to weigh":    {call: weigh("x", 5), code: errcode.InvalidArgument},
		"nothing to abort":    {call: abort(""), code: errcode.PreconditionFailed, words: []string{"no change"}},
		"nothing to take back": {call: func(ctx context.Context, c pairdbv1.ClusterClient) error {
			_, err := c.AbortChange(ctx, &pairdbv1.AbortChangeRequest{Id: strings.Repeat("0a", 16)})
			return err
		}, code: errcode.PreconditionFailed, words: []string{"cluster plan"}},
		"the last copies": {call: decommission("node1"), refuse: fmt.Errorf("%w: 2", ring.ErrLastCopies), code: errcode.NodeInUse},
		"sources lost":    {call: remove("node1", true), refuse: fmt.Errorf("%w: start node2", ring.ErrSourcesLost), code: errcode.PreconditionFailed, words: []string{"start node2"}},
		"alive":           {call: remove("node1", true), refuse: ring.ErrNodeAlive, code: errcode.NodeInUse},
		"no such member":  {call: remove("node1", true), refuse: ring.ErrUnknownNode, code: errcode.InvalidArgument},
		"the same weight": {call: weigh("node1", 100), refuse: ring.ErrNoChange, code: errcode.PreconditionFailed},
		"too many":        {call: weigh("node1", 10), refuse: ring.ErrTooManyIntents, code: errcode.ResourceExhausted},
		"long reason":     {call: abort(strings.Repeat("x", 201)), code: errcode.InvalidArgument},
		"no id":           {call: status("x"), code: errcode.InvalidArgument},
		"unknown id":      {call: status(strings.Repeat("0a", 16)), code: errcode.MigrationNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			c := newRing(t, 3)
			c.refuse = x.refuse
			c.wait(x.joiners...)
			_, client := c.serve(&fakeAsker{})
			refused(t, x.call(testContext(t), client), x.code, x.words...)
			if len(c.state.Intents()) != 0 {
				t.Errorf("it is asked for all the same: %v", c.state.Intents())
			}
		})
	}
	t.Run("without a ring", func(t *testing.T) {
		f := foundedCluster(t, 3)
		_, conn := clientOf(t, serverOptions(t, f.Snapshot().Self, f, echo))
		_, err := pairdbv1.NewClusterClient(conn).PlanChange(testContext(t), &pairdbv1.PlanChangeRequest{})
		refused(t, err, errcode.Unavailable)
	})
}

// TestReplacementThatIsNotThere: a node that was turned away can be named though it is
// down. It is not in use: it has to be started. It cannot take its own place.
func TestReplacementThatIsNotThere(t *testing.T) {
	c := newRing(t, 3)
	c.propose(nil, nil, layoutNode(0), layoutNode(1), layoutNode(2), layoutNode(3))
	c.add(&ring.Entry{Kind: ring.KindAbort, Step: &ring.Step{Change: c.state.Change().ID}})
	none := func(ring.NodeID) bool { return false }
	c.refuse = c.state.CheckIntent(&ring.Intent{Verb: ring.VerbReplace, Node: layoutNode(1).ID, By: layoutNode(3).ID}, none, none)
	_, client := c.serve(&fakeAsker{})
	ctx := testContext(t)
	_, err := client.Replace(ctx, &pairdbv1.ReplaceRequest{Dead: "node1", By: "node3"})
	refused(t, err, errcode.PreconditionFailed, "start it first")
	c.refuse = nil
	_, err = client.Replace(ctx, &pairdbv1.ReplaceRequest{Dead: "node3", By: "node3"})
	refused(t, err, errcode.InvalidArgument, "own place")
	if len(c.state.Intents()) != 0 {
		t.Errorf("it is asked for all the same: %v", c.state.Intents())
	}
}
