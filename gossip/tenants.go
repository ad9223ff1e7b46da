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

// ackPatience is how long CreateTenant waits for the other members to know.
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
	t := meta.TenantOf(r.Tenant)
	g.awaitAcks(ctx, t.Version)
	return *t, nil
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
