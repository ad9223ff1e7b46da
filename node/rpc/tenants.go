package rpc

import (
	"context"
	"strconv"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Metadata is what the edge reads of the cluster, and the one thing it changes.
type Metadata interface {
	// Snapshot returns the present immutable view, never nil, without a lock.
	Snapshot() *schema.Snapshot
	// CreateTenant returns once the tenant exists exactly once.
	CreateTenant(ctx context.Context, name string, rf int, p schema.ConflictPolicy) (schema.Tenant, error)
	// RefreshTenant looks a tenant up that Snapshot may not know yet because it
	// was created through another node a moment ago. The error says whether there is
	// none, or too few other nodes could be asked.
	RefreshTenant(ctx context.Context, name string) (*schema.Tenant, error)
	// DeleteTenant returns once the tenant, which it gives back, is no more.
	DeleteTenant(ctx context.Context, name string) (schema.Tenant, error)
}

// defaultRF is the replication factor of a tenant that asks for none.
const defaultRF = 3

// tenantService is the service Tenants.
type tenantService struct {
	pairdbv1.UnimplementedTenantsServer
	s *Server
}

// Create implements pairdbv1.TenantsServer.
func (t *tenantService) Create(ctx context.Context, req *pairdbv1.CreateTenantRequest) (*pairdbv1.Tenant, error) {
	if err := schema.ValidateTenantID(req.GetTenantId()); err != nil {
		return nil, err
	}
	rf := defaultRF
	if req.ReplicationFactor != nil {
		// Compared before it is narrowed to an int.
		if req.GetReplicationFactor() > ring.MaxRF {
			return nil, &coord.Error{
				Code: errcode.InvalidReplicationFactor, Outcome: errcode.NotApplied,
				Message: "replication_factor: " + strconv.FormatUint(uint64(req.GetReplicationFactor()), 10) + ", want 1 to " + strconv.Itoa(ring.MaxRF),
			}
		}
		rf = int(req.GetReplicationFactor())
	}
	if err := schema.ValidateRF(rf); err != nil {
		return nil, err
	}
	var policy schema.ConflictPolicy
	switch req.GetConflictPolicy() {
	case pairdbv1.ConflictPolicy_CONFLICT_POLICY_UNSPECIFIED, pairdbv1.ConflictPolicy_CONFLICT_POLICY_LWW:
		policy = schema.PolicyLWW
	case pairdbv1.ConflictPolicy_CONFLICT_POLICY_SIBLINGS:
		policy = schema.PolicySiblings
	default:
		return nil, invalid("conflict_policy: it is CONFLICT_POLICY_LWW or CONFLICT_POLICY_SIBLINGS")
	}
	made, err := t.s.opts.Metadata.CreateTenant(ctx, req.GetTenantId(), rf, policy)
	if err != nil {
		return nil, err
	}
	return tenantMessage(t.s.opts.Metadata.Snapshot(), &made), nil
}

// Get implements pairdbv1.TenantsServer.
func (t *tenantService) Get(ctx context.Context, req *pairdbv1.GetTenantRequest) (*pairdbv1.Tenant, error) {
	if err := schema.ValidateTenantID(req.GetTenantId()); err != nil {
		return nil, err
	}
	found, snap, err := findTenant(ctx, t.s.opts.Metadata, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	return tenantMessage(snap, found), nil
}

// List implements pairdbv1.TenantsServer.
func (t *tenantService) List(context.Context, *pairdbv1.ListTenantsRequest) (*pairdbv1.ListTenantsResponse, error) {
	resp := new(pairdbv1.ListTenantsResponse)
	snap := t.s.opts.Metadata.Snapshot()
	for _, tenant := range snap.Tenants() {
		resp.Tenants = append(resp.Tenants, tenantMessage(snap, tenant))
	}
	return resp, nil
}

// findTenant looks a tenant up, also one this node has not learned of yet, and gives the view
// that it is of: what else is said of the tenant has to be of the same one.
func findTenant(ctx context.Context, meta Metadata, name string) (*schema.Tenant, *schema.Snapshot, error) {
	snap := meta.Snapshot()
	if t, ok := snap.Tenant(name); ok {
		return t, snap, nil
	}
	t, err := meta.RefreshTenant(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	snap = meta.Snapshot()
	return snap.Current(t), snap, nil
}

// tenantMessage maps a tenant of a view to the wire.
func tenantMessage(snap *schema.Snapshot, t *schema.Tenant) *pairdbv1.Tenant {
	policy := pairdbv1.ConflictPolicy_CONFLICT_POLICY_LWW
	if t.Policy == schema.PolicySiblings {
		policy = pairdbv1.ConflictPolicy_CONFLICT_POLICY_SIBLINGS
	}
	nodes := 0
	if snap.Layout != nil {
		nodes = len(snap.Layout.Nodes())
	}
	m := &pairdbv1.Tenant{
		TenantId: t.Name, ReplicationFactor: uint32(t.RF), ConflictPolicy: policy,
		CreatedAt: timestamppb.New(t.CreatedAt), UpdatedAt: timestamppb.New(t.UpdatedAt),
		UnderReplicated: nodes < t.RF,
	}
	if rf, _ := snap.AskedRF(t); rf != t.RF {
		m.NextReplicationFactor = uint32(rf)
	}
	return m
}
