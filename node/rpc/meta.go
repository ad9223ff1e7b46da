package rpc

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	"github.com/pairdb/pairdb/gossip/ring"
)

const (
	// maxMetaBytes bounds the payload of a metadata message.
	maxMetaBytes = 4 << 20
	// maxMetaConns bounds the connections of a MetaClient.
	maxMetaConns = 64
	// metaIdle is how long a connection stays open without a call.
	metaIdle = time.Minute
)

// MetaClientOptions configure a MetaClient. Identity is required.
type MetaClientOptions struct {
	// Identity returns who this node is and its cluster, zero while it has
	// none. It is asked at each call.
	Identity func() (ring.ClusterID, ring.NodeID)
	// Dial opens a connection; default TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Credentials secure the connections; default none.
	Credentials credentials.TransportCredentials
}

// MetaClient makes the unary calls between nodes: metadata and figures. It is
// safe for concurrent use. End it with Close.
type MetaClient struct {
	opts MetaClientOptions
	mu   struct {
		sync.Mutex
		closed bool
		byAddr map[string]*list.Element
		recent *list.List // of *metaConn, the latest used first
	}
}

// metaConn is a cached connection; calls is guarded by the client's mutex.
type metaConn struct {
	addr  string
	conn  *grpc.ClientConn
	calls int
}

// NewMetaClient returns a client without connections.
func NewMetaClient(opts MetaClientOptions) (*MetaClient, error) {
	if opts.Identity == nil {
		return nil, errors.New("meta client: Identity is required")
	}
	if opts.Credentials == nil {
		opts.Credentials = insecure.NewCredentials()
	}
	if opts.Dial == nil {
		d := new(net.Dialer)
		opts.Dial = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
	c := &MetaClient{opts: opts}
	c.mu.byAddr = make(map[string]*list.Element)
	c.mu.recent = list.New()
	return c, nil
}

// Call calls a method of the service Meta ("Exchange", "Prepare", "Accept",
// "Pledge", "Found") of the node at addr, host:port, with a payload of at most
// 4 MiB, and returns its reply. An error of the other node comes as its text; a
// context's error matches it.
func (c *MetaClient) Call(ctx context.Context, addr, method string, payload []byte) ([]byte, error) {
	if len(payload) > maxMetaBytes {
		return nil, fmt.Errorf("call %s of %s: %d bytes, at most %d are possible", method, addr, len(payload), maxMetaBytes)
	}
	conn, done, err := c.conn(addr)
	if err != nil {
		return nil, fmt.Errorf("call %s of %s: %w", method, addr, err)
	}
	defer done()
	cluster, self := c.opts.Identity()
	req := &peerv1.MetaMessage{ClusterId: idBytes(cluster), Sender: idBytes(self), Payload: payload}
	resp := new(peerv1.MetaMessage)
	if err := conn.Invoke(ctx, "/"+peerv1.Meta_ServiceDesc.ServiceName+"/"+method, req, resp); err != nil {
		return nil, fmt.Errorf("call %s of %s: %w", method, addr, remoteError(ctx, err))
	}
	return resp.GetPayload(), nil
}

// Info asks the node at addr, host:port, for its own figures.
func (c *MetaClient) Info(ctx context.Context, addr string) (NodeInfo, error) {
	conn, done, err := c.conn(addr)
	if err != nil {
		return NodeInfo{}, fmt.Errorf("ask %s for its figures: %w", addr, err)
	}
	defer done()
	cluster, self := c.opts.Identity()
	resp, err := peerv1.NewPeerClient(conn).Info(ctx, &peerv1.InfoRequest{ClusterId: idBytes(cluster), Sender: idBytes(self)})
	if err != nil {
		return NodeInfo{}, fmt.Errorf("ask %s for its figures: %w", addr, remoteError(ctx, err))
	}
	info := NodeInfo{
		Incarnation: resp.GetIncarnation(), Bytes: resp.GetBytes(), Keys: resp.GetKeysEstimate(),
		DiskUsedPercent: resp.GetDiskUsedPercent(), RingVersion: ring.Version(resp.GetRingVersion()), Ready: resp.GetReady(),
		Hints: resp.GetHints(), Quarantined: resp.GetQuarantinedPartitions(),
		Unverified: resp.UnverifiedSpans, Draining: resp.GetDraining(),
	}
	if t := resp.GetRepairedAt(); t.IsValid() {
		info.RepairedAt = t.AsTime()
	}
	if copy(info.Node[:], resp.GetNodeId()) != len(info.Node) {
		return NodeInfo{}, fmt.Errorf("ask %s for its figures: the answer has no node id", addr)
	}
	return info, nil
}

// Observe asks the node at addr, host:port, for its events and traffic.
func (c *MetaClient) Observe(ctx context.Context, addr string, req *peerv1.ObserveRequest) (*peerv1.ObserveResponse, error) {
	conn, done, err := c.conn(addr)
	if err != nil {
		return nil, fmt.Errorf("observe %s: %w", addr, err)
	}
	defer done()
	cluster, self := c.opts.Identity()
	req.ClusterId, req.Sender = idBytes(cluster), idBytes(self)
	resp, err := peerv1.NewPeerClient(conn).Observe(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("observe %s: %w", addr, remoteError(ctx, err))
	}
	return resp, nil
}

// Scrub asks the node at addr, host:port, how its scrub is, and has it begin one if
// start is set.
func (c *MetaClient) Scrub(ctx context.Context, addr string, start bool) (*peerv1.ScrubResponse, error) {
	conn, done, err := c.conn(addr)
	if err != nil {
		return nil, fmt.Errorf("ask %s for its scrub: %w", addr, err)
	}
	defer done()
	cluster, self := c.opts.Identity()
	resp, err := peerv1.NewPeerClient(conn).Scrub(ctx, &peerv1.ScrubRequest{ClusterId: idBytes(cluster), Sender: idBytes(self), Start: start})
	if err != nil {
		return nil, fmt.Errorf("ask %s for its scrub: %w", addr, remoteError(ctx, err))
	}
	return resp, nil
}

// idBytes encodes an id, empty for none.
func idBytes[T ~[16]byte](id T) []byte {
	if id == *new(T) {
		return nil
	}
	b := [16]byte(id)
	return b[:]
}

// remoteError makes an error of a call readable, and match the context's where
// that is the cause.
func remoteError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch st := status.Convert(err); st.Code() {
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Canceled:
		return context.Canceled
	default:
		return fmt.Errorf("%s: %s", st.Code(), st.Message())
	}
}

// conn returns a connection to addr and what to call when it is not needed any
// more.
func (c *MetaClient) conn(addr string) (*grpc.ClientConn, func(), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return nil, nil, ErrClosed
	}
	e, ok := c.mu.byAddr[addr]
	if !ok {
		if err := c.evictLocked(); err != nil {
			return nil, nil, err
		}
		conn, err := grpc.NewClient("passthrough:///"+addr,
			grpc.WithTransportCredentials(c.opts.Credentials),
			grpc.WithContextDialer(c.opts.Dial),
			grpc.WithNoProxy(),
			grpc.WithDisableServiceConfig(),
			grpc.WithIdleTimeout(metaIdle),
			// gRPC would let a node that was away wait for up to 2 min.
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.3, MaxDelay: 500 * time.Millisecond},
				MinConnectTimeout: 3 * time.Second,
			}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMetaBytes+1024)),
		)
		if err != nil {
			return nil, nil, err
		}
		e = c.mu.recent.PushFront(&metaConn{addr: addr, conn: conn})
		c.mu.byAddr[addr] = e
	}
	c.mu.recent.MoveToFront(e)
	mc := e.Value.(*metaConn)
	mc.calls++
	return mc.conn, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		mc.calls--
	}, nil
}

// evictLocked makes room for one more connection.
func (c *MetaClient) evictLocked() error {
	if c.mu.recent.Len() < maxMetaConns {
		return nil
	}
	for e := c.mu.recent.Back(); e != nil; e = e.Prev() {
		if mc := e.Value.(*metaConn); mc.calls == 0 {
			c.mu.recent.Remove(e)
			delete(c.mu.byAddr, mc.addr)
			return mc.conn.Close()
		}
	}
	return fmt.Errorf("%d connections are in use", maxMetaConns)
}

// Close closes the connections; calls under way fail. It is idempotent.
func (c *MetaClient) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.closed = true
	var errs []error
	for e := c.mu.recent.Front(); e != nil; e = e.Next() {
		errs = append(errs, e.Value.(*metaConn).conn.Close())
	}
	c.mu.recent.Init()
	clear(c.mu.byAddr)
	return errors.Join(errs...)
}
