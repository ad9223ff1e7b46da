package node

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/node/replica"
)

// admin is rpc.Admin over the engine.
type admin struct{ n *Node }

// Flush implements rpc.Admin.
func (a admin) Flush(context.Context) (uint64, error) {
	if err := a.n.db.Flush(); err != nil {
		return 0, upkeepError(err)
	}
	return a.n.db.Metrics().FlushedSeq, nil
}

// Compact implements rpc.Admin.
func (a admin) Compact(ctx context.Context, whole bool, first, last ring.Partition, progress func(*pairdbv1.CompactResponse)) (*pairdbv1.CompactResponse, error) {
	message := func(p engine.CompactProgress) *pairdbv1.CompactResponse {
		return &pairdbv1.CompactResponse{
			Level: uint32(p.Level), TablesDone: uint32(p.Done), TablesTotal: uint32(p.Tables), Merges: uint64(p.Merges), Bytes: uint64(p.Bytes),
		}
	}
	opts := engine.CompactOptions{Progress: func(p engine.CompactProgress) { progress(message(p)) }}
	if !whole {
		opts.Start, opts.End = replica.PartitionRange(first, last)
	}
	a.n.log.Info("compaction asked for", "whole", whole, "first_partition", first, "last_partition", last)
	p, err := a.n.db.CompactWith(ctx, opts)
	a.n.log.Info("compaction ended", "merges", p.Merges, "bytes", p.Bytes, "err", err)
	if err != nil {
		return nil, upkeepError(err)
	}
	return message(p), nil
}

// Verify implements rpc.Admin.
func (a admin) Verify(ctx context.Context, progress func(*pairdbv1.VerifyResponse)) (*pairdbv1.VerifyResponse, error) {
	last := engine.Progress{}
	r, err := a.n.db.VerifyWith(ctx, engine.VerifyOptions{Damaged: a.n.damagedTable, Progress: func(p engine.Progress) {
		last = p
		progress(&pairdbv1.VerifyResponse{BytesDone: uint64(p.Done), BytesTotal: uint64(p.Total)})
	}})
	for _, d := range r.Damage {
		a.n.log.Error("verification found damage", "err", d)
	}
	if r.ManifestDamaged {
		a.n.scrubs.mendManifest()
	}
	if err != nil {
		return nil, upkeepError(err)
	}
	out := &pairdbv1.VerifyResponse{
		BytesDone: uint64(last.Done), BytesTotal: uint64(last.Total), Tables: uint64(r.Tables), DamageOmitted: uint64(r.Omitted),
	}
	for _, d := range r.Damage {
		out.Damage = append(out.Damage, damage(filepath.Join(a.n.cfg.Node.DataDir, EngineDir), d))
	}
	return out, nil
}

// damage tells a finding of a verification without the node's own paths.
func damage(dir string, err error) *pairdbv1.Damage {
	var ce *base.CorruptError
	if errors.As(err, &ce) {
		return &pairdbv1.Damage{File: strings.TrimPrefix(ce.File, dir+"/"), Offset: ce.Offset, Reason: ce.Err.Error()}
	}
	return &pairdbv1.Damage{Offset: -1, Reason: strings.ReplaceAll(err.Error(), dir+"/", "")}
}

// upkeepError gives a failed call to the engine its code.
func upkeepError(err error) error {
	e := &coord.Error{Message: "the engine failed; the node's log has more", Err: err, Code: errcode.SSTableFailed}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, engine.ErrDiskFull):
		e.Code, e.Message = errcode.InsufficientSpace, "there is too little space on the disk"
	case errors.Is(err, engine.ErrReadOnly):
		e.Code, e.Message = errcode.CommitLogFailed, "the engine only reads since a write or sync failed"
	case errors.Is(err, engine.ErrClosed):
		e.Code, e.Message = errcode.Unavailable, "the node is stopping"
	case errors.Is(err, engine.ErrCorrupt):
		e.Code, e.Message = errcode.ChecksumFailed, "data on disk is damaged; pairdb verify says where"
	}
	return e
}

// Scrub implements rpc.Admin.
func (a admin) Scrub(start bool) *pairdbv1.NodeScrub {
	if start {
		a.n.scrubs.begin()
	}
	s := a.n.scrubs.state()
	out := &pairdbv1.NodeScrub{
		Running: s.Running, BytesDone: uint64(s.Done), BytesTotal: uint64(s.Total), DamagedTables: uint64(s.Damaged),
		QuarantinedPartitions: uint64(a.n.marks.Len()), Error: s.Error,
	}
	if !s.Began.IsZero() {
		out.Began = timestamppb.New(s.Began)
	}
	if !s.Ended.IsZero() {
		out.Ended = timestamppb.New(s.Ended)
	}
	for _, d := range s.findings {
		out.Damage = append(out.Damage, damage(filepath.Join(a.n.cfg.Node.DataDir, EngineDir), d))
	}
	return out
}

// Stats implements rpc.Admin.
func (a admin) Stats() *pairdbv1.StatsResponse {
	m := a.n.db.Metrics()
	out := &pairdbv1.StatsResponse{
		TableBytes: uint64(m.TableBytes), Keys: uint64(m.Entries), Level0Depth: uint64(m.L0Depth), CompactionDebtBytes: uint64(m.CompactionDebt),
		Memtables: &pairdbv1.MemtableStats{
			ActiveBytes: uint64(m.MemTableBytes), Immutable: uint64(m.ImmutableCount), ImmutableBytes: uint64(m.ImmutableBytes),
		},
		Log: &pairdbv1.LogStats{
			Batches: uint64(m.Batches), Operations: uint64(m.Ops), BatchBytes: uint64(m.BatchBytes), Syncs: uint64(m.WALSyncs),
			SyncTime: durationpb.New(m.WALSyncTime), SyncBytes: uint64(m.WALSyncBytes), Rotations: uint64(m.WALRotations), Segments: uint64(m.WALSegments),
		},
		Compactions: &pairdbv1.CompactionStats{
			Flushes: uint64(m.Flushes), FlushTables: uint64(m.FlushTables), FlushBytes: uint64(m.FlushBytes),
			Merges: uint64(m.Compactions), Moves: uint64(m.Moves), ReadBytes: uint64(m.CompactionIn), WrittenBytes: uint64(m.CompactionOut),
			Failures: uint64(m.JobErrors),
		},
		Cache:      &pairdbv1.CacheStats{Hits: m.Cache.Hits, Misses: m.Cache.Misses, Bytes: uint64(m.Cache.Bytes)},
		OpenTables: uint64(m.OpenTables), ObsoleteFiles: uint64(m.ObsoleteFiles), Snapshots: uint64(m.Snapshots), ManifestBytes: uint64(m.ManifestBytes),
		VisibleSeq: m.VisibleSeq, DurableSeq: m.DurableSeq, FlushedSeq: m.FlushedSeq, ReadOnly: m.ReadOnly,
		Amplification: &pairdbv1.AmplificationStats{Write: m.WriteAmp, Read: uint64(m.ReadAmp), Space: m.SpaceAmp},
		Filter: &pairdbv1.FilterStats{
			Denied: uint64(m.Filter.Negatives), FalsePositives: uint64(m.Filter.FalsePositives),
			Found: uint64(m.Filter.Probes - m.Filter.Negatives - m.Filter.FalsePositives),
		},
		Disk: &pairdbv1.DiskStats{
			TotalBytes: uint64(m.Disk.Total), FreeBytes: uint64(m.Disk.Free), State: m.Disk.State.String(), Stalled: durationpb.New(m.Disk.Stalled),
		},
	}
	for i, l := range m.Levels {
		out.Levels = append(out.Levels, &pairdbv1.LevelStats{Level: uint32(i), Tables: uint64(l.Files), Bytes: uint64(l.Bytes), Score: l.Score})
	}
	for _, reason := range slices.Sorted(maps.Keys(m.Stalls)) {
		s := m.Stalls[reason]
		out.Stalls = append(out.Stalls, &pairdbv1.StallStats{Reason: reason, Count: uint64(s.Count), Time: durationpb.New(s.Time)})
	}
	for _, name := range slices.Sorted(maps.Keys(m.Pools)) {
		p := m.Pools[name]
		out.Pools = append(out.Pools, &pairdbv1.PoolStats{
			Name: name, Queued: uint64(p.Queued), Busy: uint64(p.Busy), Jobs: uint64(p.Jobs), Panics: uint64(p.Panics),
			BusyTime: durationpb.New(p.BusyTime), WaitTime: durationpb.New(p.WaitTime),
		})
	}
	return out
}
