package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip"
	"github.com/pairdb/pairdb/node/admission"
	"github.com/pairdb/pairdb/node/config"
	"github.com/pairdb/pairdb/node/door"
	"github.com/pairdb/pairdb/node/events"
	"github.com/pairdb/pairdb/node/hotkeys"
	"github.com/pairdb/pairdb/node/replica"
	"github.com/pairdb/pairdb/node/replica/sums"
	"github.com/pairdb/pairdb/node/rpc"
)

// Options are what a configuration file cannot say. Logger is required.
type Options struct {
	Logger *slog.Logger
	// Version of the program, told to the other nodes.
	Version string
	// Ready is called once, when the node serves clients.
	Ready func(Addresses)
	// Stopping is called once, when the node begins to end, with how long it
	// may at most wait for others; what then remains is to write the memtables
	// out and to close.
	Stopping func(limit time.Duration)
	// Pulse is called every PulseEvery from Ready to Stopping, but only while
	// the node is found alive: it is for a watchdog that ends the process when
	// it hears nothing. PulseEvery 0: never. Like the others it must not block.
	Pulse      func()
	PulseEvery time.Duration
	// Memory is how much this process may use, in bytes: what is under way for
	// clients and other nodes is bounded by it. 0: nobody limits it.
	Memory int64
	// ClockSkew shifts this node's wall clock, for tests. Default 0.
	ClockSkew time.Duration
}

// Node is one PairDB process: the only place that knows all its parts. Build
// it with Open, serve with Serve, end it with Close.
type Node struct {
	cfg   config.Config
	opts  Options
	log   *slog.Logger
	clock wallClock

	// stopping is set by Close, readOnly closed when the engine gave up writing.
	stopping atomic.Bool
	// left says that this node has given up its clients because it leaves the cluster.
	left atomic.Bool
	// met says that this node has called all members once.
	met      atomic.Bool
	readOnly chan struct{}
	// ending is done when the node is closed, by end; opened is closed when the
	// engine and the store are there.
	ending context.Context
	end    context.CancelFunc
	opened chan struct{}
	// asked gets an answer from the loop of Serve.
	asked chan struct{}
	// stalled is the call that the disk does not answer, nil if there is none;
	// stallChanged has room for one notice that it is another one.
	stalled      atomic.Pointer[vfs.Pending]
	stallChanged chan struct{}
	withdrawing  sync.Mutex // held by withdraw and tellDrained
	drain        draining

	lis  *listeners
	door *door.Door
	// clients are the listeners of clients behind the door.
	clients struct{ grpc, http *door.Listener }
	addrs   Addresses
	// host is what others were told, machine the addresses there were then.
	host    string
	machine []netip.Addr
	jobs    goroutines // finite jobs of engine-side callers and of the coordinator
	reg     *prometheus.Registry
	ops     *operations
	events  *counters
	// happened is what an operator may want to know of, traffic and hot are what
	// clients do.
	happened *events.Log
	traffic  *traffic
	hot      *hotkeys.Tracker

	meta   *rpc.MetaClient
	gossip *gossip.Gossip
	db     *engine.DB
	store  *replica.Store
	// records is what idempotency keys take; uncounted while there is no layout.
	records          *replica.RecordSpace
	recordsUncounted bool
	// sums are of ranges of the data, tending is what keeps them.
	sums    *sums.Sums
	tending tending
	// marks are the damaged partitions, contained is the damage being dealt with.
	marks     *replica.Marks
	contained containment
	clearing  sync.Mutex // held by clearForeign
	scrubs    *scrubber
	// tenantDrops is what becomes of the data of deleted tenants.
	tenantDrops tenantDrops
	peers       *rpc.Peers
	coord       *coord.Coordinator
	hints       hinting
	// repair keeps this node's data equal with that of the other owners.
	repair *repair.Manager
	// streams is how fast what moves between nodes may go.
	streams *streamPace
	gate    *admission.Gate
	server  *rpc.Server
	http    *http.Server
}

// Run opens a node, serves until ctx ends or the node fails, and closes it.
// It returns nil after an orderly stop.
func Run(ctx context.Context, cfg config.Config, opts Options) error {
	n, err := Open(cfg, opts)
	if err != nil {
		return err
	}
	err = n.Serve(ctx)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Timeouts.Shutdown)
	defer cancel()
	return errors.Join(err, n.Close(stop))
}

// Open builds a node in the order of its dependencies: doors, directory,
// metadata, engine, replica, peers, coordinator, edges. Nothing is served yet.
// On an error nothing stays open.
func Open(cfg config.Config, opts Options) (_ *Node, err error) {
	if opts.Logger == nil {
		return nil, errors.New("node: a logger is required")
	}
	n := &Node{cfg: cfg, opts: opts, log: opts.Logger, clock: wallClock{skew: opts.ClockSkew}, reg: prometheus.NewRegistry(), readOnly: make(chan struct{}), asked: make(chan struct{}), stallChanged: make(chan struct{}, 1), opened: make(chan struct{})}
	n.ending, n.end = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, n.release())
		}
	}()
	if n.cfg.Node.Name == "" {
		if n.cfg.Node.Name, err = defaultName(); err != nil {
			return nil, err
		}
	}
	if n.cfg.Listen.Bind, err = resolveIP(n.cfg.Listen.Bind, "--bind"); err != nil {
		return nil, err
	}
	n.warnInsecure()
	if n.lis, err = openListeners(&n.cfg.Listen); err != nil {
		return nil, err
	}
	if err = openDataDir(n.cfg.Node.DataDir); err != nil {
		return nil, err
	}
	n.ops, n.events = newOperations(n.reg), newCounters(n.reg)
	n.traffic, n.hot = newTraffic(n.ops, time.Now()), hotkeys.New(time.Now())
	for _, build := range []func() error{n.openEvents, n.openGossip, n.forgetAddresses, n.openEngine, n.openHints, n.openCoordinator, n.openDoor, n.openEdges, n.registerCollectors} {
		if err := build(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// forgetAddresses takes away what a life that was killed left behind: its
// addresses may be another node's by now. The data directory is locked, so the
// file is not that of a running process with the same configuration.
func (n *Node) forgetAddresses() error { return removeAddrFile(n.cfg.Listen.AddrFile) }

// Serve runs the node until ctx ends, a door fails, or the cluster refuses it.
// It returns nil when ctx ended and the delay that balancers need is over.
func (n *Node) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var pulse sync.WaitGroup
	defer pulse.Wait()
	defer cancel()
	if err := n.server.ServePeers(n.lis.peer); err != nil {
		return err
	}
	if err := n.server.ServeClients(n.clients.grpc); err != nil {
		return err
	}
	httpErr := make(chan error, 1)
	go func() { httpErr <- n.http.Serve(n.clients.http) }()
	if err := n.gossip.Start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop before it had begun
		}
		return explainGossip(err)
	}
	if err := n.startHints(); err != nil {
		return err
	}
	n.addrs.Gossip = n.gossip.GossipAddress()
	if n.cfg.Listen.AddrFile != "" {
		if err := writeAddrFile(n.cfg.Listen.AddrFile, n.addrs); err != nil {
			return err
		}
	}
	n.log.Info("listening", "node_id", n.addrs.NodeID, "name", n.addrs.Name,
		"grpc", n.addrs.GRPC, "peer", n.addrs.Peer, "http", n.addrs.HTTP, "gossip", n.addrs.Gossip)
	n.happened.AddLogged(events.Lifecycle, events.Info, "this node starts", "version", n.opts.Version)
	pulse.Go(func() { n.watch(ctx) })
	// While all of its copies are being fetched again this node is of no use, and the others
	// are told: by a job, for which nobody waits here, since the metadata may wait for its disk.
	pulse.Go(func() {
		whenever(ctx, n.store.QuarantineChanged, func() {
			n.jobs.Go("withdraw", n.withdraw)
			n.clearForeign()
		})
	})
	pulse.Go(func() { whenever(ctx, n.gossip.Changed, n.clearForeign) })
	pulse.Go(func() { n.dropTenants(ctx) })
	pulse.Go(func() { n.scrubs.run(ctx) })
	// Also while balancers are waited for, when ctx has ended.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	pulse.Go(func() {
		whenever(life, n.gossip.Changed, func() {
			// A peer may be back, or elsewhere: do not wait out the pause.
			n.peers.Refresh()
			n.callMembers()
			n.server.Follow()
		})
	})
	address := time.NewTicker(addressEach)
	defer address.Stop()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	ready, readOnly, stop := n.gossip.Ready(), n.readOnly, ctx.Done()
	var met <-chan struct{} // closed when the members have been called
	var drained <-chan time.Time
	for {
		select {
		case <-stop:
			delay := n.cfg.Timeouts.DrainDelay
			if delay == 0 || n.drain.door.shut.Load() {
				return nil // or whoever looks has had the time, see drain
			}
			// Whoever looks at health gets the time to send clients elsewhere.
			n.log.Info("not ready; serving on for a while", "drain_delay", delay)
			n.unready()
			stop, ready, met, drained = nil, nil, nil, time.After(delay)
		case <-drained:
			return nil
		case <-ready:
			ready = nil
			if n.recordsUncounted {
				if err := n.countRecords(); err != nil {
					return err
				}
			}
			called := make(chan struct{})
			pulse.Go(func() { n.meet(life); close(called) })
			met = called
		case <-met:
			met = nil
			n.met.Store(true)
			n.server.SetReady(n.serves)
			n.happened.AddLogged(events.Lifecycle, events.Info, "this node is ready")
			n.repair.Start()
			n.hints.repairs.Store(true)
			if n.opts.Ready != nil {
				n.opts.Ready(n.addrs)
			}
			if n.opts.PulseEvery > 0 {
				pulse.Go(func() { n.pulse(ctx) })
			}
		case <-n.stallChanged:
			// Reads from memory may go on, but this node is no good place for
			// writes, and the others are asked first for reads.
			n.server.SetReady(n.serves)
			n.jobs.Go("withdraw", n.withdraw)
		case <-n.asked:
		case <-readOnly:
			// Reads go on; whoever looks at health keeps writers away.
			readOnly = nil
			n.server.SetReady(n.serves)
			n.jobs.Go("withdraw", n.withdraw)
		case <-second.C:
			n.gate.Tick()
			n.door.Sweep()
		case <-address.C:
			if err := n.checkAddress(); err != nil {
				return err
			}
		case err := <-n.gossip.Fatal():
			if errors.Is(err, gossip.ErrFailed) {
				n.happened.Add(events.Lifecycle, events.Error, "the metadata cannot be written, so this node does not know what it has promised: it ends; start it again once the disk is sound", "err", err.Error())
			}
			if errors.Is(err, gossip.ErrRetired) && n.left.Load() {
				n.log.Info("this node has left the cluster, and everything that it held is with the members; its data directory can be removed")
				return nil
			}
			return err
		case <-n.server.Failed():
			return n.server.Err()
		case err := <-httpErr:
			if n.left.Load() && errors.Is(err, http.ErrServerClosed) {
				httpErr = nil
				continue
			}
			return fmt.Errorf("serve HTTP: %w", err)
		}
	}
}

// Close ends the node in the reverse order of Open: it becomes unready and
// leaves, lets what is under way finish until ctx ends, and closes the engine
// last.
func (n *Node) Close(ctx context.Context) error {
	n.log.Info("stopping", "name", n.addrs.Name)
	start := time.Now()
	n.unready()
	var errs []error
	note := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	if err := n.gossip.Leave(ctx); err != nil {
		// The others then find out by themselves, as after a crash.
		n.log.Info("nobody heard the goodbye", "err", err)
	}
	note("stop HTTP", n.http.Shutdown(ctx))
	note("stop clients", n.server.StopClients(ctx))
	note("stop repair", n.repair.Close(ctx))
	note("finish operations", n.coord.Close(ctx))
	n.stopHints()
	note("stop peers", n.server.StopPeers(ctx))
	// What is in tables need not be replayed at the next start.
	note("flush", n.flush())
	n.closeSums()
	note("release", n.release())
	note("stop", removeAddrFile(n.cfg.Listen.AddrFile))
	err := errors.Join(errs...)
	if err == nil {
		n.log.Info("stopped", "name", n.addrs.Name, "took", time.Since(start).Round(time.Millisecond))
	}
	return err
}

// unready makes every door say that clients should go elsewhere, while it goes
// on serving those that come. Again is no error.
func (n *Node) unready() {
	if n.stopping.Swap(true) {
		return
	}
	n.happened.AddLogged(events.Lifecycle, events.Info, "this node is stopping")
	if n.opts.Stopping != nil {
		n.opts.Stopping(n.cfg.Timeouts.DrainDelay + n.cfg.Timeouts.Shutdown)
	}
	n.server.SetReady(n.serves)
}

// flush writes the memtables to tables, unless the engine only reads any more.
func (n *Node) flush() error {
	err := n.db.Flush()
	if errors.Is(err, engine.ErrReadOnly) {
		return nil // said when it happened
	}
	return err
}

// release closes what is open, in reverse order, waiting for nobody's work.
func (n *Node) release() error {
	var errs []error
	n.end()
	if n.http != nil {
		errs = append(errs, n.http.Close())
	}
	if n.server != nil {
		errs = append(errs, n.server.Close())
	}
	n.releaseRepair()
	if n.peers != nil {
		errs = append(errs, n.peers.Close())
	}
	n.stopHints() // what waited for peers has ended
	if n.hints.store != nil {
		errs = append(errs, n.hints.store.Close())
	}
	if n.gossip != nil {
		errs = append(errs, n.gossip.Close())
	}
	if n.meta != nil {
		errs = append(errs, n.meta.Close())
	}
	n.stopSums()
	if n.db != nil {
		errs = append(errs, n.db.Close())
	}
	n.jobs.wait()
	if n.lis != nil {
		errs = append(errs, n.lis.close())
	}
	return errors.Join(errs...)
}

// noneIfZero turns the configuration's 0, which means none, into the engine's
// negative, whose 0 means its default.
func noneIfZero[T ~int | ~int64](v T) T {
	if v == 0 {
		return -1
	}
	return v
}

// warnInsecure says loudly what --insecure gives up.
func (n *Node) warnInsecure() {
	if !n.cfg.Cluster.Insecure {
		return
	}
	n.log.Warn("INSECURE: no TLS and no credentials; whoever reaches these ports can read and write everything",
		"bind", n.cfg.Listen.Bind, "gossip_encrypted", n.cfg.Cluster.GossipKeyFile != "")
}
