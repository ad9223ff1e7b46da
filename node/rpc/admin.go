package rpc

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	grpcpeer "google.golang.org/grpc/peer"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/node/access"
)

// Admin is the upkeep of this node. Its errors are classified like all others. The
// progress functions are called by the goroutine of the call.
type Admin interface {
	// Flush returns the sequence number up to which everything is in tables.
	Flush(ctx context.Context) (flushed uint64, err error)
	// Compact compacts the partitions first to last, both included, or everything
	// if whole is set.
	Compact(ctx context.Context, whole bool, first, last ring.Partition, progress func(*pairdbv1.CompactResponse)) (*pairdbv1.CompactResponse, error)
	// Verify reads all tables.
	Verify(ctx context.Context, progress func(*pairdbv1.VerifyResponse)) (*pairdbv1.VerifyResponse, error)
	// Scrub returns the scrub under way or the last one, without the node's name. If
	// start is set it begins one first, unless one is under way. It does not wait.
	Scrub(start bool) *pairdbv1.NodeScrub
	// Stats returns the figures of the engine.
	Stats() *pairdbv1.StatsResponse
}

// progressEvery is the least time between two messages of progress.
const progressEvery = 200 * time.Millisecond

// adminService is the service Admin.
type adminService struct {
	pairdbv1.UnimplementedAdminServer
	meta  Metadata
	admin Admin
	asker Asker
	// stopping is closed when the clients' listener stops: long calls do not
	// hold it up.
	stopping              <-chan struct{}
	compacting, verifying atomic.Bool
}

// allow refuses callers from other machines.
func allow(ctx context.Context) error {
	p, ok := grpcpeer.FromContext(ctx)
	if ok && p.Addr != nil {
		local := ""
		if p.LocalAddr != nil {
			local = p.LocalAddr.String()
		}
		if access.FromThisMachine(p.Addr.String(), local) {
			return nil
		}
	}
	return &coord.Error{Code: errcode.Forbidden, Message: "until there are credentials a node takes these calls from its own machine only"}
}

func (a *adminService) name() *pairdbv1.NodeName {
	snap := a.meta.Snapshot()
	n := &pairdbv1.NodeName{NodeId: snap.Self.String()}
	if m, ok := snap.Member(snap.Self); ok {
		n.Name = m.Name
	}
	return n
}

// Flush implements pairdbv1.AdminServer.
func (a *adminService) Flush(ctx context.Context, _ *pairdbv1.FlushRequest) (*pairdbv1.FlushResponse, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	seq, err := a.admin.Flush(ctx)
	if err != nil {
		return nil, err
	}
	return &pairdbv1.FlushResponse{Node: a.name(), FlushedSeq: seq}, nil
}

// Stats implements pairdbv1.AdminServer.
func (a *adminService) Stats(ctx context.Context, _ *pairdbv1.StatsRequest) (*pairdbv1.StatsResponse, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	r := a.admin.Stats()
	r.Node = a.name()
	return r, nil
}

var errStopping = errors.New("the node is stopping")

// long begins a long call, of whose kind one is under way at a time. end is to be
// called if err is nil.
func (a *adminService) long(ctx context.Context, busy *atomic.Bool, what string) (_ context.Context, end func(), err error) {
	if err := allow(ctx); err != nil {
		return nil, nil, err
	}
	if !busy.CompareAndSwap(false, true) {
		return nil, nil, &coord.Error{Code: errcode.ResourceExhausted, Message: "another " + what + " is under way on this node"}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		select {
		case <-a.stopping:
			cancel(errStopping)
		case <-ended:
		}
	}()
	return ctx, func() {
		close(ended)
		cancel(nil)
		busy.Store(false)
	}, nil
}

// stopped makes of an error that the end of the node caused what it is.
func stopped(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errStopping) {
		return &coord.Error{Code: errcode.Unavailable, Message: "the node is stopping; what was done stays", Err: err}
	}
	return err
}

// throttle sends a message now and then. A client that cannot be sent to is gone,
// and its context with it.
func throttle[M any](send func(M) error) func(M) {
	var last time.Time
	return func(m M) {
		if time.Since(last) >= progressEvery {
			last = time.Now()
			_ = send(m)
		}
	}
}

// Compact implements pairdbv1.AdminServer.
func (a *adminService) Compact(req *pairdbv1.CompactRequest, stream pairdbv1.Admin_CompactServer) error {
	ctx, end, err := a.long(stream.Context(), &a.compacting, "compaction")
	if err != nil {
		return err
	}
	defer end()
	first, last, err := a.partitions(req.GetPartitions())
	if err != nil {
		return err
	}
	name := a.name()
	send := throttle(stream.Send)
	r, err := a.admin.Compact(ctx, req.GetPartitions() == nil, first, last, func(p *pairdbv1.CompactResponse) {
		p.Node = name
		send(p)
	})
	if err != nil {
		return stopped(ctx, err)
	}
	r.Node, r.Done = name, true
	return stream.Send(r)
}

// partitions checks a range of them against the layout.
func (a *adminService) partitions(r *pairdbv1.PartitionRange) (first, last ring.Partition, err error) {
	if r == nil {
		return 0, 0, nil
	}
	l := a.meta.Snapshot().Layout
	switch {
	case l == nil:
		return 0, 0, &coord.Error{Code: errcode.Unavailable, Message: "there is no ring yet; the cluster is not founded"}
	case r.GetFirst() > r.GetLast():
		return 0, 0, invalid("partitions: the first is behind the last")
	case uint64(r.GetLast()) >= uint64(l.Partitions()):
		return 0, 0, invalid("partitions: the ring has partitions 0 to " + strconv.Itoa(l.Partitions()-1))
	}
	return ring.Partition(r.GetFirst()), ring.Partition(r.GetLast()), nil
}

// Verify implements pairdbv1.AdminServer.
func (a *adminService) Verify(_ *pairdbv1.VerifyRequest, stream pairdbv1.Admin_VerifyServer) error {
	ctx, end, err := a.long(stream.Context(), &a.verifying, "verification")
	if err != nil {
		return err
	}
	defer end()
	name := a.name()
	send := throttle(stream.Send)
	r, err := a.admin.Verify(ctx, func(p *pairdbv1.VerifyResponse) {
		p.Node = name
		send(p)
	})
	if err != nil {
		return stopped(ctx, err)
	}
	r.Node, r.Done = name, true
	return stream.Send(r)
}
