package node

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/node/events"
)

// openRepair makes what keeps this node's data equal with that of the other owners. It
// serves them from then on, and drives rounds once the node is ready.
func (n *Node) openRepair(self ring.NodeID) (err error) {
	settle := n.cfg.Repair.Settle
	if settle == 0 {
		settle = n.cfg.Timeouts.Write + time.Second
	}
	n.repair, err = repair.New(repair.Options{
		Self:      self,
		View:      n.gossip.Snapshot,
		Replica:   n.store,
		Objects:   n.store,
		Transport: n.peers,
		Clock:     n.clock,
		Scheduler: &n.jobs,
		// The coordinator and the gate are there before anything is driven.
		Healthy:  func(id ring.NodeID) bool { return n.coord.Answers(id) },
		Busy:     func() bool { return n.gate.Shedding() },
		Random:   rand.Float64,
		Interval: n.cfg.Repair.Interval,
		Settle:   settle,
		Rate:     int64(n.cfg.Repair.Rate),
		Note:     n.repairNote,
		Logger:   n.log.With("component", "repair"),
	})
	return err
}

// repairNote makes what rounds have to tell an event.
func (n *Node) repairNote(note repair.Note) {
	severity := events.Info
	if note.Warning {
		severity = events.Warning
	}
	n.happened.Add(events.Repair, severity, note.Text, note.Details...)
}

// releaseRepair ends rounds without waiting for them: their jobs are waited for with
// all others.
func (n *Node) releaseRepair() {
	if n.repair == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = n.repair.Close(ctx) // it says only that it did not wait
}
