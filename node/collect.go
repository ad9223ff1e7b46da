package node

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/engine/disk"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/node/rpc"
)

// registerCollectors makes the figures that the parts keep themselves into
// series, read when they are scraped.
func (n *Node) registerCollectors() error {
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newCollector(n.engineSeries()),
		newCollector(n.diskSeries()),
		newCollector(n.quarantineSeries()),
		newCollector(n.scrubSeries()),
		newCollector(n.clusterSeries()),
		newCollector(n.peerSeries()),
		newCollector(n.sessionSeries()),
		newCollector(n.healthSeries()),
		newCollector(n.recordSeries()),
		newCollector(n.collectedSeries()),
		newCollector(n.tenantDropSeries()),
		newCollector(n.sumSeries()),
		newCollector(n.hintSeries()),
		newCollector(n.repairSeries()),
		newCollector(n.ringSeries()),
		newCollector(n.admissionSeries()),
		newCollector(n.doorSeries()),
	} {
		if err := n.reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// series is one metric and its description.
type series struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) series {
	return series{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue}
}

func counter(name, help string, labels ...string) series {
	return series{prometheus.NewDesc(name, help, labels, nil), prometheus.CounterValue}
}

// emit reports one sample.
type emit func(s series, v float64, labels ...string)

// collector is a prometheus.Collector made of a list of series and a function
// that reports their samples.
type collector struct {
	all     []series
	collect func(emit)
}

func newCollector(all []series, collect func(emit)) *collector {
	return &collector{all: all, collect: collect}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, s := range c.all {
		ch <- s.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.collect(func(s series, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(s.desc, s.kind, v, labels...)
	})
}

func (n *Node) engineSeries() ([]series, func(emit)) {
	batches := counter("pairdb_engine_batches_total", "Batches applied to the engine.")
	ops := counter("pairdb_engine_operations_total", "Sets and deletes applied to the engine.")
	syncs := counter("pairdb_engine_wal_syncs_total", "Syncs of the log: one for all writes that gathered meanwhile.")
	syncSeconds := counter("pairdb_engine_wal_sync_seconds_total", "Time spent in writing and syncing the log, in seconds.")
	walBytes := counter("pairdb_engine_wal_bytes_total", "Bytes of records synced to the log.")
	segments := gauge("pairdb_engine_wal_segments", "Log segments not yet recycled.")
	memtable := gauge("pairdb_engine_memtable_bytes", "Bytes in memtables, by state.", "state")
	flushes := counter("pairdb_engine_flushes_total", "Memtables flushed.")
	flushBytes := counter("pairdb_engine_flush_bytes_total", "Bytes of tables written by flushes.")
	compactions := counter("pairdb_engine_compactions_total", "Compactions, by kind.", "kind")
	compactionBytes := counter("pairdb_engine_compaction_bytes_total", "Bytes read and written by compactions.", "direction")
	ingests := counter("pairdb_engine_ingests_total", "Times that tables made elsewhere were taken in.")
	ingestBytes := counter("pairdb_engine_ingest_bytes_total", "Bytes of tables made elsewhere that were taken in.")
	writeAmp := gauge("pairdb_engine_write_amplification", "Bytes written to the log and to tables for each byte applied or ingested since the start.")
	readAmp := gauge("pairdb_engine_read_amplification", "Tables that the read of one key looks into at most.")
	spaceAmp := gauge("pairdb_engine_space_amplification", "Estimate of the bytes of tables for each byte of live data.")
	filterProbes := counter("pairdb_engine_filter_probes_total", "Point reads that asked the filter of a table, by what came of it.", "result")
	debt := gauge("pairdb_engine_compaction_debt_bytes", "Bytes above the targets of their levels.")
	failures := counter("pairdb_engine_job_errors_total", "Flushes and compactions that failed and are tried again.")
	stalls := counter("pairdb_engine_stalls_total", "Times that a writer had to wait, by reason.", "reason")
	stallSeconds := counter("pairdb_engine_stall_seconds_total", "Time that writers had to wait, in seconds, by reason.", "reason")
	files := gauge("pairdb_engine_level_files", "Tables, by level.", "level")
	levelBytes := gauge("pairdb_engine_level_bytes", "Bytes of tables, by level.", "level")
	entries := gauge("pairdb_engine_keys", "Estimate of the live keys.")
	hits := counter("pairdb_engine_block_cache_hits_total", "Blocks found in the cache.")
	misses := counter("pairdb_engine_block_cache_misses_total", "Blocks not found in the cache.")
	cacheBytes := gauge("pairdb_engine_block_cache_bytes", "Bytes held by the block cache.")
	readOnly := gauge("pairdb_engine_read_only", "1 after a failed write or sync ended all writing, else 0.")
	waits := counter("pairdb_engine_compaction_waits_total", "Times that a compaction waited so that writers need not, or for its rate.")
	waitSeconds := counter("pairdb_engine_compaction_wait_seconds_total", "Time that compactions waited so, in seconds.")
	limit := gauge("pairdb_engine_compaction_limit_bytes", "Bytes a second that compactions may write now; 0: no bound.")
	queued := gauge("pairdb_engine_jobs_queued", "Background jobs that wait for a worker, by pool.", "pool")
	busy := gauge("pairdb_engine_jobs_busy", "Background jobs under way, by pool.", "pool")
	jobs := counter("pairdb_engine_jobs_total", "Background jobs done, by pool.", "pool")
	jobSeconds := counter("pairdb_engine_job_seconds_total", "Time spent in background jobs, in seconds, by pool.", "pool")
	panics := counter("pairdb_engine_job_panics_total", "Background jobs that panicked, each of which ended all writing, by pool.", "pool")
	all := []series{
		queued, busy, jobs, jobSeconds, panics,
		batches, ops, syncs, syncSeconds, walBytes, segments, memtable, flushes, flushBytes, compactions, compactionBytes,
		ingests, ingestBytes, writeAmp, readAmp, spaceAmp, filterProbes,
		debt, failures, stalls, stallSeconds, files, levelBytes, entries, hits, misses, cacheBytes, readOnly, waits, waitSeconds, limit,
	}
	return all, func(e emit) {
		m := n.db.Metrics()
		e(batches, float64(m.Batches))
		e(ops, float64(m.Ops))
		e(syncs, float64(m.WALSyncs))
		e(syncSeconds, m.WALSyncTime.Seconds())
		e(walBytes, float64(m.WALSyncBytes))
		e(segments, float64(m.WALSegments))
		e(memtable, float64(m.MemTableBytes), "active")
		e(memtable, float64(m.ImmutableBytes), "immutable")
		e(flushes, float64(m.Flushes))
		e(flushBytes, float64(m.FlushBytes))
		e(compactions, float64(m.Compactions), "merge")
		e(compactions, float64(m.Moves), "move")
		e(compactions, float64(m.Drops), "drop")
		e(compactionBytes, float64(m.CompactionIn), "in")
		e(compactionBytes, float64(m.CompactionOut), "out")
		e(ingests, float64(m.Ingests))
		e(ingestBytes, float64(m.IngestBytes))
		e(writeAmp, m.WriteAmp)
		e(readAmp, float64(m.ReadAmp))
		e(spaceAmp, m.SpaceAmp)
		e(filterProbes, float64(m.Filter.Negatives), "denied")
		e(filterProbes, float64(m.Filter.FalsePositives), "false_positive")
		e(filterProbes, float64(m.Filter.Probes-m.Filter.Negatives-m.Filter.FalsePositives), "found")
		for name, p := range m.Pools {
			e(queued, float64(p.Queued), name)
			e(busy, float64(p.Busy), name)
			e(jobs, float64(p.Jobs), name)
			e(jobSeconds, p.BusyTime.Seconds(), name)
			e(panics, float64(p.Panics), name)
		}
		e(debt, float64(m.CompactionDebt))
		e(failures, float64(m.JobErrors))
		for reason, s := range m.Stalls {
			e(stalls, float64(s.Count), reason)
			e(stallSeconds, s.Time.Seconds(), reason)
		}
		for i, l := range m.Levels {
			e(files, float64(l.Files), strconv.Itoa(i))
			e(levelBytes, float64(l.Bytes), strconv.Itoa(i))
		}
		e(entries, float64(m.Entries))
		e(hits, float64(m.Cache.Hits))
		e(misses, float64(m.Cache.Misses))
		e(cacheBytes, float64(m.Cache.Bytes))
		e(readOnly, boolValue(m.ReadOnly))
		e(waits, float64(m.CompactionWaits))
		e(waitSeconds, m.CompactionWaitTime.Seconds())
		e(limit, float64(m.CompactionLimit))
	}
}

// diskSeries are about the file system of the data, as the engine saw it last:
// a scrape must not hang with the disk.
func (n *Node) diskSeries() ([]series, func(emit)) {
	total := gauge("pairdb_disk_bytes", "Size of the file system that holds the data, in bytes, without what is kept for root.")
	free := gauge("pairdb_disk_free_bytes", "Free bytes of the file system that holds the data.")
	used := gauge("pairdb_disk_used_bytes", "Bytes in use of the file system that holds the data, by whatever.")
	state := gauge("pairdb_disk_state", "1 for the state that the disk is in, else 0: ok, warn, throttle (large writes are refused), full (writes are refused).", "state")
	refused := counter("pairdb_disk_refused_writes_total", "Batches of writes refused for lack of space, by code.", "code")
	stalls := counter("pairdb_disk_stalls_total", "Times that the disk did not answer: a call hung for longer than storage.disk_slow or storage.disk_stall.")
	stalled := gauge("pairdb_disk_stalled_seconds", "For how long the disk has not answered by now; 0: it does.")
	all := []series{total, free, used, state, refused, stalls, stalled}
	return all, func(e emit) {
		m := n.db.Metrics().Disk
		e(total, float64(m.Total))
		e(free, float64(m.Free))
		e(used, float64(m.Total-m.Free))
		for _, s := range disk.States() {
			e(state, boolValue(s == m.State), s.String())
		}
		e(refused, float64(m.Refused[disk.TooFull]), string(errcode.DiskFull))
		e(refused, float64(m.Refused[disk.Throttled]), string(errcode.DiskThrottled))
		e(refused, float64(m.Refused[disk.NoSpace]), string(errcode.InsufficientSpace))
		e(stalls, float64(m.Stalls))
		e(stalled, m.Stalled.Seconds())
	}
}

func (n *Node) clusterSeries() ([]series, func(emit)) {
	members := gauge("pairdb_members", "Known nodes of the cluster, by what gossip believes of them.", "state")
	version := gauge("pairdb_ring_version", "Number of the last log entry learned here.")
	tenants := gauge("pairdb_tenants", "Tenants known here.")
	ready := gauge("pairdb_ready", "1 while this node serves clients, else 0.")
	insecure := gauge("pairdb_insecure", "1 if this node runs with --insecure, else 0.")
	all := []series{members, version, tenants, ready, insecure}
	return all, func(e emit) {
		snap := n.gossip.Snapshot()
		states := map[schema.Liveness]int{}
		for i := range snap.Members {
			states[snap.Members[i].Liveness]++
		}
		for _, l := range []schema.Liveness{schema.LivenessUnknown, schema.Alive, schema.Suspect, schema.Dead, schema.Left} {
			e(members, float64(states[l]), l.String())
		}
		e(version, float64(snap.Version))
		e(tenants, float64(len(snap.Tenants())))
		e(ready, boolValue(n.serves()))
		e(insecure, boolValue(n.cfg.Cluster.Insecure))
	}
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// localInfo is what this node tells others about its own data.
func (n *Node) localInfo() rpc.NodeInfo {
	m := n.db.Metrics()
	snap := n.gossip.Snapshot()
	_, incarnation, _ := n.gossip.Identity()
	info := rpc.NodeInfo{
		Incarnation: incarnation, RingVersion: snap.Version,
		Bytes: uint64(m.TableBytes + m.MemTableBytes + m.ImmutableBytes),
		Keys:  uint64(m.Entries),

		RepairedAt:  n.repairedAt(),
		Quarantined: uint32(n.marks.Len()),
		Unverified:  new(uint32(n.repair.Unverified())),
		Draining:    n.drain.begun.Load(),
	}
	for _, t := range n.hints.store.Targets() {
		info.Hints += uint64(t.Count)
	}
	if d := m.Disk; d.Total > 0 {
		info.DiskUsedPercent = 100 * float64(d.Total-d.Free) / float64(d.Total)
	}
	return info
}

// collectedSeries are the deletes and what else was collected because all owners had
// had it.
func (n *Node) collectedSeries() ([]series, func(emit)) {
	collected := counter("pairdb_collected_total", "Deletes, expired values, and values that lost to another where the last write wins, removed from this node's disk because all owners had had them, by kind.", "kind")
	sweeps := counter("pairdb_collect_sweeps_total", "Times that the deletes and expiring values of a partition were gone through to collect what could be.")
	pending := gauge("pairdb_collect_pending_spans", "Partitions, for each replication factor, of which this node has not collected yet what a round has confirmed: it has not been told that it may, or goes through them.")
	return []series{collected, sweeps, pending}, func(e emit) {
		e(pending, float64(n.store.Uncollected()))
		c := n.store.Collected()
		e(collected, float64(c.Tombstones), "delete")
		e(collected, float64(c.Expired), "expired")
		e(collected, float64(c.Lost), "lost")
		e(sweeps, float64(c.Sweeps))
	}
}

// recordSeries are the idempotency records.
func (n *Node) recordSeries() ([]series, func(emit)) {
	held := gauge("pairdb_idempotency_record_bytes", "What idempotency records that count take, keys included, in bytes as stored.")
	dropped := counter("pairdb_idempotency_dropped_bytes_total", "Bytes of idempotency records that were forgotten before their time because a tenant had more than limits.idempotency_bytes.")
	return []series{held, dropped}, func(e emit) {
		h, d := n.records.Bytes()
		e(held, float64(h))
		e(dropped, float64(d))
	}
}

// sumSeries are the sums over ranges of the data that owners compare.
func (n *Node) sumSeries() ([]series, func(emit)) {
	leaves := gauge("pairdb_sums_leaves", "Ranges of keys that a sum is kept of, each of about 512 keys.")
	dirty := gauge("pairdb_sums_dirty_leaves", "Ranges of keys whose sum is not certain and is read anew in the background, or when it is asked for.")
	unknown := gauge("pairdb_sums_unknown_partitions", "Partitions whose sums have not been looked at yet since the start, for want of a file that says them.")
	recomputed := counter("pairdb_sums_recomputed_keys_total", "Keys read to compute sums of ranges anew.")
	age := gauge("pairdb_sums_checkpoint_age_seconds", "How long ago the sums were last in their file, in seconds: what was written since is read again after a crash.")
	return []series{leaves, dirty, unknown, recomputed, age}, func(e emit) {
		st := n.sums.Stats()
		e(leaves, float64(st.Leaves))
		e(dirty, float64(st.Dirty))
		e(unknown, float64(st.Unknown))
		e(recomputed, float64(st.Recomputed))
		e(age, time.Since(time.Unix(0, n.tending.savedAt.Load())).Seconds())
	}
}
