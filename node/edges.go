package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/disk"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/node/admission"
	"github.com/pairdb/pairdb/node/door"
	"github.com/pairdb/pairdb/node/events"
	"github.com/pairdb/pairdb/node/rest"
	"github.com/pairdb/pairdb/node/rpc"
)

// refreshTimeout bounds the question whether other nodes know a tenant that
// this one does not; catchUpTimeout bounds fetching missing log entries.
const (
	refreshTimeout = 500 * time.Millisecond
	catchUpTimeout = 2 * time.Second
)

// metadata is gossip as the edges and the coordinator want it.
type metadata struct{ *gossip.Gossip }

// RefreshTenant asks the live members for newer metadata before it says that
// there is no such tenant; many callers share one question.
func (m metadata) RefreshTenant(ctx context.Context, name string) (*schema.Tenant, error) {
	if t, ok := m.Snapshot().Tenant(name); ok {
		return t, nil
	}
	informed := m.refresh(ctx)
	if t, ok := m.Snapshot().Tenant(name); ok {
		return t, nil
	}
	return nil, coord.UnknownTenant(name, informed, errcode.NotApplied)
}

func (m metadata) refresh(ctx context.Context) (informed bool) {
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	return m.Refresh(ctx)
}

// openCoordinator opens the streams to the peers and the coordinator on them.
func (n *Node) openCoordinator() error {
	var err error
	meta := metadata{n.gossip}
	self, _, _ := n.gossip.Identity()
	n.peers, err = rpc.NewPeers(rpc.PeersOptions{
		Self:    self,
		Cluster: func() ring.ClusterID { return n.gossip.Snapshot().ClusterID },
		Resolve: func(id ring.NodeID) (string, bool) {
			m, ok := n.gossip.Snapshot().Member(id)
			if !ok || m.Addresses.Peer == "" {
				return "", false
			}
			return m.Addresses.Peer, true
		},
		Now:         n.clock.Now,
		Logger:      n.log.With("component", "peers"),
		LinkChanged: n.linkChanged,
	})
	if err != nil {
		return err
	}
	if err := n.openRepair(self); err != nil {
		return err
	}
	n.coord, err = coord.New(coord.Options{
		Self:      self,
		View:      n.gossip.Snapshot,
		Replica:   n.store,
		Transport: n.peers,
		Clock:     n.clock,
		CatchUp: func(from ring.NodeID, atLeast ring.Version, done func(error)) {
			n.jobs.Go("catch up", func() {
				ctx, cancel := context.WithTimeout(context.Background(), catchUpTimeout)
				defer cancel()
				done(n.gossip.CatchUp(ctx, from, atLeast))
			})
		},
		Refresh: func(_ string, done func(informed bool)) {
			n.jobs.Go("refresh", func() { done(meta.refresh(context.Background())) })
		},
		Linked:       n.peers.Linked,
		Repair:       n.repair.Serve,
		Horizon:      n.repair.Horizon,
		WriteTimeout: n.cfg.Timeouts.Write,
		ReadTimeout:  n.cfg.Timeouts.Read,
		MaxValueSize: int(n.cfg.Limits.MaxValueSize),
		Metrics:      n.events.hooks(n.ops, n.hot),
		PeerChanged:  n.peerChanged,
		Hint:         n.hint,
		Logger:       n.log.With("component", "coord"),
	})
	return err
}

// openEdges builds the two gRPC servers and the HTTP server; none serves yet.
func (n *Node) openEdges() error {
	var err error
	meta := metadata{n.gossip}
	self, _, _ := n.gossip.Identity()
	n.gate = admission.New(n.coord, admission.Options{
		Bounds: admission.Bounds{
			Floor: n.cfg.Limits.ConcurrencyMin, Ceiling: n.cfg.Limits.ConcurrencyMax,
			Queue: n.cfg.Limits.Queue, Wait: n.cfg.Limits.QueueWait,
		},
		Now:      n.clock.Now,
		Shedding: n.shedding,
	})
	budget := newValueBudget(n.gate, shareOf(n.opts.Memory, admittedShare, minAdmitted, maxAdmitted), n.cfg.Timeouts.Write)
	budget.refused = func() {
		n.happened.Add(events.Memory, events.Warning, "no room for more large values under way: some are refused with RESOURCE_EXHAUSTED")
	}
	kv := &n.drain.door
	kv.KV = budget
	n.server, err = rpc.NewServer(rpc.Options{
		Self:        self,
		Coordinator: kv,
		Metadata:    meta,
		Meta:        n.gossip,
		Peer:        n.coord,
		Local:       n.localInfo,
		Admin:       admin{n},
		Observer:    observer{n},
		Repair:      repairAdmin{n},
		Ring:        ringAdmin{n.gossip, n},
		Drain:       drainAdmin{n},
		Transfers:   n.transfers,
		Refuse:      n.refuse,
		Asker:       n.meta,
		Classify:    classify,
		Observe:     n.events.rpc,
		Now:         n.clock.Now,
		Logger:      n.log.With("component", "rpc"),

		MaxHeldBytes:  int(shareOf(n.opts.Memory, heldShare, minHeld, maxHeld)),
		MaxReplyBytes: int(shareOf(n.opts.Memory, heldShare, minHeld, maxReplies)),
	})
	if err != nil {
		return err
	}
	handler, err := rest.New(rest.Options{
		KV:       kv,
		Metadata: meta,
		Figures: func(ctx context.Context) map[ring.NodeID]rest.NodeFigures {
			figures := map[ring.NodeID]rest.NodeFigures{}
			for id, f := range n.server.Figures(ctx) {
				figures[id] = rest.NodeFigures{Keys: f.Keys, DiskUsedPercent: f.DiskUsedPercent}
			}
			return figures
		},
		Events:        n.server.Events,
		Traffic:       n.server.Traffic,
		Hints:         n.server.Hints,
		StartRepair:   n.server.StartRepair,
		RepairStatus:  n.server.RepairStatus,
		AcceptNode:    n.server.Accept,
		Decommission:  n.server.Decommission,
		RemoveNode:    n.server.Remove,
		ChangeStatus:  n.server.ChangeStatus,
		UpdateTenant:  n.server.UpdateTenant,
		DeleteTenant:  n.server.DeleteTenant,
		SafeToStop:    n.server.SafeToStop,
		Classify:      classify,
		Outcome:       rpc.WriteOutcome,
		Refuse:        n.refuse,
		Checks:        n.checks,
		Metrics:       promhttp.HandlerFor(n.reg, promhttp.HandlerOpts{Registry: n.reg}),
		Observe:       n.events.http,
		Logger:        n.log.With("component", "rest"),
		MaxValueBytes: int(n.cfg.Limits.MaxValueSize),
		CORSOrigins:   n.cfg.HTTP.CORSOrigins,
	})
	if err != nil {
		return err
	}
	n.http = newHTTPServer(handler, n.log)
	return nil
}

// newHTTPServer serves a handler to clients that may be slow, but not for ever:
// 10 MiB at readRate take 40 s.
func newHTTPServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.With("component", "http").Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return context.Background() },
		ConnContext:       door.NewContext,
	}
}

// readRate is what a client has to read at the least, in bytes a second.
const readRate = 256 << 10

// Bounds of the bytes of answers that wait for their readers, and their part of
// the usable memory.
const (
	minUnread, maxUnread = 64 << 20, 1 << 30
	unreadShare          = 16
)

// openDoor puts the bounds of clients' connections before the listeners.
func (n *Node) openDoor() error {
	n.door = door.New(door.Options{
		Max: n.cfg.Limits.Connections, MaxPerAddress: n.cfg.Limits.ConnectionsPerIP,
		Stall: n.cfg.Limits.ReaderStall, Rate: readRate,
		Budget: shareOf(n.opts.Memory, unreadShare, minUnread, maxUnread),
		CutOff: func(remote net.Addr, why door.Reason, held int64) {
			n.log.Warn("closed the connection of a client that does not read its answers", "client", remote.String(), "reason", why.String(), "unread_bytes", held)
		},
	})
	n.clients.grpc = n.door.Listener(n.lis.grpc, rpc.Farewell())
	n.clients.http = n.door.Listener(n.lis.http, rest.Farewell())
	return nil
}

// refuse is what a read or a write would be refused with now, nil for nothing.
func (n *Node) refuse(write bool) *coord.Error {
	if e := n.drain.door.refusal(); e != nil {
		return e
	}
	if write {
		return n.gate.Refuse(admission.Writes)
	}
	return n.gate.Refuse(admission.Reads)
}

// checks says what keeps this node from coordinating; the quorum of others is
// none of it.
func (n *Node) checks() []rest.Check {
	snap := n.gossip.Snapshot()
	layout := rest.Check{Name: "layout", OK: snap.Ready}
	if !snap.Ready {
		layout.Detail = "waiting to found or meet the cluster"
	} else if !n.met.Load() {
		layout.OK, layout.Detail = false, "connecting to the other nodes"
	}
	if snap.Layout == nil && !snap.ClusterID.IsZero() {
		layout.Detail = "its metadata is damaged and is being fetched from other nodes again"
	}
	m := n.db.Metrics()
	eng := rest.Check{Name: "engine", OK: true}
	if m.ReadOnly {
		eng.OK, eng.Detail = false, "read-only after a failed write or sync; restart the node once the disk is sound"
	}
	running := rest.Check{Name: "running", OK: !n.stopping.Load()}
	if !running.OK {
		running.Detail = "this node is stopping"
	}
	if n.drain.begun.Load() && running.OK {
		running.OK, running.Detail = false, "this node is drained: start it again, or undo it with pairdb node drain --undo"
	}
	return []rest.Check{running, eng, diskCheck(n.stalled.Load(), &m.Disk), layout}
}

// diskCheck says whether the disk answers. One that is full does: reads go on.
func diskCheck(p *vfs.Pending, m *engine.DiskMetrics) rest.Check {
	c := rest.Check{Name: "disk", OK: p == nil}
	switch {
	case p != nil:
		c.Detail = fmt.Sprintf("a %s of a %s hangs; writes are refused until the disk answers; see whether it is sound", p.Op, p.File)
	case m.State == disk.Full:
		c.Detail = "full: writes are refused until space is freed"
	case m.State == disk.Throttle:
		c.Detail = "nearly full: large writes are refused"
	}
	return c
}
