package meta

import (
	"fmt"
	"slices"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// A recovery decides slots as any other proposal does, with the same registers and
// ballots, but for one thing: a majority of the voters is lost, so it takes all members
// that are left. Each of them looks for itself whether those that are said to be lost
// answer. What any of them has accepted before is adopted first, as ever; what only the
// lost have accepted or learned is given up.

// lost are those that a recovery gives up, nil if the proposal is none.
func (pr *proposal) lost() []ring.NodeID {
	if pr.entry.Recover == nil {
		return nil
	}
	return pr.entry.Recover.Lost
}

// fitRecovery makes a recovery anew for the next slot: who is left may have changed.
func (c *Core) fitRecovery(pr *proposal) error {
	if pr.entry.Recover == nil {
		return nil
	}
	if err := c.answers(pr.lost()); err != nil {
		return err
	}
	r, err := c.state.Recovery(pr.lost())
	if err != nil {
		return err
	}
	r.CreatedAtMs = pr.entry.Recover.CreatedAtMs
	pr.entry.Recover = r
	return nil
}

// electorate is whose votes a proposal takes, and how many of them.
func (c *Core) electorate(pr *proposal) (ids []ring.NodeID, need int) {
	if pr.entry.Recover != nil {
		ids = c.state.Survivors(pr.lost())
		return ids, len(ids)
	}
	ids = c.state.Voters()
	return ids, ring.Majority(len(ids))
}

func (c *Core) proposer(pr *proposal) *ring.Proposer {
	ids, _ := c.electorate(pr)
	value := ring.AppendEntry(nil, &pr.entry)
	if pr.entry.Recover != nil {
		return ring.NewRecoverer(pr.entry.Version, ids, c.self, c.inc, c.round, value)
	}
	return ring.NewProposer(pr.entry.Version, ids, c.self, c.inc, c.round, value)
}

// answers refuses to give up nodes of which one answers, or is this one.
func (c *Core) answers(lost []ring.NodeID) error {
	for _, id := range lost {
		l := c.live[id]
		if id == c.self || l == schema.Alive || l == schema.Suspect {
			n, _ := c.state.Member(id)
			return fmt.Errorf("%w: %s (%s) is said to be lost and answers; stop it first, for good", ring.ErrNodeAlive, n.Name, id.Short())
		}
	}
	return nil
}

// mayRecover says why this node takes no part in a recovery.
func (c *Core) mayRecover(slot ring.Version, lost []ring.NodeID, value []byte) error {
	if slot != c.state.Version()+1 {
		return nil // its log is not the one that the slot follows: the register says so
	}
	if _, err := c.state.Recovery(lost); err != nil {
		return err
	}
	if err := c.answers(lost); err != nil {
		return err
	}
	// An earlier one is adopted, which may have given up others.
	if earlier := recoveryOf(value); earlier != nil {
		return c.answers(earlier.Lost)
	}
	return nil
}

// recoveryOf is the recovery that an encoded entry is, nil if it is something else.
func recoveryOf(value []byte) *ring.Recover {
	if len(value) == 0 {
		return nil
	}
	e, err := ring.DecodeEntry(value)
	if err != nil {
		return nil
	}
	return e.Recover
}

// forsake notes whom this node does not hear any more, having accepted what is in its
// register: they may come back with another entry in the slot, and to learn that would
// part this node from the others if the recovery is chosen.
func (c *Core) forsake(reg ring.Register) {
	c.forsaken = nil
	if reg.Slot <= c.state.Version() {
		return // it may be further off: entries before it are fetched again
	}
	if r := recoveryOf(reg.AcceptedBytes); r != nil {
		c.forsaken = r.Lost
	}
}

// hears refuses what comes from nodes that a recovery gives up.
func (c *Core) hears(from ring.NodeID) error {
	if slices.Contains(c.forsaken, from) {
		return fmt.Errorf("node %s is given up by a recovery that is under way at %s: %w", from.Short(), c.self.Short(), errMessage)
	}
	return nil
}
