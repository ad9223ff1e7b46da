package gossip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Intend notes in the log what an operator wants of the layout, and returns once this
// node knows the entry durably. The members carry it out then, see Snapshot().Ring.
//
// Errors: those of ring.State.CheckIntent and of the log: ErrNotReady,
// VotersUnreachableError, ErrNotApplied, ErrVoid: nothing was changed; ring.ErrNodeAlive also
// if a node that is to be removed or replaced answers a call.
// ErrIndeterminate: it may be noted now or later.
func (g *Gossip) Intend(ctx context.Context, i ring.Intent) (op [16]byte, err error) {
	i.CreatedAtMs = time.Now().UnixMilli()
	if err := g.CheckIntent(i); err != nil {
		return op, fmt.Errorf("%s: %w", i.Verb, err)
	}
	if i.Verb == ring.VerbRemove || i.Verb == ring.VerbReplace {
		// Gossip here may not have met it yet, as after a start.
		if err := g.callAll(ctx, []ring.NodeID{i.Node}); err != nil {
			return op, fmt.Errorf("%s: %w", i.Verb, err)
		}
	}
	r, err := g.submit(ctx, ring.Entry{Kind: ring.KindIntent, Intent: &i})
	if err != nil {
		return op, fmt.Errorf("%s: %w", i.Verb, err)
	}
	return r.Op, nil
}

// CheckIntent says why Intend would refuse an intent now, nil if it would not, see
// ring.State.CheckIntent.
func (g *Gossip) CheckIntent(i ring.Intent) error {
	snap := g.Snapshot()
	joiner := func(id ring.NodeID) bool {
		return slices.ContainsFunc(snap.Joiners, func(m schema.Member) bool { return m.ID == id })
	}
	alive := func(id ring.NodeID) bool { return id == g.self || snap.Alive(id) }
	return snap.Ring.CheckIntent(&i, alive, joiner)
}

// AbortChange ends the open change of the layout before it is committed; what it was to
// do is not wanted any more. ring.ErrNoChange: none is open, or it is committed already
// and can only be completed. Other errors are those of Intend.
func (g *Gossip) AbortChange(ctx context.Context, reason string) error {
	c := g.Snapshot().Change
	switch {
	case c == nil:
		return fmt.Errorf("abort: %w: no change of the layout is open", ring.ErrNoChange)
	case c.Stage == ring.Committed:
		return fmt.Errorf("abort: %w: the change is committed since version %d and goes to its end by itself; change the layout again after that", ring.ErrNoChange, c.CommittedAt)
	}
	_, err := g.submit(ctx, ring.Entry{Kind: ring.KindAbort, Step: &ring.Step{
		Change: c.ID, Reason: reason[:min(len(reason), ring.MaxReasonLen)],
	}})
	if err != nil {
		return fmt.Errorf("abort: %w", err)
	}
	return nil
}

// PlanChange gives what CommitPlan would propose now: all nodes that wait to join, and
// all open intents that can be carried out. Members without partitions whose change was
// aborted by AbortChange are taken in again, too; nothing but CommitPlan does that. It
// is nil if there is nothing to do.
// ring.ErrChangeOpen: a change is under way.
func (g *Gossip) PlanChange() (*ring.Plan, error) {
	_, p, err := g.plan()
	return p, err
}

// plan also gives the state that the plan is of.
func (g *Gossip) plan() (*ring.State, *ring.Plan, error) {
	g.mu.Lock()
	v := g.mu.core.View(0)
	g.mu.Unlock()
	p, err := v.State.Plan(slices.Concat(v.Wanting, v.TurnedAway))
	return v.State, p, err
}

// CommitPlan proposes what PlanChange gives, without waiting for anything to settle. It
// returns once the change is open; the members take it on. ring.ErrNoChange: there is
// nothing to do. ring.ErrNodeAlive: a node that was given up for lost answers again; the
// members cancel that by themselves. Other errors are those of Intend.
func (g *Gossip) CommitPlan(ctx context.Context) error {
	s, p, err := g.plan()
	switch {
	case err != nil:
		return fmt.Errorf("commit the plan: %w", err)
	case p == nil || p.Layout == nil:
		return fmt.Errorf("commit the plan: %w", ring.ErrNoChange)
	}
	for _, id := range p.Removed {
		if n, _ := s.Member(id); id == g.self || g.Snapshot().Alive(id) {
			return fmt.Errorf("commit the plan: %w: %s was given up for lost and is back; once that is cancelled, commit again", ring.ErrNodeAlive, n.Name)
		}
	}
	if _, err := g.submit(ctx, *meta.ProposeEntry(s, p)); err != nil {
		return fmt.Errorf("commit the plan: %w", err)
	}
	return nil
}

// Pace of steer: while there may be something to do, and at rest.
const (
	steerBusy = 250 * time.Millisecond
	steerIdle = time.Second
	// steerAgain is the pause after a proposal that came to nothing.
	steerAgain = time.Second
)

// steer takes changes of the layout on, as far as it is this node's turn.
func (g *Gossip) steer() {
	d := meta.NewDriver(meta.DriverOptions{
		AutoApply: g.opts.AutoApply, Settle: g.opts.Settle, Patience: g.opts.JoinerPatience, Stagger: g.opts.stagger,
	})
	began := time.Now()
	told := ""
	for {
		g.mu.Lock()
		v := g.mu.core.View(time.Since(began))
		ready := g.mu.core.Ready()
		g.mu.Unlock()
		pause := steerIdle
		if v.State.Change() != nil || len(v.Wanting)+len(v.State.Intents())+len(v.State.Outsiders())+len(v.State.Lost()) > 0 {
			pause = steerBusy
		}
		if ready {
			if e := d.Next(v); e != nil {
				pause = g.steerBy(e)
			}
			if err := d.PlanError(); err == nil {
				told = ""
			} else if told != err.Error() {
				told = err.Error()
				g.log.Warn("a change of the layout cannot be planned", "error", err)
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-g.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// steerBy makes a proposal and says how long to wait before the next look.
func (g *Gossip) steerBy(e *ring.Entry) time.Duration {
	_, err := g.submit(g.ctx, *e)
	switch {
	case err == nil:
		g.log.Info("the layout's change goes on", "entry", e.Kind.String())
		return 0
	case errors.Is(err, ErrVoid):
		return 0 // another member was there first
	default:
		g.log.Debug("a proposal about the layout came to nothing", "entry", e.Kind.String(), "error", err)
		return steerAgain
	}
}
