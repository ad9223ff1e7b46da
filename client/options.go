package client

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"google.golang.org/grpc"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

const (
	// DefaultEndpoint is where a node listens when nothing says otherwise.
	DefaultEndpoint = "127.0.0.1:50051"
	// DefaultPort is the port of the client gRPC listener.
	DefaultPort = "50051"
	// DefaultTenant exists in every cluster from its founding.
	DefaultTenant = "default"
	// DefaultTimeout bounds a call whose context has no earlier deadline.
	DefaultTimeout = 10 * time.Second
	// DefaultRetries is how many times a failed call is sent again.
	DefaultRetries = 2

	// MaxKeySize is the largest key, in bytes.
	MaxKeySize = 1024
	// MaxValueSize is the largest value, in bytes: 10 MiB. A node may be
	// configured lower.
	MaxValueSize = 10 << 20

	// MaxBatchItems is how many writes a Batch, or keys a MultiGet, has at most.
	MaxBatchItems = 1000
	// MaxBatchBytes is how many bytes of keys, values, contexts and idempotency
	// keys a Batch has at most: 16 MiB.
	MaxBatchBytes = 16 << 20

	// MaxIdempotencyKey is the largest idempotency key, in bytes.
	MaxIdempotencyKey = 256

	maxEndpoints = 256
)

// Options says how a Client reaches a cluster. The zero value reaches a node on
// this machine.
type Options struct {
	// Endpoints are the client listeners of one or more nodes of one cluster,
	// host:port; a missing port is 50051. More endpoints let a call survive the
	// loss of a node; each costs a connection once it is used. Default:
	// DefaultEndpoint. At most 256.
	Endpoints []string
	// Tenant is whose data the calls are about, unless a call says otherwise.
	// Default: DefaultTenant.
	Tenant string
	// Timeout bounds each call, all attempts included; an earlier deadline of
	// the call's context wins. Longer rides out slow nodes, shorter fails
	// sooner and leaves more writes indeterminate. Default: DefaultTimeout.
	// Negative: no bound but the context's.
	Timeout time.Duration
	// Retries is how many times a call that failed at all endpoints is sent to
	// them again, after pauses, if that may succeed and cannot double an effect;
	// see the package comment. More rides out restarts, fewer fails sooner.
	// Default: DefaultRetries. Negative: none.
	Retries int
	// NoRouting keeps calls to Endpoints. By default a Client that makes more
	// than a few asks which nodes own the keys, connects to them at the addresses
	// that they advertise, and sends each call to an owner that it has reached:
	// set it if clients must not connect to nodes by themselves.
	NoRouting bool
	// NoNodeHealth sends calls to nodes that do not answer, answer far later than
	// others or say that they cannot serve, as if they did. Set it where another
	// program chooses the nodes.
	NoNodeHealth bool
	// NoHedging keeps a read that takes long at the node that it was sent to. Set
	// it where even one read in twenty more is too much.
	NoHedging bool
	// NoThrottling sends calls of which the cluster lately refused most. Set it
	// where another program limits them.
	NoThrottling bool
	// UserAgent is put before gRPC's own. Default: "pairdb-go".
	UserAgent string
	// DialOptions are applied last to every connection: interceptors, stats
	// handlers, a dialer. They are for what this package does not offer.
	DialOptions []grpc.DialOption
}

// EnsureDefaults fills what is not set.
func (o *Options) EnsureDefaults() {
	if len(o.Endpoints) == 0 {
		o.Endpoints = []string{DefaultEndpoint}
	}
	if o.Tenant == "" {
		o.Tenant = DefaultTenant
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Retries == 0 {
		o.Retries = DefaultRetries
	}
	if o.UserAgent == "" {
		o.UserAgent = "pairdb-go"
	}
}

// Validate reports the first option that cannot work. The tenant is not
// checked: the cluster knows the rule and the tenants.
func (o *Options) Validate() error {
	if len(o.Endpoints) > maxEndpoints {
		return fmt.Errorf("options: %d endpoints, at most %d are used", len(o.Endpoints), maxEndpoints)
	}
	for _, e := range o.Endpoints {
		if _, err := NormalizeEndpoint(e); err != nil {
			return fmt.Errorf("options: %w", err)
		}
	}
	return nil
}

// NormalizeEndpoint returns endpoint as host:port, with DefaultPort if it names
// no port.
func NormalizeEndpoint(endpoint string) (string, error) {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		// Tried again with the default port: "host", "::1" and "[::1]".
		bare := endpoint
		if n := len(bare); n > 1 && bare[0] == '[' && bare[n-1] == ']' {
			bare = bare[1 : n-1]
		}
		host, port, err = net.SplitHostPort(net.JoinHostPort(bare, DefaultPort))
	}
	if err != nil || host == "" {
		return "", fmt.Errorf("endpoint %q is not host:port", endpoint)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("endpoint %q has no port from 1 to 65535", endpoint)
	}
	if net.ParseIP(host) == nil && !plausibleHost(host) {
		return "", fmt.Errorf("endpoint %q has no usable host", endpoint)
	}
	return net.JoinHostPort(host, port), nil
}

// plausibleHost refuses what no resolver takes, such as a pasted URL.
func plausibleHost(host string) bool {
	for i := 0; i < len(host); i++ {
		switch b := host[i]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '-', b == '.', b == '_':
		default:
			return false
		}
	}
	return len(host) <= 253
}

// Level says how many of the N replicas that own a key have to answer.
type Level int

const (
	// LevelDefault leaves the choice to the node, which takes LevelQuorum.
	LevelDefault Level = iota
	// LevelOne asks for 1 replica.
	LevelOne
	// LevelQuorum asks for floor(N/2)+1 replicas.
	LevelQuorum
	// LevelAll asks for all N replicas.
	LevelAll
)

// ParseLevel reads "one", "quorum" or "all"; the empty string is LevelDefault.
func ParseLevel(s string) (Level, error) {
	switch s {
	case "":
		return LevelDefault, nil
	case "one":
		return LevelOne, nil
	case "quorum":
		return LevelQuorum, nil
	case "all":
		return LevelAll, nil
	}
	return LevelDefault, fmt.Errorf("consistency %q is none of one, quorum, all", s)
}

// String returns the level as ParseLevel reads it, "default" for LevelDefault.
func (l Level) String() string {
	switch l {
	case LevelOne:
		return "one"
	case LevelQuorum:
		return "quorum"
	case LevelAll:
		return "all"
	}
	return "default"
}

func (l Level) wire() pairdbv1.Consistency {
	switch l {
	case LevelOne:
		return pairdbv1.Consistency_CONSISTENCY_ONE
	case LevelQuorum:
		return pairdbv1.Consistency_CONSISTENCY_QUORUM
	case LevelAll:
		return pairdbv1.Consistency_CONSISTENCY_ALL
	}
	return pairdbv1.Consistency_CONSISTENCY_UNSPECIFIED
}

func levelFromWire(c pairdbv1.Consistency) Level {
	switch c {
	case pairdbv1.Consistency_CONSISTENCY_ONE:
		return LevelOne
	case pairdbv1.Consistency_CONSISTENCY_QUORUM:
		return LevelQuorum
	case pairdbv1.Consistency_CONSISTENCY_ALL:
		return LevelAll
	}
	return LevelDefault
}

// CallOption changes one call.
type CallOption func(*callOptions)

type callOptions struct {
	level          Level
	tenant         string
	seen           Context
	idempotencyKey string
	keyed          bool // WithIdempotencyKey was given
	conditions
}

// WithLevel sets the consistency level of a call.
func WithLevel(l Level) CallOption { return func(o *callOptions) { o.level = l } }

// WithTenant makes a call about another tenant's data.
func WithTenant(id string) CallOption { return func(o *callOptions) { o.tenant = id } }

// WithContext makes a Put or Delete supersede exactly what the answer that
// returned seen had seen. Get ignores it. With the zero Context a Put of a
// tenant that keeps siblings supersedes nothing: its value stands beside what is
// there.
func WithContext(seen Context) CallOption { return func(o *callOptions) { o.seen = seen } }

// WithIdempotencyKey makes all puts and deletes of a tenant and key with the same
// id, of 1 to 256 bytes, within 24 hours one write: the first is made, and the
// others are answered with it. So a write that may have been applied can be sent
// again. One with another value, or a delete for a put, fails with
// ErrIdempotencyKeyConflict. At LevelOne this is best effort. Get ignores it.
func WithIdempotencyKey(id string) CallOption {
	return func(o *callOptions) { o.idempotencyKey, o.keyed = id, true }
}

func (c *Client) callOptions(opts []CallOption) callOptions {
	o := callOptions{tenant: c.opts.Tenant}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}
