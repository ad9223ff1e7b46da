package meta

import (
	"fmt"

	"github.com/pairdb/pairdb/gossip/crdt"
	"github.com/pairdb/pairdb/gossip/ring"
)

// SetAcked says that nothing is done any more under an entry of the log before v: see
// ring.Report. It is never ahead of the log, and never goes back.
func (c *Core) SetAcked(v ring.Version) error {
	v = min(v, c.state.Version())
	if c.fatal != nil || v <= c.acked {
		return c.fatal
	}
	c.acked = v
	if err := c.refresh(); err != nil {
		return err
	}
	c.maybeReady()
	return c.fatal
}

// Acked is the last entry under which all that this node does is done.
func (c *Core) Acked() ring.Version { return c.acked }

// SetSynced says, durably before anybody hears of it, that this node has fetched all
// that it gains by the change proposed at v.
func (c *Core) SetSynced(v ring.Version) error { return c.setReport(max(v, c.synced), c.clean) }

// SetClean says, durably before anybody hears of it, that under entry v this node holds
// nothing of what it does not own.
func (c *Core) SetClean(v ring.Version) error { return c.setReport(c.synced, max(v, c.clean)) }

func (c *Core) setReport(synced, clean ring.Version) error {
	switch {
	case c.fatal != nil:
		return c.fatal
	case max(synced, clean) > c.state.Version():
		return fmt.Errorf("report of entry %d: the log is at %d", max(synced, clean), c.state.Version())
	case synced == c.synced && clean == c.clean:
		return nil
	}
	record := Record{keyReport, u64Bytes(u64Bytes(withFormat(), uint64(synced)), uint64(clean))}
	if err := c.write([]Record{record}); err != nil {
		return err
	}
	c.synced, c.clean = synced, clean
	return c.refresh()
}

// cluster is what this node is of, or has bound itself to.
func (c *Core) cluster() ring.ClusterID {
	if id := c.state.ClusterID(); !id.IsZero() {
		return id
	}
	return c.joining
}

// refresh signs a new entry of this node if it would say anything new.
func (c *Core) refresh() error {
	e := crdt.NodeEntry{
		ClusterID: c.cluster(),
		Name:      c.info.Name, Zone: c.info.Zone, Capacity: c.info.Capacity, Addresses: c.info.Addresses,
		Actor: c.actor, AckedVersion: c.acked, SyncedVersion: c.synced, CleanVersion: c.clean, Software: c.info.Software,
	}
	if old, ok := c.nodes.Get(c.self); ok && old.Incarnation == c.inc && old.ClusterID == e.ClusterID && c.info == infoOf(old) &&
		old.AckedVersion == e.AckedVersion && old.SyncedVersion == e.SyncedVersion && old.CleanVersion == e.CleanVersion {
		return nil
	}
	c.seq++
	e.Stamp = crdt.Stamp{Incarnation: c.inc, Seq: c.seq}
	signed, err := crdt.Sign(e, c.key)
	if err != nil {
		return fmt.Errorf("sign own node entry: %w", err)
	}
	c.nodes.Merge(signed)
	c.out.Changed, c.out.Spread = true, true
	return nil
}
