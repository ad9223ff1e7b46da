package node

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// pulse tells opts.Pulse, every PulseEvery until ctx ends, that the node is
// alive, and nobody anything while it is not.
func (n *Node) pulse(ctx context.Context) {
	tick := time.NewTicker(n.opts.PulseEvery)
	defer tick.Stop()
	for {
		if err := n.alive(ctx, n.opts.PulseEvery); err == nil {
			n.opts.Pulse()
		} else if ctx.Err() == nil {
			n.log.Error("the node hangs, so its watchdog is told nothing", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// alive asks the parts of a node that everything else waits for: its loop has to
// answer within limit, the engine has to give up its lock, and no write or sync
// of the log may have been running for longer than limit. A door that fails ends the
// node by itself. Load is not asked about: a flood of clients must not have the
// node killed.
func (n *Node) alive(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case n.asked <- struct{}{}:
	case <-ctx.Done():
		return errors.New("its loop does not answer")
	}
	if d := n.db.Metrics().WALBusy; d > limit {
		return fmt.Errorf("a write or sync of the log has been running for %s", d.Round(time.Millisecond))
	}
	return nil
}
