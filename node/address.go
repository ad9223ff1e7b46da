package node

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/pairdb/pairdb/node/config"
)

// addressEach is how often a node looks whether it still has its address.
const addressEach = 3 * time.Second

// advertiseHost is the host other nodes and clients are told. An unspecified
// bind address cannot be told, so the first private address of the machine is,
// of those in have.
func advertiseHost(c *config.Listen, have []netip.Addr) (string, error) {
	if !picksAddress(c) {
		return cmp.Or(c.Advertise, c.Bind), nil
	}
	if len(have) == 0 {
		return "", fmt.Errorf("the bind address %s can not be told to others and this machine has no other address; give one with --advertise", c.Bind)
	}
	for _, a := range have {
		if a.IsPrivate() {
			return a.String(), nil
		}
	}
	return have[0].String(), nil
}

// picksAddress says whether the address that others are told is of the node's
// own choice.
func picksAddress(c *config.Listen) bool {
	ip := net.ParseIP(c.Bind)
	return c.Advertise == "" && ip != nil && ip.IsUnspecified()
}

// machineAddresses are those of this machine that others could reach, in the
// order of its interfaces.
func machineAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the addresses of this machine: %w", err)
	}
	var found []netip.Addr
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is4() && p.Addr().IsGlobalUnicast() {
			found = append(found, p.Addr())
		}
	}
	return found, nil
}

// localHost is the host by which this machine reaches what is bound to bind.
func localHost(bind string) string {
	switch ip := net.ParseIP(bind); {
	case ip == nil || !ip.IsUnspecified():
		return bind
	case ip.To4() != nil:
		return "127.0.0.1"
	default:
		return "::1"
	}
}

// movedError says that the address which others were told is this machine's no
// more.
type movedError struct {
	told string
	now  netip.Addr
}

// Error says what happened and what follows.
func (e *movedError) Error() string {
	return fmt.Sprintf("this node told the others its address %s, which this machine has no longer; it has %s now: "+
		"start the agent again to tell them, or give it an address that stays with --advertise", e.told, e.now)
}

// moved gives the address by which a machine that lost told is reached now. There
// is none while told is there, or while nothing has come in its place: of several
// networks, one that was there from the start is no replacement for another.
func moved(told string, start, now []netip.Addr) (netip.Addr, bool) {
	own, err := netip.ParseAddr(told)
	if err != nil || slices.Contains(now, own) {
		return netip.Addr{}, false
	}
	for _, a := range now {
		if !slices.Contains(start, a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// checkAddress gives an error once the machine has another address in place of
// the one that others were told. A network that is cut and mended may come back
// with another, at which nobody would look for this node.
func (n *Node) checkAddress() error {
	if !picksAddress(&n.cfg.Listen) {
		return nil
	}
	now, err := machineAddresses()
	if err != nil {
		n.log.Warn("cannot tell whether this node still has its address", "err", err)
		return nil
	}
	if to, ok := moved(n.host, n.machine, now); ok {
		return &movedError{told: n.host, now: to}
	}
	return nil
}
