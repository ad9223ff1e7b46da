package rpc

import (
	"context"
	"encoding/hex"
	"errors"
	"strconv"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Update implements pairdbv1.TenantsServer.
func (t *tenantService) Update(ctx context.Context, req *pairdbv1.UpdateTenantRequest) (*pairdbv1.UpdateTenantResponse, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	return t.s.UpdateTenant(ctx, req)
}

// UpdateTenant has a tenant get another replication factor.
func (s *Server) UpdateTenant(ctx context.Context, req *pairdbv1.UpdateTenantRequest) (*pairdbv1.UpdateTenantResponse, error) {
	if err := schema.ValidateTenantID(req.GetTenantId()); err != nil {
		return nil, err
	}
	// Compared before it is narrowed to an int.
	if n := req.GetReplicationFactor(); n < 1 || n > ring.MaxRF {
		return nil, &coord.Error{
			Code: errcode.InvalidReplicationFactor, Outcome: errcode.NotApplied,
			Message: "replication_factor: " + strconv.FormatUint(uint64(n), 10) + ", want 1 to " + strconv.Itoa(ring.MaxRF),
		}
	}
	rf := int(req.GetReplicationFactor())
	tenant, _, err := findTenant(ctx, s.opts.Metadata, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	admin, snap, err := s.ringAdmin()
	if err != nil {
		return nil, err
	}
	tenant = snap.Current(tenant)
	answer := func(id string) (*pairdbv1.UpdateTenantResponse, error) {
		m := tenantMessage(snap, tenant)
		if id != "" && rf != tenant.RF {
			m.NextReplicationFactor = uint32(rf)
		}
		return &pairdbv1.UpdateTenantResponse{Tenant: m, OldReplicationFactor: uint32(tenant.RF), ChangeId: id}, nil
	}
	if asked, op := snap.AskedRF(tenant); asked == rf {
		// It is asked for again, or is so.
		if op == [16]byte{} {
			return answer("")
		}
		return answer(hex.EncodeToString(op[:]))
	}
	c, err := s.intend(ctx, admin, ring.Intent{Verb: ring.VerbReplicate, Tenant: tenant.Number, RF: uint8(rf)}, false)
	if err != nil {
		return nil, err
	}
	return answer(c.GetId())
}

// Delete implements pairdbv1.TenantsServer.
func (t *tenantService) Delete(ctx context.Context, req *pairdbv1.DeleteTenantRequest) (*pairdbv1.DeleteTenantResponse, error) {
	if err := allow(ctx); err != nil {
		return nil, err
	}
	return t.s.DeleteTenant(ctx, req)
}

// DeleteTenant ends a tenant with all its data.
func (s *Server) DeleteTenant(ctx context.Context, req *pairdbv1.DeleteTenantRequest) (*pairdbv1.DeleteTenantResponse, error) {
	if err := schema.ValidateTenantID(req.GetTenantId()); err != nil {
		return nil, err
	}
	tenant, _, err := findTenant(ctx, s.opts.Metadata, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	gone, err := s.opts.Metadata.DeleteTenant(ctx, tenant.Name)
	if errors.Is(err, ring.ErrUnknownTenant) {
		return nil, &coord.Error{Code: errcode.TenantNotFound, Outcome: errcode.NotApplied, Message: "there is no tenant " + strconv.Quote(tenant.Name)}
	}
	if err != nil {
		return nil, err
	}
	s.opts.Logger.Info("a tenant was deleted", "tenant", gone.Name, "number", gone.Number)
	return &pairdbv1.DeleteTenantResponse{Tenant: tenantMessage(s.opts.Metadata.Snapshot(), &gone)}, nil
}
