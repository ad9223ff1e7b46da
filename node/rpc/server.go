package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// MaxMessageBytes bounds a message on the client listener: a batch of 16 MiB, and
// room for what its 1000 items have beside their bytes. A value that is larger
// than 10 MiB is refused by the coordinator.
const MaxMessageBytes = coord.MaxBatchBytes + 256<<10

// streamWorkers is how many goroutines are kept to run calls of clients. A call
// goes some thirty frames deep, so that a goroutine of its own spends up to a
// tenth of the call's CPU on growing its stack. When all are busy, by streams for
// example, a call gets a goroutine of its own. Each takes some 16 KiB.
const streamWorkers = 64

// Options configure a Server. All up to Asker are required.
type Options struct {
	// Self is this node.
	Self ring.NodeID
	// Coordinator runs the operations of clients.
	Coordinator Coordinator
	// Metadata says what the cluster looks like.
	Metadata Metadata
	// Meta serves the metadata calls of other nodes.
	Meta MetaHandler
	// Peer serves the frames of other nodes.
	Peer coord.PeerHandler
	// Local returns this node's own figures.
	Local func() NodeInfo
	// Admin does the upkeep of this node.
	Admin Admin
	// Observer tells what this node did and what happened to it.
	Observer Observer
	// Refuse says what a call of KV that reads or writes would be refused with
	// now, before anything is done for it. The errors are few and never change. It
	// must not wait.
	// Default: nothing ever is.
	Refuse func(write bool) *coord.Error
	// Asker asks others for theirs.
	Asker Asker
	// Repair starts repairs. nil: this node makes none.
	Repair RepairAdmin
	// Ring changes the ring. nil: this node changes nothing.
	Ring RingAdmin
	// Drain sends the clients of this node away. nil: it does not.
	Drain DrainAdmin
	// Transfers are what is moved to and from this node, the newest last. Default:
	// nothing is.
	Transfers func() []Transfer

	// Classify turns any error into the one typed form; default Classify of
	// this package.
	Classify func(error) *coord.Error
	// Observe is called once for each call of a client and each request of a
	// Pipeline, with the method as "KV.Put" and the code of errcode or, for what this package did not
	// answer, of gRPC. Default: nobody is.
	Observe func(method, code string, d time.Duration)
	// ClientCredentials and PeerCredentials secure the listeners; default none.
	ClientCredentials, PeerCredentials credentials.TransportCredentials
	// Now is the clock of Coordinator and Peer; default time.Now.
	Now    func() time.Time
	Logger *slog.Logger
	// DefaultTimeout is for calls without a deadline; default 10 s.
	DefaultTimeout time.Duration
	// NoCompression is as in PeersOptions, for the replies to other nodes.
	NoCompression bool
	// MaxUnanswered, MaxHeldBytes and MaxReplyBytes bound what one peer has
	// under way here: requests of each lane without a reply, bytes of their
	// frames, and bytes of replies it has not read. A quarter of the bytes is
	// the small lane's. Beyond, no more is read from the lane that has too
	// much. Defaults 16384, 256 MiB, 64 MiB.
	MaxUnanswered, MaxHeldBytes, MaxReplyBytes int
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.Classify == nil {
		o.Classify = Classify
	}
	if o.Observe == nil {
		o.Observe = func(string, string, time.Duration) {}
	}
	if o.Refuse == nil {
		o.Refuse = refusesNothing
	}
	if o.Transfers == nil {
		o.Transfers = func() []Transfer { return nil }
	}
	if o.ClientCredentials == nil {
		o.ClientCredentials = insecure.NewCredentials()
	}
	if o.PeerCredentials == nil {
		o.PeerCredentials = insecure.NewCredentials()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&o.DefaultTimeout, 10*time.Second)
	setDefault(&o.MaxUnanswered, 16384)
	setDefault(&o.MaxHeldBytes, 256<<20)
	setDefault(&o.MaxReplyBytes, 64<<20)
}

// Validate says what is missing or out of range.
func (o *Options) Validate() error {
	var errs []error
	for _, f := range []struct {
		name   string
		absent bool
	}{
		{"Self", o.Self.IsZero()},
		{"Coordinator", o.Coordinator == nil},
		{"Metadata", o.Metadata == nil},
		{"Meta", o.Meta == nil},
		{"Peer", o.Peer == nil},
		{"Local", o.Local == nil},
		{"Admin", o.Admin == nil},
		{"Observer", o.Observer == nil},
		{"Asker", o.Asker == nil},
	} {
		if f.absent {
			errs = append(errs, fmt.Errorf("%s is required", f.name))
		}
	}
	if o.DefaultTimeout < 0 || o.MaxUnanswered < 0 || o.MaxHeldBytes < 0 || o.MaxReplyBytes < 0 {
		errs = append(errs, errors.New("a bound is negative"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("rpc options: %w", err)
	}
	return nil
}

// Server serves a node's two gRPC listeners: that of clients and that of other
// nodes. It is safe for concurrent use. End it with Close, in an
// orderly way after StopClients and StopPeers.
type Server struct {
	opts    Options
	client  *grpc.Server
	peer    *grpc.Server
	health  *health.Server
	frames  *frameServer
	cluster *clusterService
	kv      *kvService
	book    *changeBook
	ready   atomic.Bool
	telling sync.Mutex // held by SetReady
	began   time.Time

	stopping chan struct{} // closed when no more clients are served
	stopOnce sync.Once

	mu struct {
		sync.Mutex
		closed bool
		err    error // the first failure of a listener
	}
	failed chan struct{} // closed at the first failure of a listener
	wg     sync.WaitGroup
}

// NewServer returns a server that listens nowhere and is not ready.
func NewServer(opts Options) (*Server, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	s := &Server{opts: opts, began: opts.Now(), failed: make(chan struct{}), stopping: make(chan struct{}), book: &changeBook{now: opts.Now}}
	clusterID := func() ring.ClusterID { return opts.Metadata.Snapshot().ClusterID }
	s.frames = &frameServer{
		self: opts.Self, cluster: clusterID, handler: opts.Peer, now: opts.Now, log: opts.Logger, pool: new(bufferPool),
		member: func(id ring.NodeID) bool {
			snap := opts.Metadata.Snapshot()
			_, ok := snap.Member(id)
			return ok && !snap.Retired(id)
		},
		maxUnanswered: opts.MaxUnanswered, maxHeld: laneBounds(opts.MaxHeldBytes), maxReplies: laneBounds(opts.MaxReplyBytes),
		noCompression: opts.NoCompression,
	}
	s.frames.mu.sessions = make(map[sessionKey]*session)
	s.cluster = &clusterService{s: s, meta: opts.Metadata, local: s.localInfo, asker: opts.Asker}

	r := &refuser{refuse: opts.Refuse, observe: opts.Observe}
	s.client = grpc.NewServer(append(s.clientOptions(), grpc.InTapHandle(r.tap))...)
	s.kv = &kvService{
		coord: opts.Coordinator, now: opts.Now, timeout: opts.DefaultTimeout,
		itemError: s.itemError, observe: opts.Observe, panicked: s.panicked, stopping: s.stopping,
	}
	s.client.RegisterService(r.service(&pairdbv1.KV_ServiceDesc), s.kv)
	pairdbv1.RegisterTenantsServer(s.client, &tenantService{s: s})
	pairdbv1.RegisterClusterServer(s.client, s.cluster)
	pairdbv1.RegisterAdminServer(s.client, &adminService{meta: opts.Metadata, admin: opts.Admin, asker: opts.Asker, stopping: s.stopping})
	pairdbv1.RegisterObserveServer(s.client, &observeService{s: s})
	s.health = health.NewServer()
	healthpb.RegisterHealthServer(s.client, s.health)
	reflection.Register(s.client)
	s.SetReady(unready)

	s.peer = grpc.NewServer(s.peerOptions()...)
	peerv1.RegisterPeerServer(s.peer, &peerService{
		frames: s.frames, info: s.localInfo, observe: s.observeLocal, startRepair: s.startRepair, scrub: opts.Admin.Scrub,
		drain: s.drainLocal,
	})
	peerv1.RegisterMetaServer(s.peer, &metaService{self: opts.Self, cluster: clusterID, handler: opts.Meta})
	return s, nil
}

// clientOptions are those of the client listener. gRPC's own defaults leave
// streams, headers and handshakes all but unbounded.
func (s *Server) clientOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(s.opts.ClientCredentials),
		grpc.ForceServerCodecV2(newClientCodec()),
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.MaxConcurrentStreams(1024),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.InitialWindowSize(2 << 20),
		grpc.InitialConnWindowSize(16 << 20),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.clientStream),
		grpc.WaitForHandlers(true),
	}
}

// peerOptions are those of the listener of other nodes.
func (s *Server) peerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(s.opts.PeerCredentials),
		grpc.ForceServerCodecV2(newFrameCodec()),
		grpc.MaxRecvMsgSize(MaxFrameBytes + 64),
		grpc.MaxConcurrentStreams(256),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.InitialWindowSize(peerStreamWindow),
		grpc.InitialConnWindowSize(peerConnWindow),
		grpc.WriteBufferSize(peerBufferBytes),
		grpc.ReadBufferSize(peerBufferBytes),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: serverPingAfter, Timeout: peerSilence}),
		grpc.ChainUnaryInterceptor(s.peerUnary),
		grpc.ChainStreamInterceptor(s.stream),
		grpc.WaitForHandlers(true),
	}
}

// ServeClients serves clients on l, which the server closes in the end.
func (s *Server) ServeClients(l net.Listener) error { return s.serve(s.client, l, "clients") }

// ServePeers serves other nodes on l, which the server closes in the end.
func (s *Server) ServePeers(l net.Listener) error { return s.serve(s.peer, peerListener{l}, "peers") }

func (s *Server) serve(g *grpc.Server, l net.Listener, whom string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return errors.Join(fmt.Errorf("serve %s on %s: %w", whom, l.Addr(), ErrClosed), l.Close())
	}
	s.wg.Go(func() {
		err := g.Serve(l)
		if err == nil || errors.Is(err, grpc.ErrServerStopped) {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.mu.err == nil {
			s.mu.err = fmt.Errorf("serve %s on %s: %w", whom, l.Addr(), err)
			close(s.failed)
		}
	})
	return nil
}

// Failed is closed when a listener failed; Err says why.
func (s *Server) Failed() <-chan struct{} { return s.failed }

// Err is the first failure of a listener, nil if there was none.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.err
}

// unready is a server that serves no clients, whatever the node thinks.
func unready() bool { return false }

// SetReady says whether this node serves clients, which the health service and
// Info pass on. Calls are not refused here by it; the coordinator knows. It asks once no
// other call is under way, so that of several the last to tell is the last to have asked:
// else a node that ends could be called ready by who had asked before.
func (s *Server) SetReady(ready func() bool) {
	s.telling.Lock()
	defer s.telling.Unlock()
	is := ready()
	s.ready.Store(is)
	st := healthpb.HealthCheckResponse_NOT_SERVING
	if is {
		st = healthpb.HealthCheckResponse_SERVING
	}
	for _, service := range []string{
		"", pairdbv1.KV_ServiceDesc.ServiceName, pairdbv1.Tenants_ServiceDesc.ServiceName, pairdbv1.Cluster_ServiceDesc.ServiceName, pairdbv1.Admin_ServiceDesc.ServiceName,
		pairdbv1.Observe_ServiceDesc.ServiceName,
	} {
		s.health.SetServingStatus(service, st)
	}
}

func (s *Server) localInfo() NodeInfo {
	i := s.opts.Local()
	i.Node, i.Ready = s.opts.Self, s.ready.Load()
	return i
}

// Follow takes in what the ring is like now, and gives it. It is to be called at every
// change of the metadata, so that what ends between two questions is not missed. It waits
// for no disk.
func (s *Server) Follow() *schema.Snapshot {
	snap := s.opts.Metadata.Snapshot()
	s.book.follow(snap)
	return snap
}

// Figures asks all members for their figures, for at most 2 s, and returns
// those of the ones that answered.
func (s *Server) Figures(ctx context.Context) map[ring.NodeID]NodeInfo {
	return s.cluster.ask(ctx).figures
}

// StopClients makes the node unready, refuses new calls of clients, ends long
// calls of Admin and streams of KV, and returns when those under way are answered or, with its
// error, when ctx ends; they are then cut off.
func (s *Server) StopClients(ctx context.Context) error {
	s.SetReady(unready)
	s.health.Shutdown()
	s.endLongCalls()
	return stop(ctx, s.client)
}

// endLongCalls makes the calls end that would hold up a stop.
func (s *Server) endLongCalls() { s.stopOnce.Do(func() { close(s.stopping) }) }

// StopPeers lets other nodes have the replies to what they sent, refuses more,
// and returns as StopClients does.
func (s *Server) StopPeers(ctx context.Context) error {
	s.frames.drain()
	return stop(ctx, s.peer)
}

// stop ends g in an orderly way, or when ctx ends in any way.
func stop(ctx context.Context, g *grpc.Server) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.GracefulStop()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop in an orderly way: %w", context.Cause(ctx))
	}
}

// Close ends the listeners, connections and calls at once, and returns when all
// goroutines have ended. It is idempotent.
func (s *Server) Close() error {
	s.mu.Lock()
	s.mu.closed = true
	s.mu.Unlock()
	s.SetReady(unready)
	s.health.Shutdown()
	s.endLongCalls()
	s.frames.end()
	s.client.Stop()
	s.peer.Stop()
	s.frames.wg.Wait()
	s.kv.pipelines.readers.Wait()
	s.wg.Wait()
	return nil
}
