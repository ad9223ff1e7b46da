package node

import "time"

// repairSeries are those of rounds and of partitions that are fetched again.
func (n *Node) repairSeries() ([]series, func(emit)) {
	started := time.Now()
	rounds := counter("pairdb_repair_rounds_total", "Comparisons of many partitions at once that this node drove and that ended.")
	spans := counter("pairdb_repair_spans_total", "Partitions that such rounds dealt with, for each replication factor, by how that ended: confirmed (all owners equal), partial (an owner was away), void (the ring or an owner changed), failed.", "end")
	ranges := counter("pairdb_repair_differing_ranges_total", "Ranges of about 32 keys that owners differed in.")
	keys := counter("pairdb_repair_differing_keys_total", "Keys that owners differed in, those aside that were being written.")
	rows := counter("pairdb_repair_rows_total", "Objects that one owner lacked and got, by whether they were sent by this node or received.", "direction")
	bytes := counter("pairdb_repair_bytes_total", "Bytes of those objects.", "direction")
	compared := counter("pairdb_repair_compared_bytes_total", "Bytes of comparisons, sent and received by the node that drove them.")
	refetched := counter("pairdb_repair_refetched_rows_total", "Objects fetched for partitions under quarantine.")
	refetchedBytes := counter("pairdb_repair_refetched_bytes_total", "Bytes of those objects.")
	damaged := counter("pairdb_repair_damaged_keys_total", "Keys of which an owner had nothing though all owners had had something.")
	driven := gauge("pairdb_repair_driven_spans", "Partitions, for each replication factor, whose rounds this node drives.")
	due := gauge("pairdb_repair_due_spans", "Those of them that are to be compared as soon as may be.")
	unknown := gauge("pairdb_repair_unconfirmed_spans", "Partitions that this node owns, for each replication factor, of which no round has ended with all owners equal since it started.")
	age := gauge("pairdb_repaired_at_age_seconds", "Age of the oldest of the last rounds that ended with all owners equal, of what this node owns, in seconds; before the first, the time since this node started.")
	all := []series{rounds, spans, ranges, keys, rows, bytes, compared, refetched, refetchedBytes, damaged, driven, due, unknown, age}
	return all, func(emit emit) {
		st := n.repair.Status()
		emit(rounds, float64(st.Rounds))
		emit(spans, float64(st.Confirmed), "confirmed")
		emit(spans, float64(st.Partial), "partial")
		emit(spans, float64(st.Void), "void")
		emit(spans, float64(st.Failed), "failed")
		emit(ranges, float64(st.Differing))
		emit(keys, float64(st.Differed))
		emit(rows, float64(st.Sent), "sent")
		emit(rows, float64(st.Received), "received")
		emit(bytes, float64(st.SentBytes), "sent")
		emit(bytes, float64(st.ReceivedBytes), "received")
		emit(compared, float64(st.ComparedBytes))
		emit(refetched, float64(st.Refetched))
		emit(refetchedBytes, float64(st.RefetchedBytes))
		emit(damaged, float64(st.Damaged))
		emit(driven, float64(st.Driven))
		emit(due, float64(st.Due))
		emit(unknown, float64(st.Owned-st.Repaired))
		switch {
		case st.Owned == 0:
		case st.Oldest.IsZero():
			emit(age, time.Since(started).Seconds())
		default:
			emit(age, max(n.clock.Now().Sub(st.Oldest), 0).Seconds())
		}
	}
}
