package node

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/node/rpc"
)

// openGossip opens the metadata store, and with it this node's identity.
func (n *Node) openGossip() error {
	c := &n.cfg
	key, err := readGossipKey(c.Cluster.GossipKeyFile)
	if err != nil {
		return err
	}
	if picksAddress(&c.Listen) {
		if n.machine, err = machineAddresses(); err != nil {
			return err
		}
	}
	host, err := advertiseHost(&c.Listen, n.machine)
	if err != nil {
		return err
	}
	n.host = host
	n.addrs = Addresses{
		Name: c.Node.Name,
		GRPC: hostPort(host, n.lis.grpc.Addr()), GRPCLocal: hostPort(localHost(c.Listen.Bind), n.lis.grpc.Addr()),
		Peer: hostPort(host, n.lis.peer.Addr()), HTTP: hostPort(host, n.lis.http.Addr()),
	}
	n.meta, err = rpc.NewMetaClient(rpc.MetaClientOptions{
		Identity: func() (ring.ClusterID, ring.NodeID) {
			s := n.gossip.Snapshot()
			return s.ClusterID, s.Self
		},
	})
	if err != nil {
		return err
	}
	hasData, err := hasEngine(filepath.Join(c.Node.DataDir, EngineDir))
	if err != nil {
		return fmt.Errorf("look for data in %s: %w", c.Node.DataDir, err)
	}
	opts := gossip.Options{
		Dir: c.Node.DataDir, HasData: hasData, ClusterName: c.Cluster.Name,
		Name: c.Node.Name, Zone: c.Node.Zone, Capacity: uint32(c.Node.Capacity),
		Addresses: schema.Addresses{GRPC: n.addrs.GRPC, Peer: n.addrs.Peer, HTTP: n.addrs.HTTP},
		Software:  n.opts.Version,
		Bootstrap: c.Cluster.Bootstrap, BootstrapExpect: c.Cluster.BootstrapExpect,
		Join: c.Cluster.Seeds(), JoinTimeout: c.Cluster.JoinTimeout, Partitions: c.Cluster.Partitions,
		BindAddr: c.Listen.Bind, BindPort: c.Listen.GossipPort, SecretKey: key,
		ProbeInterval: c.Gossip.ProbeInterval, ProbeTimeout: c.Gossip.ProbeTimeout,
		SuspicionMult: c.Gossip.SuspicionMult, PushPullInterval: c.Gossip.PushPullInterval,
		Barrier: n.barrier, AutoApply: c.Ring.AutoApply, Settle: c.Ring.Settle,
		Transport: n.meta, Logger: n.log.With("component", "gossip"),
	}
	if host != c.Listen.Bind {
		// The other addresses may be names, which outlive a change of address.
		if opts.AdvertiseAddr, err = resolveIP(host, "--advertise"); err != nil {
			return err
		}
	}
	if n.gossip, err = gossip.New(opts); err != nil {
		return explainGossip(err)
	}
	id, _, _ := n.gossip.Identity()
	n.addrs.NodeID = id.String()
	return nil
}

// explainGossip marks what whoever started the agent can mend by starting it
// in another way.
func explainGossip(err error) error {
	if errors.Is(err, gossip.ErrNoBootstrap) || errors.Is(err, gossip.ErrOptions) {
		return &UsageError{Err: err}
	}
	return err
}

// maxKeyFile bounds what is read of a key file, in bytes.
const maxKeyFile = 4 << 10

// readGossipKey reads 32 bytes in base64, as `pairdb keygen --gossip` writes
// them. No file means no encryption.
func readGossipKey(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read gossip key: %w", err)
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("read gossip key %s: %d bytes are no key; make one with pairdb keygen --gossip", file, info.Size())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read gossip key: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != 32 {
		// The content is a secret: it is not shown.
		return nil, fmt.Errorf("read gossip key %s: it does not hold 32 bytes in base64; make one with pairdb keygen --gossip", file)
	}
	return key, nil
}

// classify turns any error into its code: those of gossip here, all others in
// package rpc.
func classify(err error) *coord.Error {
	typed := func(code errcode.Code, outcome errcode.Outcome) *coord.Error {
		return &coord.Error{Code: code, Outcome: outcome, Message: err.Error(), Err: err}
	}
	var unreachable *gossip.VotersUnreachableError
	switch {
	case errors.Is(err, gossip.ErrIndeterminate):
		return typed(errcode.Timeout, errcode.Indeterminate)
	case errors.Is(err, gossip.ErrNotApplied):
		return typed(errcode.Timeout, errcode.NotApplied)
	case errors.Is(err, gossip.ErrTenantExists):
		return typed(errcode.TenantExists, errcode.NotApplied)
	case errors.Is(err, gossip.ErrNoRoom):
		return typed(errcode.DiskFull, errcode.NotApplied)
	case errors.Is(err, gossip.ErrVoid):
		return typed(errcode.PreconditionFailed, errcode.NotApplied)
	case errors.Is(err, gossip.ErrTenantLimit):
		return typed(errcode.ResourceExhausted, errcode.NotApplied)
	case errors.As(err, &unreachable):
		return typed(errcode.QuorumNotReached, errcode.NotApplied)
	case errors.Is(err, gossip.ErrNotReady), errors.Is(err, gossip.ErrClosed):
		return typed(errcode.Unavailable, errcode.NotApplied)
	default:
		return rpc.Classify(err)
	}
}
