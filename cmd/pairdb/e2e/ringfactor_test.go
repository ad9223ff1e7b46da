package e2e

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// replicate gives a tenant another replication factor and waits until it has it.
func (c *cluster) replicate(at *agent, tenant string, rf int) {
	c.t.Helper()
	r := runFor(c.t, changeLimit, nil, "tenant", "update", tenant, "--rf", fmt.Sprint(rf), "--wait", "--endpoint", at.addr.GRPC, "-o", "json")
	if r.code != 0 || !strings.Contains(r.stdout, `"state": "done"`) {
		c.t.Fatalf("tenant %s to %d replicas: exit %d\n%s%s", tenant, rf, r.code, r.stdout, r.stderr)
	}
	if r := mustRun(c.t, "tenant", "show", tenant, "--endpoint", at.addr.GRPC, "-o", "json"); !strings.Contains(r.stdout, fmt.Sprintf(`"replication_factor": %d`, rf)) || !strings.Contains(r.stdout, `"next_replication_factor": 0`) {
		c.t.Fatalf("tenant %s to %d replicas: %s", tenant, rf, r.stdout)
	}
}

// TestReplicationFactorChanges has a tenant under load get five copies instead of three,
// and then two, while one of the nodes is killed on the way up and another on the way
// down. No request fails but for a kill, every acknowledged write is there, and nobody
// but the owners holds anything in the end.
func TestReplicationFactorChanges(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 5, "--set", "ring.settle="+ringSettle)
	at := c.agents[0]
	want := c.fill(at, "rf", 1500, 300)
	mustRun(t, "tenant", "create", "beside", "--endpoint", at.addr.GRPC)
	beside, err := client.New(client.Options{Endpoints: c.endpoints(), Tenant: "beside"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := beside.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range 200 {
		if _, err := beside.Put(t.Context(), fmt.Sprint("k", i), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	l := startLoad(t, c.endpoints(), 4)
	l.waitAcks(200)
	began := time.Now()
	c.replicate(at, "default", 5)
	t.Logf("from 3 copies to 5 in %s", time.Since(began).Round(time.Millisecond))
	l.mu.Lock()
	if len(l.fails) > 0 {
		t.Errorf("requests failed although no node did: %v", l.fails)
	}
	l.mu.Unlock()
	cl := c.client(1)
	if w, err := cl.Put(t.Context(), "all", []byte("five"), client.WithLevel(client.LevelAll)); err != nil || w.Acks != 5 {
		t.Errorf("a write to all five: %v, %v", w, err)
	}
	// Now one is killed while it hands over what it had.
	mustRun(t, "tenant", "update", "default", "--rf", "2", "--endpoint", at.addr.GRPC)
	c.waitStage(at, "proposed")
	c.agents[3].kill()
	c.agents[3].start()
	began = time.Now()
	c.replicate(at, "default", 2)
	t.Logf("from 5 copies to 2 in %s, with a node killed", time.Since(began).Round(time.Millisecond))
	c.waitRing(at, wantNodes(5)...)
	l.waitAcks(l.acks.Load() + 200)
	l.end()
	found := l.verify(cl)
	c.wantAll(c.agents[4], want)
	for i := range 200 {
		got, err := beside.Get(t.Context(), fmt.Sprint("k", i))
		if err != nil || len(got.Siblings) != 1 || string(got.Siblings[0].Value) != fmt.Sprint(i) {
			t.Fatalf("the tenant beside it: k%d: %v, %v", i, got, err)
		}
	}
	c.equalOwners()
	if err := poll(changeLimit, func() (bool, error) {
		r := mustRun(t, "transfers", "--endpoint", at.addr.GRPC)
		return strings.Contains(r.stdout, "Nothing is being moved."), nil
	}); err != nil {
		t.Fatalf("what left is not handed over: %v", err)
	}
	total := 0
	for _, a := range c.agents {
		a.signal(syscall.SIGTERM)
		if err := a.wait(); err != nil {
			t.Errorf("%s after SIGTERM: %v", a.name, err)
		}
		total += keysOnDisk(t, a)
	}
	// Two copies of the tenant's keys, three of the other's; deletes there are none.
	if keys := 2*(len(want)+found+1) + 3*200; total != keys {
		t.Errorf("all nodes together hold %d keys, want %d", total, keys)
	}
}

// TestTenantEnds deletes a tenant under load while one node is down: it is unknown at
// once, its name can be used again for one that has nothing of it, and every node, the
// one that was down too, drops its data.
func TestTenantEnds(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	at := c.agents[0]
	mustRun(t, "tenant", "create", "shop", "--endpoint", at.addr.GRPC)
	want := c.fill(at, "stays", 300, 100)
	shop, err := client.New(client.Options{Endpoints: c.endpoints(), Tenant: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shop.Close(); err != nil {
			t.Error(err)
		}
	})
	value := []byte(strings.Repeat("x", 1000))
	for i := range 1000 {
		if _, err := shop.Put(t.Context(), fmt.Sprint("k", i), value); err != nil {
			t.Fatal(err)
		}
	}
	stop, over := make(chan struct{}), make(chan error, 1)
	end := sync.OnceFunc(func() { close(stop) })
	defer end()
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				over <- nil
				return
			default:
			}
			// The kill below may cut off one that is under way.
			if _, err := shop.Put(t.Context(), fmt.Sprint("late", i), value); err != nil && client.CodeOf(err) != errcode.Unavailable {
				over <- err
				return
			}
		}
	}()
	away := c.agents[2]
	away.kill()
	mustRun(t, "tenant", "delete", "shop", "--yes", "--endpoint", at.addr.GRPC)
	select {
	case err := <-over:
		if !errors.Is(err, client.ErrTenantNotFound) {
			t.Errorf("a writer of the tenant ends with %v", err)
		}
	case <-time.After(30 * time.Second):
		end()
		t.Errorf("the tenant is no more and is written: %v", <-over)
	}
	for i := range 2 {
		if _, err := c.client(i).Get(t.Context(), "k1", client.WithTenant("shop")); !errors.Is(err, client.ErrTenantNotFound) {
			t.Errorf("a read of the tenant that is no more, at node %d: %v", i+1, err)
		}
	}
	mustRun(t, "tenant", "create", "shop", "--endpoint", c.agents[1].addr.GRPC)
	for _, key := range []string{"k1", "late1"} {
		if got, err := shop.Get(t.Context(), key); !errors.Is(err, client.ErrKeyNotFound) {
			t.Errorf("the new tenant has %s of the old one: %v, %v", key, got, err)
		}
	}
	if _, err := shop.Put(t.Context(), "k1", []byte("new")); err != nil {
		t.Fatal(err)
	}
	away.start()
	away.waitHealthy(30 * time.Second)
	c.meet()
	c.wantAll(away, want)
	if got, err := c.client(2).Get(t.Context(), "k1", client.WithTenant("shop")); err != nil || len(got.Siblings) != 1 || string(got.Siblings[0].Value) != "new" {
		t.Errorf("the new tenant's key at the node that was away: %v, %v", got, err)
	}
	c.equalOwners()
	// Tenant number 2 is the one that was deleted.
	if err := poll(time.Minute, func() (bool, error) { return c.total("pairdb_deleted_tenants_dropped_total") == 3, nil }); err != nil {
		t.Errorf("not every node says that it has dropped the tenant: %v", err)
	}
	for _, a := range c.agents {
		a.signal(syscall.SIGTERM)
		if err := a.wait(); err != nil {
			t.Errorf("%s after SIGTERM: %v", a.name, err)
		}
		r := run(t, nil, "debug", "dump", a.data)
		if r.code != 0 {
			t.Fatalf("dump of %s: exit %d\n%s", a.name, r.code, r.stderr)
		}
		if n := strings.Count(r.stdout, `"tenant":2,`); n > 0 {
			t.Errorf("%s still has %d objects of the tenant that is no more", a.name, n)
		}
	}
}
