package meta

import "github.com/pairdb/pairdb/gossip/ring"

// PrepareForTest asks the voter for a promise, and says whether it gave it.
func (c *Core) PrepareForTest(slot ring.Version, b ring.Ballot) (promised bool, err error) {
	_, err = c.ballot(slot, b, nil, nil)
	return err == nil, err
}
