package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/pairdb/pairdb/node/config"
)

// Addresses are those a node really listens on, as host:port, and who it is.
// Its JSON form is the --addr-file.
type Addresses struct {
	NodeID string `json:"node_id"`
	Name   string `json:"name"`
	GRPC   string `json:"grpc"`
	// GRPCLocal is how this machine itself reaches GRPC, which may be the
	// address of a router in front of it.
	GRPCLocal string `json:"grpc_local"`
	Peer      string `json:"peer"`
	HTTP      string `json:"http"`
	Gossip    string `json:"gossip"`
}

// listeners are the TCP doors of a node; gossip opens its own.
type listeners struct {
	grpc, peer, http net.Listener
}

// openListeners binds every door or none.
func openListeners(c *config.Listen) (*listeners, error) {
	l := &listeners{}
	for _, d := range []struct {
		into *net.Listener
		port int
		flag string
		what string
	}{
		{&l.grpc, c.GRPCPort, "--grpc-port", "client gRPC"},
		{&l.peer, c.PeerPort, "--peer-port", "node-to-node gRPC"},
		{&l.http, c.HTTPPort, "--http-port", "HTTP"},
	} {
		addr := net.JoinHostPort(c.Bind, strconv.Itoa(d.port))
		lis, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, errors.Join(explainBind(err, d.what, addr, d.flag), l.close())
		}
		*d.into = lis
	}
	return l, nil
}

func explainBind(err error, what, addr, flag string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen for %s on %s: the port is in use by another process; stop it, or choose another port with %s (0 takes a free one): %w", what, addr, flag, err)
	}
	return fmt.Errorf("listen for %s on %s: %w", what, addr, err)
}

func (l *listeners) close() error {
	var errs []error
	for _, lis := range []net.Listener{l.grpc, l.peer, l.http} {
		if lis != nil {
			if err := lis.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// resolveIP gives the address of a host: gossip and listeners want no names, and
// a name that nobody resolved would be every interface.
func resolveIP(host, flag string) (string, error) {
	if net.ParseIP(host) != nil {
		return host, nil
	}
	a, err := net.ResolveIPAddr("ip", host)
	if err != nil || a.IP == nil {
		return "", fmt.Errorf("resolve %s %s: %w; give an IP address", flag, host, err)
	}
	return a.IP.String(), nil
}

// defaultName is the machine's name with what a node name may not have left out.
func defaultName() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("name this node: %w; give it one with --name", err)
	}
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-', r == '_':
			return r
		default:
			return '-'
		}
	}, host)
	name = strings.Trim(name[:min(len(name), maxNodeName)], ".-_")
	if name == "" {
		return "", fmt.Errorf("name this node: the machine is called %q; give the node a name with --name", host)
	}
	return name, nil
}

// maxNodeName bounds a node's name, in bytes.
const maxNodeName = 63

// hostPort joins the host others are told with the port really bound.
func hostPort(host string, a net.Addr) string {
	_, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return net.JoinHostPort(host, port)
}

// writeAddrFile puts the addresses at path in one step, so that a reader sees
// all of them or no file.
func writeAddrFile(path string, a Addresses) error {
	b, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return fmt.Errorf("encode addresses: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".addr-*")
	if err != nil {
		return fmt.Errorf("write address file %s: %w", path, err)
	}
	_, err = tmp.Write(append(b, '\n'))
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write address file %s: %w", path, err), os.Remove(tmp.Name()))
	}
	return nil
}

// maxAddrFile bounds what is read of an address file, in bytes.
const maxAddrFile = 4 << 10

// ReadAddrFile reads what a node wrote to its --addr-file. The error matches
// fs.ErrNotExist while no node is up that writes there.
func ReadAddrFile(path string) (Addresses, error) {
	f, err := os.Open(path)
	if err != nil {
		return Addresses{}, fmt.Errorf("read address file: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxAddrFile))
	if err = errors.Join(err, f.Close()); err != nil {
		return Addresses{}, fmt.Errorf("read address file %s: %w", path, err)
	}
	var a Addresses
	if err := json.Unmarshal(b, &a); err != nil || a.GRPC == "" || a.GRPCLocal == "" {
		return Addresses{}, fmt.Errorf("read address file %s: it is none that an agent wrote", path)
	}
	return a, nil
}

// removeAddrFile takes an address file away. Without a path, or with no file
// there, nothing happens.
func removeAddrFile(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove address file: %w", err)
	}
	return nil
}
