package gossip

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Whoever runs out of time before a voter was asked to accept knows that nothing
// was changed, and says so.
func TestCreateOutOfTimeIsNotApplied(t *testing.T) {
	f := newFabric()
	nodes := clusterOf(t, f, 3, func(o *Options) { o.CreateTimeout = 300 * time.Millisecond })
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
	// A voter that may have accepted is another matter.
	f.meddleWith(func(ctx context.Context, _, _, method string) error {
		if method == meta.MethodAccept {
			<-ctx.Done()
		}
		return ctx.Err()
	})
	if _, err := n.CreateTenant(context.Background(), "late", 3, schema.PolicyLWW); !errors.Is(err, ErrIndeterminate) || errors.Is(err, ErrNotApplied) {
		t.Errorf("no votes: %v", err)
	}
}
