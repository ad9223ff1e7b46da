package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// stopAsker answers for all nodes: that they are well, but for what a test changes.
type stopAsker struct {
	fakeAsker
	infos  map[int]func(*NodeInfo)
	hints  map[int][]*peerv1.HintBacklog
	silent map[int]bool // about hints
}

func well() NodeInfo { return NodeInfo{Ready: true, Unverified: new(uint32)} }

func (a *stopAsker) Info(ctx context.Context, addr string) (NodeInfo, error) {
	i, err := a.fakeAsker.Info(ctx, addr)
	if err != nil {
		return i, err
	}
	n := well()
	n.Node = i.Node
	if change := a.infos[int(n.Node[0])-1]; change != nil {
		change(&n)
	}
	return n, nil
}

func (a *stopAsker) Observe(ctx context.Context, addr string, req *peerv1.ObserveRequest) (*peerv1.ObserveResponse, error) {
	i, err := a.fakeAsker.Info(ctx, addr)
	at := int(i.Node[0]) - 1
	if err != nil || a.silent[at] {
		return nil, errors.New("no route to it")
	}
	if !req.GetHints() {
		return nil, errors.New("something else was asked for")
	}
	return &peerv1.ObserveResponse{NodeId: i.Node[:], Hints: a.hints[at]}, nil
}

// Drain answers with what it was asked.
func (a *fakeAsker) Drain(ctx context.Context, addr string, begin, undo bool) (*peerv1.DrainResponse, error) {
	i, err := a.Info(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &peerv1.DrainResponse{NodeId: i.Node[:], Drain: &pairdbv1.NodeDrain{State: "draining", Detail: fmt.Sprint(begin, undo)}}, nil
}

// serveStop is a server of node 0 that knows what those say.
func (c *ringCluster) serveStop(a *stopAsker) (*Server, pairdbv1.ClusterClient) {
	c.t.Helper()
	opts := serverOptions(c.t, c.meta.Snapshot().Self, c.meta, echo)
	opts.Ring, opts.Asker = c, a
	opts.Local = func() NodeInfo {
		n := well()
		if change := a.infos[0]; change != nil {
			change(&n)
		}
		return n
	}
	opts.Observer = hintObserver{a}
	s, conn := clientOf(c.t, opts)
	s.SetReady(func() bool { return true })
	return s, pairdbv1.NewClusterClient(conn)
}

type hintObserver struct{ a *stopAsker }

func (o hintObserver) Observe(*peerv1.ObserveRequest) *peerv1.ObserveResponse {
	return &peerv1.ObserveResponse{Hints: o.a.hints[0]}
}

func backlog(to int, n uint64) *peerv1.HintBacklog {
	id, _, _ := named(to)
	return &peerv1.HintBacklog{Target: id[:], Count: n, Bytes: 1}
}

func TestSafeToStop(t *testing.T) {
	some := uint32(3)
	for name, x := range map[string]struct {
		nodes  int
		target string // node1 if empty
		asker  *stopAsker
		down   []int // gossip says so
		drains []int // gossip says so
		set    func(*ringCluster)
		want   []string // kinds with the names
	}{
		"all is well":                 {nodes: 3},
		"this node":                   {nodes: 3, target: "node0"},
		"of many":                     {nodes: 5},
		"alone":                       {nodes: 1, target: "node0", want: []string{"quorum node0"}},
		"of two":                      {nodes: 2, want: []string{"quorum node1"}},
		"another is down":             {nodes: 3, down: []int{2}, want: []string{"quorum node1", "down node2"}},
		"one of five is down":         {nodes: 5, down: []int{2}, want: []string{"quorum node1", "down node2"}},
		"another is silent":           {nodes: 3, asker: &stopAsker{fakeAsker: fakeAsker{silent: map[string]bool{"peer2": true}}}, want: []string{"quorum node1", "down node2"}},
		"the target is down":          {nodes: 3, down: []int{1}},
		"the target is silent":        {nodes: 3, asker: &stopAsker{fakeAsker: fakeAsker{silent: map[string]bool{"peer1": true}}}},
		"another is not ready":        {nodes: 3, asker: &stopAsker{infos: map[int]func(*NodeInfo){2: func(n *NodeInfo) { n.Ready = false }}}, want: []string{"down node2"}},
		"another drains":              {nodes: 3, asker: &stopAsker{infos: map[int]func(*NodeInfo){2: func(n *NodeInfo) { n.Ready, n.Draining = false, true }}}, want: []string{"draining node2"}},
		"another drains, gossip says": {nodes: 3, drains: []int{0}, want: []string{"draining node0"}},
		"the target drains":           {nodes: 3, drains: []int{1}, asker: &stopAsker{infos: map[int]func(*NodeInfo){1: func(n *NodeInfo) { n.Ready, n.Draining = false, true }}}},
		"another fetches damage":      {nodes: 3, asker: &stopAsker{infos: map[int]func(*NodeInfo){2: func(n *NodeInfo) { n.Quarantined = 1 }}}, want: []string{"quarantined node2"}},
		"the target fetches damage":   {nodes: 3, asker: &stopAsker{infos: map[int]func(*NodeInfo){1: func(n *NodeInfo) { n.Quarantined = 1 }}}},
		"another is not compared":     {nodes: 3, asker: &stopAsker{infos: map[int]func(*NodeInfo){2: func(n *NodeInfo) { n.Unverified = &some }}}, want: []string{"unverified node2"}},
		"the target is not compared":  {nodes: 3, asker: &stopAsker{infos: map[int]func(*NodeInfo){1: func(n *NodeInfo) { n.Unverified = &some }}}, want: []string{"unverified node1"}},
		"two are not":                 {nodes: 3, asker: &stopAsker{infos: map[int]func(*NodeInfo){0: func(n *NodeInfo) { n.Unverified = &some }, 1: func(n *NodeInfo) { n.Unverified = &some }}}, want: []string{"unverified node0 node1"}},
		"one does not say":            {nodes: 3, asker: &stopAsker{infos: map[int]func(*NodeInfo){2: func(n *NodeInfo) { n.Unverified = nil }}}, want: []string{"unverified node2"}},
		"hints for the target":        {nodes: 3, asker: &stopAsker{hints: map[int][]*peerv1.HintBacklog{2: {backlog(1, 5)}}}, want: []string{"hints node2"}},
		"hints of the target":         {nodes: 3, asker: &stopAsker{hints: map[int][]*peerv1.HintBacklog{1: {backlog(2, 5), backlog(0, 1)}}}, want: []string{"hints node1", "hints node1"}},
		"hints for others":            {nodes: 3, asker: &stopAsker{hints: map[int][]*peerv1.HintBacklog{0: {backlog(2, 5)}}}, want: []string{"hints node0"}},
		"hints for one that is gone":  {nodes: 3, asker: &stopAsker{hints: map[int][]*peerv1.HintBacklog{0: {backlog(9, 5)}}}},
		"no hints after all":          {nodes: 3, asker: &stopAsker{hints: map[int][]*peerv1.HintBacklog{0: {backlog(2, 0)}}}},
		"one does not tell of hints":  {nodes: 3, asker: &stopAsker{silent: map[int]bool{2: true}}, want: []string{"hints node2"}},
		"the ring changes":            {nodes: 3, set: func(c *ringCluster) { c.propose(nil, nil, layoutNode(0), layoutNode(1), layoutNode(2), layoutNode(3)) }, want: []string{"change "}},
		"the ring changes, for a joiner": {nodes: 3, target: "node3", set: func(c *ringCluster) {
			c.propose(nil, nil, layoutNode(0), layoutNode(1), layoutNode(2), layoutNode(3))
		}, want: []string{"change "}},
		"a leaver that hands over": {nodes: 4, target: "node3", set: func(c *ringCluster) { leave(c) }, want: []string{"change node3"}},
		"a leaver that has": {nodes: 4, target: "node3", set: func(c *ringCluster) {
			c.report(3, ring.Report{Acked: leave(c), Synced: leaveEnd(c), Clean: leaveEnd(c)})
		}},
		"another is given up": {nodes: 5, down: []int{2}, asker: &stopAsker{hints: map[int][]*peerv1.HintBacklog{0: {backlog(2, 5)}}}, set: func(c *ringCluster) {
			id, _, _ := named(2)
			c.add(&ring.Entry{Kind: ring.KindIntent, Intent: &ring.Intent{Verb: ring.VerbGiveUp, Node: id, CreatedAtMs: 1}})
		}, want: []string{"quorum node1", "change node2"}},
		"beside a leaver": {nodes: 4, set: func(c *ringCluster) { leave(c) }},
	} {
		t.Run(name, func(t *testing.T) {
			c := newRing(t, x.nodes)
			if x.set != nil {
				x.set(c)
			}
			liveness := map[int]schema.Liveness{}
			for _, i := range x.down {
				liveness[i] = schema.Dead
			}
			c.meta.with(t, liveness)
			members := slices.Clone(c.meta.Snapshot().Members)
			for i := range members {
				members[i].Drained = slices.Contains(x.drains, int(members[i].ID[0])-1)
			}
			c.meta.snap.Store(c.meta.Snapshot().WithMembers(members))
			_, client := c.serveStop(cmp.Or(x.asker, new(stopAsker)))
			target := x.target
			if target == "" {
				target = "node1"
			}
			r, err := client.SafeToStop(testContext(t), &pairdbv1.SafeToStopRequest{Node: target})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, why := range r.GetReasons() {
				got = append(got, why.GetKind()+" "+strings.Join(why.GetNodes(), " "))
				if why.GetText() == "" || why.GetNext() == "" || strings.Contains(why.GetText(), "%") {
					t.Errorf("says too little, or too much: %v", why)
				}
			}
			if !slices.Equal(got, x.want) || r.GetSafe() != (len(x.want) == 0) || r.GetName() != target || len(r.GetNodeId()) != 32 {
				t.Errorf("%v; want %q, got %q", r, x.want, got)
			}
		})
	}
}

// leave has node 3 of four leave and returns the version of then.
func leave(c *ringCluster) ring.Version {
	id, _, _ := named(3)
	op := c.add(&ring.Entry{Kind: ring.KindIntent, Intent: &ring.Intent{Verb: ring.VerbLeave, Node: id, CreatedAtMs: 1}})
	change := c.propose(nil, [][16]byte{op}, layoutNode(0), layoutNode(1), layoutNode(2))
	at := c.state.Change().ProposedAt
	for i := range 4 {
		c.report(i, ring.Report{Acked: at, Synced: at})
	}
	c.step(ring.KindCommit, change)
	c.step(ring.KindFinalize, change)
	return c.state.Version()
}

func leaveEnd(c *ringCluster) ring.Version { return c.state.Version() }

func TestSafeToStopIsRefused(t *testing.T) {
	c := newRing(t, 3)
	_, client := c.serveStop(&stopAsker{})
	ctx := testContext(t)
	r, err := client.SafeToStop(ctx, &pairdbv1.SafeToStopRequest{})
	if err != nil || !r.GetSafe() || r.GetName() != "node0" {
		t.Errorf("without a name: %v, %v", r, err)
	}
	_, err = client.SafeToStop(ctx, &pairdbv1.SafeToStopRequest{Node: "nobody"})
	refused(t, err, errcode.InvalidArgument, `no node "nobody"`, "node1")
	_, err = client.SafeToStop(ctx, &pairdbv1.SafeToStopRequest{Node: "node"})
	refused(t, err, errcode.InvalidArgument, "ambiguous")

	// Before the cluster is founded nothing is safe, and nobody can be named.
	c.meta.snap.Store(schema.Build(schema.Snapshot{Self: layoutNode(0).ID, Members: []schema.Member{member(0)}}, nil))
	r, err = client.SafeToStop(ctx, &pairdbv1.SafeToStopRequest{})
	if err != nil || r.GetSafe() || len(r.GetReasons()) != 1 || r.GetReasons()[0].GetKind() != "layout" {
		t.Errorf("before founding: %v, %v", r, err)
	}
	_, err = client.SafeToStop(ctx, &pairdbv1.SafeToStopRequest{Node: "node1"})
	refused(t, err, errcode.Unavailable, "not founded")
}

// TestSafeToStopOneCopy: where a tenant has one copy, no waiting helps, and that is said.
func TestSafeToStopOneCopy(t *testing.T) {
	c := newRing(t, 3)
	s := *c.meta.Snapshot()
	c.meta.snap.Store(schema.Build(s, []*schema.Tenant{
		{Number: 1, Name: "default", RF: 3}, {Number: 2, Name: "single", RF: 1}, {Number: 3, Name: "pair", RF: 2},
	}))
	_, client := c.serveStop(&stopAsker{})
	r, err := client.SafeToStop(testContext(t), &pairdbv1.SafeToStopRequest{Node: "node2"})
	if err != nil || r.GetSafe() || len(r.GetReasons()) != 1 {
		t.Fatalf("%v, %v", r, err)
	}
	if why := r.GetReasons()[0]; why.GetKind() != "quorum" || !strings.Contains(why.GetText(), "tenant single") || !strings.Contains(why.GetNext(), "waiting does not help") {
		t.Errorf("%v", why)
	}
}

// TestNobodyAsksTheLost: a node that was given up has no address any more.
func TestNobodyAsksTheLost(t *testing.T) {
	c := newRing(t, 3)
	id, _, _ := named(2)
	c.add(&ring.Entry{Kind: ring.KindIntent, Intent: &ring.Intent{Verb: ring.VerbGiveUp, Node: id, CreatedAtMs: 1}})
	members := slices.Clone(c.meta.Snapshot().Members)
	for i := range members {
		if members[i].ID == id {
			members[i].Addresses, members[i].Liveness = schema.Addresses{}, schema.LivenessUnknown
		}
	}
	c.meta.snap.Store(c.meta.Snapshot().WithMembers(members))
	_, client := c.serveStop(&stopAsker{})
	r, err := client.Status(testContext(t), &pairdbv1.StatusRequest{})
	if err != nil || len(r.GetUnreachable()) != 1 || r.GetUnreachable()[0].GetReason() != "it is given up for lost" {
		t.Errorf("%v, %v", r, err)
	}
}
