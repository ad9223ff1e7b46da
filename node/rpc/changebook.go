package rpc

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// The states of a change of a node, as NodeChange has them.
const (
	changeWaiting   = "waiting"
	changeMoving    = "moving"
	changeSwitching = "switching"
	changeCleaning  = "cleaning"
	changeDone      = "done"
	changeAborted   = "aborted"
)

// verbJoin is the verb of a change that no intent asks for.
const verbJoin = "join"

// maxEnded bounds the ended changes that are remembered.
const maxEnded = 100

// nodeChange is something that is to become of a node.
type nodeChange struct {
	id       string
	verb     string
	node, by ring.NodeID
	// name is what the node was called when it was last seen: it is forgotten by
	// the ring once it is retired.
	name, byName string
	capacity     uint32
	// tenant gets the replication factor rf; tenantName is what it was called.
	tenant     ring.TenantNumber
	tenantName string
	rf         uint8
	state      string
	// askedAt is when it was asked for or first seen; the others are zero for not yet.
	askedAt, begunAt, endedAt time.Time
}

func (c *nodeChange) ended() bool { return c.state == changeDone || c.state == changeAborted }

// asked is the change that an intent asks for. To give a node up is to remove it, for
// whoever asks.
func asked(i ring.Intent, id string) nodeChange {
	verb := i.Verb
	if verb == ring.VerbGiveUp {
		verb = ring.VerbRemove
	}
	return nodeChange{
		id: id, verb: verb.String(), node: i.Node, by: i.By, capacity: i.Capacity, tenant: i.Tenant, rf: i.RF,
		state: changeWaiting, askedAt: time.UnixMilli(i.CreatedAtMs),
	}
}

// joining is the change of a node that joins.
func joining(id ring.NodeID, name string, now time.Time) nodeChange {
	return nodeChange{id: id.String(), verb: verbJoin, node: id, name: name, state: changeWaiting, askedAt: now}
}

// changeBook remembers what was asked for, so that its end can be told: the log forgets
// an intent as soon as a change carries it out. What has become of each is read off the
// ring. It is safe for concurrent use.
type changeBook struct {
	now func() time.Time
	mu  struct {
		sync.Mutex
		// seen is the newest version of the ring that anything was learnt from. Who asks
		// may be late with an older one, by which a change that has been noted since would
		// look as though it were not wanted any more.
		seen    ring.Version
		changes []*nodeChange // the oldest first
	}
}

// note adds a change, unless it is known, and gives it. snap is not older than the change.
func (b *changeBook) note(c nodeChange, snap *schema.Snapshot) nodeChange {
	b.mu.Lock()
	defer b.mu.Unlock()
	noted := b.noteLocked(c)
	if snap.Version >= b.mu.seen && !noted.ended() {
		b.mu.seen = snap.Version
		noted.learn(snap, b.now())
	}
	return *noted
}

func (b *changeBook) noteLocked(c nodeChange) *nodeChange {
	if i := slices.IndexFunc(b.mu.changes, func(k *nodeChange) bool { return k.id == c.id }); i >= 0 {
		return b.mu.changes[i]
	}
	b.mu.changes = append(b.mu.changes, &c)
	return &c
}

// follow takes in what the ring is like and which nodes wait to join, unless it knows of a
// newer ring already.
func (b *changeBook) follow(snap *schema.Snapshot) {
	if snap.Ring == nil || snap.Layout == nil {
		return
	}
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if snap.Version < b.mu.seen {
		return
	}
	b.mu.seen = snap.Version
	for _, i := range snap.Ring.Intents() {
		b.noteLocked(asked(i.Intent, hex.EncodeToString(i.Op[:])))
	}
	for i := range snap.Joiners {
		b.noteLocked(joining(snap.Joiners[i].ID, snap.Joiners[i].Name, now))
	}
	if snap.Change != nil {
		for _, n := range snap.Change.Next.Nodes() {
			if _, old := snap.Layout.Node(n.ID); !old {
				b.noteLocked(joining(n.ID, n.Name, now))
			}
		}
	}
	for _, c := range b.mu.changes {
		if c.ended() && c.verb != verbJoin {
			continue // a node that was turned away may join again; an intent is over
		}
		c.learn(snap, now)
	}
	b.forgetLocked()
}

// learn takes in how far the change is.
func (c *nodeChange) learn(snap *schema.Snapshot, now time.Time) {
	if m, ok := snap.Member(c.node); ok && m.Name != "" {
		c.name = m.Name
	} else if n, ok := snap.Ring.Member(c.node); ok {
		c.name = n.Name
	}
	if n, ok := snap.Member(c.by); ok && !c.by.IsZero() {
		c.byName = n.Name
	}
	if t, ok := snap.TenantByNumber(c.tenant); ok {
		c.tenantName = t.Name
	}
	c.state = c.stateIn(snap)
	switch {
	case c.ended():
		if c.endedAt.IsZero() {
			c.endedAt = now
		}
	case c.state == changeWaiting:
		c.begunAt, c.endedAt = time.Time{}, time.Time{}
	default:
		c.endedAt = time.Time{}
		if c.begunAt.IsZero() {
			c.begunAt = now
		}
	}
}

// stateIn reads off the ring how far the change is: whether it is still asked for, else
// whether the layout that is to be has what it wants, else whether the one in force has.
func (c *nodeChange) stateIn(snap *schema.Snapshot) string {
	s := snap.Ring
	if slices.ContainsFunc(s.Intents(), func(i *ring.IntentRecord) bool { return hex.EncodeToString(i.Op[:]) == c.id }) {
		return changeWaiting
	}
	if c.verb == ring.VerbReplicate.String() {
		return c.replicating(snap)
	}
	now, before := snap.Layout.Node(c.node)
	if open := snap.Change; open != nil {
		next, after := open.Next.Node(c.node)
		moves := false
		switch c.verb {
		case verbJoin:
			moves = after && !before
		case ring.VerbWeigh.String():
			moves = after && next.Capacity == c.capacity && now.Capacity != c.capacity
		case ring.VerbLeave.String():
			moves = before && !after
		default:
			moves = slices.Contains(open.Removed, c.node)
		}
		switch {
		case moves && open.Stage == ring.Proposed:
			return changeMoving
		case moves:
			return changeSwitching
		}
	}
	at := slices.IndexFunc(s.Outsiders(), func(o ring.Outsider) bool { return o.ID == c.node })
	switch c.verb {
	case verbJoin:
		switch {
		case before || s.IsRetired(c.node):
			return changeDone
		case at >= 0 && s.Outsiders()[at].Reopened:
			return changeWaiting // it was turned away through no fault of its own
		case slices.ContainsFunc(snap.Joiners, func(m schema.Member) bool { return m.ID == c.node }):
			return changeWaiting // also one that was turned away and tries again
		}
	case ring.VerbWeigh.String():
		if before && now.Capacity == c.capacity {
			return changeDone
		}
	default:
		switch {
		case slices.ContainsFunc(s.Lost(), func(n ring.LayoutNode) bool { return n.ID == c.node }):
			return changeWaiting // it is given up, and goes with the next change
		case s.IsRetired(c.node):
			return changeDone
		case at >= 0 && !before:
			return changeCleaning
		}
	}
	return changeAborted
}

// replicating is stateIn for a new replication factor that is not waiting any more.
func (c *nodeChange) replicating(snap *schema.Snapshot) string {
	t, known := snap.TenantByNumber(c.tenant)
	if !known {
		return changeAborted // deleted with its tenant
	}
	if open := snap.Change; open != nil && t.NextRF == int(c.rf) && t.RF != t.NextRF {
		if open.Stage == ring.Proposed {
			return changeMoving
		}
		return changeSwitching
	}
	if t.RF == int(c.rf) {
		return changeDone
	}
	return changeAborted
}

// forgetLocked keeps the last ended changes, and all others.
func (b *changeBook) forgetLocked() {
	ended := 0
	for _, c := range b.mu.changes {
		if c.ended() {
			ended++
		}
	}
	b.mu.changes = slices.DeleteFunc(b.mu.changes, func(c *nodeChange) bool {
		if ended > maxEnded && c.ended() {
			ended--
			return true
		}
		return false
	})
}

// find returns a change by its id.
func (b *changeBook) find(id string) (nodeChange, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.mu.changes {
		if c.id == id {
			return *c, true
		}
	}
	return nodeChange{}, false
}

// list returns all that is known, the oldest first.
func (b *changeBook) list() []nodeChange {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]nodeChange, 0, len(b.mu.changes))
	for _, c := range b.mu.changes {
		out = append(out, *c)
	}
	return out
}

// changeMessage is a change on the wire, without its progress.
func (s *Server) changeMessage(snap *schema.Snapshot, c nodeChange) *pairdbv1.NodeChange {
	m := &pairdbv1.NodeChange{
		Id: c.id, Verb: c.verb, Name: c.name, Capacity: c.capacity, State: c.state, TenantId: c.tenantName, ReplicationFactor: uint32(c.rf),
		AskedAt: timestamp(c.askedAt), BegunAt: timestamp(c.begunAt), EndedAt: timestamp(c.endedAt),
	}
	if t, ok := snap.TenantByNumber(c.tenant); ok {
		m.TenantId = t.Name
	}
	if !c.node.IsZero() {
		if m.NodeId = c.node.String(); m.Name == "" {
			m.Name = nameIn(snap, c.node)
		}
	}
	if !c.by.IsZero() {
		m.ByNodeId, m.ByName = c.by.String(), c.byName
		for _, j := range snap.Joiners {
			if j.ID == c.by {
				m.ByName = j.Name
			}
		}
	}
	if c.id != "" {
		m.WaitsFor = s.waitsFor(snap, &c)
	}
	if c.state == changeDone {
		m.Percent = 100
	}
	return m
}

// waitsFor says for people what keeps a change from going on.
func (s *Server) waitsFor(snap *schema.Snapshot, c *nodeChange) string {
	names := strings.Join(waitedFor(snap), ", ")
	switch c.state {
	case changeWaiting:
		switch {
		case snap.Change != nil:
			return "the change that is under way"
		case s.opts.Ring != nil && !s.opts.Ring.AutoApply():
			return "pairdb cluster commit"
		}
	case changeMoving:
		if names != "" {
			return "the new owners to fetch what they lack: " + names
		}
	case changeSwitching:
		if names != "" {
			return "the old owners to know that the new ones are read: " + names
		}
	case changeCleaning:
		return fmt.Sprintf("%s to hand over what it still holds", nameIn(snap, c.node))
	}
	return ""
}
