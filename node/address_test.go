package node

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/node/config"
)

func addresses(list string) (out []netip.Addr) {
	for a := range strings.FieldsSeq(list) {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestAdvertisedHost(t *testing.T) {
	for _, tc := range []struct{ bind, advertise, have, want string }{
		{"10.0.0.1", "", "10.0.0.2", "10.0.0.1"},
		{"0.0.0.0", "", "10.0.0.2", "10.0.0.2"},
		{"::", "", "192.0.2.1 172.18.0.2 10.0.0.2", "172.18.0.2"},
		{"0.0.0.0", "", "192.0.2.1 192.0.2.2", "192.0.2.1"},
		{"0.0.0.0", "db.example", "10.0.0.2", "db.example"},
		{"0.0.0.0", "", "", ""},
	} {
		got, err := advertiseHost(&config.Listen{Bind: tc.bind, Advertise: tc.advertise}, addresses(tc.have))
		if got != tc.want || (err != nil) != (tc.want == "") {
			t.Errorf("%+v: %q, %v", tc, got, err)
		}
	}
	for bind, want := range map[string]string{"0.0.0.0": "127.0.0.1", "::": "::1", "10.0.0.1": "10.0.0.1", "127.0.0.1": "127.0.0.1"} {
		if got := localHost(bind); got != want {
			t.Errorf("bound to %s, this machine reaches it at %s, want %s", bind, got, want)
		}
	}
}

// TestMovedAddress: only an address that is gone, and that a new one has come in
// place of, ends a node.
func TestMovedAddress(t *testing.T) {
	for _, tc := range []struct{ told, start, now, want string }{
		{"10.0.0.2", "10.0.0.2", "10.0.0.2", ""},
		{"10.0.0.2", "10.0.0.2", "10.0.0.2 10.0.0.3", ""},
		{"10.0.0.2", "10.0.0.2", "", ""},
		{"10.0.0.2", "10.0.0.2 10.1.0.2", "10.1.0.2", ""},
		{"10.0.0.2", "10.0.0.2 10.1.0.2", "10.1.0.2 10.0.0.3", "10.0.0.3"},
		{"10.0.0.2", "10.0.0.2", "10.0.0.3", "10.0.0.3"},
		{"db.example", "10.0.0.2", "10.0.0.3", ""},
	} {
		to, ok := moved(tc.told, addresses(tc.start), addresses(tc.now))
		if ok != (tc.want != "") || ok && to.String() != tc.want {
			t.Errorf("%+v: %s, %t", tc, to, ok)
		}
	}
}

// TestNodeThatMovedEnds: a node that told the others an address which the machine
// lost ends with an error that says so, and a new start tells the new one.
func TestNodeThatMovedEnds(t *testing.T) {
	cfg := config.Defaults()
	cfg.Node.DataDir, cfg.Cluster.Bootstrap = t.TempDir(), true
	cfg.Listen.Bind, cfg.Cluster.Insecure = "0.0.0.0", true
	cfg.Listen.GRPCPort, cfg.Listen.PeerPort, cfg.Listen.HTTPPort, cfg.Listen.GossipPort = 0, 0, 0, 0
	n, err := Open(cfg, Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	// As if it had been started with another address than the machine has now.
	n.host, n.machine = "192.0.2.77", addresses("192.0.2.77")
	served := make(chan error, 1)
	go func() { served <- n.Serve(t.Context()) }()
	select {
	case err = <-served:
	case <-time.After(30 * time.Second):
		t.Fatal("the node goes on")
	}
	if err == nil || !strings.Contains(err.Error(), "192.0.2.77") || !strings.Contains(err.Error(), "--advertise") {
		t.Errorf("the end of a node that moved: %v", err)
	}
	if err := n.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestAddressFile: the file names where this machine reaches the node, is gone
// once it stopped, and what a killed life left is gone before the next listens.
func TestAddressFile(t *testing.T) {
	cfg := config.Defaults()
	cfg.Node.DataDir, cfg.Cluster.Bootstrap = t.TempDir(), true
	cfg.Listen.GRPCPort, cfg.Listen.PeerPort, cfg.Listen.HTTPPort, cfg.Listen.GossipPort = 0, 0, 0, 0
	cfg.Listen.AddrFile = filepath.Join(cfg.Node.DataDir, "addresses.json")
	quiet := Options{Logger: slog.New(slog.DiscardHandler)}
	for range 2 {
		n, err := Open(cfg, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadAddrFile(cfg.Listen.AddrFile); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("before the node serves: %v", err)
		}
		// A second agent on the same directory is refused, and takes nothing away.
		if err := writeAddrFile(cfg.Listen.AddrFile, n.addrs); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(cfg, quiet); err == nil {
			t.Error("a directory in use is opened twice")
		}
		at, err := ReadAddrFile(cfg.Listen.AddrFile)
		if err != nil || at.GRPCLocal != n.addrs.GRPC || at != n.addrs {
			t.Errorf("read %+v, %v, want %+v", at, err, n.addrs)
		}
		if err := n.release(); err != nil { // as if killed: the file stays
			t.Fatal(err)
		}
	}
	n, err := Open(cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeAddrFile(cfg.Listen.AddrFile, n.addrs); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(cfg.Listen.AddrFile); !os.IsNotExist(err) {
		t.Errorf("after the end: %v", err)
	}
}
