package node

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/node/events"
	"github.com/pairdb/pairdb/node/rpc"
)

// openRepair makes what keeps this node's data equal with that of the other owners. It
// serves them from then on, and drives rounds once the node is ready.
func (n *Node) openRepair(self ring.NodeID) (err error) {
	settle := n.cfg.Repair.Settle
	if settle == 0 {
		settle = n.cfg.Timeouts.Write + time.Second
	}
	n.streams = newStreamPace()
	n.repair, err = repair.New(repair.Options{
		Self:      self,
		View:      n.gossip.Snapshot,
		Replica:   n.store,
		Objects:   n.store,
		Transport: n.peers,
		Clock:     n.clock,
		Scheduler: &n.jobs,
		// What is damaged here is fetched again, and then served again.
		Quarantined: n.marks.Has,
		Fetching:    n.marks.Fetching,
		Fetched:     n.fetched,
		Synced:      n.gossip.SetSynced,
		Cleaned:     n.cleaned,
		StreamRate:  int64(n.cfg.Ring.StreamRate),
		// The coordinator and the gate are there before anything is driven.
		Healthy: func(id ring.NodeID) bool { return n.coord.Answers(id) },
		Busy:    func() bool { return n.gate.Shedding() },
		Streamed: func(bytes int) time.Duration {
			return n.streams.took(time.Now(), n.db.Metrics(), n.ops.waited(), bytes)
		},
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

// fetched serves partitions again. Their sums are computed anew: what damage took away
// went by no write.
func (n *Node) fetched(list []ring.Partition) error {
	for _, p := range list {
		n.store.ForgetSums(p)
	}
	return n.store.EndQuarantine(list)
}

// repairAdmin is what operators are told of repairs, and may ask for.
type repairAdmin struct{ n *Node }

// StartRepair implements rpc.RepairAdmin.
func (a repairAdmin) StartRepair(_ context.Context, tenant string, partition int) (string, error) {
	return a.n.repair.StartRepair(tenant, partition)
}

// RepairStatus implements rpc.RepairAdmin.
func (a repairAdmin) RepairStatus() rpc.RepairStatus {
	var st rpc.RepairStatus
	for _, r := range a.n.repair.Status().Runs {
		st.Runs = append(st.Runs, rpc.RepairRun{
			ID: r.ID, Tenant: r.Tenant, Partition: r.Partition, Started: r.Started, Ended: r.Ended,
			Spans: r.Spans, Done: r.Done, Confirmed: r.Confirmed,
			KeysDiffered: r.KeysDiffered, RowsSent: r.RowsSent, Bytes: r.Bytes, Error: r.Error,
		})
	}
	return st
}

// repairedAt is when the span was last found equal everywhere for which that is the
// longest ago, zero if that is not known of one.
func (n *Node) repairedAt() time.Time {
	var oldest time.Time
	first := true
	//seams:ordered a minimum has no order
	for _, at := range n.repair.RepairedAt() {
		if first || at.Before(oldest) {
			oldest, first = at, false
		}
	}
	return oldest
}
