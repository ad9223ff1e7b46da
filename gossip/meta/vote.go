package meta

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/pairdb/pairdb/gossip/ring"
)

// serveBallot is the voter: it promises or accepts, durably, before it says so.
func (c *Core) serveBallot(from ring.NodeID, method string, payload []byte) ([]byte, error) {
	m, err := decodeBallotRequest(payload)
	if err != nil {
		return nil, err
	}
	if err := c.checkHeader(m.header); err != nil {
		return nil, err
	}
	if m.cluster.IsZero() || (method == MethodAccept) != (len(m.value) > 0) {
		return nil, fmt.Errorf("ballot without cluster or value: %w", errMessage)
	}
	reply := &ballotReply{status: ballotVoted}
	var reg ring.Register
	if m.slot <= c.state.Version()+1 && !c.IsMember(from) {
		err = fmt.Errorf("node %s is no member", from.Short())
	} else {
		reg, err = c.ballot(m.slot, m.ballot, m.value, m.lost)
	}
	switch {
	case c.fatal != nil:
		return nil, c.fatal
	case errors.Is(err, ring.ErrBehind):
		reply.status = ballotBehind
	case errors.Is(err, ring.ErrDecided):
		reply.status = ballotDecided
	case err != nil && !errors.Is(err, ring.ErrOutbid):
		reply.status, reply.text = ballotRefused, err.Error()
	default:
		reply.reg = ring.AppendRegister(nil, reg)
	}
	reply.header, reply.version = c.header(), c.state.Version()
	return reply.encode(), nil
}

// ballot handles a promise (no value) or a vote at this node, in a recovery with those
// that are lost. A register comes back if there is no error, or with ErrOutbid.
func (c *Core) ballot(slot ring.Version, b ring.Ballot, value []byte, lost []ring.NodeID) (ring.Register, error) {
	switch {
	case len(lost) > 0:
		if err := c.mayRecover(slot, lost, value); err != nil {
			return ring.Register{}, err
		}
	case !slices.Contains(c.state.Voters(), c.self):
		return ring.Register{}, fmt.Errorf("node %s is no voter", c.self.Short())
	}
	if slot <= c.abstain || c.state.Version() < c.floor {
		return ring.Register{}, c.abstains(lost)
	}
	var reg ring.Register
	var err error
	if len(value) == 0 {
		reg, err = ring.Prepare(c.reg, c.state.Version(), slot, b)
	} else {
		reg, err = ring.Accept(c.reg, c.state.Version(), slot, b, bytes.Clone(value))
		if err == nil {
			err = c.acceptable(value)
		}
	}
	if err != nil {
		return reg, err
	}
	if err := c.write([]Record{{keyVote, withFormat(ring.AppendRegister(nil, reg)...)}}); err != nil {
		return ring.Register{}, err
	}
	if reg.Promised != c.reg.Promised {
		c.promised = c.ticks
	}
	c.reg = reg
	c.round = max(c.round, b.Round)
	c.forsake(reg)
	if len(value) > 0 {
		return reg, c.learnFromVotes()
	}
	return reg, nil
}

// abstains is why this node votes in no slot up to one; lost are those of a recovery.
func (c *Core) abstains(lost []ring.NodeID) error {
	why := fmt.Sprintf("node %s abstains up to entry %d: it may have forgotten what it promised there", c.self.Short(), max(c.abstain, c.floor))
	if len(lost) > 0 && c.state.Version() >= c.floor {
		// It takes all members that are left, in the very slot in which this one abstains.
		why += ", and no restart helps. Stop it for good, name it as lost, too, and join its machine again with an empty data directory"
	}
	return errors.New(why)
}

// acceptable refuses an entry that could not follow this node's log: voting for
// it could only stop the log.
func (c *Core) acceptable(value []byte) error {
	e, err := ring.DecodeEntry(value)
	if err != nil {
		return err
	}
	_, err = c.state.Next(e)
	return err
}

// hearVote takes in a register that gossip brought.
func (c *Core) hearVote(v vote) error {
	reg, err := ring.DecodeRegister(v.reg)
	if err != nil {
		return err
	}
	if v.from == c.self || !slices.Contains(c.state.Voters(), v.from) || reg.Slot != c.state.Version()+1 {
		return nil
	}
	if old, ok := c.votes[v.from]; ok && old.Compare(reg) >= 0 {
		return nil
	}
	reg.AcceptedBytes = bytes.Clone(reg.AcceptedBytes)
	c.votes[v.from] = reg
	c.out.Changed = true
	return c.learnFromVotes()
}

// learnFromVotes learns the next entry if the known registers say that it was
// chosen, whoever proposed it and whether or not that node still lives.
func (c *Core) learnFromVotes() error {
	slot := c.state.Version() + 1
	all := make(map[ring.NodeID]ring.Register, len(c.votes)+1)
	for _, id := range c.state.Voters() {
		if id == c.self {
			all[id] = c.reg
		} else if r, ok := c.votes[id]; ok {
			all[id] = r
		}
	}
	if value, ok := ring.Chosen(all, slot, c.state.Voters()); ok {
		return c.learn(slot, [][]byte{value})
	}
	return nil
}
