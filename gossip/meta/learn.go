package meta

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/pairdb/pairdb/gossip/crdt"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// learn takes in encoded log entries, the first of which has version first. It
// makes what is new durable in one write before anything shows.
func (c *Core) learn(first ring.Version, log [][]byte) error {
	if c.fatal != nil {
		return c.fatal
	}
	state := c.state
	var records []Record
	var learned [][]byte
	var steps []step
	for i, b := range log {
		v := first + ring.Version(i)
		if v == 0 || v > state.Version()+1 {
			return nil // a gap: an exchange will fill it
		}
		if v <= c.state.Version() {
			if old := c.tail.at(v); old != nil && !bytes.Equal(old, b) {
				err := fmt.Errorf("%w at entry %d", ErrFork, v)
				c.log.Error("the log of a peer differs from this node's; it is not merged", "version", v)
				return err
			}
			continue
		}
		e, err := ring.DecodeEntry(b)
		if err != nil {
			return err
		}
		if v == 1 {
			if err := c.mayAdopt(e); err != nil {
				return err
			}
		}
		before := state
		if state, err = state.Next(e); err != nil {
			return err
		}
		b = bytes.Clone(b)
		steps = append(steps, step{before, state, e, b})
		learned = append(learned, b)
		records = append(records, Record{logKey(v), b})
	}
	if len(learned) == 0 {
		return nil
	}
	if err := c.recovered(state, learned); err != nil {
		return err
	}
	if err := c.mayLearn(state); err != nil {
		return err
	}
	if err := c.write(append(records, c.memberRecords(state)...)); err != nil {
		return err
	}
	full := false
	for _, s := range steps {
		c.concludeProposal(s.before, s.after, s.entry)
		full = c.tail.add(s.encoded, s.after) || full
	}
	if err := c.install(state); err != nil {
		return err
	}
	if full {
		c.trim()
	}
	return c.fatal
}

// memberRecords remember the entries of nodes that a state makes members, and forget
// those of nodes that are none any more.
func (c *Core) memberRecords(state *ring.State) (records []Record) {
	for _, e := range c.nodes.All() {
		is := isMember(state, e.ID)
		switch {
		case is && !c.IsMember(e.ID) && e.ID != c.self:
			records = append(records, Record{nodeKey(e.ID), e.Append(nil)})
		case !is && c.IsMember(e.ID):
			records = append(records, Record{nodeKey(e.ID), nil})
		}
	}
	return records
}

// step is an entry with what the log said before and after it.
type step struct {
	before, after *ring.State
	entry         *ring.Entry
	encoded       []byte
}

// install shows a state that is durable, and to which the tail leads.
func (c *Core) install(state *ring.State) error {
	whole, behind := c.whole(), c.state.Version() < c.floor
	old := c.state
	c.state = state
	clear(c.votes) // they were of an earlier slot
	c.forsake(c.reg)
	c.founding = nil
	for _, id := range state.Retired() {
		if !old.IsRetired(id) {
			c.nodes.Remove(id)
			delete(c.live, id)
			delete(c.gone, id)
			delete(c.withdrawn, id)
			delete(c.drained, id)
		}
	}
	if state.IsRetired(c.self) {
		c.fail(c.retiredError())
		return c.fatal
	}
	for _, e := range c.joiners() {
		if !c.mayWait(e) || c.lostNode(e) != nil {
			c.nodes.Remove(e.ID)
		}
	}
	if !whole && c.whole() && c.floor == 0 {
		c.log.Info("this node belongs to a founded cluster now", "cluster", c.name, "cluster_id", state.ClusterID().String(), "nodes", len(state.Layout().Nodes()))
	}
	if behind && state.Version() >= c.floor {
		c.log.Info("the metadata that was damaged is complete again", "version", uint64(state.Version()))
	}
	c.out.Changed = true
	if err := c.refresh(); err != nil {
		return err
	}
	c.maybeReady()
	c.settleProposal()
	return c.fatal
}

// mergeNode takes in a node's entry, if it concerns this node's cluster.
func (c *Core) mergeNode(raw []byte) (bool, error) {
	e, err := crdt.DecodeNode(raw)
	if err != nil {
		return false, err
	}
	if e.ID == c.self {
		mine, _ := c.nodes.Get(c.self)
		if e.Stamp.Compare(mine.Stamp) > 0 {
			c.fail(fmt.Errorf("%w: it speaks as %s, incarnation %d, and this process is incarnation %d: "+
				"its data directory was copied or set back", ErrIdentity, c.self.Short(), e.Incarnation, c.inc))
			return false, c.fatal
		}
		return false, nil
	}
	old, known := c.nodes.Get(e.ID)
	switch {
	case !c.Founded():
		// Of those that have a cluster only fresh ones are of interest that were known:
		// they are fresh no more.
		if !e.ClusterID.IsZero() && !known {
			return false, nil
		}
	case !e.ClusterID.IsZero() && e.ClusterID != c.state.ClusterID(), !c.IsMember(e.ID) && !c.mayWait(e):
		return false, nil
	}
	if !c.nodes.Merge(e) {
		return false, nil
	}
	c.out.Changed = true
	// Entries are kept so that a restarted node finds its peers again. Losing
	// one loses nothing else, so counters alone are not worth a write.
	// An entry met before the founding is in no store yet: it is kept when it
	// comes again as one of the cluster's.
	if c.IsMember(e.ID) && (!known || old.Incarnation != e.Incarnation || old.Addresses != e.Addresses || old.ClusterID != e.ClusterID) {
		return true, c.write([]Record{{nodeKey(e.ID), e.Append(nil)}})
	}
	return true, nil
}

// maybeReady finds out whether this node may serve, and remembers it durably: it is a
// member, and all founders have acknowledged the cluster. Nobody could add to the log
// before they had, so a log that goes on says so, too.
func (c *Core) maybeReady() {
	if c.ready || c.fatal != nil || !c.Founded() || !c.whole() {
		return
	}
	if c.state.Version() == 1 {
		for _, n := range c.state.Layout().Nodes() {
			e, ok := c.nodes.Get(n.ID)
			if !ok || e.ClusterID != c.state.ClusterID() || e.AckedVersion < 1 {
				return
			}
		}
	}
	if c.write([]Record{{keyReady, withFormat()}}) != nil {
		return // Fatal says why
	}
	c.ready, c.out.Changed = true, true
}

// Digest is 16 bytes that are equal on nodes that know the same: version, and a
// hash of node entries and votes.
func (c *Core) Digest() [16]byte {
	var d [16]byte
	binary.BigEndian.PutUint64(d[:], uint64(c.state.Version()))
	h := xxh3.New()
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], c.nodes.Hash())
	_, _ = h.Write(b[:]) // a hash does not fail
	for _, v := range c.currentVotes() {
		_, _ = h.Write(v.from[:])
		_, _ = h.Write(v.reg)
	}
	binary.BigEndian.PutUint64(d[8:], h.Sum64())
	return d
}

// Snapshot gives what this node knows. The result is immutable.
func (c *Core) Snapshot() *schema.Snapshot {
	members := c.members()
	if c.snap != nil && c.snapLog == c.state.Version() && c.snap.Ready == c.Ready() {
		c.snap = c.snap.WithMembers(members)
		c.snap.Joiners = c.Joiners()
		return c.snap
	}
	var tenants []*schema.Tenant
	for _, t := range c.state.Tenants() {
		tenants = append(tenants, TenantOf(t, c.state.Change()))
	}
	var keys []schema.TokenKey
	for _, k := range c.state.TokenKeys() {
		keys = append(keys, schema.TokenKey(k))
	}
	c.snap = schema.Build(schema.Snapshot{
		ClusterID: c.ClusterID(), ClusterName: c.name, Self: c.self, Version: c.state.Version(),
		Layout: c.state.Layout(), Change: c.state.Change(), Ring: c.state, Ready: c.Ready(), Members: members, Joiners: c.Joiners(), TokenKeys: keys,
	}, tenants)
	c.snapLog = c.state.Version()
	return c.snap
}

func (c *Core) members() []schema.Member {
	var out []schema.Member
	for _, e := range c.nodes.All() {
		if !c.isJoiner(e.ID) {
			out = append(out, c.memberOf(e))
		}
	}
	for _, n := range c.state.Members() {
		if _, ok := c.nodes.Get(n.ID); !ok {
			_, withdrawn := c.withdrawn[n.ID]
			_, drained := c.drained[n.ID]
			out = append(out, schema.Member{ID: n.ID, Name: n.Name, Zone: n.Zone, Capacity: n.Capacity, Liveness: c.live[n.ID], Withdrawn: withdrawn, Drained: drained})
		}
	}
	return out
}

func (c *Core) memberOf(e *crdt.NodeEntry) schema.Member {
	_, withdrawn := c.withdrawn[e.ID]
	_, drained := c.drained[e.ID]
	return schema.Member{
		ID: e.ID, Name: e.Name, Zone: e.Zone, Capacity: e.Capacity, Incarnation: e.Incarnation, Actor: e.Actor,
		Addresses: e.Addresses, Liveness: c.live[e.ID], Withdrawn: withdrawn, Drained: drained, AckedVersion: e.AckedVersion,
		SyncedVersion: e.SyncedVersion, CleanVersion: e.CleanVersion, Software: e.Software,
	}
}
