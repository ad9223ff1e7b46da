package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
)

// metaFunc is a MetaHandler.
type metaFunc func(ctx context.Context, method string, clusterID, sender, payload []byte) ([]byte, error)

func (f metaFunc) HandleMeta(ctx context.Context, method string, clusterID, sender, payload []byte) ([]byte, error) {
	return f(ctx, method, clusterID, sender, payload)
}

func startMetaClient(t *testing.T, cluster ring.ClusterID, self ring.NodeID) *MetaClient {
	t.Helper()
	c, err := NewMetaClient(MetaClientOptions{Identity: func() (ring.ClusterID, ring.NodeID) { return cluster, self }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestMeta(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	var calls atomic.Int64
	handler := metaFunc(func(ctx context.Context, method string, clusterID, sender, payload []byte) ([]byte, error) {
		calls.Add(1)
		if !bytes.Equal(sender, nodeA[:]) {
			t.Errorf("sender %x", sender)
		}
		switch method {
		case "Prepare":
			return nil, errors.New("the slot is taken")
		case "Accept":
			select {
			case <-hang:
			case <-ctx.Done():
			}
			return nil, ctx.Err()
		case "Found":
			panic("broken invariant")
		}
		return fmt.Appendf(nil, "%s %x %s", method, clusterID, payload), nil
	})
	opts := serverOptions(t, nodeB, clusterOf(nodeB, nodeA), echo)
	opts.Meta = handler
	opts.Logger = nil
	_, addr := startPeerServer(t, opts)
	ctx := testContext(t)
	c := startMetaClient(t, testCluster, nodeA)

	if got, err := c.Call(ctx, addr, "Exchange", []byte("hello")); err != nil || string(got) != "Exchange 01020300000000000000000000000000 hello" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := startMetaClient(t, ring.ClusterID{}, nodeA).Call(ctx, addr, "Pledge", []byte("p")); err != nil || string(got) != "Pledge  p" {
		t.Errorf("without a cluster: %q, %v", got, err)
	}
	if _, err := c.Call(ctx, addr, "Prepare", nil); err == nil || !strings.Contains(err.Error(), "the slot is taken") {
		t.Errorf("got %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := c.Call(short, addr, "Accept", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Call(ctx, addr, "Found", nil); err == nil || strings.Contains(err.Error(), "invariant") {
		t.Errorf("a panic: %v", err)
	}
	if _, err := c.Call(ctx, addr, "Nonsense", nil); err == nil {
		t.Error("a method that is not there")
	}
	if _, err := c.Call(ctx, addr, "Exchange", make([]byte, maxMetaBytes+1)); err == nil {
		t.Error("too much was sent")
	}
	before := calls.Load()
	if _, err := startMetaClient(t, ring.ClusterID{9}, nodeA).Call(ctx, addr, "Exchange", nil); err == nil || !strings.Contains(err.Error(), "cluster") || calls.Load() != before {
		t.Errorf("another cluster: %v", err)
	}
	if _, err := startMetaClient(t, testCluster, ring.NodeID{}).Call(ctx, addr, "Exchange", nil); err == nil || calls.Load() != before {
		t.Errorf("no sender: %v", err)
	}

	info, err := c.Info(ctx, addr)
	if want := (NodeInfo{Node: nodeB, Incarnation: 3, Bytes: 4, Keys: 5, DiskUsedPercent: 6}); err != nil || info != want {
		t.Errorf("%+v, %v", info, err)
	}
	if _, err := startMetaClient(t, ring.ClusterID{9}, nodeA).Info(ctx, addr); err == nil {
		t.Error("figures for another cluster")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Call(ctx, addr, "Exchange", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestMetaConnectionsAreBounded calls more addresses than are kept.
func TestMetaConnectionsAreBounded(t *testing.T) {
	c := startMetaClient(t, testCluster, nodeA)
	var busy []func()
	for i := range maxMetaConns {
		_, done, err := c.conn(fmt.Sprintf("host%d:1", i))
		if err != nil {
			t.Fatal(err)
		}
		busy = append(busy, done)
	}
	if _, _, err := c.conn("one-more:1"); err == nil {
		t.Error("more connections than the bound")
	}
	busy[3]()
	_, done, err := c.conn("one-more:1")
	if err != nil {
		t.Fatal(err)
	}
	done()
	if _, ok := c.mu.byAddr["host3:1"]; ok || c.mu.recent.Len() != maxMetaConns || len(c.mu.byAddr) != maxMetaConns {
		t.Errorf("%d connections, %d by address", c.mu.recent.Len(), len(c.mu.byAddr))
	}
}

// TestMetaReconnects: a node that was away is reached soon after it is back,
// however often it was tried meanwhile.
func TestMetaReconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, l := bufferedNodeB(t)
		defer server.Close()
		var there atomic.Bool
		c, err := NewMetaClient(MetaClientOptions{
			Identity: func() (ring.ClusterID, ring.NodeID) { return testCluster, nodeA },
			Dial: func(ctx context.Context, _ string) (net.Conn, error) {
				if !there.Load() {
					return nil, errors.New("nobody there")
				}
				return l.DialContext(ctx)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}()
		call := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := c.Call(ctx, "ignored:1", "Exchange", nil)
			return err
		}
		// Long enough for gRPC's own back-off to reach several seconds.
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if call() == nil {
				t.Fatal("nobody answered")
			}
		}
		there.Store(true)
		back := time.Now()
		for call() != nil {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(back); took > time.Second {
			t.Errorf("reached after %v", took)
		}
	})
}
