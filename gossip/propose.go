package gossip

import (
	"context"
	"fmt"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
)

// submit puts an entry into the log, for at most CreateTimeout, and returns once this
// node knows it durably. It waits its turn: a node makes one proposal at a time, those
// of clients and its own in the order in which they came.
//
// Errors: ErrNotReady, VotersUnreachableError, ErrNotApplied, ErrVoid, those of the kind
// of entry: nothing was changed. ErrIndeterminate: it may still come to pass.
func (g *Gossip) submit(ctx context.Context, e ring.Entry) (*meta.Result, error) {
	return g.inTurn(ctx, func(c *meta.Core) error { return c.Propose(e) })
}

// inTurn is submit for a proposal that is begun in another way.
func (g *Gossip) inTurn(ctx context.Context, begin func(*meta.Core) error) (*meta.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, g.opts.CreateTimeout)
	defer cancel()
	select {
	case g.proposing <- struct{}{}:
		defer func() { <-g.proposing }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: other changes are under way: %w", ErrNotApplied, ctx.Err())
	case <-g.ctx.Done():
		return nil, ErrClosed
	}
	return g.propose(ctx, begin)
}

// propose runs one proposal to its end, or gives it up with ctx.
func (g *Gossip) propose(ctx context.Context, begin func(*meta.Core) error) (*meta.Result, error) {
	select {
	case <-g.settled: // of the last one
	default:
	}
	g.mu.Lock()
	if g.mu.closed {
		g.mu.Unlock()
		return nil, ErrClosed
	}
	err := begin(g.mu.core)
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
		return r, nil
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
