package clienttest

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

type tenantService struct {
	pairdbv1.UnimplementedTenantsServer
	store *Store
}

func (t tenantService) Create(_ context.Context, req *pairdbv1.CreateTenantRequest) (*pairdbv1.Tenant, error) {
	s := t.store
	s.mu.Lock()
	defer s.mu.Unlock()
	rf, policy := uint32(3), req.GetConflictPolicy()
	if req.ReplicationFactor != nil {
		rf = req.GetReplicationFactor()
	}
	if policy == pairdbv1.ConflictPolicy_CONFLICT_POLICY_UNSPECIFIED {
		policy = pairdbv1.ConflictPolicy_CONFLICT_POLICY_LWW
	}
	switch {
	case !regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`).MatchString(req.GetTenantId()):
		return nil, Fail(errcode.InvalidTenantID, fmt.Sprintf("%q is no tenant id", req.GetTenantId()), nil)
	case rf < 1 || rf > 7:
		return nil, Fail(errcode.InvalidReplicationFactor, fmt.Sprintf("the replication factor is %d", rf), nil)
	case s.mu.tenants[req.GetTenantId()] != nil:
		return nil, Fail(errcode.TenantExists, fmt.Sprintf("tenant %q exists", req.GetTenantId()), nil)
	}
	tenant := newTenant(req.GetTenantId(), rf, policy)
	s.mu.tenants[req.GetTenantId()] = tenant
	return proto.CloneOf(tenant), nil
}

func (t tenantService) Get(_ context.Context, req *pairdbv1.GetTenantRequest) (*pairdbv1.Tenant, error) {
	s := t.store
	s.mu.Lock()
	defer s.mu.Unlock()
	tenant := s.mu.tenants[req.GetTenantId()]
	if tenant == nil {
		return nil, Fail(errcode.TenantNotFound, fmt.Sprintf("there is no tenant %q", req.GetTenantId()), nil)
	}
	return proto.CloneOf(tenant), nil
}

func (t tenantService) List(context.Context, *pairdbv1.ListTenantsRequest) (*pairdbv1.ListTenantsResponse, error) {
	s := t.store
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &pairdbv1.ListTenantsResponse{}
	for _, tenant := range s.mu.tenants {
		resp.Tenants = append(resp.Tenants, proto.CloneOf(tenant))
	}
	slices.SortFunc(resp.Tenants, func(a, b *pairdbv1.Tenant) int { return strings.Compare(a.GetTenantId(), b.GetTenantId()) })
	return resp, nil
}

// Update implements pairdbv1.TenantsServer.
func (t tenantService) Update(_ context.Context, req *pairdbv1.UpdateTenantRequest) (*pairdbv1.UpdateTenantResponse, error) {
	s := t.store
	s.mu.Lock()
	defer s.mu.Unlock()
	tenant, rf := s.mu.tenants[req.GetTenantId()], req.GetReplicationFactor()
	switch {
	case rf < 1 || rf > 7:
		return nil, Fail(errcode.InvalidReplicationFactor, fmt.Sprintf("the replication factor is %d", rf), nil)
	case tenant == nil:
		return nil, Fail(errcode.TenantNotFound, fmt.Sprintf("there is no tenant %q", req.GetTenantId()), nil)
	}
	resp := &pairdbv1.UpdateTenantResponse{OldReplicationFactor: tenant.GetReplicationFactor()}
	if rf != tenant.GetReplicationFactor() {
		m := &pairdbv1.NodeChange{
			Id: strings.Repeat("7e", 16), Verb: "replicate", State: "waiting", TenantId: req.GetTenantId(), ReplicationFactor: rf,
			AskedAt: timestamppb.New(time.Unix(1_700_000_000, 0)),
		}
		s.mu.changed = changed{open: m}
		tenant.NextReplicationFactor, resp.ChangeId = rf, m.GetId()
	}
	resp.Tenant = proto.CloneOf(tenant)
	return resp, nil
}

// Delete implements pairdbv1.TenantsServer.
func (t tenantService) Delete(_ context.Context, req *pairdbv1.DeleteTenantRequest) (*pairdbv1.DeleteTenantResponse, error) {
	s := t.store
	s.mu.Lock()
	defer s.mu.Unlock()
	tenant := s.mu.tenants[req.GetTenantId()]
	switch {
	case tenant == nil:
		return nil, Fail(errcode.TenantNotFound, fmt.Sprintf("there is no tenant %q", req.GetTenantId()), nil)
	case req.GetTenantId() == "default":
		return nil, refusedChange(errcode.InvalidArgument, "the tenant default cannot be deleted")
	}
	delete(s.mu.tenants, req.GetTenantId())
	for at := range s.mu.values {
		if strings.HasPrefix(at, req.GetTenantId()+"\x00") {
			delete(s.mu.values, at)
		}
	}
	return &pairdbv1.DeleteTenantResponse{Tenant: tenant}, nil
}
