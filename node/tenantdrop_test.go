package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/hints"
	"github.com/pairdb/pairdb/node/config"
	"github.com/pairdb/pairdb/node/events"
)

// running is a node of a cluster of its own whose parts a test may look at.
type running struct {
	*Node
	stop func()
}

// run opens a node, does something with it, and serves.
func run(t *testing.T, cfg config.Config, first func(n *Node)) running {
	t.Helper()
	ready := make(chan struct{})
	n, err := Open(cfg, Options{Logger: slog.New(slog.DiscardHandler), Ready: func(Addresses) { close(ready) }})
	if err != nil {
		t.Fatal(err)
	}
	first(n)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Serve(ctx) }()
	stopped := false
	r := running{n, func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-ended, n.Close(context.Background())); err != nil {
			t.Error(err)
		}
	}}
	t.Cleanup(r.stop)
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	return r
}

// keysOf counts what is stored of a tenant, objects, records and all.
func (r running) keysOf(t *testing.T, tenant ring.TenantNumber) (n int) {
	t.Helper()
	it, err := r.db.NewIter(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	number := binary.BigEndian.AppendUint32(nil, uint32(tenant))
	for ok := it.First(); ok; ok = it.Next() {
		if k := it.Key(); len(k) > 15 && bytes.Equal(k[3:7], number) {
			n++
		}
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

// awaitDropped returns once that many tenants were dropped since the start.
func (r running) awaitDropped(t *testing.T, tenants int64) {
	t.Helper()
	waitFor(t, fmt.Sprintf("%d tenants were dropped", tenants), func() bool { return r.tenantDrops.tenants.Load() >= tenants })
}

// TestDeletedTenantsAreDropped: what a tenant has is gone soon after it was deleted, and
// what a crash has left of another one after the next start; nothing of others is, nor of
// one that has been given the name.
func TestDeletedTenantsAreDropped(t *testing.T) {
	cfg := config.Defaults()
	cfg.Node.DataDir, cfg.Cluster.Bootstrap = filepath.Join(t.TempDir(), "n"), true
	cfg.Listen.Bind = "127.0.0.1"
	bearStandstill(&cfg)
	cfg.Listen.GRPCPort, cfg.Listen.PeerPort, cfg.Listen.HTTPPort, cfg.Listen.GossipPort = 0, 0, 0, 0
	r := run(t, cfg, func(*Node) {})
	create := func() schema.Tenant {
		tenant, err := r.gossip.CreateTenant(t.Context(), "shop", 1, schema.PolicyLWW)
		if err != nil {
			t.Fatal(err)
		}
		return tenant
	}
	fill := func() {
		c, err := newClient(r.addrs.GRPC)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}()
		for i := range 50 {
			for _, opts := range [][]client.CallOption{{client.WithTenant("shop"), client.WithIdempotencyKey(fmt.Sprint(i))}, nil} {
				if _, err := c.Put(t.Context(), fmt.Sprint("key", i), []byte("v"), opts...); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	old := create()
	fill()
	if n := r.keysOf(t, old.Number); n < 100 {
		t.Fatalf("there are %d keys", n)
	}
	if _, err := r.gossip.DeleteTenant(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	r.awaitDropped(t, 1)
	next := create()
	fill()
	if n := r.keysOf(t, old.Number); n != 0 {
		t.Errorf("%d keys are left", n)
	}
	if r.tenantDrops.partitions.Load() == 0 || r.tenantDrops.waiting.Load() != 0 {
		t.Errorf("%d partitions, %d tenants wait", r.tenantDrops.partitions.Load(), r.tenantDrops.waiting.Load())
	}
	list, _ := r.happened.Newest(time.Time{}, 100)
	if !slices.ContainsFunc(list, func(e events.Event) bool {
		return e.Kind == events.Engine && e.Text == "what tenant shop had is dropped, since the tenant was deleted"
	}) {
		t.Error("there is no event")
	}
	// Hints of it are settled without a delivery, and no more are kept.
	settled := false
	r.deliverHint(hints.Hint{Target: ring.NodeID{1}, Tenant: old.Number}, func(o hints.Outcome, why hints.Reason, _ int) {
		settled = o == hints.Done && why == hints.Gone
	})
	r.hint(ring.NodeID{1}, coord.Address{Tenant: old.Number, Key: []byte("k")}, nil)
	r.Node.hints.store.Flush()
	if !settled || len(r.Node.hints.store.Targets()) > 0 {
		t.Errorf("a hint is settled: %v; there are hints for %v", settled, r.Node.hints.store.Targets())
	}

	r.stop()
	left := func(n *Node) {
		b := engine.NewBatch()
		for p := range uint16(3) {
			key := binary.BigEndian.AppendUint32(append(binary.BigEndian.AppendUint16(nil, p), 0), uint32(old.Number))
			b.Set(append(key, "12345678key"...), []byte("left by a crash"))
		}
		if _, err := n.db.Apply(b, engine.WriteOptions{Sync: true}); err != nil {
			t.Fatal(err)
		}
	}
	r = run(t, cfg, left)
	r.awaitDropped(t, 1)
	if n := r.keysOf(t, old.Number); n != 0 {
		t.Errorf("after a start %d keys are left", n)
	}
	if n := r.keysOf(t, next.Number); n < 100 {
		t.Errorf("of the tenant that has the name now %d keys are left", n)
	}
}

// TestWhichTenantsAreDropped: those that were deleted since the last look are known by name;
// after those of before the first look, and those that came and went between two, it is
// looked for data; a look at the same log says nothing.
func TestWhichTenantsAreDropped(t *testing.T) {
	layout, err := ring.NewLayout(8, []ring.LayoutNode{{ID: ring.NodeID{1}, Name: "n", Capacity: 1}})
	if err != nil {
		t.Fatal(err)
	}
	state := &ring.State{}
	next := func(e ring.Entry) {
		e.Version = state.Version() + 1
		e.Op[0] = byte(e.Version)
		if state, err = state.Next(&e); err != nil {
			t.Fatal(err)
		}
	}
	create := func(name string) ring.TenantNumber {
		next(ring.Entry{Kind: ring.KindTenantCreate, Tenant: &ring.TenantCreate{Name: name, RF: 1, Policy: 1, CreatedAtMs: 1}})
		return state.LastTenant()
	}
	remove := func(n ring.TenantNumber) {
		next(ring.Entry{Kind: ring.KindTenantDelete, Delete: &ring.TenantDelete{Number: n, DeletedAtMs: 1}})
	}
	snapshot := func() *schema.Snapshot {
		var tenants []*schema.Tenant
		for _, r := range state.Tenants() {
			tenants = append(tenants, &schema.Tenant{Number: r.Number, Name: r.Name, RF: int(r.RF), Policy: schema.PolicyLWW})
		}
		return schema.Build(schema.Snapshot{Ring: state}, tenants)
	}
	var d tenantDrops
	look := func(when string, some, scan bool, due ...doomed) {
		t.Helper()
		if got := d.look(snapshot()); got != some || d.scan != scan || !slices.Equal(d.due, due) {
			t.Errorf("%s: %v, scan %v, due %v", when, got, d.scan, d.due)
		}
	}
	if d.look(&schema.Snapshot{}) {
		t.Error("before there is a cluster a tenant was deleted")
	}
	next(ring.Entry{Kind: ring.KindFound, Found: &ring.Found{
		ClusterID: ring.ClusterID{1}, ClusterName: "test", Founder: ring.NodeID{1}, Layout: layout,
		TokenKeyID: 1, TokenKey: [32]byte{5}, CreatedAtMs: 1,
	}})
	look("founded", false, false)
	first, second := create("first"), create("second")
	look("created", false, false)
	remove(first)
	look("deleted", true, false, doomed{first, "first"})
	look("the same log", false, false, doomed{first, "first"})
	remove(create("brief"))
	look("one that came and went", true, true, doomed{first, "first"})
	d.add([]ring.TenantNumber{1, first, first + 2, 99}, func(n ring.TenantNumber) bool { return snapshot().Deleted(n) })
	if want := []doomed{{first, "first"}, {number: first + 2}}; d.scan || !slices.Equal(d.due, want) {
		t.Errorf("of those with data %v are due, scan %v", d.due, d.scan)
	}
	d = tenantDrops{}
	look("after a start", true, true)
	d = tenantDrops{}
	remove(second)
	create("second")
	look("after a start, with the name given again", true, true)
}
