package client

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/client/clienttest"
	"github.com/pairdb/pairdb/gossip/ring"
)

// counted counts the calls about keys at each server.
func counted(servers []*clienttest.Server) []*atomic.Int64 {
	counts := make([]*atomic.Int64, len(servers))
	for i, s := range servers {
		n := new(atomic.Int64)
		counts[i] = n
		s.SetHook(func(_ context.Context, method string, _ any) error {
			if strings.Contains(method, ".KV/") {
				n.Add(1)
			}
			return nil
		})
	}
	return counts
}

// eventually polls until f says true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	over := time.After(30 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("still waiting: %s", what)
		}
	}
}

// three starts three servers and a client that knows the first of them.
func three(t *testing.T, opts Options) (*Client, []*clienttest.Server) {
	t.Helper()
	all, _, servers := start(t, 3, Options{})
	if err := all.Close(); err != nil {
		t.Fatal(err)
	}
	opts.Endpoints = []string{servers[0].Addr()}
	c, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, servers
}

// owner is the first owner of a key by clienttest's routes.
func owner(key string) int { return int(uint64(ring.KeyToken(1, []byte(key)))>>60) % 3 }

// warm calls until a key of each server goes there.
func warm(t *testing.T, c *Client, counts []*atomic.Int64) {
	t.Helper()
	eventually(t, "calls go to owners", func() bool {
		for i := range 30 {
			if _, err := c.Put(t.Context(), fmt.Sprint("warm", i), nil); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range counts {
			if n.Load() == 0 {
				return false
			}
		}
		return true
	})
}

func TestCallsGoToOwners(t *testing.T) {
	c, servers := three(t, Options{})
	counts := counted(servers)
	warm(t, c, counts)
	// A machine that stands still for a moment makes an owner look slow or silent, and
	// then calls go elsewhere for a while; without routes a third of them would be right.
	const keys, enough = 50, 3 * 50 * 3 / 4
	right := int64(0)
	for i := range keys {
		key := fmt.Sprint("key", i)
		before := counts[owner(key)].Load()
		if _, err := c.Put(t.Context(), key, []byte("v")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		right += counts[owner(key)].Load() - before
	}
	if right < enough {
		t.Errorf("%d of %d calls went to the owner of their key", right, 3*keys)
	}
	if c.Endpoint() != servers[0].Addr() {
		t.Errorf("endpoint %s", c.Endpoint())
	}
}

// An owner that dies costs no call, neither a read nor a write.
func TestOwnerDies(t *testing.T) {
	c, servers := three(t, Options{})
	counts := counted(servers)
	warm(t, c, counts)
	servers[2].Close()
	for i := range 50 {
		key := fmt.Sprint("key", i)
		if _, err := c.Put(t.Context(), key, []byte("v"), WithIdempotencyKey("id")); err != nil {
			t.Fatalf("%s of server %d: %v", key, owner(key), err)
		}
		if _, err := c.Get(t.Context(), key); err != nil {
			t.Fatalf("%s of server %d: %v", key, owner(key), err)
		}
	}
}

func TestNoRouting(t *testing.T) {
	c, servers := three(t, Options{NoRouting: true})
	counts := counted(servers)
	for i := range 100 {
		if _, err := c.Put(t.Context(), fmt.Sprint("key", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if counts[0].Load() != 100 {
		t.Errorf("%d of 100 calls went to the endpoint", counts[0].Load())
	}
}

// A program that makes a few calls asks for no routes.
func TestFewCallsAskForNothing(t *testing.T) {
	c, servers := three(t, Options{})
	var asked atomic.Int64
	servers[0].SetHook(func(_ context.Context, method string, _ any) error {
		if strings.HasSuffix(method, "/Routes") {
			asked.Add(1)
		}
		return nil
	})
	for range routeAfter - 1 {
		if _, err := c.Put(t.Context(), "k", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if asked.Load() != 0 {
		t.Error("it asked for routes")
	}
}
