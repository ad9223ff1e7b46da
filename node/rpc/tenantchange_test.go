package rpc

import (
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// TestUpdateTenant follows a new replication factor from the request to its end, as
// clients see it.
func TestUpdateTenant(t *testing.T) {
	c := newRing(t, 5)
	s, cluster := c.serve(noAsker{})
	ctx := testContext(t)
	update := func(rf uint32) *pairdbv1.UpdateTenantResponse {
		t.Helper()
		r, err := s.UpdateTenant(ctx, &pairdbv1.UpdateTenantRequest{TenantId: "default", ReplicationFactor: rf})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := update(3); r.GetChangeId() != "" || r.GetOldReplicationFactor() != 3 || r.GetTenant().GetNextReplicationFactor() != 0 {
		t.Errorf("the number that it has: %v", r)
	}
	r := update(5)
	id := r.GetChangeId()
	if id == "" || r.GetOldReplicationFactor() != 3 || r.GetTenant().GetReplicationFactor() != 3 || r.GetTenant().GetNextReplicationFactor() != 5 {
		t.Errorf("another number: %v", r)
	}
	if again := update(5); again.GetChangeId() != id {
		t.Errorf("asked for again it is another change: %v, %s", again, id)
	}
	state := func(want string) {
		t.Helper()
		m, err := cluster.ChangeStatus(ctx, &pairdbv1.ChangeStatusRequest{Id: id})
		if err != nil {
			t.Fatal(err)
		}
		if m.GetState() != want || m.GetVerb() != "replicate" || m.GetTenantId() != "default" || m.GetReplicationFactor() != 5 || m.GetNodeId() != "" || m.GetName() != "" {
			t.Errorf("%v, want %s", m, want)
		}
	}
	state("waiting")
	plan, err := c.state.Plan(nil)
	if err != nil {
		t.Fatal(err)
	}
	change := c.add(&ring.Entry{Kind: ring.KindPropose, Propose: &ring.Propose{Parent: c.state.Layout().Version(), Layout: plan.Layout, Factors: plan.Factors, Closes: plan.Closes}})
	state("moving")
	if again := update(5); again.GetChangeId() != id || again.GetTenant().GetNextReplicationFactor() != 5 {
		t.Errorf("asked for while it moves: %v", again)
	}
	c.step(ring.KindCommit, change)
	state("switching")
	c.step(ring.KindFinalize, change)
	state("done")
	if r := update(5); r.GetChangeId() != "" || r.GetOldReplicationFactor() != 5 {
		t.Errorf("it has that number now: %v", r)
	}
	for rf, code := range map[uint32]errcode.Code{0: errcode.InvalidReplicationFactor, 8: errcode.InvalidReplicationFactor, 1<<32 - 1: errcode.InvalidReplicationFactor} {
		_, err := s.UpdateTenant(ctx, &pairdbv1.UpdateTenantRequest{TenantId: "default", ReplicationFactor: rf})
		refused(t, err, code)
	}
	_, err = s.UpdateTenant(ctx, &pairdbv1.UpdateTenantRequest{TenantId: "none", ReplicationFactor: 2})
	refused(t, err, errcode.TenantNotFound)
	_, err = s.UpdateTenant(ctx, &pairdbv1.UpdateTenantRequest{TenantId: "None", ReplicationFactor: 2})
	if Classify(err).Code != errcode.InvalidTenantID {
		t.Errorf("a name that cannot be: %v", err)
	}
	c.refuse = fmt.Errorf("%w: 256", ring.ErrOwnClasses)
	_, err = s.UpdateTenant(ctx, &pairdbv1.UpdateTenantRequest{TenantId: "default", ReplicationFactor: 2})
	if Classify(err).Code != errcode.ResourceExhausted {
		t.Errorf("too many: %v", err)
	}
}

// TestAbortedReplication: what was asked for with an aborted change is over.
func TestAbortedReplication(t *testing.T) {
	c := newRing(t, 5)
	s, _ := c.serve(noAsker{})
	r, err := s.UpdateTenant(testContext(t), &pairdbv1.UpdateTenantRequest{TenantId: "default", ReplicationFactor: 1})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := c.state.Plan(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Factors) != 1 || hex.EncodeToString(plan.Closes[0][:]) != r.GetChangeId() {
		t.Fatalf("planned: %+v", plan)
	}
	change := c.add(&ring.Entry{Kind: ring.KindPropose, Propose: &ring.Propose{Parent: c.state.Layout().Version(), Layout: plan.Layout, Factors: plan.Factors, Closes: plan.Closes}})
	c.step(ring.KindAbort, change)
	m, err := s.ChangeStatus(testContext(t), &pairdbv1.ChangeStatusRequest{Id: r.GetChangeId()})
	if err != nil || m.GetState() != "aborted" {
		t.Errorf("%v, %v", m, err)
	}
	if got := tenantMessage(c.meta.Snapshot(), c.meta.Snapshot().Tenants()[0]); got.GetNextReplicationFactor() != 0 || got.GetReplicationFactor() != 3 {
		t.Errorf("the tenant after it: %v", got)
	}
}

func TestDeleteTenant(t *testing.T) {
	c := newRing(t, 3)
	s, _ := c.serve(noAsker{})
	ctx := testContext(t)
	var asked string
	c.meta.remove = func(name string) (schema.Tenant, error) {
		asked = name
		if name == "default" {
			return schema.Tenant{}, ring.ErrDefaultTenant
		}
		if name == "gone" {
			return schema.Tenant{}, fmt.Errorf("delete tenant: %w", ring.ErrUnknownTenant)
		}
		return schema.Tenant{Number: 2, Name: name, RF: 3}, nil
	}
	c.meta.late = map[string]*schema.Tenant{"shop": {Number: 2, Name: "shop", RF: 3}, "gone": {Number: 3, Name: "gone", RF: 3}}
	r, err := s.DeleteTenant(ctx, &pairdbv1.DeleteTenantRequest{TenantId: "shop"})
	if err != nil || r.GetTenant().GetTenantId() != "shop" || asked != "shop" {
		t.Errorf("%v, %v; asked for %s", r, err, asked)
	}
	_, err = s.DeleteTenant(ctx, &pairdbv1.DeleteTenantRequest{TenantId: "gone"})
	refused(t, err, errcode.TenantNotFound)
	asked = ""
	_, err = s.DeleteTenant(ctx, &pairdbv1.DeleteTenantRequest{TenantId: "none"})
	refused(t, err, errcode.TenantNotFound)
	_, err = s.DeleteTenant(ctx, &pairdbv1.DeleteTenantRequest{TenantId: "a/b"})
	if Classify(err).Code != errcode.InvalidTenantID {
		t.Errorf("a name that cannot be: %v", err)
	}
	if asked != "" {
		t.Errorf("asked to delete %q", asked)
	}
	_, err = s.DeleteTenant(ctx, &pairdbv1.DeleteTenantRequest{TenantId: "default"})
	if Classify(err).Code != errcode.InvalidArgument {
		t.Errorf("the default tenant: %v", err)
	}
}

// passing is metadata that has changed by the second look.
type passing struct {
	*fakeCluster
	first *schema.Snapshot
}

func (p *passing) Snapshot() *schema.Snapshot {
	if s := p.first; s != nil {
		p.first = nil
		return s
	}
	return p.fakeCluster.Snapshot()
}

// TestTenantOfOneView: between two looks at the metadata a tenant gets the replication factor
// that was asked for. It has the old one and another to come, or the new one: never the old
// one with nothing to come, by which somebody who waits would take the change for aborted.
func TestTenantOfOneView(t *testing.T) {
	c := newRing(t, 5)
	s, _ := c.serve(noAsker{})
	ctx := testContext(t)
	if _, err := s.UpdateTenant(ctx, &pairdbv1.UpdateTenantRequest{TenantId: "default", ReplicationFactor: 5}); err != nil {
		t.Fatal(err)
	}
	plan, err := c.state.Plan(nil)
	if err != nil {
		t.Fatal(err)
	}
	change := c.add(&ring.Entry{Kind: ring.KindPropose, Propose: &ring.Propose{Parent: c.state.Layout().Version(), Layout: plan.Layout, Factors: plan.Factors, Closes: plan.Closes}})
	c.step(ring.KindCommit, change)
	before := c.meta.Snapshot()
	c.step(ring.KindFinalize, change)
	pass := func() { s.opts.Metadata = &passing{c.meta, before} }

	pass()
	got, err := (&tenantService{s: s}).Get(ctx, &pairdbv1.GetTenantRequest{TenantId: "default"})
	if err != nil || got.GetReplicationFactor() != 5 && got.GetNextReplicationFactor() != 5 {
		t.Errorf("%v, %v", got, err)
	}
	pass()
	list, err := (&tenantService{s: s}).List(ctx, nil)
	if err != nil || list.GetTenants()[0].GetReplicationFactor() != 5 && list.GetTenants()[0].GetNextReplicationFactor() != 5 {
		t.Errorf("%v, %v", list, err)
	}
	// It has 5 by now, so 3 is another number.
	pass()
	u, err := s.UpdateTenant(ctx, &pairdbv1.UpdateTenantRequest{TenantId: "default", ReplicationFactor: 3})
	if err != nil || u.GetChangeId() == "" || u.GetOldReplicationFactor() != 5 {
		t.Errorf("%v, %v: it is taken to have 3 already", u, err)
	}
}
