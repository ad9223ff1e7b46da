package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/node/config"
	"github.com/pairdb/pairdb/node/freeport"
)

// testNode is one node of a cluster inside the test process, with its own
// directory and ports, run again after a stop as a process would be.
type testNode struct {
	t      *testing.T
	cfg    config.Config
	skew   time.Duration
	addrs  Addresses
	cancel context.CancelFunc
	ended  chan error
}

// startNodes founds a cluster of one node per skew and waits until all serve.
func startNodes(t *testing.T, skews ...time.Duration) []*testNode {
	t.Helper()
	var nodes []*testNode
	root := t.TempDir()
	for i, skew := range skews {
		cfg := config.Defaults()
		cfg.Node.Name = "node-" + strconv.Itoa(i+1)
		cfg.Node.DataDir = filepath.Join(root, cfg.Node.Name)
		cfg.Listen.Bind = "127.0.0.1"
		cfg.Listen.GRPCPort, cfg.Listen.PeerPort, cfg.Listen.HTTPPort, cfg.Listen.GossipPort = 0, 0, 0, freePort(t)
		cfg.Cluster.BootstrapExpect = len(skews)
		if i > 0 {
			cfg.Cluster.Join = []string{"127.0.0.1:" + strconv.Itoa(nodes[0].cfg.Listen.GossipPort)}
		}
		cfg.Storage.MemtableSize = 4 << 20
		cfg.Gossip.ProbeInterval, cfg.Gossip.ProbeTimeout = 200*time.Millisecond, 100*time.Millisecond
		nodes = append(nodes, &testNode{t: t, cfg: cfg, skew: skew})
	}
	ready := make(chan error, len(nodes))
	for _, n := range nodes {
		n.start(ready)
	}
	for range nodes {
		if err := <-ready; err != nil {
			t.Fatal(err)
		}
	}
	return nodes
}

// freePort returns a port that stays this node's when it is started again.
func freePort(t *testing.T) int {
	t.Helper()
	ports, err := freeport.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	return ports[0]
}

// start runs the node and tells ready once it serves, or why it does not.
func (n *testNode) start(ready chan<- error) {
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.ended = cancel, make(chan error, 1)
	served := make(chan struct{})
	go func() {
		err := Run(ctx, n.cfg, Options{
			Logger: testLogger(n.cfg.Node.Name), Version: "test", ClockSkew: n.skew,
			Ready: func(a Addresses) {
				n.addrs = a
				close(served)
				ready <- nil
			},
		})
		select {
		case <-served:
		default:
			ready <- fmt.Errorf("%s never served: %w", n.cfg.Node.Name, errors.Join(err, errors.New("it ended")))
		}
		n.ended <- err
	}()
	n.t.Cleanup(n.stop)
}

func (n *testNode) restart() {
	n.t.Helper()
	ready := make(chan error, 1)
	n.start(ready)
	if err := <-ready; err != nil {
		n.t.Fatal(err)
	}
}

// stop ends the node in an orderly way; again is no error.
func (n *testNode) stop() {
	if n.cancel == nil {
		return
	}
	n.cancel()
	n.cancel = nil
	if err := <-n.ended; err != nil {
		n.t.Errorf("%s: %v", n.cfg.Node.Name, err)
	}
}

func (n *testNode) client() *client.Client {
	n.t.Helper()
	c, err := client.New(client.Options{Endpoints: []string{n.addrs.GRPC}, NoRouting: true})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			n.t.Error(err)
		}
	})
	return c
}

func put(t *testing.T, c *client.Client, key, value string) {
	t.Helper()
	if _, err := c.Put(t.Context(), key, []byte(value), client.WithLevel(client.LevelQuorum)); err != nil {
		var e *client.Error
		if errors.As(err, &e) {
			t.Log(e.Causes)
		}
		t.Fatalf("put %s: %v", key, err)
	}
}

func wantValue(t *testing.T, c *client.Client, key, want string) {
	t.Helper()
	got, err := c.Get(t.Context(), key, client.WithLevel(client.LevelQuorum))
	if err != nil || string(got.Siblings[0].Value) != want {
		t.Errorf("get %s: %v %v, want %q", key, got, err, want)
	}
}

// TestStaleOwnerWithAClockBehind: an owner that was away while a key was
// written, and whose clock is ten minutes behind, coordinates the next write of
// the key. That write was acknowledged later, so it must win, for a put and for
// a delete alike; the same with the writer before it ten minutes ahead.
func TestStaleOwnerWithAClockBehind(t *testing.T) {
	for name, skews := range map[string][]time.Duration{
		"late owner ten minutes behind":   {0, 0, -10 * time.Minute},
		"first writer ten minutes ahead":  {10 * time.Minute, 0, 0},
		"twenty minutes between the two ": {10 * time.Minute, 0, -10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			nodes := startNodes(t, skews...)
			first, away := nodes[0], nodes[2]
			const keys = 50
			c := first.client()
			for i := range keys {
				put(t, c, fmt.Sprint("k", i), "old")
			}
			away.stop()
			for i := range keys {
				put(t, c, fmt.Sprint("k", i), "missed by the owner that is away")
				put(t, c, fmt.Sprint("gone", i), "missed too")
			}
			away.restart()
			late := away.client()
			for i := range keys {
				put(t, late, fmt.Sprint("k", i), "last")
				if _, err := late.Delete(t.Context(), fmt.Sprint("gone", i), client.WithLevel(client.LevelQuorum)); err != nil {
					t.Fatal(err)
				}
			}
			for i := range keys {
				for _, n := range nodes {
					reader := n.client()
					wantValue(t, reader, fmt.Sprint("k", i), "last")
					if got, err := reader.Get(t.Context(), fmt.Sprint("gone", i)); err == nil {
						t.Errorf("gone%d is back through %s: %q", i, n.cfg.Node.Name, got.Siblings[0].Value)
					}
				}
			}
		})
	}
}

// TestNodeThatIsNoOwner: with more nodes than copies most requests come in at
// a node that does not own the key and are forwarded once.
func TestNodeThatIsNoOwner(t *testing.T) {
	nodes := startNodes(t, 0, 0, 0, 0, 0)
	rf := uint32(2)
	if _, err := nodes[0].client().CreateTenant(t.Context(), client.NewTenant{ID: "two", ReplicationFactor: &rf}); err != nil {
		t.Fatal(err)
	}
	clients := make([]*client.Client, len(nodes))
	for i, n := range nodes {
		clients[i] = n.client()
	}
	for i := range 200 {
		key, value := fmt.Sprint("key-", i), fmt.Sprint("value-", i)
		err := whileNotApplied(func() error {
			_, err := clients[i%5].Put(t.Context(), key, []byte(value), client.WithTenant("two"), client.WithLevel(client.LevelAll))
			return err
		})
		if err != nil {
			t.Fatalf("put %s: %v", key, err)
		}
		var got *client.GetResult
		err = whileNotApplied(func() (err error) {
			got, err = clients[(i+1)%5].Get(t.Context(), key, client.WithTenant("two"))
			return err
		})
		if err != nil || string(got.Siblings[0].Value) != value {
			t.Fatalf("get %s: %v %v", key, got, err)
		}
	}
}

// whileNotApplied sends again, as callers do, what was refused before anything
// was done: on a busy machine five nodes under the race detector take one another
// for dead now and then, until they hear again.
func whileNotApplied(send func() error) (err error) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		var e *client.Error
		if err = send(); !errors.As(err, &e) || e.Code != errcode.QuorumNotReached || e.Outcome == errcode.Indeterminate {
			return err
		}
	}
	return err
}

// testLogger shows the nodes' logs when the tests run with PAIRDB_TEST_LOG=1.
func testLogger(name string) *slog.Logger {
	if os.Getenv("PAIRDB_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name)
}
