package rpc

import (
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

func TestRoutes(t *testing.T) {
	f := foundedCluster(t, 4)
	f.with(t, map[int]schema.Liveness{2: schema.Dead})
	c := &clusterService{meta: f}
	l := f.Snapshot().Layout
	for tenant, replicas := range map[string]int{"default": 3, "wide": 4} {
		r, err := c.Routes(t.Context(), &pairdbv1.RoutesRequest{TenantId: tenant})
		if err != nil {
			t.Fatal(err)
		}
		info, _ := f.Snapshot().Tenant(tenant)
		if r.GetReplicas() != uint32(replicas) || r.GetTenantNumber() != uint32(info.Number) || len(r.GetOwners()) != replicas*l.Partitions() || r.GetEtag() == 0 {
			t.Fatalf("%s: %d replicas, %d owners, tenant %d", tenant, r.GetReplicas(), len(r.GetOwners()), r.GetTenantNumber())
		}
		for p := range l.Partitions() {
			for i, id := range l.Owners(nil, ring.Partition(p), info.RF) {
				n := r.GetNodes()[r.GetOwners()[p*replicas+i]]
				if n.GetNodeId() != id.String() {
					t.Fatalf("%s: owner %d of partition %d is %s, not %s", tenant, i, p, n.GetNodeId(), id)
				}
			}
		}
		dead := 0
		for _, n := range r.GetNodes() {
			if n.GetAddress() == "" {
				t.Errorf("no address of %s", n.GetNodeId())
			}
			if !n.GetAlive() {
				dead++
			}
		}
		if dead != 1 {
			t.Errorf("%d nodes are given up", dead)
		}
		again, err := c.Routes(t.Context(), &pairdbv1.RoutesRequest{TenantId: tenant, KnownEtag: r.GetEtag()})
		if err != nil || again.GetEtag() != r.GetEtag() || len(again.GetOwners()) > 0 || len(again.GetNodes()) > 0 {
			t.Errorf("nothing has changed, and the answer is %v, %v", again, err)
		}
		f.with(t, map[int]schema.Liveness{2: schema.Alive})
		again, err = c.Routes(t.Context(), &pairdbv1.RoutesRequest{TenantId: tenant, KnownEtag: r.GetEtag()})
		if err != nil || again.GetEtag() == r.GetEtag() || len(again.GetOwners()) == 0 {
			t.Errorf("a node is back, and the answer is %v, %v", again, err)
		}
		f.withdraw(2)
		again, err = c.Routes(t.Context(), &pairdbv1.RoutesRequest{TenantId: tenant})
		if err != nil || again.GetEtag() != r.GetEtag() {
			t.Errorf("a node has withdrawn, and the answer is %v, %v", again.GetNodes(), err)
		}
		f.withdraw(-1)
		f.with(t, map[int]schema.Liveness{2: schema.Dead})
	}
	for tenant, want := range map[string]errcode.Code{"Upper": errcode.InvalidTenantID, "unknown": errcode.TenantNotFound} {
		if _, err := c.Routes(t.Context(), &pairdbv1.RoutesRequest{TenantId: tenant}); err == nil || Classify(err).Code != want {
			t.Errorf("tenant %q: %v", tenant, err)
		}
	}
}
