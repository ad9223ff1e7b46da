package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
)

// MaxCapacity is the most that node.capacity can be, for those who know no ring.
const MaxCapacity = ring.MaxCapacity

// Setting describes one setting: a row of the table.
type Setting struct {
	// Path is section.key, as in the file.
	Path string
	// Default is the value when nobody says otherwise, as one would write it.
	Default string
	// Unit says what the value counts, for people. Empty where it needs none.
	Unit string
	// Flag is the agent's flag for it without dashes. Empty: only --set.
	Flag string
	// Reloadable says that SIGHUP makes a running agent take a new value.
	Reloadable bool
	// Help says what it does, and what is lost and won in either direction.
	Help string

	// min and max bound a number, a size in bytes or a duration, inclusive.
	// Both 0: no bounds.
	min, max int64
	// choices are the words that a string may be. None: any.
	choices []string
	// field returns a pointer to the setting's field. Its type is the
	// setting's type: *string, *int, *bool, *Size, *time.Duration, *[]string.
	field func(*Config) any
}

// Env returns the name of the setting's environment variable.
func (s Setting) Env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.Path, ".", "__"))
}

// Type returns the setting's type in a word: string, number, bool, size,
// duration or list.
func (s Setting) Type() string {
	switch s.field(new(Config)).(type) {
	case *string:
		return "string"
	case *int:
		return "number"
	case *bool:
		return "bool"
	case *Size:
		return "size"
	case *time.Duration:
		return "duration"
	case *[]string:
		return "list"
	}
	panic("config: " + s.Path + " has a field of a type that is not known")
}

// Value returns what c says for the setting, as one would write it.
func (s Setting) Value(c *Config) string {
	switch p := s.field(c).(type) {
	case *time.Duration:
		return formatDuration(*p)
	case *string:
		return *p
	case *[]string:
		return strings.Join(*p, ",")
	case *int:
		return fmt.Sprint(*p)
	case *bool:
		return fmt.Sprint(*p)
	case *Size:
		return p.String()
	}
	panic("config: " + s.Path + " has a field of a type that is not known")
}

const (
	envPrefix = "PAIRDB_AGENT_"

	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30

	// maxValueSize is what the wire and the engine are made for.
	maxValueSize = 10 * mib
	// maxPartitions bounds the layout, which every node holds whole.
	maxPartitions = 16384
	// maxSeeds bounds the list of nodes to join.
	maxSeeds = 100
)

// settings returns the table, section by section in the order of the reference
// file.
func settings() []Setting {
	var all []Setting
	for _, section := range [][]Setting{
		nodeSettings(), listenSettings(), clusterSettings(), gossipSettings(), storageSettings(), hintSettings(), repairSettings(), ringSettings(), scrubSettings(), otherSettings(),
	} {
		all = append(all, section...)
	}
	return all
}

func nodeSettings() []Setting {
	return []Setting{
		{
			Path: "node.data_dir", Default: "/var/lib/pairdb", Flag: "data-dir",
			Help:  "Folder that holds everything this node keeps: its identity, log and tables, and what it knows of the cluster. One node owns it; a wiped folder is a new node.",
			field: func(c *Config) any { return &c.Node.DataDir },
		},
		{
			Path: "node.name", Default: "", Flag: "name",
			Help:  "Name people know the node by, unique in the cluster: a letter or digit, then up to 62 letters, digits, dots, dashes or underscores. Empty: the host name.",
			field: func(c *Config) any { return &c.Node.Name },
		},
		{
			Path: "node.zone", Default: "", Flag: "zone",
			Help:  "Failure zone, such as a rack. Replicas of a key are spread over zones where there are enough. Same letters as a name. Empty: none.",
			field: func(c *Config) any { return &c.Node.Zone },
		},
		{
			Path: "node.capacity", Default: "100", Flag: "capacity", min: 1, max: MaxCapacity,
			Help:  "Share of the ring relative to the other nodes: a node with 200 owns twice as many partitions as one with 100.",
			field: func(c *Config) any { return &c.Node.Capacity },
		},
	}
}

func listenSettings() []Setting {
	return []Setting{
		{
			Path: "listen.bind", Default: "127.0.0.1", Flag: "bind",
			Help:  "Address that all listeners bind to. Anything but loopback also needs cluster.insecure, since there is neither TLS nor a credential yet.",
			field: func(c *Config) any { return &c.Listen.Bind },
		},
		{
			Path: "listen.advertise", Default: "", Flag: "advertise",
			Help:  "Host name or address, without port, that other nodes and clients reach this node by. Empty: listen.bind, or the first private address of the machine if that is a wildcard such as 0.0.0.0; a node that loses an address found so and gets another ends with an error, to be started with the new one.",
			field: func(c *Config) any { return &c.Listen.Advertise },
		},
		{
			Path: "listen.grpc_port", Default: "50051", Flag: "grpc-port", max: 65535,
			Help:  "TCP port of the clients' gRPC. 0: a free one.",
			field: func(c *Config) any { return &c.Listen.GRPCPort },
		},
		{
			Path: "listen.peer_port", Default: "50052", Flag: "peer-port", max: 65535,
			Help:  "TCP port of the gRPC between nodes. 0: a free one.",
			field: func(c *Config) any { return &c.Listen.PeerPort },
		},
		{
			Path: "listen.http_port", Default: "8080", Flag: "http-port", max: 65535,
			Help:  "TCP port of HTTP: the REST routes, health and metrics. 0: a free one.",
			field: func(c *Config) any { return &c.Listen.HTTPPort },
		},
		{
			Path: "listen.gossip_port", Default: "7946", Flag: "gossip-port", max: 65535,
			Help:  "Port of gossip, TCP and UDP: both have to be open between nodes. 0: one that is free for both.",
			field: func(c *Config) any { return &c.Listen.GossipPort },
		},
		{
			Path: "listen.addr_file", Default: "", Flag: "addr-file",
			Help:  "File to which the addresses really bound are written as JSON once all listeners are open, for scripts. Empty: none.",
			field: func(c *Config) any { return &c.Listen.AddrFile },
		},
	}
}

func clusterSettings() []Setting {
	return []Setting{
		{
			Path: "cluster.name", Default: "pairdb", Flag: "cluster-name",
			Help:  "Name of the cluster. Gossip under another name is ignored. Same letters as a node's name.",
			field: func(c *Config) any { return &c.Cluster.Name },
		},
		{
			Path: "cluster.bootstrap", Default: "false", Flag: "bootstrap",
			Help:  "Found a cluster of this one node. Does nothing once the data directory belongs to a cluster, so the same command line restarts the node.",
			field: func(c *Config) any { return &c.Cluster.Bootstrap },
		},
		{
			Path: "cluster.bootstrap_expect", Default: "0", Unit: "nodes", Flag: "bootstrap-expect", max: maxSeeds,
			Help:  "Found a cluster together with others once this many fresh nodes see each other; all are started with the same number and the same cluster.join. Does nothing once the data directory belongs to a cluster. 0: do not.",
			field: func(c *Config) any { return &c.Cluster.BootstrapExpect },
		},
		{
			Path: "cluster.join", Default: "", Flag: "join",
			Help:  "Gossip addresses of nodes to find the cluster by, host or host:port (port 7946 if none is given), at most 100. The node itself may be among them.",
			field: func(c *Config) any { return &c.Cluster.Join },
		},
		{
			Path: "cluster.partitions", Default: "1024", Unit: "partitions", min: 16, max: maxPartitions,
			Help:  "Partitions the ring is cut into, a power of two. Used when the cluster is founded, and fixed from then on: more make the load more even and the layout larger.",
			field: func(c *Config) any { return &c.Cluster.Partitions },
		},
		{
			Path: "cluster.gossip_key_file", Default: "", Flag: "gossip-key-file",
			Help:  "File with the key that encrypts gossip, the same on all nodes. Empty: gossip is not encrypted.",
			field: func(c *Config) any { return &c.Cluster.GossipKeyFile },
		},
		{
			Path: "cluster.insecure", Default: "false", Flag: "insecure",
			Help:  "Listen beyond loopback although whoever reaches the ports may read and write everything.",
			field: func(c *Config) any { return &c.Cluster.Insecure },
		},
		{
			Path: "cluster.join_timeout", Default: "30s", min: int64(time.Second), max: int64(10 * time.Minute),
			Help:  "How long a node looks for the cluster at its start before it gives up. Longer survives a slow network, shorter reports a wrong address sooner.",
			field: func(c *Config) any { return &c.Cluster.JoinTimeout },
		},
	}
}

func gossipSettings() []Setting {
	return []Setting{
		{
			Path: "gossip.probe_interval", Default: "1s", min: int64(50 * time.Millisecond), max: int64(time.Minute),
			Help:  "Time between two probes of other nodes. Shorter finds a dead node sooner and costs more packets.",
			field: func(c *Config) any { return &c.Gossip.ProbeInterval },
		},
		{
			Path: "gossip.probe_timeout", Default: "500ms", min: int64(10 * time.Millisecond), max: int64(time.Minute),
			Help:  "How long a probe waits for its answer before other nodes are asked to try, at most gossip.probe_interval. Longer suspects fewer slow nodes.",
			field: func(c *Config) any { return &c.Gossip.ProbeTimeout },
		},
		{
			Path: "gossip.suspicion_mult", Default: "4", min: 1, max: 20,
			Help:  "How long a suspected node may defend itself, in probe intervals times the logarithm of the number of nodes. Larger raises fewer false alarms and finds a dead node later.",
			field: func(c *Config) any { return &c.Gossip.SuspicionMult },
		},
		{
			Path: "gossip.push_pull_interval", Default: "15s", min: int64(time.Second), max: int64(10 * time.Minute),
			Help:  "Time between two exchanges of the whole member list with one other node. Shorter heals a split sooner and costs more traffic.",
			field: func(c *Config) any { return &c.Gossip.PushPullInterval },
		},
	}
}

func storageSettings() []Setting {
	return []Setting{
		{
			Path: "storage.memtable_size", Default: "64MiB", min: 64 * kib, max: 2 * gib,
			Help:  "Size at which writes in memory are flushed to a table. Larger writes less in all and takes more memory, of which three such tables may be held, and a longer restart. Unless it is set: at most 1/16 of the memory this process may use, but 16MiB. On a disk below 16GiB at most 1/256 of it.",
			field: func(c *Config) any { return &c.Storage.MemtableSize },
		},
		{
			Path: "storage.cache_size", Default: "256MiB", max: 1024 * gib,
			Help:  "Memory for blocks read from tables. Larger answers more reads without the disk. 0: no cache. Unless it is set: at most 1/4 of the memory this process may use, which is 80 % of its cgroup's limit or the machine's memory, less below 920 MiB, or GOMEMLIMIT if that is less.",
			field: func(c *Config) any { return &c.Storage.CacheSize },
		},
		{
			Path: "storage.block_size", Default: "4KiB", min: 512, max: mib,
			Help:  "Size of a block in a table before compression. Larger compresses better, smaller reads less for one key.",
			field: func(c *Config) any { return &c.Storage.BlockSize },
		},
		{
			Path: "storage.bloom_bits_per_key", Default: "10", Unit: "bits", max: 64,
			Help:  "Size of the filter that spares reading tables without the key; 10 errs about once in a hundred. Larger errs less and takes more memory. 0: no filter.",
			field: func(c *Config) any { return &c.Storage.BloomBitsPerKey },
		},
		{
			Path: "storage.wal_segment_size", Default: "64MiB", min: 64 * kib, max: gib,
			Help:  "Size at which a new file of the log is begun. Larger begins fewer, smaller gives space back sooner. At most 1 % of the disk.",
			field: func(c *Config) any { return &c.Storage.WALSegmentSize },
		},
		{
			Path: "storage.disk_warn", Default: "80", Unit: "percent", min: 1, max: 98,
			Help:  "How much of the file system of the data may be in use, by whatever, before the log warns.",
			field: func(c *Config) any { return &c.Storage.DiskWarn },
		},
		{
			Path: "storage.disk_throttle", Default: "90", Unit: "percent", min: 2, max: 99,
			Help:  "How much may be in use before large writes are refused with DISK_THROTTLED, the larger the sooner. Ends 2 percent lower.",
			field: func(c *Config) any { return &c.Storage.DiskThrottle },
		},
		{
			Path: "storage.disk_stop", Default: "95", Unit: "percent", min: 3, max: 100,
			Help:  "How much may be in use before writes that free no space are refused with DISK_FULL. Ends 2 percent lower. The rest is what deletes and compaction work in: higher stores more, and leaves less to dig oneself out with.",
			field: func(c *Config) any { return &c.Storage.DiskStop },
		},
		{
			Path: "storage.disk_slow", Default: "2s", min: int64(100 * time.Millisecond), max: int64(10 * time.Minute),
			Help:  "For how long a write or sync of the log, or a read of a table, may hang before this node withdraws: it is not ready, refuses writes at once, and others are asked first. It comes back by itself. Shorter diverts clients sooner, longer bears slower disks.",
			field: func(c *Config) any { return &c.Storage.DiskSlow },
		},
		{
			Path: "storage.disk_stall", Default: "10s", min: int64(100 * time.Millisecond), max: int64(10 * time.Minute),
			Help:  "The same for calls that no client waits for, such as a sync of a large table.",
			field: func(c *Config) any { return &c.Storage.DiskStall },
		},
		{
			Path: "storage.compaction_rate", Default: "0", Unit: "bytes a second", max: 1024 * gib,
			Help:  "Bound on what compactions write a second. Too low a bound makes writers wait. 0: no bound but that compactions yield to writers that wait for a slow disk.",
			field: func(c *Config) any { return &c.Storage.CompactionRate },
		},
	}
}

func hintSettings() []Setting {
	return []Setting{
		{
			Path: "hints.max_bytes", Default: "1GiB", min: 64 * kib, max: 1024 * gib,
			Help:  "What this node keeps at most for one other that writes did not reach: about 100 bytes for each key, without its value. Beyond it hints are dropped, and the partitions compared instead. More bridges a longer outage, and takes disk. At most 5 % of the disk.",
			field: func(c *Config) any { return &c.Hints.MaxBytes },
		},
		{
			Path: "hints.window", Default: "3h", min: int64(time.Second), max: int64(7 * 24 * time.Hour),
			Help:  "For how long hints are kept for a node that is away. Longer bridges longer outages; after it all has to be compared.",
			field: func(c *Config) any { return &c.Hints.Window },
		},
		{
			Path: "hints.rate", Default: "10MiB", Unit: "bytes a second", min: kib, max: 1024 * gib,
			Help:  "Bound on what is sent to one node that is back. Higher brings it level sooner, lower leaves more of disks and network to clients.",
			field: func(c *Config) any { return &c.Hints.Rate },
		},
	}
}

func ringSettings() []Setting {
	return []Setting{
		{
			Path: "ring.auto_apply", Default: "true",
			Help:  "Whether this node begins changes of the ring by itself: nodes that join become owners, and those that are to leave hand over, with no further command. With false on all nodes pairdb cluster plan shows what would move, and pairdb cluster commit begins it.",
			field: func(c *Config) any { return &c.Ring.AutoApply },
		},
		{
			Path: "ring.settle", Default: "5s", min: int64(100 * time.Millisecond), max: int64(10 * time.Minute),
			Help:  "How long after the last node or request came a change of the ring begins. Longer takes more of them into one change, which moves less; shorter begins sooner.",
			field: func(c *Config) any { return &c.Ring.Settle },
		},
		{
			Path: "ring.stream_rate", Default: "64MiB", Unit: "bytes a second", Flag: "stream-rate", min: 64 * kib, max: 16 * gib,
			Help:  "Bound on what this node fetches of partitions that it is about to own. Higher is done sooner, lower leaves more of disks and network to clients. It slows down anyway while clients wait longer than before, and pauses while requests are refused.",
			field: func(c *Config) any { return &c.Ring.StreamRate },
		},
	}
}

func scrubSettings() []Setting {
	return []Setting{
		{
			Path: "scrub.interval", Default: "168h", max: int64(8760 * time.Hour),
			Help:  "How often the node reads all its tables to find damage before somebody else does, give or take a tenth, so that not all nodes do it at once. What is damaged is taken out of service and fetched again from the other owners. Shorter finds damage while more other copies are sound, and reads more. 0s: never, but for pairdb verify.",
			field: func(c *Config) any { return &c.Scrub.Interval },
		},
		{
			Path: "scrub.rate", Default: "32MiB", min: 64 * kib, max: 16 * gib,
			Help:  "Most bytes a second that this reads. It reads less while writers wait for a slow disk or requests are refused. Higher is done sooner and leaves less of the disk to others.",
			field: func(c *Config) any { return &c.Scrub.Rate },
		},
	}
}

func otherSettings() []Setting {
	return []Setting{
		{
			Path: "limits.max_value_size", Default: "10MiB", min: 1, max: maxValueSize,
			Help:  "Largest value a client may store through this node, at most 10MiB.",
			field: func(c *Config) any { return &c.Limits.MaxValueSize },
		},
		{
			Path: "limits.idempotency_bytes", Default: "256MiB", min: mib, max: 1024 * gib,
			Help:  "What this node remembers of the idempotency keys of one tenant, in bytes on disk, some 150 for a key. Beyond it the oldest are forgotten before their 24 hours are over, so that a later retry is a write of its own; keys of the last minute never are: more of them are refused with RESOURCE_EXHAUSTED.",
			field: func(c *Config) any { return &c.Limits.IdempotencyBytes },
		},
		{
			Path: "limits.concurrency_min", Default: "512", Unit: "operations", min: 1, max: 1 << 16,
			Help:  "How many reads, and how many writes, of clients this node lets be under way at once at the least; a quarter of it while they take more than a second. The limit itself goes up from there while latency stays near what it is at rest, and comes back when it does not. A batch counts 1 for 8 items, a page of a scan 1 for 128 keys. Lower answers sooner under overload, but too low a bound leaves syncs and frames to other nodes half empty.",
			field: func(c *Config) any { return &c.Limits.ConcurrencyMin },
		},
		{
			Path: "limits.concurrency_max", Default: "8192", Unit: "operations", min: 1, max: 1 << 20,
			Help:  "The most that the limit of reads and that of writes under way can become. Higher takes more memory and bears clients that are farther away, lower bounds latency under overload.",
			field: func(c *Config) any { return &c.Limits.ConcurrencyMax },
		},
		{
			Path: "limits.queue", Default: "512", Unit: "operations", min: 1, max: 1 << 16,
			Help:  "How many reads, and how many writes, may wait for one under way to end. Beyond it they are refused with RATE_LIMITED and a time to wait. Longer bears larger bursts, shorter answers sooner under overload.",
			field: func(c *Config) any { return &c.Limits.Queue },
		},
		{
			Path: "limits.queue_wait", Default: "500ms", min: int64(time.Millisecond), max: int64(time.Minute),
			Help:  "How long an operation may wait for its turn before it is refused with RATE_LIMITED. One whose deadline would pass sooner is refused at once.",
			field: func(c *Config) any { return &c.Limits.QueueWait },
		},
		{
			Path: "limits.connections", Default: "10000", Unit: "connections", min: 1, max: 1 << 20,
			Help:  "How many connections of clients the gRPC port has at once, and the HTTP port as many. One more is closed at once. An idle one takes about 20 KiB.",
			field: func(c *Config) any { return &c.Limits.Connections },
		},
		{
			Path: "limits.connections_per_ip", Default: "2000", Unit: "connections", max: 1 << 20,
			Help:  "How many of them one address may have, so that one machine does not take them all; addresses of this machine itself are not bounded. Behind a proxy that hides clients' addresses it has to be as large as limits.connections. 0: no bound.",
			field: func(c *Config) any { return &c.Limits.ConnectionsPerIP },
		},
		{
			Path: "limits.reader_stall", Default: "30s", min: int64(100 * time.Millisecond), max: int64(10 * time.Minute),
			Help:  "How long a client may leave an answer unread before its connection is closed. To this is added the time that what it has not read takes at 256 KiB a second.",
			field: func(c *Config) any { return &c.Limits.ReaderStall },
		},
		{
			Path: "timeouts.write", Default: "5s", min: int64(10 * time.Millisecond), max: int64(10 * time.Minute),
			Help:  "How long a write may take; a client's earlier deadline goes first.",
			field: func(c *Config) any { return &c.Timeouts.Write },
		},
		{
			Path: "timeouts.read", Default: "3s", min: int64(10 * time.Millisecond), max: int64(10 * time.Minute),
			Help:  "How long a read may take; a client's earlier deadline goes first.",
			field: func(c *Config) any { return &c.Timeouts.Read },
		},
		{
			Path: "timeouts.drain_delay", Default: "0s", max: int64(10 * time.Minute),
			Help:  "How long a node that was told to stop goes on serving, not ready, before it leaves and closes its doors. Longer than a load balancer takes to notice, none of its requests is refused; 0s stops at once.",
			field: func(c *Config) any { return &c.Timeouts.DrainDelay },
		},
		{
			Path: "timeouts.shutdown", Default: "15s", min: int64(100 * time.Millisecond), max: int64(10 * time.Minute),
			Help:  "How long a stopping node waits for requests under way before it cuts them off.",
			field: func(c *Config) any { return &c.Timeouts.Shutdown },
		},
		{
			Path: "http.cors_origins", Default: "",
			Help:  "Origins whose pages may read and write through this node from a browser, as https://app.example or http://localhost:3000, at most 100. Empty: no page of another origin may, and nothing is said about it. There is no word for all of them.",
			field: func(c *Config) any { return &c.HTTP.CORSOrigins },
		},
		{
			Path: "log.level", Default: "info", Flag: "log-level", Reloadable: true, choices: []string{"debug", "info", "warn", "error"},
			Help:  "Least severe messages that are logged.",
			field: func(c *Config) any { return &c.Log.Level },
		},
		{
			Path: "log.format", Default: "auto", Flag: "log-format", choices: []string{"auto", "text", "json"},
			Help:  "How messages are written. auto: text on a terminal, else json.",
			field: func(c *Config) any { return &c.Log.Format },
		},
	}
}

func repairSettings() []Setting {
	return []Setting{
		{
			Path: "repair.interval", Default: "10m", min: int64(10 * time.Second), max: int64(7 * 24 * time.Hour),
			Help:  "How often the owners of the same data are compared, and what one of them lacks is sent to it. Shorter finds sooner what was missed and gives back the space of deletes sooner; longer costs less.",
			field: func(c *Config) any { return &c.Repair.Interval },
		},
		{
			Path: "repair.settle", Default: "0s", max: int64(time.Hour),
			Help:  "How long a comparison waits for the writes to end that are under way when it begins. It must be longer than timeouts.write of every node. 0s: a second longer than this node's.",
			field: func(c *Config) any { return &c.Repair.Settle },
		},
		{
			Path: "repair.rate", Default: "16MiB", Unit: "bytes a second", min: 64 * kib, max: 16 * gib,
			Help:  "Bound on what comparisons and repairs that this node drives read and send. Higher brings owners level sooner, lower leaves more of disks and network to clients. They pause anyway while requests are refused.",
			field: func(c *Config) any { return &c.Repair.Rate },
		},
	}
}
