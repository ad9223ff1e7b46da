package meta

import (
	"errors"
	"fmt"
	"time"

	"github.com/pairdb/pairdb/gossip/crdt"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// PlaceTakenError says that a cluster has a member with the name or an address of a node
// that wants to join it. It matches ErrPlaceTaken.
type PlaceTakenError struct {
	Name    string
	Cluster ring.ClusterID
	// Lost is that member.
	Lost LostNode
}

// LostNode is a member whose place a node without a cluster seems to want.
type LostNode struct {
	ID   ring.NodeID
	Name string
	// Address is the one that both have, "" if it is only the name.
	Address  string
	Liveness schema.Liveness
	// Since is when it went, in Unix milliseconds, as the node saw it that was
	// asked; 0 if it did not see it go.
	Since int64
}

// String says who it is, and since when it is gone.
func (l *LostNode) String() string {
	s := fmt.Sprintf("node %s, named %s", l.ID, l.Name)
	if l.Address != "" {
		s += ", at " + l.Address
	}
	switch {
	case l.Liveness == schema.Alive || l.Liveness == schema.Suspect:
		return s + ", which is running, or went moments ago"
	case l.Since > 0:
		return s + ", which is gone since " + time.UnixMilli(l.Since).UTC().Format(time.RFC3339)
	default:
		return s + ", which is not there"
	}
}

// Error says what to do instead, too.
func (e *PlaceTakenError) Error() string {
	return fmt.Sprintf("cluster %q (%s) has a member of this name or address: %s. The data directory given here is not its own: it has a new identity, "+
		"which cannot take that place by itself. Nothing was changed. Start that node with its own data directory. If that is lost, start this node with a name and "+
		"addresses that no member has, and then say that it takes the place: pairdb node replace --dead %s --by <this node>", e.Name, e.Cluster, &e.Lost, e.Lost.Name)
}

// Is matches ErrPlaceTaken.
func (e *PlaceTakenError) Is(target error) bool { return target == ErrPlaceTaken }

// RetiredError says that a node was a member of the cluster and never will be again. It
// matches ErrRetired.
type RetiredError struct {
	Name    string
	Cluster ring.ClusterID
	Node    ring.NodeID
}

// Error says what to do with the data directory, too.
func (e *RetiredError) Error() string {
	return fmt.Sprintf("node %s is retired: it has left cluster %q (%s), or was removed from it, and is no member any more. "+
		"What it held is with the members. To use the machine again, start it with an empty data directory", e.Node, e.Name, e.Cluster)
}

// Is matches ErrRetired.
func (e *RetiredError) Is(target error) bool { return target == ErrRetired }

func (c *Core) retiredError() error {
	return &RetiredError{Name: c.name, Cluster: c.ClusterID(), Node: c.self}
}

// IsTransient says whether an error concerns one message and not this node.
func IsTransient(err error) bool {
	return err != nil && !errors.Is(err, ErrFailed) && !errors.Is(err, ErrIdentity) && !errors.Is(err, ErrPlaceTaken) && !errors.Is(err, ErrRetired)
}

// refused ends a node for which there is no place in a cluster, or none any more.
func (c *Core) refused(m *exchange) error {
	switch {
	case m.retired && m.cluster == c.cluster():
		// This log may end before that entry, and nobody will bring it any more.
		if err := c.write([]Record{{keyRetired, withFormat()}}); err != nil {
			return err
		}
		c.fail(c.retiredError())
	case m.lost != nil && !c.Founded() && c.floor == 0:
		c.fail(&PlaceTakenError{Name: c.name, Cluster: m.cluster, Lost: *m.lost})
	default:
		return fmt.Errorf("a peer of cluster %s refuses this node: %w", m.cluster, ErrOtherCluster)
	}
	return c.fatal
}

// lostNode finds the member that has the name or an address of a node that is none.
// A member that is gone comes before one that is there.
func (c *Core) lostNode(e *crdt.NodeEntry) *LostNode {
	var found *LostNode
	for _, m := range c.members() {
		if !c.IsMember(m.ID) {
			continue
		}
		l := &LostNode{ID: m.ID, Name: m.Name, Liveness: m.Liveness, Since: c.gone[m.ID]}
		switch {
		case m.Addresses.Gossip != "" && m.Addresses.Gossip == e.Addresses.Gossip:
			l.Address = m.Addresses.Gossip
		case m.Addresses.Peer != "" && m.Addresses.Peer == e.Addresses.Peer:
			l.Address = m.Addresses.Peer
		case m.Name != e.Name:
			continue
		}
		if found == nil || l.Liveness != schema.Alive && found.Liveness == schema.Alive {
			found = l
		}
	}
	return found
}
