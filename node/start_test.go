package node

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/node/config"
)

// TestDataDirectory: only an empty directory, or one of this program, is used.
func TestDataDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for _, what := range []string{"new", "claimed and unused"} {
		if err := openDataDir(dir); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	mkdir := func(name string) {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	mkdir(EngineDir)
	if err := openDataDir(dir); err == nil || !strings.Contains(err.Error(), "identity") {
		t.Errorf("data without metadata: %v", err)
	}
	mkdir(metaFolder)
	if err := openDataDir(dir); err != nil {
		t.Errorf("both there: %v", err)
	}
	format := filepath.Join(dir, formatFile)
	for content, want := range map[string]string{`{"format":2}`: "newer", `{"format":0}`: "damaged", "": "damaged", "x": "damaged", strings.Repeat(" ", 5000): "more than"} {
		if err := os.WriteFile(format, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := openDataDir(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("FORMAT %.10q: %v, want %q", content, err, want)
		}
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "photo.jpg"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := openDataDir(foreign); err == nil || !strings.Contains(err.Error(), "photo.jpg") {
		t.Errorf("somebody's directory: %v", err)
	}
}

// TestLostDataIsRefused: a founded node whose engine's folder is gone would deny
// what it acknowledged, so it does not start.
func TestLostDataIsRefused(t *testing.T) {
	nodes := startNodes(t, 0)
	put(t, nodes[0].client(), "k", "v")
	nodes[0].stop()
	data := filepath.Join(nodes[0].cfg.Node.DataDir, EngineDir)
	away := data + ".away"
	if err := os.Rename(data, away); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"gone", "empty"} {
		n, err := Open(nodes[0].cfg, Options{Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			t.Fatalf("data %s: the node opens: %v", what, n.addrs)
		}
		if !strings.Contains(err.Error(), "is gone") {
			t.Errorf("data %s: %v", what, err)
		}
		if err := os.MkdirAll(data, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(data); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, data); err != nil {
		t.Fatal(err)
	}
	nodes[0].restart()
	wantValue(t, nodes[0].client(), "k", "v")
}

// TestHostNamesAreResolved: a name is not every interface.
func TestHostNamesAreResolved(t *testing.T) {
	for _, host := range []string{"localhost", "127.0.0.1", "::1"} {
		got, err := resolveIP(host, "--bind")
		if ip := net.ParseIP(got); err != nil || ip == nil || !ip.IsLoopback() {
			t.Errorf("%s: %q, %v", host, got, err)
		}
	}
	if got, err := resolveIP("no such host", "--bind"); err == nil || !strings.Contains(err.Error(), "--bind") {
		t.Errorf("a name that is none: %q, %v", got, err)
	}
	cfg := config.Defaults()
	cfg.Listen.Bind, cfg.Node.DataDir, cfg.Cluster.Bootstrap = "localhost", t.TempDir(), true
	cfg.Listen.GRPCPort, cfg.Listen.PeerPort, cfg.Listen.HTTPPort, cfg.Listen.GossipPort = 0, 0, 0, 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var at Addresses
	if err := Run(ctx, cfg, Options{Logger: slog.New(slog.DiscardHandler), Ready: func(a Addresses) { at = a; cancel() }}); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{at.GRPC, at.Peer, at.HTTP, at.Gossip} {
		host, _, err := net.SplitHostPort(addr)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			t.Errorf("bound to localhost, it tells %q", addr)
		}
	}
}

// TestNoCacheNoFilter: 0 means none, as the reference file says, and not the
// engine's default.
func TestNoCacheNoFilter(t *testing.T) {
	cfg := config.Defaults()
	cfg.Node.DataDir, cfg.Cluster.Bootstrap = t.TempDir(), true
	cfg.Listen.GRPCPort, cfg.Listen.PeerPort, cfg.Listen.HTTPPort, cfg.Listen.GossipPort = 0, 0, 0, 0
	cfg.Storage.CacheSize, cfg.Storage.BloomBitsPerKey = 0, 0
	n, err := Open(cfg, Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if m := n.db.Metrics(); m.Cache.MaxBytes != 0 {
		t.Errorf("cache of %d bytes, want none", m.Cache.MaxBytes)
	}
	if err := n.release(); err != nil {
		t.Error(err)
	}
}

// TestStopDuringStart: a node that is told to stop before it has begun ends
// without an error.
func TestStopDuringStart(t *testing.T) {
	cfg := config.Defaults()
	cfg.Node.DataDir, cfg.Cluster.Bootstrap = t.TempDir(), true
	cfg.Listen.GRPCPort, cfg.Listen.PeerPort, cfg.Listen.HTTPPort, cfg.Listen.GossipPort = 0, 0, 0, 0
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, cfg, Options{Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Error(err)
	}
}

// TestStoppingIsNotReady: a balancer must not send clients to a node that is
// on its way out, nor to one that is not on its way in yet, that can only read or whose
// disk hangs.
func TestStoppingIsNotReady(t *testing.T) {
	nodes := startNodes(t, 0)
	nodes[0].stop()
	n, err := Open(nodes[0].cfg, Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	failing := func() (names []string) {
		for _, c := range n.checks() {
			if !c.OK {
				names = append(names, c.Name)
			}
		}
		return names
	}
	if bad := failing(); !slices.Equal(bad, []string{"layout"}) || n.serves() {
		t.Errorf("a node that has called nobody fails %v, serves %v", bad, n.serves())
	}
	n.met.Store(true)
	if bad := failing(); len(bad) > 0 || !n.serves() {
		t.Errorf("a sound node fails %v, serves %v", bad, n.serves())
	}
	n.stopping.Store(true)
	if bad := failing(); !slices.Equal(bad, []string{"running"}) || n.serves() {
		t.Errorf("a stopping node fails %v, serves %v", bad, n.serves())
	}
	n.stopping.Store(false)
	n.setStalled(&vfs.Pending{Op: vfs.OpSync, File: vfs.FileLog})
	if bad := failing(); !slices.Equal(bad, []string{"disk"}) || n.serves() {
		t.Errorf("a node whose disk hangs fails %v, serves %v", bad, n.serves())
	}
	n.setStalled(nil)
	if bad := failing(); len(bad) > 0 || !n.serves() {
		t.Errorf("once the disk answers it fails %v, serves %v", bad, n.serves())
	}
	close(n.readOnly)
	if n.serves() {
		t.Error("a node that can only read serves")
	}
	if err := n.release(); err != nil {
		t.Error(err)
	}
}
