package meta

import (
	"fmt"
	"slices"

	"github.com/pairdb/pairdb/gossip/crdt"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// maxJoiners bounds the nodes that wait to be members.
const maxJoiners = 256

// Ticks between two rounds in which a joiner asks, and how many it asks in one.
const (
	joinTicks = 5 * foundingTicks
	joinAsks  = 8
)

// whole says that this node has the log as far as it must, and is a member by it.
func (c *Core) whole() bool { return c.state.Version() >= c.floor && c.IsMember(c.self) }

// isJoiner says whether id is a node that waits to be a member.
func (c *Core) isJoiner(id ring.NodeID) bool {
	if !c.whole() || c.IsMember(id) {
		return false
	}
	_, ok := c.nodes.Get(id)
	return ok
}

// joiners are the entries of the nodes that wait to be members, sorted by id.
func (c *Core) joiners() []*crdt.NodeEntry {
	var out []*crdt.NodeEntry
	for _, e := range c.nodes.All() {
		if c.isJoiner(e.ID) {
			out = append(out, e)
		}
	}
	return out
}

// Joiners gives the nodes that answer and wait to be members, sorted by id. They are
// no members of the snapshot.
func (c *Core) Joiners() []schema.Member {
	var out []schema.Member
	for _, e := range c.joiners() {
		out = append(out, c.memberOf(e))
	}
	return out
}

// Joining is the cluster that this node has bound itself to, and waits to be a member
// of; false if it has none, or is one.
func (c *Core) Joining() (ring.ClusterID, bool) {
	return c.joining, !c.joining.IsZero() && !c.IsMember(c.self)
}

// mayWait says whether a node that is no member may wait to be one, and makes room for
// it. Who knows it only by hearsay and does not see it answer does not keep it, so that
// a dead one is forgotten.
func (c *Core) mayWait(e *crdt.NodeEntry) bool {
	if !c.whole() || e.ClusterID != c.state.ClusterID() || c.state.IsRetired(e.ID) || c.live[e.ID] != schema.Alive {
		return false
	}
	if _, known := c.nodes.Get(e.ID); known {
		return true
	}
	if o := c.twinOf(e); o != nil {
		// Every member keeps the same one of two.
		if o.ID.Compare(e.ID) > 0 {
			c.nodes.Remove(o.ID)
			return true
		}
		if c.twin != e.ID { // it asks again and again
			c.twin = e.ID
			c.log.Warn("a node that wants to join has the name of another one that does", "name", e.Name, "node", e.ID.Short(), "other", o.ID.Short())
		}
		return false
	}
	return len(c.joiners()) < maxJoiners && c.lostNode(e) == nil
}

// twinOf is the node that waits under the name of another one that would.
func (c *Core) twinOf(e *crdt.NodeEntry) *crdt.NodeEntry {
	for _, o := range c.joiners() {
		if o.ID != e.ID && o.Name == e.Name {
			return o
		}
	}
	return nil
}

// whyNot says for people why a node that would wait is not kept, and what they can do
// about it; "" if it is, or will be by itself.
func (c *Core) whyNot(e *crdt.NodeEntry) string {
	if _, kept := c.nodes.Get(e.ID); kept {
		return ""
	}
	if o := c.twinOf(e); o != nil {
		return fmt.Sprintf("node %s waits to join under the same name, %s: stop this one and start it with another --name, or end the other one", o.ID.Short(), e.Name)
	}
	if n := len(c.joiners()); n >= maxJoiners {
		return fmt.Sprintf("%d nodes wait to join, which is the most: it is let in once there is room", n)
	}
	return ""
}

// KeptOut is why the members do not keep this node, which would join, as one that waits,
// and what people can do about it; "" if they do, as far as it was told.
func (c *Core) KeptOut() string { return c.keptOut }

// serveStranger answers a node that is no member: whether there is a place for it.
func (c *Core) serveStranger(from ring.NodeID, m *exchange) *exchange {
	reply := &exchange{header: c.header(), version: c.state.Version()}
	if c.state.IsRetired(from) {
		reply.refused, reply.retired = true, true
		return reply
	}
	reply.outside, reply.founder = true, c.state.Founder()
	if !m.joins || len(m.nodes) != 1 {
		return reply
	}
	e, err := crdt.DecodeNode(m.nodes[0])
	if err != nil || e.ID != from {
		return reply
	}
	if reply.lost = c.lostNode(e); reply.lost != nil {
		reply.refused, reply.outside = true, false
		return reply
	}
	if c.mayWait(e) && c.nodes.Merge(e) {
		c.out.Changed, c.out.Spread = true, true
	}
	reply.why = c.whyNot(e)
	return reply
}

// standOutside is called when a member has said that this node is none. A node without
// a cluster binds itself to that one, durably, before it shows itself as one that
// joins; from then on it founds none and takes no other's log.
func (c *Core) standOutside(to ring.NodeID, m *exchange) error {
	if c.Founded() {
		if m.version < c.state.Version() && c.IsMember(c.self) {
			// It lacks the entry that makes this node a member.
			next := c.content(m.version, m.vector)
			c.out.Send = append(c.out.Send, Send{To: to, Method: MethodExchange, Payload: next.encode(), round: maxRounds})
		}
		return nil
	}
	c.keptOut = m.why
	switch {
	case c.floor > 0 || c.joining == m.cluster || m.cluster.IsZero():
		return nil
	case !c.joining.IsZero():
		return fmt.Errorf("cluster %s: %w: %s", m.cluster, ErrJoining, c.joining)
	case !c.founder.IsZero() && c.founder != m.founder:
		return fmt.Errorf("cluster %s: %w: %s", m.cluster, ErrPledged, c.founder.Short())
	}
	if err := c.write([]Record{joiningRecord(m.cluster)}); err != nil {
		return err
	}
	c.joining, c.founding = m.cluster, nil
	c.log.Info("this node waits to become a member of a founded cluster", "cluster", c.name, "cluster_id", m.cluster.String())
	if err := c.refresh(); err != nil {
		return err
	}
	c.Exchange(to)
	return nil
}

// joiningRecord binds a node to a cluster. One that is damaged when the log is there is
// not missed: the log says more.
func joiningRecord(id ring.ClusterID) Record {
	if id.IsZero() {
		return Record{keyJoining, nil}
	}
	return Record{keyJoining, withFormat(id[:]...)}
}

// tickJoining asks some of the nodes that answer; one of them tells when this node is a
// member.
func (c *Core) tickJoining() {
	if c.ticks%joinTicks != 1 {
		return
	}
	var ids []ring.NodeID
	for id, l := range c.live { //seams:ordered sorted below
		if e, fresh := c.nodes.Get(id); l == schema.Alive && id != c.self && (!fresh || !e.ClusterID.IsZero()) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, ring.NodeID.Compare)
	for range min(joinAsks, len(ids)) {
		c.asked++
		c.Exchange(ids[c.asked%len(ids)])
	}
}

// mayAdopt says whether this node, which has no cluster, may take a founding entry for
// its own: that of the founder it has endorsed, that of the cluster it has bound itself
// to, or the one it had. Members hand the log to members only, so a node that joins
// gets it once it is one.
func (c *Core) mayAdopt(e *ring.Entry) error {
	f := e.Found
	switch {
	case f == nil:
		return fmt.Errorf("entry 1 founds nothing: %w", errMessage)
	case f.ClusterName != c.name:
		return fmt.Errorf("founding entry %w: it is of %q, not of %q", ErrOtherCluster, f.ClusterName, c.name)
	}
	own := c.joining
	if c.floor > 0 {
		own = c.witness.Cluster // it was adopted once
	}
	if !own.IsZero() {
		if f.ClusterID != own {
			return fmt.Errorf("founding entry %w: it is of %s, not of %s", ErrOtherCluster, f.ClusterID, own)
		}
		return nil
	}
	if _, ok := f.Layout.Node(c.self); !ok {
		return fmt.Errorf("founding entry of cluster %s: this node is not in it: %w", f.ClusterID, errMessage)
	}
	if f.Founder != c.founder {
		return fmt.Errorf("founding entry of %s: %w", f.Founder.Short(), ErrPledged)
	}
	return nil
}

// mayLearn refuses to adopt a log that does not make this node a member, at the end to
// which the peer has it.
func (c *Core) mayLearn(state *ring.State) error {
	if c.Founded() || c.joining.IsZero() || c.floor > 0 || state.Version() < c.offered {
		return nil
	}
	if !isMember(state, c.self) {
		return fmt.Errorf("a log up to entry %d does not make this node a member: %w", state.Version(), errMessage)
	}
	return nil
}
