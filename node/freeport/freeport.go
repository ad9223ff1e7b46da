// Package freeport finds ports on loopback for processes that are told their
// ports before they start, and that come back to them when they start again:
// the nodes of pairdb dev, and those of tests.
//
// A port that was just seen to be free is not enough for them. Whoever dials
// gets a port of the kernel's ephemeral range, so a port of that range can be
// somebody's by the time its node starts, or is restarted; and two processes
// that look at once may find the same. So ports come from below that range, and
// are reserved until the process that asked ends.
package freeport

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
)

const (
	// lowest is the first port that is given out: most services have theirs
	// below it.
	lowest = 20000
	// ephemeral is where the kernel's range begins if it does not say.
	ephemeral = 32768
	rangeFile = "/proc/sys/net/ipv4/ip_local_port_range"
)

// reserved holds what keeps others from the ports of this process until it ends.
var reserved struct {
	sync.Mutex
	locks []io.Closer
}

// Take returns n different ports that nobody listens on, neither by TCP nor by
// UDP, on 127.0.0.1. No other process is given them by this package, in the same
// network namespace, while this one runs. It is safe for concurrent use.
func Take(n int) ([]int, error) {
	high := below()
	if high-lowest < 1000 {
		return nil, fmt.Errorf("no ports to choose from: the ephemeral range (%s) begins at %d, and services need ports of %d to there", rangeFile, high, lowest)
	}
	var ports []int
	for tries := 0; len(ports) < n; tries++ {
		if tries > 100*(n+1) {
			return nil, fmt.Errorf("found %d of %d ports between %d and %d free for both TCP and UDP", len(ports), n, lowest, high)
		}
		port := lowest + rand.IntN(high-lowest)
		ok, err := reserve(port)
		if err != nil {
			return nil, err
		}
		if ok {
			ports = append(ports, port)
		}
	}
	return ports, nil
}

// reserve reports whether the port is free, and keeps others from it then.
func reserve(port int) (bool, error) {
	// An address in the abstract name space is a lock without a file: it is in
	// the network namespace whose ports it guards, and goes with its process.
	lock, err := net.Listen("unix", "@pairdb-port-"+strconv.Itoa(port))
	if err != nil {
		return false, nil // somebody else's
	}
	free, err := vacant(port)
	if err != nil || !free {
		return false, errors.Join(err, lock.Close())
	}
	reserved.Lock()
	defer reserved.Unlock()
	reserved.locks = append(reserved.locks, lock)
	return true, nil
}

// vacant reports whether nobody listens on the port.
func vacant(port int) (bool, error) {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return false, nil
	}
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false, tcp.Close()
	}
	return true, errors.Join(tcp.Close(), udp.Close())
}

// below returns where the kernel's ephemeral range begins.
func below() int {
	b, err := os.ReadFile(rangeFile)
	if err != nil {
		return ephemeral
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\t")
	n, err := strconv.Atoi(first)
	if err != nil {
		return ephemeral
	}
	return n
}
