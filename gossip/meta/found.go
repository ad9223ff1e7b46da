package meta

import (
	"fmt"
	"io"
	"slices"

	"github.com/pairdb/pairdb/gossip/crdt"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// founding is what a node without a cluster does to get one.
type founding struct {
	expect int
	// pledges are the nodes that endorsed this one, itself not included.
	pledges []*crdt.NodeEntry
}

// Wait says what a node without a cluster waits for.
type Wait struct {
	Expect int
	// Seen are the names of the fresh nodes that answer, this one included.
	Seen []string
	// Conflicts are names that several of them bear: nothing is founded with them.
	Conflicts []crdt.NameConflict
	// PledgedTo is the founder this node has endorsed, zero if none yet.
	PledgedTo ring.NodeID
	// PledgedGone says that this founder is not among those seen.
	PledgedGone bool
}

// Waiting says what this node waits for; false if it has a cluster or was not
// told to wait for one.
func (c *Core) Waiting() (Wait, bool) {
	if c.founding == nil || c.Founded() {
		return Wait{}, false
	}
	w := Wait{Expect: c.founding.expect, PledgedTo: c.founder, PledgedGone: !c.founder.IsZero()}
	fresh := c.fresh()
	for _, e := range fresh {
		w.Seen = append(w.Seen, e.Name)
		w.PledgedGone = w.PledgedGone && e.ID != c.founder
	}
	slices.Sort(w.Seen)
	w.Conflicts = crdt.NameConflicts(fresh)
	return w, true
}

// Unacknowledged gives the founders that have not acknowledged the cluster yet, sorted
// by id. Nothing can be added to the log before all have.
func (c *Core) Unacknowledged() []ring.LayoutNode {
	var out []ring.LayoutNode
	if c.state.Version() != 1 {
		return nil // no cluster yet, or one that has changed since all founders knew it
	}
	for _, n := range c.state.Layout().Nodes() {
		if e, ok := c.nodes.Get(n.ID); !ok || e.ClusterID.IsZero() || e.AckedVersion < 1 {
			out = append(out, n)
		}
	}
	return out
}

// Bootstrap founds a cluster of this node alone. With a cluster it does nothing.
// nowMs is the wall clock, for the record.
func (c *Core) Bootstrap(nowMs int64) error {
	if c.Founded() || c.floor > 0 {
		return nil // of a cluster whose log is fetched again there is no second one
	}
	if !c.joining.IsZero() {
		return fmt.Errorf("%w: %s; it can found no other cluster with this data directory", ErrJoining, c.joining)
	}
	if err := c.pledge(c.self); err != nil {
		return err
	}
	own, _ := c.nodes.Get(c.self)
	return c.found([]*crdt.NodeEntry{own}, nowMs)
}

// Expect makes a node without a cluster found one together with others, expect
// nodes in all; Tick goes on with it. A node that is to join a cluster founds none.
func (c *Core) Expect(expect int) {
	if !c.Founded() && c.floor == 0 && c.founding == nil && c.joining.IsZero() {
		c.founding = &founding{expect: expect}
	}
}

// fresh are the nodes that answer and have no cluster, sorted by id.
func (c *Core) fresh() []*crdt.NodeEntry {
	var out []*crdt.NodeEntry
	for _, e := range c.nodes.All() {
		if e.ClusterID.IsZero() && c.live[e.ID] == schema.Alive {
			out = append(out, e)
		}
	}
	return out
}

// pledge endorses a founder, durably and once only.
func (c *Core) pledge(to ring.NodeID) error {
	if c.founder == to {
		return nil
	}
	if !c.founder.IsZero() {
		return fmt.Errorf("%w: %s; it can found no other cluster with this data directory", ErrPledged, c.founder.Short())
	}
	if err := c.write([]Record{{keyPledge, withFormat(to[:]...)}}); err != nil {
		return err
	}
	c.founder = to
	return nil
}

// tickFounding goes on with founding, as far as what is seen allows.
func (c *Core) tickFounding(nowMs int64) error {
	if _, recovering := c.Recovering(); recovering {
		for _, e := range c.nodes.All() {
			c.Exchange(e.ID)
		}
		return nil
	}
	if c.Founded() && !c.ready {
		for _, n := range c.state.Layout().Nodes() {
			c.Exchange(n.ID)
		}
	}
	if !c.joining.IsZero() && !c.whole() {
		c.tickJoining()
	}
	if c.Founded() || !c.joining.IsZero() {
		return nil
	}
	f := c.founding
	if f == nil {
		return nil
	}
	fresh := c.fresh()
	if c.founder != c.self {
		lowest := len(fresh) >= f.expect && fresh[0].ID == c.self
		if !lowest || !c.founder.IsZero() || len(crdt.NameConflicts(fresh)) > 0 {
			return nil
		}
		if err := c.pledge(c.self); err != nil {
			return err
		}
	}
	if len(f.pledges)+1 >= f.expect {
		own, _ := c.nodes.Get(c.self)
		return c.found(append([]*crdt.NodeEntry{own}, f.pledges...), nowMs)
	}
	own, _ := c.nodes.Get(c.self)
	ask := pledgeRequest{header: c.header(), expect: f.expect, node: own.Append(nil)}
	for _, e := range fresh {
		has := func(p *crdt.NodeEntry) bool { return p.ID == e.ID }
		if e.ID != c.self && !slices.ContainsFunc(f.pledges, has) {
			c.out.Send = append(c.out.Send, Send{To: e.ID, Method: MethodPledge, Payload: ask.encode()})
		}
	}
	return nil
}

func (c *Core) servePledge(from ring.NodeID, payload []byte) ([]byte, error) {
	m, err := decodePledgeRequest(payload)
	if err != nil {
		return nil, err
	}
	if err := c.checkHeader(m.header); err != nil {
		return nil, err
	}
	e, err := crdt.DecodeNode(m.node)
	if err != nil {
		return nil, err
	}
	if e.ID != from {
		return nil, fmt.Errorf("pledge for %s asked by %s: %w", e.ID.Short(), from.Short(), errMessage)
	}
	if _, err := c.mergeNode(m.node); err != nil {
		return nil, err
	}
	own, _ := c.nodes.Get(c.self)
	reply := &pledgeReply{node: own.Append(nil), text: c.whyNotPledge(from, m.expect)}
	if reply.text == "" {
		if err := c.pledge(from); err != nil {
			return nil, err
		}
		reply.pledged = true
	}
	reply.header = c.header()
	return reply.encode(), nil
}

// whyNotPledge gives the reason not to endorse a candidate, or "".
func (c *Core) whyNotPledge(from ring.NodeID, expect int) string {
	f := c.founding
	switch {
	case c.Founded(), c.floor > 0, !c.joining.IsZero():
		return "it has a cluster"
	case c.founder == from:
		return ""
	case !c.founder.IsZero():
		return "it has pledged to " + c.founder.Short()
	case f == nil:
		return "it was not started with --bootstrap-expect"
	case f.expect != expect:
		return fmt.Sprintf("it expects %d nodes, not %d", f.expect, expect)
	}
	fresh := c.fresh()
	visible := func(e *crdt.NodeEntry) bool { return e.ID == from }
	switch {
	case !slices.ContainsFunc(fresh, visible) || len(fresh) < expect:
		return fmt.Sprintf("it sees %d of %d nodes", len(fresh), expect)
	case fresh[0].ID != from:
		return "it sees a better candidate, " + fresh[0].ID.Short()
	case len(crdt.NameConflicts(fresh)) > 0:
		return crdt.NameConflicts(fresh)[0].Error()
	}
	return ""
}

func (c *Core) pledged(s Send, payload []byte, err error) error {
	if err != nil {
		return fmt.Errorf("ask %s for its pledge: %w", s.To.Short(), err)
	}
	m, err := decodePledgeReply(payload)
	if err != nil {
		return err
	}
	if err := c.checkHeader(m.header); err != nil {
		return err
	}
	if !m.cluster.IsZero() && !c.Founded() {
		c.Exchange(s.To) // it will say which, and whether this node belongs to it
		return nil
	}
	f := c.founding
	if f == nil || c.founder != c.self {
		return nil
	}
	if !m.pledged {
		c.log.Info("a node does not endorse this one as founder", "node", s.To.Short(), "reason", m.text)
		return nil
	}
	e, err := crdt.DecodeNode(m.node)
	if err != nil {
		return err
	}
	if e.ID != s.To || slices.ContainsFunc(f.pledges, func(p *crdt.NodeEntry) bool { return p.ID == e.ID }) {
		return nil
	}
	f.pledges = append(f.pledges, e)
	return nil
}

// found makes the first entry of the log: these nodes, and no others, are the
// cluster from now on.
func (c *Core) found(nodes []*crdt.NodeEntry, nowMs int64) error {
	members := make([]ring.LayoutNode, len(nodes))
	for i, e := range nodes {
		members[i] = ring.LayoutNode{ID: e.ID, Name: e.Name, Zone: e.Zone, Capacity: e.Capacity}
	}
	l, err := ring.NewLayout(c.parts, members)
	if err != nil {
		return fmt.Errorf("found cluster %q: %w", c.name, err)
	}
	e := &ring.Entry{Version: 1, Kind: ring.KindFound, Found: &ring.Found{
		ClusterName: c.name, Founder: c.self, Layout: l, TokenKeyID: 1, CreatedAtMs: nowMs,
	}}
	for _, b := range [][]byte{e.Op[:], e.Found.ClusterID[:], e.Found.TokenKey[:]} {
		if _, err := io.ReadFull(c.rand, b); err != nil {
			return fmt.Errorf("found cluster %q: draw: %w", c.name, err)
		}
	}
	if err := c.learn(1, [][]byte{ring.AppendEntry(nil, e)}); err != nil {
		return fmt.Errorf("found cluster %q: %w", c.name, err)
	}
	for _, n := range l.Nodes() {
		if n.ID != c.self {
			m := c.content(0, nil)
			c.out.Send = append(c.out.Send, Send{To: n.ID, Method: MethodFound, Payload: m.encode()})
		}
	}
	c.maybeReady()
	return c.fatal
}
