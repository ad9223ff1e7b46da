package clienttest

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// adminService is the upkeep of a node that keeps nothing on disk: it is done at
// once.
type adminService struct {
	pairdbv1.UnimplementedAdminServer
	server *Server
}

func (a adminService) name() *pairdbv1.NodeName {
	return &pairdbv1.NodeName{NodeId: clusterID, Name: "n-" + a.server.addr}
}

// Flush implements pairdbv1.AdminServer.
func (a adminService) Flush(context.Context, *pairdbv1.FlushRequest) (*pairdbv1.FlushResponse, error) {
	return &pairdbv1.FlushResponse{Node: a.name(), FlushedSeq: 42}, nil
}

// Compact implements pairdbv1.AdminServer.
func (a adminService) Compact(req *pairdbv1.CompactRequest, stream grpc.ServerStreamingServer[pairdbv1.CompactResponse]) error {
	merges := uint64(10)
	if r := req.GetPartitions(); r != nil {
		merges = uint64(r.GetLast() - r.GetFirst() + 1)
	}
	if err := stream.Send(&pairdbv1.CompactResponse{Node: a.name(), TablesDone: 1, TablesTotal: 2, Merges: 1}); err != nil {
		return err
	}
	return stream.Send(&pairdbv1.CompactResponse{Node: a.name(), Done: true, Merges: merges, Bytes: merges << 20})
}

// Verify implements pairdbv1.AdminServer.
func (a adminService) Verify(_ *pairdbv1.VerifyRequest, stream grpc.ServerStreamingServer[pairdbv1.VerifyResponse]) error {
	if err := stream.Send(&pairdbv1.VerifyResponse{Node: a.name(), BytesDone: 1, BytesTotal: 2}); err != nil {
		return err
	}
	return stream.Send(&pairdbv1.VerifyResponse{
		Node: a.name(), Done: true, BytesDone: 3 << 20, BytesTotal: 3 << 20, Tables: 3, Damage: a.server.damage(),
	})
}

// Scrub implements pairdbv1.AdminServer: it is under way when it is begun, and over
// when somebody asks again.
func (a adminService) Scrub(_ context.Context, req *pairdbv1.ScrubRequest) (*pairdbv1.ScrubResponse, error) {
	n := &pairdbv1.NodeScrub{
		Node: a.name(), Running: req.GetStart(), Began: timestamppb.New(time.Unix(1, 0)), BytesDone: 1 << 20, BytesTotal: 3 << 20,
	}
	if !n.GetRunning() {
		n.BytesDone, n.Ended, n.Damage = n.GetBytesTotal(), timestamppb.New(time.Unix(2, 0)), a.server.damage()
		if len(n.GetDamage()) > 0 {
			n.DamagedTables, n.QuarantinedPartitions = 1, 16
		}
	}
	return &pairdbv1.ScrubResponse{Nodes: []*pairdbv1.NodeScrub{n}}, nil
}

// Stats implements pairdbv1.AdminServer.
func (a adminService) Stats(context.Context, *pairdbv1.StatsRequest) (*pairdbv1.StatsResponse, error) {
	return &pairdbv1.StatsResponse{
		Node:       a.name(),
		Levels:     []*pairdbv1.LevelStats{{Level: 0, Tables: 2, Bytes: 2 << 20, Score: 0.5}, {Level: 1}},
		TableBytes: 2 << 20, Keys: uint64(a.server.store.Len()), Level0Depth: 2,
		Memtables:   &pairdbv1.MemtableStats{ActiveBytes: 1 << 10},
		Log:         &pairdbv1.LogStats{Batches: 8, Operations: 9, Syncs: 4, SyncTime: durationpb.New(8e6), SyncBytes: 4096, Segments: 1},
		Compactions: &pairdbv1.CompactionStats{Flushes: 2, FlushTables: 2, FlushBytes: 2 << 20},
		Cache:       &pairdbv1.CacheStats{Hits: 3, Misses: 1, Bytes: 512},
		Stalls:      []*pairdbv1.StallStats{{Reason: "memtables", Count: 2, Time: durationpb.New(3e9)}, {Reason: "none yet", Time: durationpb.New(0)}},
		Pools:       []*pairdbv1.PoolStats{{Name: "flush", Jobs: 2, BusyTime: durationpb.New(1e9), WaitTime: durationpb.New(0)}},
		VisibleSeq:  10, DurableSeq: 9, FlushedSeq: 8,
	}, nil
}
