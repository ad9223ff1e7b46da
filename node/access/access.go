// Package access says who may do what only the people of a machine may: see
// profiles, compact, verify. It is the one rule of both edges until there are
// credentials.
package access

import (
	"net"
	"net/netip"
)

// FromThisMachine reports whether the caller at remote, who reached local, is a
// process on this machine: its address is loopback, or the very one that it
// reached, as when the node listens on one address that is not loopback. The
// kernel drops packets from elsewhere that claim either. Both are host:port;
// whatever else they are is nobody's.
func FromThisMachine(remote, local string) bool {
	from, ok := ipOf(remote)
	if !ok {
		return false
	}
	if from.IsLoopback() {
		return true
	}
	to, ok := ipOf(local)
	return ok && from == to
}

func ipOf(addr string) (netip.Addr, bool) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(host)
	return ip.Unmap(), err == nil
}
