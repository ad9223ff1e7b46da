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

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// PeersOptions configure Peers. Self, Cluster and Resolve are required.
type PeersOptions struct {
	// Self is this node.
	Self ring.NodeID
	// Cluster returns the id of the cluster, zero until there is one; until
	// then nothing is sent. It must be cheap and safe for concurrent use.
	Cluster func() ring.ClusterID
	// Resolve returns the peer address, host:port, of a node; false if the
	// node is not, or no longer, a member. It is asked again before each
	// attempt to connect, so an address may change. It must be cheap and safe
	// for concurrent use.
	Resolve func(ring.NodeID) (string, bool)
	// Dial opens a connection; default TCP. It exists for tests and faults.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Credentials secure the connection; default none.
	Credentials credentials.TransportCredentials
	// Now is the clock that Message.Deadline was made with; default time.Now.
	Now    func() time.Time
	Logger *slog.Logger
	// LinkChanged is called when there is a link to a node, and when it is lost
	// and why. It is called in order for each node, for several nodes at once,
	// and holds up that node's link: it must be quick. Default: nobody is told.
	LinkChanged func(id ring.NodeID, up bool, why string)

	// NoCompression neither sends compressed frames nor lets the peer send
	// any. Default false: frames are compressed while it pays, see DESIGN.md.
	NoCompression bool

	// ConnectWindow is how long messages wait for the first attempt to connect
	// after the first message or after the loss of a link. When it is over or
	// the attempt failed, what waits fails and Send refuses at once until there
	// is a link. Default 1 s. Longer is kinder to slow networks, shorter lets
	// a caller turn to another replica sooner.
	ConnectWindow time.Duration
	// DialTimeout bounds one attempt to connect; default 3 s.
	DialTimeout time.Duration
	// MaxBackoff bounds the pause between attempts, which begins at 20 ms and
	// doubles, each with jitter of up to a half; default 2 s.
	MaxBackoff time.Duration
	// DefaultTimeout is for messages without a deadline; default 10 s.
	DefaultTimeout time.Duration
	// MaxQueuedItems bounds the items of one lane that wait to be sent;
	// default 8192.
	MaxQueuedItems int
	// MaxQueuedBytes bounds their bytes; default 64 MiB. A single larger item
	// is accepted by an empty lane.
	MaxQueuedBytes int
	// MaxPending bounds the requests to one peer that wait for a reply;
	// default 65536.
	MaxPending int
}

// EnsureDefaults fills in what is not set.
func (o *PeersOptions) EnsureDefaults() {
	if o.Dial == nil {
		o.Dial = dialPeer
	}
	if o.Credentials == nil {
		o.Credentials = insecure.NewCredentials()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.LinkChanged == nil {
		o.LinkChanged = func(ring.NodeID, bool, string) {}
	}
	setDefault(&o.ConnectWindow, time.Second)
	setDefault(&o.DialTimeout, 3*time.Second)
	setDefault(&o.MaxBackoff, 2*time.Second)
	setDefault(&o.DefaultTimeout, 10*time.Second)
	setDefault(&o.MaxQueuedItems, 8192)
	setDefault(&o.MaxQueuedBytes, 64<<20)
	setDefault(&o.MaxPending, 65536)
}

// dialPeer opens a connection to the peer at addr.
func dialPeer(ctx context.Context, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err == nil {
		// See peerListener.Accept.
		_ = tunePeerConn(c)
	}
	return c, err
}

// setDefault sets *v to d if it is zero.
func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Validate says what is missing or out of range.
func (o *PeersOptions) Validate() error {
	var errs []error
	if o.Self.IsZero() {
		errs = append(errs, errors.New("no own node id"))
	}
	if o.Cluster == nil || o.Resolve == nil {
		errs = append(errs, errors.New("the functions Cluster and Resolve are required"))
	}
	if o.ConnectWindow < 0 || o.DialTimeout < 0 || o.MaxBackoff < 0 || o.DefaultTimeout < 0 {
		errs = append(errs, errors.New("a duration is negative"))
	}
	if o.MaxQueuedItems < 0 || o.MaxQueuedBytes < 0 || o.MaxPending < 0 {
		errs = append(errs, errors.New("a bound is negative"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("peer options: %w", err)
	}
	return nil
}

// Peers sends messages to other nodes. It implements coord.Transport. Links are
// made when asked for or first needed, and kept.
// It is safe for concurrent use. End it with Close.
type Peers struct {
	opts  PeersOptions
	codec frameCodec
	pool  *bufferPool
	stats peerCounters

	// ctx ends with Close.
	ctx    context.Context
	cancel context.CancelFunc

	// byID is replaced, never changed; writers hold mu.
	byID atomic.Pointer[map[ring.NodeID]*peer]
	mu   struct {
		sync.Mutex
		closed bool
	}
	wg sync.WaitGroup // one per peer with a link or seeking one; Add only with mu held and !closed
}

var _ coord.Bundler = (*Peers)(nil)

// NewPeers returns Peers without any link.
func NewPeers(opts PeersOptions) (*Peers, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	ps := &Peers{opts: opts, codec: newFrameCodec(), pool: new(bufferPool)}
	ps.ctx, ps.cancel = context.WithCancel(context.Background())
	ps.byID.Store(&map[ring.NodeID]*peer{})
	return ps, nil
}

// Send queues m for the node to, or refuses it. See coord.Transport. Every
// error matches one of the errors of this package or carries a gRPC status.
func (ps *Peers) Send(to ring.NodeID, m *coord.Message, reply func(coord.Reply, error)) {
	p, err := ps.peer(to)
	if err == nil {
		err = p.send(m, reply)
	}
	if err != nil {
		ps.refuse(laneFor(m, requestSize(m)), reply, err)
	}
}

// notSent marks err as one where the peer never saw the message.
func notSent(format string, args ...any) error {
	return fmt.Errorf("%w: %w", coord.ErrNotSent, fmt.Errorf(format, args...))
}

// peer finds or makes the peer of that id.
func (ps *Peers) peer(id ring.NodeID) (*peer, error) {
	if p, ok := (*ps.byID.Load())[id]; ok {
		return p, nil
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	old := *ps.byID.Load()
	if p, ok := old[id]; ok {
		return p, nil
	}
	if ps.mu.closed {
		return nil, notSent("send to %s: %w", id.Short(), ErrClosed)
	}
	if _, ok := ps.opts.Resolve(id); !ok {
		return nil, notSent("send to %s: not a member: %w", id.Short(), ErrDisconnected)
	}
	if ps.opts.Cluster().IsZero() {
		return nil, notSent("send to %s: this node has no cluster yet: %w", id.Short(), ErrDisconnected)
	}
	p := newPeer(ps, id)
	next := make(map[ring.NodeID]*peer, len(old)+1)
	for k, v := range old {
		next[k] = v
	}
	next[id] = p
	ps.byID.Store(&next)
	ps.wg.Go(p.run)
	return p, nil
}

// forget removes p, so that the next Send begins anew.
func (ps *Peers) forget(p *peer) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	old := *ps.byID.Load()
	next := make(map[ring.NodeID]*peer, len(old))
	for k, v := range old {
		if v != p {
			next[k] = v
		}
	}
	ps.byID.Store(&next)
}

// Linked says whether there is a link to a peer at present. A peer whose machine
// does not answer loses it within seconds.
func (ps *Peers) Linked(id ring.NodeID) bool {
	p, ok := (*ps.byID.Load())[id]
	if !ok {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.state == linkUp
}

// Connect makes a link to a node before there is anything to send, if there is none. The
// channel is closed when the first attempt is over, well or not, which takes no longer
// than DialTimeout.
func (ps *Peers) Connect(id ring.NodeID) (tried <-chan struct{}) {
	p, err := ps.peer(id)
	if err != nil {
		none := make(chan struct{})
		close(none)
		return none
	}
	return p.tried
}

// Refresh lets peers that wait before another attempt to connect try at once,
// and ask Resolve again; an attempt under way has a second more. Call it when addresses or members have changed.
func (ps *Peers) Refresh() {
	for _, p := range *ps.byID.Load() {
		p.refresh()
	}
}

// Close fails what is pending, closes the links and returns when all goroutines
// have ended. Further Sends are refused. It is idempotent.
func (ps *Peers) Close() error {
	ps.mu.Lock()
	ps.mu.closed = true
	ps.mu.Unlock()
	ps.cancel()
	ps.wg.Wait()
	return nil
}
