// Package config is the agent's configuration: one table of settings that the
// defaults, the reference file configs/pairdb.yaml, the environment variables,
// the flags and the checks all come from.
//
// Where several places give a setting, the later wins: defaults, the file, the
// files of its conf.d folder in the order of their names, the environment
// (PAIRDB_AGENT_SECTION__KEY), flags. Loading is strict: a key, variable or
// flag that is not in the table is an error that names the nearest one that is,
// and all problems are reported at once.
//
// The package reads files and nothing else; it resolves no host name and opens
// no port. Its values may be shared once loaded.
package config

import (
	"net"
	"slices"
	"strconv"
	"time"
)

// Config is a whole configuration. What each field means, its unit and its
// bounds stand in the table of settings, and so in configs/pairdb.yaml. Get one
// from Defaults or Load.
type Config struct {
	Node     Node
	Listen   Listen
	Cluster  Cluster
	Gossip   Gossip
	Storage  Storage
	Hints    Hints
	Ring     Ring
	Scrub    Scrub
	Limits   Limits
	Repair   Repair
	Timeouts Timeouts
	HTTP     HTTP
	Log      Log
}

// HTTP says how the HTTP port treats browsers.
type HTTP struct {
	// CORSOrigins are scheme://host[:port], as browsers write them.
	CORSOrigins []string
}

// Node says what this node is.
type Node struct {
	DataDir string
	// Name is empty where the host name is meant.
	Name     string
	Zone     string
	Capacity int
}

// Listen says where this node listens, and where others find it.
type Listen struct {
	Bind string
	// Advertise is a host or an address without port; empty means Bind, or if
	// that is a wildcard an address of the machine that others may reach.
	Advertise string
	// Ports; 0 takes a free one.
	GRPCPort, PeerPort, HTTPPort, GossipPort int
	// AddrFile is empty where no file is wanted.
	AddrFile string
}

// Cluster says how this node finds its cluster.
type Cluster struct {
	Name      string
	Bootstrap bool
	// BootstrapExpect is 0 where it is not wanted.
	BootstrapExpect int
	// Join has host or host:port; Seeds completes them.
	Join []string
	// Partitions is a power of two.
	Partitions    int
	GossipKeyFile string
	Insecure      bool
	JoinTimeout   time.Duration
}

// Gossip tunes the failure detector.
type Gossip struct {
	ProbeInterval, ProbeTimeout time.Duration
	SuspicionMult               int
	PushPullInterval            time.Duration
}

// Storage tunes the engine.
type Storage struct {
	MemtableSize, CacheSize, BlockSize Size
	BloomBitsPerKey                    int
	WALSegmentSize                     Size
	// Percents of the file system in use.
	DiskWarn, DiskThrottle, DiskStop int
	DiskSlow, DiskStall              time.Duration
	// CompactionRate is bytes a second, 0 for no bound.
	CompactionRate Size
}

// Hints bounds what this node keeps for others that writes did not reach.
type Hints struct {
	// MaxBytes is for one target, Rate bytes a second to one.
	MaxBytes, Rate Size
	Window         time.Duration
}

// Ring says how changes of who owns what begin and how fast they go.
type Ring struct {
	// AutoApply says that changes begin by themselves.
	AutoApply bool
	// Settle is the time after the last one was asked for.
	Settle time.Duration
	// StreamRate is bytes a second that this node fetches.
	StreamRate Size
}

// Scrub says how the data on the disk is looked through for damage.
type Scrub struct {
	// Interval is the time from one to the next, 0 for never.
	Interval time.Duration
	// Rate is bytes a second.
	Rate Size
}

// Limits bounds what clients may ask.
type Limits struct {
	MaxValueSize, IdempotencyBytes Size
	// ConcurrencyMin and ConcurrencyMax bound the limit of operations under way,
	// Queue those that wait; each for reads and for writes.
	ConcurrencyMin, ConcurrencyMax, Queue int
	QueueWait                             time.Duration
	// Connections bounds the clients' connections, ConnectionsPerIP those of one
	// address; each for gRPC and for HTTP. 0 for no bound of its own.
	Connections, ConnectionsPerIP int
	// ReaderStall is how long a client may leave an answer unread.
	ReaderStall time.Duration
}

// Repair says how often the owners of the same data are compared, and what that may
// cost.
type Repair struct {
	Interval time.Duration
	// Settle is 0 for a second more than a write may take.
	Settle time.Duration
	// Rate is bytes a second.
	Rate Size
}

// Timeouts bounds how long things may take.
type Timeouts struct {
	Write, Read, DrainDelay, Shutdown time.Duration
}

// Log says what is logged, and how.
type Log struct {
	// Level is debug, info, warn or error.
	Level string
	// Format is auto, text or json.
	Format string
}

// defaultGossipPort is where a seed is asked that names no port.
const defaultGossipPort = 7946

// Defaults returns the configuration of an agent that was told nothing.
func Defaults() Config {
	var c Config
	for _, s := range settings() {
		if err := s.set(&c, s.Default); err != nil {
			// The table is constant, and a test walks it: a default that its
			// own setting refuses cannot reach a user.
			panic("config: default of " + s.Path + ": " + err.Error())
		}
	}
	return c
}

// Seeds returns Join with a port for each address: its own, or 7946.
func (c Cluster) Seeds() []string {
	seeds := make([]string, 0, len(c.Join))
	for _, addr := range c.Join {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			addr = net.JoinHostPort(unbracket(addr), strconv.Itoa(defaultGossipPort))
		}
		seeds = append(seeds, addr)
	}
	return seeds
}

// Loopback reports whether this node listens on loopback only.
func (l Listen) Loopback() bool {
	if l.Bind == "localhost" {
		return true
	}
	ip := net.ParseIP(l.Bind)
	return ip != nil && ip.IsLoopback()
}

// unbracket takes the brackets off an IPv6 address without port.
func unbracket(addr string) string {
	if n := len(addr); n > 2 && addr[0] == '[' && addr[n-1] == ']' {
		return addr[1 : n-1]
	}
	return addr
}

// Settings returns the table in the order of the reference file. The slice is
// the caller's.
func Settings() []Setting {
	return slices.Clone(settings())
}
