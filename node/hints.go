package node

import (
	"path/filepath"
	"strconv"
	"sync/atomic"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/engine/disk"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/hints"
	"github.com/pairdb/pairdb/node/events"
)

// HintsDir is the folder of a data directory that hints have to themselves. It may be
// deleted at any time.
const HintsDir = "hints"

// hintDiskShare is what part of the disk the hints for one node take at most.
const hintDiskShare = 20

// hinting is the part of a node that keeps hints and delivers them.
type hinting struct {
	store    *hints.Store
	delivery *hints.Delivery
	// repairs says that rounds are driven.
	repairs atomic.Bool
	// dirty counts partitions, or all at once, that dropped hints made dirty.
	dirty, allDirty atomic.Uint64
}

// openHints opens the store. It neither waits for it nor fails because of it.
func (n *Node) openHints() error {
	most := int64(n.cfg.Hints.MaxBytes)
	if total := n.db.Metrics().Disk.Total; total > 0 {
		most = min(most, total/hintDiskShare)
	}
	var err error
	n.hints.store, err = hints.Open(hints.Options{
		Dir:       filepath.Join(n.cfg.Node.DataDir, HintsDir),
		MaxBytes:  most,
		Window:    n.cfg.Hints.Window,
		Reachable: n.reachable,
		Room: func() bool {
			s := n.db.Metrics().Disk.State
			return s != disk.Full && s != disk.Throttle
		},
		Dirty:    n.partitionDirty,
		DirtyAll: n.everythingDirty,
		Notice:   n.hintNotice,
		Now:      n.clock.Now,
		Logger:   n.log.With("component", "hints"),
	})
	return err
}

// startHints begins to deliver.
func (n *Node) startHints() (err error) {
	n.hints.delivery, err = hints.StartDelivery(hints.DeliveryOptions{
		Store: n.hints.store, Reachable: n.reachable, Deliver: n.deliverHint,
		Rate: int64(n.cfg.Hints.Rate), Logger: n.log.With("component", "hints"),
	})
	return err
}

// stopHints ends deliveries. What is under way ends with the coordinator's.
func (n *Node) stopHints() {
	if d := n.hints.delivery; d != nil {
		d.Close()
	}
}

// hint is what the coordinator calls for an owner that lacks a write. Nobody lacks one of a
// deleted tenant.
func (n *Node) hint(target ring.NodeID, at coord.Address, idempotencyKey []byte) {
	if n.deletedTenant(at.Tenant) {
		return
	}
	n.hints.store.Add(&hints.Hint{
		Target: target, Partition: at.Partition, Tenant: at.Tenant, Token: at.Token, Key: at.Key, IdempotencyKey: idempotencyKey,
	})
}

// reachable reports whether gossip has a node for alive. Whether it answers is found
// by the deliveries themselves.
func (n *Node) reachable(id ring.NodeID) bool {
	m, ok := n.gossip.Snapshot().Member(id)
	return ok && m.Liveness == schema.Alive && !m.Withdrawn
}

func (n *Node) deliverHint(h hints.Hint, done func(hints.Outcome, hints.Reason, int)) {
	if n.deletedTenant(h.Tenant) {
		done(hints.Done, hints.Gone, 0)
		return
	}
	at := coord.Address{Partition: h.Partition, Tenant: h.Tenant, Token: h.Token, Key: h.Key}
	n.coord.Deliver(h.Target, at, h.IdempotencyKey, func(how coord.Delivered, sent int, why string) {
		switch how {
		case coord.DeliveryAcked:
			done(hints.Done, hints.Delivered, sent)
		case coord.DeliveryGone:
			done(hints.Done, hints.Gone, sent)
		case coord.DeliveryNotOwner:
			done(hints.Done, hints.NotOwner, sent)
		case coord.DeliveryOverloaded:
			done(hints.Busy, 0, sent)
		default:
			n.log.Debug("hint not delivered", "node_id", h.Target.String(), "err", why)
			done(hints.Failed, 0, sent)
		}
	})
}

// partitionDirty hears that the owners of a partition may differ without a hint that
// would mend it: they are compared soon. Before the node is ready that is left to the
// comparison of everything that comes then.
func (n *Node) partitionDirty(p ring.Partition) {
	n.hints.dirty.Add(1)
	if n.hints.repairs.Load() {
		n.repair.Dirty(p)
	}
}

// everythingDirty hears the same of all partitions.
func (n *Node) everythingDirty(why string) {
	n.hints.allDirty.Add(1)
	n.log.Info("hints of before, if there were any, are lost; owners are compared instead", "why", why)
	if n.hints.repairs.Load() {
		for _, p := range n.allPartitions() {
			n.repair.Dirty(p)
		}
	}
}

// hintNotice tells what became of the hints for a node.
func (n *Node) hintNotice(m hints.Notice) {
	id, name := m.Target.String(), m.Target.Short()
	if member, ok := n.gossip.Snapshot().Member(m.Target); ok {
		name = member.Name
	}
	switch {
	case m.Kept:
		n.happened.Add(events.Repair, events.Info, "writes did not reach "+name+": hints are kept for it", "node_id", id)
	case m.Emptied:
		n.happened.Add(events.Repair, events.Info, "all hints for "+name+" are delivered", "node_id", id)
	default:
		n.happened.Add(events.Repair, events.Warning, "hints for "+name+" are dropped: "+hintDrop(m.Reason), "node_id", id, "count", strconv.FormatUint(m.Count, 10))
	}
}

// hintDrop says why hints are dropped.
func hintDrop(why hints.Reason) string {
	switch why {
	case hints.QueueFull:
		return "too many come at once"
	case hints.Cap:
		return "there are as many as hints.max_bytes allows"
	case hints.Window:
		return "it is away for longer than hints.window"
	case hints.NoRoom:
		return "this node's disk is nearly full"
	default:
		return "they cannot be written"
	}
}

// hintSeries are what is kept for other nodes, and what became of it.
func (n *Node) hintSeries() ([]series, func(emit)) {
	stored := counter("pairdb_hints_stored_total", "Hints kept for nodes that a write did not reach; again for the same key is none.")
	delivered := counter("pairdb_hints_delivered_total", "Hints that the node they are for has acknowledged.")
	settled := counter("pairdb_hints_settled_total", "Hints that needed no delivery any more, by reason: the key is gone here, or is not the other node's.", "reason")
	dropped := counter("pairdb_hints_dropped_total", "Hints that were not kept or not kept on, by reason: more at once than can be taken, hints.max_bytes, hints.window, a disk that is nearly full, a store that cannot be written. Their partitions are dirty.", "reason")
	backlog := gauge("pairdb_hints_backlog", "Hints kept for a node.", "node")
	bytes := gauge("pairdb_hints_backlog_bytes", "Bytes of the hints kept for a node.", "node")
	age := gauge("pairdb_hints_oldest_age_seconds", "Age of the oldest hint for a node, in seconds, to within a sixteenth of hints.window.", "node")
	dirty := counter("pairdb_hints_dirty_partitions_total", "Partitions reported as dirty because hints of theirs were dropped, once a second at most for each.")
	lost := counter("pairdb_hints_lost_total", "Times that all partitions were reported as dirty because there was no store of hints, or a damaged one.")
	all := []series{stored, delivered, settled, dropped, backlog, bytes, age, dirty, lost}
	return all, func(e emit) {
		s := n.hints.store.Stats()
		e(stored, float64(s.Stored))
		e(delivered, float64(s.Removed[hints.Delivered]))
		for _, r := range []hints.Reason{hints.Gone, hints.NotOwner} {
			e(settled, float64(s.Removed[r]), r.String())
		}
		for _, r := range hints.Drops() {
			e(dropped, float64(s.Removed[r]), r.String())
		}
		e(dirty, float64(n.hints.dirty.Load()))
		e(lost, float64(n.hints.allDirty.Load()))
		snap, now := n.gossip.Snapshot(), n.clock.Now()
		kept := make(map[ring.NodeID]hints.Target)
		for _, t := range n.hints.store.Targets() {
			kept[t.ID] = t
		}
		for i := range snap.Members {
			m := &snap.Members[i]
			if m.ID == snap.Self {
				continue
			}
			t, seconds := kept[m.ID], 0.0
			if !t.Oldest.IsZero() {
				seconds = max(now.Sub(t.Oldest), 0).Seconds()
			}
			e(backlog, float64(t.Count), m.Name)
			e(bytes, float64(t.Bytes), m.Name)
			e(age, seconds, m.Name)
		}
	}
}
