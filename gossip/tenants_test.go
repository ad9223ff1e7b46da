package gossip

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Whoever runs out of time before a voter was asked to accept knows that nothing
// was changed, and says so.
func TestCreateOutOfTimeIsNotApplied(t *testing.T) {
	f := newFabric()
	nodes := clusterOf(t, f, 3, func(o *Options) {
		if o.Name == "n1" {
			o.CreateTimeout = 300 * time.Millisecond
		}
	})
	n := nodes[0]
	check := func(what string) {
		t.Helper()
		_, err := n.CreateTenant(context.Background(), "shop", 3, schema.PolicyLWW)
		if !errors.Is(err, ErrNotApplied) || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrIndeterminate) {
			t.Errorf("%s: %v", what, err)
		}
	}
	n.proposing <- struct{}{}
	check("another create under way")
	<-n.proposing
	f.meddleWith(func(ctx context.Context, _, _, method string) error {
		if method == meta.MethodPrepare {
			<-ctx.Done()
		}
		return ctx.Err()
	})
	check("no promises")
	// A voter that may have accepted is another matter. The time is over once one was
	// asked, however long it took until then.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.meddleWith(func(ctx context.Context, _, _, method string) error {
		if method == meta.MethodAccept {
			cancel()
			<-ctx.Done()
		}
		return ctx.Err()
	})
	if _, err := nodes[1].CreateTenant(ctx, "late", 3, schema.PolicyLWW); !errors.Is(err, ErrIndeterminate) || errors.Is(err, ErrNotApplied) {
		t.Errorf("no votes: %v", err)
	}
}

// TestDeleteTenant: a name is free at once, at all nodes, and a number never again.
func TestDeleteTenant(t *testing.T) {
	f := newFabric()
	nodes := clusterOf(t, f, 3, patient)
	began := time.Now()
	made, err := nodes[0].CreateTenant(t.Context(), "shop", 2, schema.PolicyLWW)
	if err != nil {
		t.Fatal(err)
	}
	waited(t, nodes, began, func(s *schema.Snapshot) bool { _, ok := s.Tenant("shop"); return ok })
	began = time.Now()
	gone, err := nodes[1].DeleteTenant(t.Context(), "shop")
	if err != nil || gone.Number != made.Number || gone.Name != "shop" || gone.RF != 2 {
		t.Fatalf("%+v, %v", gone, err)
	}
	waited(t, nodes, began, func(s *schema.Snapshot) bool { return s.Deleted(made.Number) })
	for _, n := range nodes {
		s := n.Snapshot()
		if _, ok := s.Tenant("shop"); ok || !s.Deleted(made.Number) || s.Deleted(made.Number+1) {
			t.Errorf("%s knows tenants %v", n.opts.Name, s.Tenants())
		}
		if _, err := n.DeleteTenant(t.Context(), "shop"); !errors.Is(err, ring.ErrUnknownTenant) {
			t.Errorf("again: %v", err)
		}
		if _, err := n.DeleteTenant(t.Context(), ring.DefaultTenantName); !errors.Is(err, ring.ErrDefaultTenant) {
			t.Errorf("the default tenant: %v", err)
		}
	}
	again, err := nodes[2].CreateTenant(t.Context(), "shop", 3, schema.PolicyLWW)
	if err != nil || again.Number != made.Number+1 {
		t.Fatalf("%+v, %v", again, err)
	}
	// At all nodes at once: one has deleted it, the others find it gone.
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { _, errs[i] = n.DeleteTenant(context.Background(), "shop") })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, ring.ErrUnknownTenant):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d deleted it: %v", won, errs)
	}
}

// TestFactorIsChanged: through all steps, while the nodes do their part.
func TestFactorIsChanged(t *testing.T) {
	f := newFabric()
	nodes := clusterOf(t, f, 3, func(o *Options) {
		o.AutoApply, o.Settle, o.stagger = true, 200*time.Millisecond, 500*time.Millisecond
	})
	made, err := nodes[0].CreateTenant(t.Context(), "shop", 3, schema.PolicyLWW)
	if err != nil || made.NextRF != 0 || made.Born != 0 {
		t.Fatalf("%+v, %v", made, err)
	}
	for _, c := range []struct {
		i    ring.Intent
		want error
	}{
		{ring.Intent{Verb: ring.VerbReplicate, Tenant: made.Number, RF: 3}, ring.ErrNoChange},
		{ring.Intent{Verb: ring.VerbReplicate, Tenant: 99, RF: 1}, ring.ErrUnknownTenant},
		{ring.Intent{Verb: ring.VerbReplicate, Tenant: made.Number, RF: 8}, ring.ErrInvalidEntry},
	} {
		if _, err := nodes[1].Intend(t.Context(), c.i); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v, want %v", c.i, err, c.want)
		}
	}
	if _, err := nodes[1].Intend(t.Context(), ring.Intent{Verb: ring.VerbReplicate, Tenant: made.Number, RF: 1}); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		n.await(t, "the change", func(s *schema.Snapshot) bool { return s.Change != nil })
		s := n.Snapshot()
		if got, _ := s.Tenant("shop"); got.RF != 3 || got.NextRF != 1 || got.Born != 3 || got.Copies() != (ring.Copies{From: 3, To: 1}) {
			t.Errorf("%s: %+v", n.opts.Name, got)
		}
		if got, _ := s.Tenant(ring.DefaultTenantName); got.NextRF != 0 || got.Born != 0 {
			t.Errorf("%s: %+v", n.opts.Name, got)
		}
	}
	for _, n := range nodes {
		if err := n.SetSynced(n.Snapshot().Change.ProposedAt); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range nodes {
		n.await(t, "the end", func(s *schema.Snapshot) bool {
			got, ok := s.Tenant("shop")
			return ok && s.Change == nil && got.RF == 1 && got.NextRF == 0 && got.UpdatedAt.After(got.CreatedAt)
		})
	}
}
