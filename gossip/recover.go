package gossip

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
)

// CheckGiveUp says why nodes cannot be given up together, nil if they can: see
// ring.State.CheckGiveUp.
func (g *Gossip) CheckGiveUp(lost []ring.NodeID) error {
	snap := g.Snapshot()
	return snap.Ring.CheckGiveUp(lost, func(id ring.NodeID) bool { return id == g.self || snap.Alive(id) })
}

// GiveUp gives up the first of some lost nodes, which nobody waits for from then on: what
// only it has is lost, and it is retired for ever. The others are lost, too, and need not
// be given up yet. It returns once this node knows the entry durably. Nodes that are
// only cut off have to be stopped: they go on answering at level one, and to whoever has
// not heard of this.
//
// Errors are those of CheckGiveUp and of Intend; ring.ErrNodeAlive also if one of them
// answers a call.
func (g *Gossip) GiveUp(ctx context.Context, lost []ring.NodeID) (op [16]byte, err error) {
	i := ring.Intent{Verb: ring.VerbGiveUp, Node: lost[0], CreatedAtMs: time.Now().UnixMilli()}
	if err := g.CheckGiveUp(lost); err != nil {
		return op, fmt.Errorf("%s: %w", i.Verb, err)
	}
	if err := g.callAll(ctx, lost); err != nil {
		return op, fmt.Errorf("%s: %w", i.Verb, err)
	}
	r, err := g.submit(ctx, ring.Entry{Kind: ring.KindIntent, Intent: &i})
	if err != nil {
		return op, fmt.Errorf("%s: %w", i.Verb, err)
	}
	return r.Op, nil
}

// CheckRecover says why Recover would refuse, nil if it would not, as far as this node
// can tell: all that are left have to agree, too.
func (g *Gossip) CheckRecover(ctx context.Context, lost []ring.NodeID) error {
	snap := g.Snapshot()
	if _, err := snap.Ring.Recovery(lost); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	for _, id := range lost {
		if id == g.self || snap.Alive(id) {
			n, _ := snap.Ring.Member(id)
			return fmt.Errorf("recover: %w: %s answers; stop it first, for good", ring.ErrNodeAlive, n.Name)
		}
	}
	if err := g.callAll(ctx, lost); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	return nil
}

// Recover gives the vote to the members that are left, after a majority of the voters was
// lost for good, see ring.State.Recovery. It returns once all of them have agreed. What
// only the lost had is given up, and what they had decided without any of those that are
// left. If they are only cut off, and not stopped, there are two clusters from then on.
//
// Errors: those of CheckRecover, ErrNotReady; VotersUnreachableError names the members
// that do not answer, or do not agree, and why. ErrIndeterminate: it may still come to
// pass; to say it again is safe.
func (g *Gossip) Recover(ctx context.Context, lost []ring.NodeID) error {
	if err := g.CheckRecover(ctx, lost); err != nil {
		return err
	}
	_, err := g.submit(ctx, ring.Entry{Kind: ring.KindRecover, Recover: &ring.Recover{Lost: lost, CreatedAtMs: time.Now().UnixMilli()}})
	if err == nil || g.retired(lost) {
		return nil // an earlier attempt has come to pass
	}
	return fmt.Errorf("recover: %w", err)
}

func (g *Gossip) retired(ids []ring.NodeID) bool {
	s := g.Snapshot().Ring
	for _, id := range ids {
		if !s.IsRetired(id) {
			return false
		}
	}
	return true
}

// callAll calls nodes that are said to be lost at the addresses they had: gossip may not
// have met one that was started a moment ago. ring.ErrNodeAlive: a member of the cluster
// answers there.
func (g *Gossip) callAll(ctx context.Context, lost []ring.NodeID) error {
	ctx, cancel := context.WithTimeout(ctx, g.opts.CallTimeout)
	defer cancel()
	errs := make([]error, len(lost))
	var wg sync.WaitGroup
	room := make(chan struct{}, maxCalls)
	for i, id := range lost {
		g.mu.Lock()
		s, ok := g.mu.core.PullFrom(id)
		addr := g.addressOf(id)
		n, _ := g.mu.core.View(0).State.Member(id)
		own := g.mu.core.ClusterID()
		another := false // has its address by now
		for _, m := range g.mu.core.Snapshot().Members {
			another = another || m.Addresses.Peer == addr && m.ID != id
		}
		g.mu.Unlock()
		if !ok || addr == "" || another {
			continue
		}
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			reply, err := g.opts.Transport.Call(ctx, addr, s.Method, s.Payload)
			if err == nil && meta.AnswersFor(reply) == own {
				errs[i] = fmt.Errorf("%w: a member of the cluster answers at %s, the address of %s (%s); stop it first, for good", ring.ErrNodeAlive, addr, n.Name, id.Short())
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
