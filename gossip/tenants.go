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
	ctx, cancel := context.WithTimeout(ctx, g.opts.CreateTimeout)
	defer cancel()
	select {
	case g.proposing <- struct{}{}:
		defer func() { <-g.proposing }()
	case <-ctx.Done():
		return schema.Tenant{}, fmt.Errorf("create tenant %q: %w: other creates are under way: %w", name, ErrNotApplied, ctx.Err())
	case <-g.ctx.Done():
		return schema.Tenant{}, ErrClosed
	}
	t, err := g.propose(ctx, ring.TenantCreate{
		Name: name, RF: uint8(rf), Policy: uint8(p), CreatedAtMs: time.Now().UnixMilli(),
	})
	if err != nil {
		return schema.Tenant{}, fmt.Errorf("create tenant %q: %w", name, err)
	}
	g.awaitAcks(ctx, t.Version)
	return *t, nil
}

// propose runs one proposal to its end, or gives it up with ctx.
func (g *Gossip) propose(ctx context.Context, c ring.TenantCreate) (*schema.Tenant, error) {
	select {
	case <-g.settled: // of the last one
	default:
	}
	g.mu.Lock()
	if g.mu.closed {
		g.mu.Unlock()
		return nil, ErrClosed
	}
	err := g.mu.core.ProposeTenant(c)
	g.settle()
	g.mu.Unlock()
	poke(g.wake) // the loop's ticks are needed now
	if err != nil {
		return nil, err
	}
	var cause error
	select {
	case <-g.settled:
	case <-ctx.Done():
		cause = ctx.Err()
	case <-g.ctx.Done():
		cause = ErrClosed
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.mu.core.Proposal()
	indeterminate := g.mu.core.EndProposal()
	switch {
	case r != nil && r.Err == nil:
		return meta.TenantOf(r.Tenant), nil
	case r != nil && !indeterminate:
		return nil, r.Err
	case r != nil:
		return nil, fmt.Errorf("%w: %w", ErrIndeterminate, r.Err)
	case indeterminate:
		return nil, fmt.Errorf("%w: %w", ErrIndeterminate, cause)
	default:
		return nil, fmt.Errorf("%w: voters did not answer: %w", ErrNotApplied, cause)
	}
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
