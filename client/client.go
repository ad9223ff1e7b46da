package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

const (
	// maxSend is what a node receives at most; maxReceive leaves room for a
	// few large siblings in one answer.
	maxSend    = MaxBatchBytes + 256<<10
	maxReceive = 6*MaxValueSize + 64<<10

	// HTTP/2 windows, so that a value of 10 MiB does not stop at each 64 KiB.
	streamWindow     = 4 << 20
	connectionWindow = 16 << 20

	// connectTimeout bounds one attempt to connect. An endpoint that swallows
	// packets costs a call this long, once per back-off.
	connectTimeout  = 2 * time.Second
	connectMaxDelay = 2 * time.Second
)

// Client talks to one cluster. It is safe for concurrent use; make one and
// share it. Connections are made when they are first needed.
type Client struct {
	opts  Options
	conns []*conn
	// current is the index of the endpoint that calls begin at: the one that
	// worked last.
	current   atomic.Uint32
	closed    atomic.Bool
	closeOnce sync.Once
	closeErr  error
}

// conn is the connection to one endpoint with its stubs.
type conn struct {
	endpoint string
	cc       *grpc.ClientConn
	kv       pairdbv1.KVClient
	tenants  pairdbv1.TenantsClient
	cluster  pairdbv1.ClusterClient
	admin    pairdbv1.AdminClient
	health   healthpb.HealthClient
}

// New returns a Client. It does not connect: an endpoint that is down is found
// by the first call. End it with Close.
func New(opts Options) (*Client, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	c := &Client{opts: opts}
	for _, e := range opts.Endpoints {
		cn, err := dial(e, opts)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.conns = append(c.conns, cn)
	}
	return c, nil
}

func dial(endpoint string, opts Options) (*conn, error) {
	endpoint, err := NormalizeEndpoint(endpoint)
	if err != nil {
		return nil, err
	}
	delay := backoff.DefaultConfig
	delay.BaseDelay = 100 * time.Millisecond
	delay.MaxDelay = connectMaxDelay
	dialOpts := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent(opts.UserAgent),
		// This package decides what is sent twice, not a service config.
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connectionWindow),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(maxSend), grpc.MaxCallRecvMsgSize(maxReceive)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: delay, MinConnectTimeout: connectTimeout}),
	}
	cc, err := grpc.NewClient(endpoint, append(dialOpts, opts.DialOptions...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", endpoint, err)
	}
	return &conn{
		endpoint: endpoint,
		cc:       cc,
		kv:       pairdbv1.NewKVClient(cc),
		tenants:  pairdbv1.NewTenantsClient(cc),
		cluster:  pairdbv1.NewClusterClient(cc),
		admin:    pairdbv1.NewAdminClient(cc),
		health:   healthpb.NewHealthClient(cc),
	}, nil
}

// Close ends all connections; calls under way fail. It may be called again.
func (c *Client) Close() error {
	c.closeOnce.Do(func() {
		c.closed.Store(true)
		for _, cn := range c.conns {
			c.closeErr = errors.Join(c.closeErr, cn.cc.Close())
		}
	})
	return c.closeErr
}

// Endpoint returns the endpoint that the next call begins at.
func (c *Client) Endpoint() string { return c.conns[c.current.Load()].endpoint }

// Tenant returns the tenant of calls that name none.
func (c *Client) Tenant() string { return c.opts.Tenant }

// invoke runs fn against one endpoint after another until one answers or
// another try could double an effect. See the package comment for the rule.
func invoke[Resp any](ctx context.Context, c *Client, op string, k kind, fn func(context.Context, *conn, ...grpc.CallOption) (Resp, error)) (Resp, error) {
	var zero Resp
	if c.closed.Load() {
		e := localError(op, k, errcode.Unavailable, "the client is closed")
		e.Err = ErrClosed
		return zero, e
	}
	if c.opts.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.opts.Timeout)
		defer cancel()
	}
	first := int(c.current.Load())
	var failed *Error
	for i := range c.conns {
		at := (first + i) % len(c.conns)
		resp, e := attempt(ctx, c.conns[at], op, k, len(c.conns)-i, fn)
		if e == nil {
			if i > 0 {
				c.current.Store(uint32(at))
			}
			return resp, nil
		}
		if failed != nil && failed.Outcome == errcode.Indeterminate {
			e.Outcome = errcode.Indeterminate // whatever this endpoint did not do
		}
		failed = worse(failed, e)
		if ctx.Err() != nil || !mayMoveOn(k, e) {
			c.leave(at, e)
			return zero, failed
		}
	}
	return zero, failed
}

// attempt sends one request to one endpoint. left is the number of endpoints
// that may still be tried, this one included: what may be sent again gives each
// its share of the time, so that one that hangs does not eat it all. Any other
// write waits for its answer as long as it may, since leaving early makes it
// indeterminate.
func attempt[Resp any](ctx context.Context, cn *conn, op string, k kind, left int, fn func(context.Context, *conn, ...grpc.CallOption) (Resp, error)) (Resp, *Error) {
	if deadline, ok := ctx.Deadline(); ok && k != writes && left > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	// gRPC fills in the peer once the request was handed to a connection. If it
	// is empty after a failure, nothing was sent.
	var to peer.Peer
	resp, err := fn(ctx, cn, grpc.Peer(&to))
	if err != nil {
		return resp, decodeError(op, k, cn.endpoint, to.Addr != nil, err)
	}
	return resp, nil
}

// mayMoveOn says whether the next endpoint may be asked after e.
func mayMoveOn(k kind, e *Error) bool {
	if e.NotConnected {
		return true
	}
	if k == writes {
		return e.Outcome == errcode.NotApplied && nodeTrouble(e.Code)
	}
	// A node that says TIMEOUT has asked the replicas itself; only silence is
	// worth asking elsewhere.
	return nodeTrouble(e.Code) || (e.Code == errcode.Timeout && !e.answered)
}

// nodeTrouble says whether code is about the node that was asked, so that
// another node may do better.
func nodeTrouble(code errcode.Code) bool {
	switch code {
	case errcode.Unavailable, errcode.StaleRing, errcode.CommitLogFailed, errcode.ChecksumFailed:
		return true
	}
	return false
}

// worse picks the error to report of two attempts: one that reached a node says
// more than one that did not connect.
func worse(a, b *Error) *Error {
	if a != nil && b.NotConnected && !a.NotConnected {
		return a
	}
	if a != nil && a.NotConnected && b.NotConnected {
		b.Message = a.Message + "; " + b.Message
	}
	return b
}

// leave makes later calls begin elsewhere if the endpoint at was silent.
func (c *Client) leave(at int, e *Error) {
	if len(c.conns) > 1 && !e.answered && !errors.Is(e, context.Canceled) {
		c.current.CompareAndSwap(uint32(at), uint32((at+1)%len(c.conns)))
	}
}
