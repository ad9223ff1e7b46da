package gossip

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// ackPatience is how long CreateTenant and DeleteTenant wait for the other members to know.
const ackPatience = time.Second

// CreateTenant creates a tenant by a vote on the log, and returns once this node
// knows the entry durably and, if that takes at most a second, all live members
// do. Names are exact: of two creates of one name anywhere in the cluster, one
// gets ErrTenantExists.
//
// Other errors: ErrNotReady, VotersUnreachableError,
// ErrTenantLimit, ErrNotApplied, those of schema's validation: nothing was changed.
// ErrIndeterminate: the tenant may exist now or later.
func (g *Gossip) CreateTenant(ctx context.Context, name string, rf int, p schema.ConflictPolicy) (schema.Tenant, error) {
	if err := errors.Join(schema.ValidateTenantID(name), schema.ValidateRF(rf), schema.ValidatePolicy(p)); err != nil {
		return schema.Tenant{}, fmt.Errorf("create tenant: %w", err)
	}
	r, err := g.submit(ctx, ring.Entry{Kind: ring.KindTenantCreate, Tenant: &ring.TenantCreate{
		Name: name, RF: uint8(rf), Policy: uint8(p), CreatedAtMs: time.Now().UnixMilli(),
	}})
	if err != nil {
		return schema.Tenant{}, fmt.Errorf("create tenant %q: %w", name, err)
	}
	t := meta.TenantOf(r.Tenant, nil)
	g.awaitAcks(ctx, t.Version)
	return *t, nil
}

// DeleteTenant deletes a tenant with all that is in it, by a vote on the log, and gives
// what it was. It returns once this node knows the entry durably and, if that takes at
// most a second, all live members do: none of them takes requests for it any more. The
// name may be given to another tenant at once. What it held is dropped in the background.
//
// Errors: those of ring.State.CheckDelete: ring.ErrUnknownTenant, ring.ErrDefaultTenant;
// and of the log: ErrNotReady, VotersUnreachableError, ErrNotApplied: nothing was changed.
// ErrIndeterminate: it may be deleted now or later.
func (g *Gossip) DeleteTenant(ctx context.Context, name string) (schema.Tenant, error) {
	t, err := g.Snapshot().Ring.CheckDelete(name)
	if err != nil {
		return schema.Tenant{}, fmt.Errorf("delete tenant: %w", err)
	}
	r, err := g.submit(ctx, ring.Entry{Kind: ring.KindTenantDelete, Delete: &ring.TenantDelete{
		Number: t.Number, DeletedAtMs: time.Now().UnixMilli(),
	}})
	if err != nil {
		return schema.Tenant{}, fmt.Errorf("delete tenant %q: %w", name, err)
	}
	g.awaitAcks(ctx, r.Version)
	return *meta.TenantOf(r.Tenant, nil), nil
}

// awaitAcks waits a moment for the live members to have the entry, so that a
// client that goes on at another node finds its tenant there.
func (g *Gossip) awaitAcks(ctx context.Context, v ring.Version) {
	timer := time.NewTimer(ackPatience)
	defer timer.Stop()
	for {
		changed := g.Changed()
		if acked(g.Snapshot(), v) {
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		case <-g.ctx.Done():
			return
		}
	}
}

func acked(s *schema.Snapshot, v ring.Version) bool {
	for _, m := range s.Members {
		if m.Liveness == schema.Alive && m.AckedVersion < v {
			return false
		}
	}
	return true
}
