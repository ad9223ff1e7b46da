package config

import (
	"fmt"
	"math/bits"
	"net"
	"regexp"
	"strconv"
	"time"
)

// Validate checks the whole configuration and returns an *Error with everything
// that is wrong, or nil. It asks nothing of the machine or the network; whether
// a node without Bootstrap, BootstrapExpect and Join may start depends on its
// data directory and is not checked here.
func (c *Config) Validate() error {
	if problems := c.problems(); len(problems) > 0 {
		return &Error{Problems: problems}
	}
	return nil
}

func (c *Config) problems() []Problem {
	var found []Problem
	found = append(found, c.boundProblems()...)
	found = append(found, c.nameProblems()...)
	found = append(found, c.listenProblems()...)
	found = append(found, c.clusterProblems()...)
	found = append(found, c.storageProblems()...)
	found = append(found, c.originProblems()...)
	if l := &c.Limits; l.ConcurrencyMax < l.ConcurrencyMin {
		found = append(found, Problem{
			Setting: "limits.concurrency_max",
			What:    fmt.Sprintf("%d is less than limits.concurrency_min, %d", l.ConcurrencyMax, l.ConcurrencyMin),
			Why:     "the limit moves between the two",
			Next:    "raise it, or lower the other",
		})
	}
	if c.Gossip.ProbeTimeout > c.Gossip.ProbeInterval {
		found = append(found, Problem{
			Setting: "gossip.probe_timeout",
			What:    fmt.Sprintf("%s is longer than gossip.probe_interval, %s", formatDuration(c.Gossip.ProbeTimeout), formatDuration(c.Gossip.ProbeInterval)),
			Why:     "a probe has to end before the next begins",
			Next:    "make it shorter, or the interval longer",
		})
	}
	if r := c.Repair.Settle; r != 0 && r <= c.Timeouts.Write {
		found = append(found, Problem{
			Setting: "repair.settle",
			What:    fmt.Sprintf("%s is not longer than timeouts.write, %s", formatDuration(r), formatDuration(c.Timeouts.Write)),
			Why:     "a write that is still under way when the owners are compared could be lost with a delete that is given back",
			Next:    "make it longer, or leave it at 0s",
		})
	}
	return found
}

func (c *Config) storageProblems() []Problem {
	var found []Problem
	s := &c.Storage
	for _, p := range []struct {
		setting, below string
		value, bound   int
	}{
		{"storage.disk_throttle", "storage.disk_warn", s.DiskThrottle, s.DiskWarn},
		{"storage.disk_stop", "storage.disk_throttle", s.DiskStop, s.DiskThrottle},
	} {
		if p.value <= p.bound {
			found = append(found, Problem{
				Setting: p.setting, What: fmt.Sprintf("%d is not above %s, %d", p.value, p.below, p.bound),
				Why:  "a disk that fills up is to be warned of first, then spared, then closed to writes",
				Next: "raise it, or lower the other",
			})
		}
	}
	return found
}

// boundProblems checks each setting against its own row of the table. Load has
// done so already; a Config made in code has not been through it.
func (c *Config) boundProblems() []Problem {
	var found []Problem
	for _, s := range settings() {
		var err error
		switch p := s.field(c).(type) {
		case *string:
			err = s.checkChoice(*p)
		case *int:
			err = checkBounds(s, *p)
		case *Size:
			err = checkBounds(s, *p)
		case *time.Duration:
			err = checkBounds(s, *p)
		}
		if err != nil {
			found = append(found, Problem{Setting: s.Path, What: err.Error(), Next: "choose a value within the bounds"})
		}
	}
	return found
}

func (c *Config) nameProblems() []Problem {
	var found []Problem
	name := regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$`)
	for _, n := range []struct {
		setting, value string
		mayBeEmpty     bool
	}{
		{"node.name", c.Node.Name, true},
		{"node.zone", c.Node.Zone, true},
		{"cluster.name", c.Cluster.Name, false},
	} {
		if n.value == "" && n.mayBeEmpty || name.MatchString(n.value) {
			continue
		}
		found = append(found, Problem{
			Setting: n.setting,
			What:    fmt.Sprintf("%q is no name", n.value),
			Why:     "names stand in logs, metrics and scripts, where other characters mean something",
			Next:    "use 1 to 63 letters, digits, dots, dashes and underscores, beginning with a letter or digit",
		})
	}
	if c.Node.DataDir == "" {
		found = append(found, Problem{
			Setting: "node.data_dir", What: "is empty", Why: "a node keeps its data and its identity there",
			Next: "name a folder on the disk that the data should be on",
		})
	}
	return found
}

func (c *Config) listenProblems() []Problem {
	var found []Problem
	l := &c.Listen
	switch {
	case l.Bind == "":
		found = append(found, Problem{
			Setting: "listen.bind", What: "is empty", Why: "it says who can reach this node",
			Next: "name an address of this machine; 127.0.0.1 for this machine alone",
		})
	case !isHost(l.Bind):
		found = append(found, Problem{
			Setting: "listen.bind", What: fmt.Sprintf("%q is neither an address nor a host name", l.Bind),
			Next: "leave out ports and brackets; ports have settings of their own",
		})
	case !l.Loopback() && !c.Cluster.Insecure:
		found = append(found, Problem{
			Setting: "listen.bind", What: fmt.Sprintf("%s can be reached from other machines", l.Bind),
			Why:  "there is neither TLS nor a credential yet, so whoever reaches the ports reads and writes everything",
			Next: "bind to 127.0.0.1, or accept it with --insecure (cluster.insecure: true) on a network you trust",
		})
	}
	if l.Advertise != "" && (!isHost(l.Advertise) || isWildcard(l.Advertise)) {
		found = append(found, Problem{
			Setting: "listen.advertise", What: fmt.Sprintf("%q is no address that others can reach", l.Advertise),
			Next: "name one address or host name of this machine, without a port",
		})
	}
	return append(found, l.portProblems()...)
}

// portProblems reports ports that are asked for twice; 0 takes any free one, as
// often as it likes. All four listeners are TCP, gossip is UDP besides.
func (l *Listen) portProblems() []Problem {
	var found []Problem
	users := make(map[int]string)
	for _, p := range []struct {
		setting string
		port    int
	}{
		{"listen.grpc_port", l.GRPCPort},
		{"listen.peer_port", l.PeerPort},
		{"listen.http_port", l.HTTPPort},
		{"listen.gossip_port", l.GossipPort},
	} {
		if p.port == 0 {
			continue
		}
		if other, ok := users[p.port]; ok {
			found = append(found, Problem{
				Setting: p.setting, What: fmt.Sprintf("%d is %s already", p.port, other), Why: "a port has one listener",
				Next: "choose another port, or 0 for a free one",
			})
			continue
		}
		users[p.port] = p.setting
	}
	return found
}

func (c *Config) clusterProblems() []Problem {
	var found []Problem
	cl := &c.Cluster
	if cl.Bootstrap && cl.BootstrapExpect > 0 {
		found = append(found, Problem{
			Setting: "cluster.bootstrap", What: "is set together with cluster.bootstrap_expect",
			Why:  "the one founds a cluster alone, the other together with others",
			Next: "keep one of them",
		})
	}
	if bits.OnesCount(uint(cl.Partitions)) != 1 {
		found = append(found, Problem{
			Setting: "cluster.partitions", What: fmt.Sprintf("%d is no power of two", cl.Partitions),
			Why: "a partition is the leading bits of a token", Next: "use 1024 unless you know better",
		})
	}
	if len(cl.Join) > maxSeeds {
		found = append(found, Problem{
			Setting: "cluster.join", What: fmt.Sprintf("has %d addresses, more than %d", len(cl.Join), maxSeeds),
			Why: "a handful that are up is enough to find all others", Next: "name fewer",
		})
	}
	for _, addr := range cl.Join {
		if !isSeed(addr) {
			found = append(found, Problem{
				Setting: "cluster.join", What: fmt.Sprintf("%q is neither host nor host:port", addr),
				Next: "name the gossip address of a node, as in 10.0.0.1:7946",
			})
		}
	}
	return found
}

// isSeed reports whether addr is host or host:port.
func isSeed(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return isHost(unbracket(addr))
	}
	n, err := strconv.Atoi(port)
	return err == nil && n >= 1 && n <= 65535 && isHost(host)
}

// isHost reports whether text has the form of an address or a host name. It
// resolves nothing.
func isHost(text string) bool {
	if net.ParseIP(text) != nil {
		return true
	}
	return hostName().MatchString(text) && len(text) <= 253
}

func hostName() *regexp.Regexp {
	return regexp.MustCompile(`^[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?)*\.?$`)
}

// isWildcard reports whether host stands for all addresses of the machine.
func isWildcard(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsUnspecified()
}
