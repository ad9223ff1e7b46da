package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

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
	router    *router
	watcher   *watcher
	throttles throttles
	// What may be sent again: whole calls, hedges, and calls to another endpoint.
	budget, hedges, moves budget
	counters              counters
	closed                atomic.Bool
	closeOnce             sync.Once
	closeErr              error
}

// maxCalls bounds the calls on one connection that wait for an answer; more wait for
// their turn until their deadlines. A node takes 1,024 streams on one, and with more
// than that gRPC wakes each call that waits whenever one has ended: ten thousand of
// them take all the time of a processor. What is left is for scans and pipelines.
const maxCalls = 1000

// conn is the connection to one endpoint with its stubs.
type conn struct {
	endpoint string
	cc       *grpc.ClientConn
	kv       pairdbv1.KVClient
	tenants  pairdbv1.TenantsClient
	cluster  pairdbv1.ClusterClient
	admin    pairdbv1.AdminClient
	observe  pairdbv1.ObserveClient
	health   healthpb.HealthClient
	// seed is the position among Options.Endpoints, -1 for a node that was
	// found by its routes.
	seed int
	// calls bounds those under way.
	calls *semaphore.Weighted
	// unused belongs to the router.
	unused bool

	// lanes are what is known of its calls, by class. probing says that a probe is
	// on its way, probed that one was answered, and sinceProbe, which belongs to the
	// watcher, how long ago the last one began.
	lanes           [classes]lane
	probing, probed atomic.Bool
	sinceProbe      time.Duration
}

// New returns a Client. It does not connect: an endpoint that is down is found
// by the first call. End it with Close.
func New(opts Options) (*Client, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	c := &Client{opts: opts, budget: newBudget(budgetMost, budgetEarn), hedges: newBudget(hedgesMost, hedgesEarn), moves: newBudget(movesMost, movesEarn)}
	c.router = newRouter(c)
	c.watcher = newWatcher(c)
	for i, e := range opts.Endpoints {
		cn, err := dial(e, opts)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		cn.seed = i
		c.watcher.add(cn)
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
		seed:     -1,
		calls:    semaphore.NewWeighted(maxCalls),
		cc:       cc,
		kv:       pairdbv1.NewKVClient(cc),
		tenants:  pairdbv1.NewTenantsClient(cc),
		cluster:  pairdbv1.NewClusterClient(cc),
		admin:    pairdbv1.NewAdminClient(cc),
		observe:  pairdbv1.NewObserveClient(cc),
		health:   healthpb.NewHealthClient(cc),
	}, nil
}

// Close ends all connections; calls under way fail. It may be called again.
func (c *Client) Close() error {
	c.closeOnce.Do(func() {
		c.closed.Store(true)
		c.closeErr = c.router.close()
		c.watcher.close()
		for _, cn := range c.conns {
			c.closeErr = errors.Join(c.closeErr, cn.cc.Close())
		}
	})
	return c.closeErr
}

// Endpoint returns the endpoint that the next call begins at, unless it is about
// a key of which an owner is known.
func (c *Client) Endpoint() string { return c.conns[c.current.Load()].endpoint }

// Tenant returns the tenant of calls that name none.
func (c *Client) Tenant() string { return c.opts.Tenant }

// place is what a call is about: the tenant and the key, if it is about one, and
// the class that its node is judged by.
type place struct {
	tenant string
	key    []byte
	class  class
	// items says that the call holds several requests, of which its caller notes
	// whether they were refused.
	items bool
}

// invoke runs fn against one endpoint after another until one answers or
// another try could double an effect. See the package comment for the rule.
func invoke[Resp any](ctx context.Context, c *Client, op string, k kind, fn func(context.Context, *conn, ...grpc.CallOption) (Resp, error)) (Resp, error) {
	return invokeAt(ctx, c, op, k, place{}, fn)
}

// invokeAt is invoke for a call about the data of a tenant. If it is about one key
// it begins at the key's owners if they are known.
func invokeAt[Resp any](ctx context.Context, c *Client, op string, k kind, at place, fn func(context.Context, *conn, ...grpc.CallOption) (Resp, error)) (Resp, error) {
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
	var failed *Error
	for n := 1; ; n++ {
		if e := c.admit(op, k, at.tenant); e != nil {
			if failed == nil {
				failed = e
			}
			return zero, failed
		}
		resp, e := round(ctx, c, op, k, at, fn)
		if e != nil || !at.items {
			c.noteRefusal(at.tenant, refusal(e))
		}
		if e == nil {
			c.budget.earn()
			c.hedges.earn()
			c.moves.earn()
			return resp, nil
		}
		failed = after(failed, e)
		if !c.pause(ctx, n, k, failed) {
			return zero, failed
		}
	}
}

// round tries each endpoint once.
func round[Resp any](ctx context.Context, c *Client, op string, k kind, at place, fn func(context.Context, *conn, ...grpc.CallOption) (Resp, error)) (Resp, *Error) {
	var zero Resp
	var room [16]*conn
	to := c.candidates(room[:0], at)
	if c.watcher.resting.Load() && at.class != noClass {
		c.watcher.rouse()
	}
	var failed *Error
	for i := 0; i < len(to); {
		cn := to[i]
		resp, flown, e := fly(ctx, c, op, k, at.class, to[i:], fn)
		if e == nil {
			if i > 0 && cn.seed >= 0 {
				c.current.Store(uint32(cn.seed))
			}
			return resp, nil
		}
		if at.key != nil && nodeTrouble(e.Code) {
			c.router.doubt(at.tenant)
		}
		failed = after(failed, e)
		if ctx.Err() != nil || !mayMoveOn(k, e) {
			c.leave(cn, e)
			break
		}
		i += flown.asked
		// Nothing was sent to an endpoint that was not reached.
		if i < len(to) && !flown.paid && !e.NotConnected && !c.moves.spend() {
			c.counters.budgetsEmpty.Add(1)
			break
		}
	}
	return zero, failed
}

// candidates appends where a call may go, in order: owners of its key that are
// known and connected, then the endpoints from the one that worked last.
func (c *Client) candidates(to []*conn, at place) []*conn {
	if at.key != nil {
		to = c.router.owners(to, at.tenant, at.key)
	}
	owners := len(to)
	first := int(c.current.Load())
	for i := range c.conns {
		cn := c.conns[(first+i)%len(c.conns)]
		if !slices.Contains(to[:owners], cn) {
			to = append(to, cn)
		}
	}
	c.prefer(to, at.class)
	return to
}

// after is the error to report once e has followed failed.
func after(failed, e *Error) *Error {
	if failed != nil && failed.Outcome == errcode.Indeterminate {
		e.Outcome = errcode.Indeterminate // whatever this endpoint did not do
	}
	return worse(failed, e)
}

// attempt sends one request to one endpoint. left is the number of endpoints
// that are to be asked, this one included: each has its share of the time, so that
// one that hangs does not eat it all.
func attempt[Resp any](ctx context.Context, cn *conn, op string, k kind, left int, fn func(context.Context, *conn, ...grpc.CallOption) (Resp, error)) (Resp, *Error) {
	if deadline, ok := ctx.Deadline(); ok && k != writes && left > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	return send(ctx, cn, op, k, noClass, fn)
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

// leave makes later calls begin elsewhere if an endpoint was silent.
func (c *Client) leave(cn *conn, e *Error) {
	if len(c.conns) > 1 && cn.seed >= 0 && !e.answered && !errors.Is(e, context.Canceled) {
		c.current.CompareAndSwap(uint32(cn.seed), uint32((cn.seed+1)%len(c.conns)))
	}
}
