package node

import (
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/gossip/ring"
)

// ringSeries are those of changes of the ring, and of what they move.
func (n *Node) ringSeries() ([]series, func(emit)) {
	moving := gauge("pairdb_ring_moving_partitions", "Partitions whose owners the open change of the ring moves; 0 while none is open.")
	stage := gauge("pairdb_ring_change_stage", "1 for the stage that the open change of the ring is in, else 0; stable: none is open.", "stage")
	intents := gauge("pairdb_ring_open_intents", "Changes of nodes that were asked for and have not begun.")
	joiners := gauge("pairdb_ring_joiners", "Nodes that wait to become members, as far as this node knows.")
	entries := gauge("pairdb_ring_log_entries", "Entries of the cluster's log that this node keeps; a snapshot stands for those before them.")
	size := gauge("pairdb_ring_log_bytes", "Bytes of what this node keeps of the cluster's log, by part.", "part")
	spans := gauge("pairdb_transfer_spans", "Partitions, for each replication factor, that this node fetches (gain) or hands over and drops (cleanup), by state.", "kind", "state")
	rows := counter("pairdb_streamed_rows_total", "Objects moved because of a change of the ring: fetched by this node, or handed over to owners that lacked them before it dropped its copy.", "direction")
	bytes := counter("pairdb_streamed_bytes_total", "Bytes of those objects.", "direction")
	gained := counter("pairdb_gained_spans_total", "Partitions, for each replication factor, that this node has fetched all of.")
	dropped := counter("pairdb_dropped_spans_total", "Partitions, for each replication factor, that this node has dropped after handing them over.")
	all := []series{moving, stage, intents, joiners, entries, size, spans, rows, bytes, gained, dropped}
	return all, func(e emit) {
		snap := n.gossip.Snapshot()
		at, touched := ring.Stable, 0
		if c := snap.Change; c != nil {
			at = c.Stage
			for p := range c.Next.Partitions() {
				if c.Touches(ring.Partition(p)) {
					touched++
				}
			}
		}
		e(moving, float64(touched))
		for _, s := range []ring.Stage{ring.Stable, ring.Proposed, ring.Committed} {
			e(stage, boolValue(s == at), s.String())
		}
		open := 0
		if snap.Ring != nil {
			open = len(snap.Ring.Intents())
		}
		e(intents, float64(open))
		e(joiners, float64(len(snap.Joiners)))
		l := n.gossip.Log()
		e(entries, float64(l.Entries))
		e(size, float64(l.Bytes), "entries")
		e(size, float64(l.SnapshotBytes), "snapshot")
		type group struct{ kind, state string }
		count := make(map[group]int)
		for _, t := range n.repair.Transfers() {
			count[group{t.Kind, t.State}]++
		}
		for _, kind := range []string{repair.TransferGain, repair.TransferCleanup} {
			for _, state := range []string{repair.TransferWaiting, repair.TransferRunning, repair.TransferDone} {
				e(spans, float64(count[group{kind, state}]), kind, state)
			}
		}
		st := n.repair.Status()
		e(rows, float64(st.Gained), "gained")
		e(rows, float64(st.Handed), "handed")
		e(bytes, float64(st.GainedBytes), "gained")
		e(bytes, float64(st.HandedBytes), "handed")
		e(gained, float64(st.GainedSpans))
		e(dropped, float64(st.CleanedSpans))
	}
}
