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
	asker  *client.Client // of the address asked, see client
	asked  string
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
		bearStandstill(&cfg)
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

// client is the one client of the node as it was started last: each has a connection of
// its own and a watcher that looks at it every 50 ms, and thousands of them keep a busy
// machine busy for minutes.
func (n *testNode) client() *client.Client {
	n.t.Helper()
	if n.asker != nil && n.asked == n.addrs.GRPC {
		return n.asker
	}
	c, err := newClient(n.addrs.GRPC)
	if err != nil {
		n.t.Fatal(err)
	}
	n.asker, n.asked = c, n.addrs.GRPC
	n.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			n.t.Error(err)
		}
	})
	return c
}

// newClient is a client of one node that has more patience than the node, see bearStandstill.
func newClient(addr string) (*client.Client, error) {
	return client.New(client.Options{Endpoints: []string{addr}, NoRouting: true, Timeout: time.Minute})
}

func put(t *testing.T, c *client.Client, key, value string) {
	t.Helper()
	if err := onceConnected(func() error {
		_, err := c.Put(t.Context(), key, []byte(value), client.WithLevel(client.LevelQuorum))
		return err
	}); err != nil {
		var e *client.Error
		if errors.As(err, &e) {
			t.Log(e.Causes)
		}
		t.Fatalf("put %s: %v", key, err)
	}
}

func wantValue(t *testing.T, c *client.Client, key, want string) {
	t.Helper()
	got, err := get(t, c, key, client.LevelQuorum)
	if err != nil || string(got.Siblings[0].Value) != want {
		t.Errorf("get %s: %v %v, want %q", key, got, err, want)
	}
}

func get(t *testing.T, c *client.Client, key string, level client.Level) (got *client.GetResult, err error) {
	t.Helper()
	err = onceConnected(func() (err error) {
		got, err = c.Get(t.Context(), key, client.WithLevel(level))
		return err
	})
	return got, err
}

// onceConnected sends again what failed after it had waited for a connection to a peer: a
// node that has just started waits a second for one, and on a machine that stands still
// that is not enough. What fails at once, for the node knows no address or is refused,
// has failed. What is sent twice has the same effect.
func onceConnected(send func() error) (err error) {
	const patience = 500 * time.Millisecond
	waited := false
	for end := time.Now().Add(20 * time.Second); ; <-time.After(20 * time.Millisecond) {
		began := time.Now()
		err = send()
		waited = waited || time.Since(began) > patience
		if !waited || client.CodeOf(err) != errcode.QuorumNotReached || time.Now().After(end) {
			return err
		}
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
				if err := onceConnected(func() error {
					_, err := late.Delete(t.Context(), fmt.Sprint("gone", i), client.WithLevel(client.LevelQuorum))
					return err
				}); err != nil {
					t.Fatal(err)
				}
			}
			for i := range keys {
				for _, n := range nodes {
					reader := n.client()
					wantValue(t, reader, fmt.Sprint("k", i), "last")
					if got, err := get(t, reader, fmt.Sprint("gone", i), client.LevelQuorum); err == nil {
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
		err := untilReached(func() error {
			_, err := clients[i%5].Put(t.Context(), key, []byte(value), client.WithTenant("two"), client.WithLevel(client.LevelAll))
			return err
		})
		if err != nil {
			t.Fatalf("put %s: %v", key, err)
		}
		var got *client.GetResult
		err = untilReached(func() (err error) {
			got, err = clients[(i+1)%5].Get(t.Context(), key, client.WithTenant("two"))
			return err
		})
		if err != nil || string(got.Siblings[0].Value) != value {
			t.Fatalf("get %s: %v %v", key, got, err)
		}
	}
}

// untilReached sends again, as callers do, what did not get through to enough nodes: on a
// busy machine five of them under the race detector take one another for dead now and
// then, or do not connect in time. What is sent twice has the same effect.
func untilReached(send func() error) (err error) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err = send(); client.CodeOf(err) != errcode.QuorumNotReached {
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
