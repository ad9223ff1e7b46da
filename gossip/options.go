package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// MetaTransport carries requests to the Meta service of a peer at addr
// (host:port of its peer listener) and gives its reply. method is one of
// Exchange, Prepare, Accept, Pledge and Found; payload and reply are at most
// 4 MiB. Call honours ctx and is safe for concurrent use.
type MetaTransport interface {
	Call(ctx context.Context, addr, method string, payload []byte) ([]byte, error)
}

// Options of New. Durations and counts that are zero get their default.
type Options struct {
	// Dir is the node's data directory; metadata lives in its folder "meta".
	Dir string
	// HasData says that the node's engine has data there. Without an identity such
	// a directory is not that of a new node.
	HasData bool
	// ClusterName is the gossip label: packets of other names are dropped.
	// 1..63 letters, digits, '.', '_', '-'. Default "pairdb".
	ClusterName string
	// Name is unique in the cluster; Zone may be empty.
	Name, Zone string
	// Capacity is the node's weight in the layout. Default 100.
	Capacity uint32
	// Addresses are where others reach this node; Gossip is filled in by Start.
	Addresses schema.Addresses
	// Software is this build's version.
	Software string

	// Bootstrap founds a cluster of this node; BootstrapExpect one of so many
	// nodes, unless it meets a cluster, which it joins; else a node without a cluster
	// joins. With a cluster on disk all three are ignored.
	Bootstrap       bool
	BootstrapExpect int
	// Join are gossip addresses of other nodes, host:port. It may name this one.
	Join []string
	// JoinTimeout is how long a node that may only join looks for a cluster.
	// Default 30 s. Longer: waits for slow peers; shorter: fails sooner.
	JoinTimeout time.Duration
	// Partitions of a cluster founded here. Default 1024; permanent.
	Partitions int

	// BindAddr and BindPort are where gossip listens, UDP and TCP. Port 0 takes
	// a free one. Default address 127.0.0.1.
	BindAddr string
	BindPort int
	// AdvertiseAddr and AdvertisePort are what others are told, if it differs.
	AdvertiseAddr string
	AdvertisePort int
	// SecretKey encrypts gossip: 32 bytes, or none.
	SecretKey []byte

	// ProbeInterval between two probes of a member. Default 1 s. Shorter finds
	// the dead sooner and costs packets.
	ProbeInterval time.Duration
	// ProbeTimeout for one probe. Default 500 ms; below the round trip it
	// suspects the living.
	ProbeTimeout time.Duration
	// SuspicionMult: a suspect has SuspicionMult*log10(n+1) intervals to refute.
	// Default 4.
	SuspicionMult int
	// PushPullInterval between exchanges of digests with a random member over
	// TCP. Default 15 s.
	PushPullInterval time.Duration
	// GossipInterval between two rounds of gossip. Default 200 ms.
	GossipInterval time.Duration
	// RejoinInterval between attempts to reach members that are not alive.
	// Default 15 s; 1 s while nobody is.
	RejoinInterval time.Duration
	// CallTimeout bounds one metadata request to a peer. Default 2 s.
	CallTimeout time.Duration
	// CreateTimeout bounds CreateTenant, DeleteTenant and Intend. Default 5 s.
	CreateTimeout time.Duration
	// NameGrace is how long two nodes with one name are borne with while
	// founding: one of them may be the last life of a wiped node. Default 30 s.
	NameGrace time.Duration

	// Barrier is called, not under a lock, after a snapshot with a new ring version was
	// published. When it returns nothing goes on any more under an older one, and this
	// node acknowledges the version. It must return in time and may be called from New
	// to Close. nil: nothing to wait for.
	Barrier func()
	// AutoApply has this node propose changes of the layout by itself, once joiners or
	// intents are there. Without it CommitPlan does. What is proposed goes on in either
	// case.
	AutoApply bool
	// Settle is the time since the last joiner or intent came after which a change is
	// proposed. Default 5 s. Longer: more joiners go into one change; shorter: it begins
	// sooner.
	Settle time.Duration
	// JoinerPatience is how long a joiner of the open change may be gone before the
	// change is aborted. Default 10 min. Longer: it may come back; shorter: the others
	// go on sooner.
	JoinerPatience time.Duration
	// stagger is the time that each member leaves to the one before it to do the next
	// step of a change. Default 3 s; only tests set it.
	stagger time.Duration
	// trim bounds the log; only tests set it.
	trim meta.Trim

	Transport MetaTransport
	Logger    *slog.Logger
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.JoinTimeout, 30*time.Second)
	def(&o.ProbeInterval, time.Second)
	def(&o.ProbeTimeout, 500*time.Millisecond)
	def(&o.PushPullInterval, 15*time.Second)
	def(&o.GossipInterval, 200*time.Millisecond)
	def(&o.RejoinInterval, 15*time.Second)
	def(&o.CallTimeout, 2*time.Second)
	def(&o.CreateTimeout, 5*time.Second)
	def(&o.NameGrace, 30*time.Second)
	def(&o.Settle, 5*time.Second)
	def(&o.JoinerPatience, 10*time.Minute)
	def(&o.stagger, 3*time.Second)
	if o.ClusterName == "" {
		o.ClusterName = "pairdb"
	}
	if o.Capacity == 0 {
		o.Capacity = 100
	}
	if o.Partitions == 0 {
		o.Partitions = ring.DefaultPartitions
	}
	if o.BindAddr == "" {
		o.BindAddr = "127.0.0.1"
	}
	if o.SuspicionMult == 0 {
		o.SuspicionMult = 4
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate refuses what cannot work. Call EnsureDefaults first.
func (o *Options) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrOptions, fmt.Sprintf(format, args...))
	}
	switch {
	case o.Dir == "":
		return bad("no data directory")
	case !ring.ValidName(o.ClusterName):
		return bad("cluster name %q: want 1..63 letters, digits, '.', '_' or '-'", o.ClusterName)
	case !ring.ValidName(o.Name):
		return bad("node name %q: want 1..63 letters, digits, '.', '_' or '-'", o.Name)
	case o.Zone != "" && !ring.ValidName(o.Zone):
		return bad("zone %q: want 1..63 letters, digits, '.', '_' or '-'", o.Zone)
	case o.Capacity > ring.MaxCapacity:
		return bad("capacity %d, want 1..%d", o.Capacity, ring.MaxCapacity)
	case len(o.SecretKey) != 0 && len(o.SecretKey) != 32:
		return bad("gossip key of %d bytes, want 32", len(o.SecretKey))
	case o.Bootstrap && o.BootstrapExpect != 0:
		return bad("--bootstrap and --bootstrap-expect exclude each other")
	case o.BootstrapExpect < 0 || o.BootstrapExpect > ring.MaxNodes:
		return bad("--bootstrap-expect %d, want 1..%d", o.BootstrapExpect, ring.MaxNodes)
	case o.Partitions < ring.MinPartitions || o.Partitions > ring.MaxPartitions || o.Partitions&(o.Partitions-1) != 0:
		return bad("%d partitions, want a power of two in %d..%d", o.Partitions, ring.MinPartitions, ring.MaxPartitions)
	case o.BindPort < 0 || o.BindPort > 65535 || o.AdvertisePort < 0 || o.AdvertisePort > 65535:
		return bad("port out of range")
	case o.Transport == nil:
		return bad("no transport")
	}
	return nil
}

// validateFresh refuses what cannot work for a node without a cluster.
func (o *Options) validateFresh() error {
	switch {
	case o.Bootstrap && len(o.Join) > 0:
		return fmt.Errorf("%w: --bootstrap founds a cluster of this node alone and --join enters another: use one of them, or --bootstrap-expect with --join", ErrOptions)
	case !o.Bootstrap && o.BootstrapExpect == 0 && len(o.Join) == 0:
		return ErrNoBootstrap
	}
	return nil
}

// validateJoining refuses what cannot work for a node that waits to be a member.
func (o *Options) validateJoining(core *meta.Core) error {
	id, _ := core.Joining()
	switch {
	case o.Bootstrap:
		return fmt.Errorf("%w: %s; with --bootstrap it would found another one. Use --join, or an empty data directory", ErrJoining, id)
	case len(o.Join) == 0 && !core.Founded():
		return fmt.Errorf("%w: %s; name nodes of it with --join", ErrNoBootstrap, id)
	}
	return nil
}

func (o *Options) info() meta.Info {
	return meta.Info{Name: o.Name, Zone: o.Zone, Capacity: o.Capacity, Addresses: o.Addresses, Software: o.Software}
}
